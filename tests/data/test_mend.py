import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.data.check import check_dataset, check_folder
from kit.data.check_labels import problems_of_boxes, problems_of_ids
from kit.data.check_table import Source, table_of
from kit.data.coco_entries import entries_of
from kit.data.image_files import FileState
from kit.data.mend import Choices, mended, table_of_changes, write_mended

NAN = float("nan")
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]
WHOLE = {"a.png": FileState(size_hw=(60, 80))}
CATEGORIES = [{"id": 3, "name": "car"}]


def image(id=1, file_name="a.png", **more):
    return {"id": id, "file_name": file_name, "height": 60, "width": 80} | more


def box(id, bbox=(10, 10, 20, 20), **more):
    return {"id": id, "image_id": 1, "category_id": 3, "bbox": list(bbox), "area": 400, "iscrowd": 0} | more


def content(annotations, images=None, categories=None):
    lists = {"images": images or [image()], "annotations": annotations, "categories": categories or CATEGORIES}
    return {"info": {"year": 2020}} | lists


def changes_of(annotations, **more):
    """The annotations after, and the changes in short."""
    after, changes = mended(content(annotations), "train", WHOLE, **more)
    return after["annotations"], [(each.kind, each.before, each.after) for each in changes]


good = st.sampled_from([[10, 10, 20, 20], [10, 10, 20, 20], [0, 0, 80, 60], [1.5, 2.25, 8, 9]])
bbox = st.one_of(
    good,
    good,
    st.tuples(st.integers(-30, 90), st.integers(-30, 90), st.integers(-1, 60), st.integers(-1, 60)).map(list),
    st.sampled_from([None, [1, 2], [NAN, 1, 2, 3], ["1", 2, 3, 4], "box", [1e999, 0, 1, 1]]),
)
segmentation = st.sampled_from([None, [], SQUARE, [[1, 2]], {"size": [60, 80], "counts": [4800]}, 7, "x", {"size": 3}])
annotation = st.fixed_dictionaries(
    {"image_id": st.sampled_from([1, 1, 1, 2, 3, 4]), "category_id": st.sampled_from([3, 3, 3, 4])},
    optional={
        "id": st.sampled_from([0, 1, 2, 7, None, "x", -4]),
        "bbox": bbox,
        "segmentation": segmentation,
        "area": st.sampled_from([400, 1, NAN, None, "big"]),
        "iscrowd": st.integers(0, 1),
        "unknown": st.sampled_from([1, {"deep": [1, NAN]}]),
    },
)
listed = st.fixed_dictionaries(
    {"id": st.integers(1, 4), "file_name": st.sampled_from(["a.png", "b.png", "gone.png", "../x.png", "small.png"])},
    optional={"height": st.sampled_from([60, 0, None, NAN]), "width": st.sampled_from([80, 81, None])},
)
STATES = {
    "a.png": FileState(size_hw=(60, 80)),
    "b.png": FileState(size_hw=(60, 80)),
    "small.png": FileState(size_hw=(6, 8)),
    "gone.png": FileState("missing image"),
    "../x.png": FileState(size_hw=(60, 80)),
}
categories = st.lists(st.sampled_from([{"id": 3, "name": "car"}, {"id": 3}, {"id": 5, "name": "bus"}]), max_size=3)


@settings(max_examples=200)
@given(st.lists(listed, max_size=4), st.lists(annotation, max_size=8), categories, st.booleans(), st.booleans())
def test_whatever_was_wrong_the_copy_has_no_problem_and_the_source_is_as_it_was(images, own, kinds, masks, sizes):
    images, kinds = [image(), *images], [*CATEGORIES, *kinds]
    before = content(own, images, kinds)
    kept = json.dumps(before)
    choices = Choices(masks, sizes)
    after, changes = mended(before, "train", STATES, choices)
    assert json.dumps(before) == kept and json.dumps(after, allow_nan=False)
    table = table_of(entries_of(after, Path("x.json")))
    found = [each for each in [*problems_of_ids(table), *problems_of_boxes(table)] if each.count]
    assert [each.kind for each in found if each.is_fatal or each.kind == "repeated box"] == []
    assert {STATES[each["file_name"]].size_hw for each in after["images"]} <= {
        (each["height"], each["width"]) for each in after["images"]
    }
    assert len(own) == len(after["annotations"]) + sum(e.what == "annotation" and e.after is None for e in changes)
    assert len(images) == len(after["images"]) + sum(e.what == "image" and e.after is None for e in changes)
    again, nothing = mended(after, "train", STATES, choices)
    assert again == after and nothing == []


def test_new_ids_begin_above_zero_where_those_of_the_file_are_below():
    after, _ = mended(content([{"image_id": 1, "category_id": 3, "id": -4, "bbox": [10, 10, 20, 20]}]), "train", None)
    assert [each["id"] for each in after["annotations"]] == [1]


@pytest.mark.parametrize("states", [None, WHOLE])
def test_what_is_right_stays_as_it_stands(states):
    own = [
        box(5, bbox=[0.5, 0.25, 79.5, 60], score=0.25),
        box(6, segmentation=SQUARE, area=400.5),
        box(7, (-1, 0, 81.5, 9)),
    ]
    before = content(own, [image(licence="x")], [{"id": 3, "name": "car", "supercategory": "road"}])
    after, changes = mended(copy.deepcopy(before), "train", states)
    assert after == before and changes == []


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("malformed box", {"bbox": [1, 2, 3]}),
        ("box without area", {"bbox": [10, 10, 0, 5]}),
        ("box outside the image", {"bbox": [80, 10, 5, 5]}),
        ("unknown category", {"category_id": 4}),
        ("image missing from the list", {"image_id": 2}),
        ("repeated box", {"bbox": [30, 30, 9, 9], "score": 1}),
    ],
)
def test_what_cannot_be_used_is_left_out_and_stands_in_the_log_as_a_whole(kind, broken):
    wrong = box(2) | broken
    after, changes = changes_of([box(1, (30, 30, 9, 9)), wrong])
    assert [each["id"] for each in after] == [1] and changes == [(kind, wrong, None)]


def test_a_box_over_the_edge_is_cut_with_its_area():
    after, changes = changes_of([box(1, (70, 10, 30, 20), area=600), box(2, (0.25, 10, 90, 20), area=5)])
    assert [each["bbox"] for each in after] == [[70, 10, 10, 20], [0.25, 10, 79.75, 20]]
    assert [each["area"] for each in after] == [200, 5]
    assert changes[0] == (
        "box over the edge",
        {"bbox": [70, 10, 30, 20], "area": 600},
        {"bbox": [70, 10, 10, 20], "area": 200},
    )


@pytest.mark.parametrize("broken", [[1, 2, 3], [10, 10, 0, 5], [90, 10, 5, 5], None])
def test_a_box_that_cannot_be_used_is_made_of_its_mask(broken):
    after, changes = changes_of([box(1) | {"bbox": broken, "segmentation": SQUARE}])
    assert after[0]["bbox"] == [10, 10, 20, 20] and changes == [
        ("mask unlike its box", {"bbox": broken}, {"bbox": [10, 10, 20, 20]})
    ]


def test_a_box_that_only_disagrees_with_its_mask_is_made_of_it_where_that_is_chosen():
    own = box(1, (40, 10, 20, 20), segmentation=SQUARE)
    assert changes_of([own]) == ([own], [])
    after, _ = changes_of([own], choices=Choices(boxes_from_masks=True))
    assert after[0]["bbox"] == [10, 10, 20, 20]


@pytest.mark.parametrize(
    ("kind", "mask"),
    [
        ("broken mask", [[1, 2, 3]]),
        ("empty mask", {"size": [60, 80], "counts": [4800]}),
        ("mask of another size", {"size": [40, 40], "counts": [0, 1600]}),
    ],
)
def test_a_mask_that_cannot_be_used_goes_and_its_box_stays(kind, mask):
    after, changes = changes_of([box(1, segmentation=mask)])
    assert after == [box(1)] and changes == [(kind, {"segmentation": mask}, {"segmentation": None})]


def test_areas_become_those_of_the_masks():
    after, changes = changes_of([box(1, segmentation=SQUARE, area=9), box(2, (1, 1, 5, 5), area=9)])
    assert [each["area"] for each in after] == [400, 9] and len(changes) == 1


def test_ids_of_their_own_stay_and_the_others_get_the_next_free_ones():
    own = [box(0), box(4, (1, 1, 5, 5)), box(4, (2, 2, 6, 6)), {**box(9, (3, 3, 6, 6)), "id": "x"}]
    after, changes = changes_of(own)
    assert [each["id"] for each in after] == [5, 4, 6, 7]
    assert [kind for kind, _, _ in changes] == [
        "annotation id 0 or none",
        "duplicate annotation id",
        "annotation id 0 or none",
    ]


def test_labels_of_a_second_entry_of_a_file_go_to_the_first():
    own = [box(1), box(2, (1, 1, 5, 5), image_id=2)]
    after, changes = mended(content(own, [image(), image(2)]), "train", WHOLE)
    assert [each["image_id"] for each in after["annotations"]] == [1, 1] and after["images"] == [image()]
    assert [each.kind for each in changes] == ["duplicate file name"] * 2


def test_sizes_are_taken_from_files_where_none_is_given_and_elsewhere_where_that_is_chosen():
    for size, choices, count in (
        ({"height": 0}, Choices(), 1),
        ({"height": 99}, Choices(), 0),
        ({"height": 99}, Choices(sizes_of_files=True), 1),
    ):
        after, changes = mended(content([box(1)], [image(**size)]), "train", WHOLE, choices)
        assert len(after["images"]) == len(after["annotations"]) == count and changes[0].kind == "size mismatch"
        assert all(each == image() for each in after["images"])


def test_no_number_is_told_and_goes():
    after, changes = changes_of([box(1, score=NAN), box(2, (5, 5, NAN, 5))])
    assert after == [box(1)] and [kind for kind, _, _ in changes] == [
        "number that is none",
        "number that is none",
        "malformed box",
    ]


# --- the folder ---


@pytest.mark.parametrize("depth", [40, 900])
def test_entries_of_very_many_levels_are_mended_or_refused_in_words(source, tmp_path, depth):
    deep = "[" * depth + "]" * depth
    source.annotations.write_text(json.dumps(content([box(1) | {"deep": "x"}])).replace('"x"', deep))
    try:
        write_mended([source], tmp_path / "out")
    except ValueError as error:
        assert depth > 40 and str(error).startswith(f"{source.annotations}: expected ")
    else:
        assert deep in (tmp_path / "out" / "annotations" / "instances_val.json").read_text()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "set" / "images" / "val"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "loose.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / name)
    own = [box(1), box(0, image_id=2), box(3, image_id=3), box(4, (NAN, 1, 1, 1))]
    path = tmp_path / "set" / "annotations" / "instances_val.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content(own, [image(), image(2, "deep/b.png"), image(3, "../../../secret.png")])))
    return Source("val", path, folder)


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_mended_copy_is_a_data_set_with_a_log_beside_a_source_that_is_as_it_was(source, tmp_path):
    (tmp_path / "secret.png").write_bytes((source.images / "a.png").read_bytes())
    before = everything(tmp_path / "set")
    changes = write_mended([source], tmp_path / "out")
    assert everything(tmp_path / "set") == before
    assert sorted(map(str, everything(tmp_path / "out"))) == [
        "annotations/instances_val.json", "images/val/a.png", "images/val/deep/b.png", "mended.json"
    ]  # fmt: skip
    assert os.path.samefile(source.images / "a.png", tmp_path / "out" / "images" / "val" / "a.png")
    log = json.loads((tmp_path / "out" / "mended.json").read_text())["changes"]
    assert [each["kind"] for each in log] == [each.kind for each in changes]
    assert {"number that is none", "unusable file name", "file without an entry"} < {e["kind"] for e in log}
    after = tmp_path / "out" / "annotations" / "instances_val.json"
    assert not check_dataset(after, tmp_path / "out" / "images" / "val").fatal
    assert json.loads(after.read_text())["info"] == {"year": 2020}
    (line,) = (each for each in table_of_changes(changes) if "file without" in each)
    assert line.split() == ["1", "val:", "file", "without", "an", "entry:", "file", "left", "out"]


def test_images_can_be_copied(source, tmp_path):
    write_mended([source], tmp_path / "out", copy=True)
    assert not os.path.samefile(source.images / "a.png", tmp_path / "out" / "images" / "val" / "a.png")


def test_nothing_is_written_over_or_among_the_images(source, tmp_path):
    before = everything(tmp_path)
    for out in (tmp_path / "set", source.images / "out"):
        with pytest.raises(ValueError, match=r"expected a (new|folder outside)"):
            write_mended([source], out)
    assert everything(tmp_path) == before


def test_a_mended_copy_of_every_part_is_checked_as_one(source, tmp_path):
    write_mended([source], tmp_path / "out")
    val, across = check_folder(tmp_path / "out")
    assert val.part == "val" and not val.fatal and across.problems == []
