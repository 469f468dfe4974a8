import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.convert import convert, read_dataset
from kit.data.formats.coco import coco_files, read_raw_coco, write_raw_coco
from kit.files import read_json, write_json
from tests.data.formats.made import any_boxes, content_of, datasets, draw_image, on_disk, one_image, round_trip

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(datasets(box=any_boxes, more=st.fixed_dictionaries({"segmentation": anything, "own": anything})))
def test_entries_come_back_as_they_were(content):
    assert content_of(round_trip(content, write_raw_coco, read_raw_coco)) == content


def coco_folder(root, content, part="train"):
    write_json(root / "annotations" / f"instances_{part}.json", content)
    for image in content["images"]:
        draw_image(root / "images" / part / image["file_name"])
    return root


def test_other_lists_of_the_file_and_odd_annotations_stay(tmp_path):
    content = one_image({"bbox": None, "category_id": 77}, {"image_id": 5}) | {"info": {"year": 1}, "videos": [1]}
    root = coco_folder(tmp_path / "a", content)
    assert write_raw_coco(read_raw_coco(root), tmp_path / "b") == []
    assert read_json(tmp_path / "b" / "annotations" / "instances_train.json") == content


def test_gzipped_files_and_exports_with_a_file_a_part_are_read(tmp_path):
    content = one_image({"bbox": [1, 2, 3, 4]})
    draw_image(tmp_path / "valid" / "a.png")
    packed = gzip.compress(json.dumps(content).encode())
    (tmp_path / "valid" / "_annotations.coco.json").write_bytes(json.dumps(content).encode())
    (tmp_path / "one.json.gz").write_bytes(packed)
    assert [(part.name, list(part.files)) for part in read_raw_coco(tmp_path).parts] == [("val", [1])]
    assert content_of(read_raw_coco(tmp_path / "one.json.gz")) == content


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("annotations/instances_val.json", "annotations/instances_valid.json"),
        ("annotations/instances_val.json", "annotations/instances_val.json.gz"),
        ("val/_annotations.coco.json", "valid/_annotations.coco.json"),
    ],
)
def test_two_files_of_one_part_are_refused_and_both_are_named(tmp_path, one, other):
    for name in (one, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="expected one annotation file of the part val, found") as error:
        coco_files(tmp_path)
    assert str(tmp_path / one) in str(error.value) and str(tmp_path / other) in str(error.value)


def test_a_name_that_no_file_can_have_is_one_of_no_file(tmp_path):
    root = coco_folder(tmp_path / "set", one_image())
    write_json(root / "annotations" / "instances_train.json", one_image() | {
        "images": [one_image()["images"][0] | {"file_name": "x" * 300}]
    })  # fmt: skip
    assert read_raw_coco(root).parts[0].files == {}


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "", "a\0.png"])
def test_names_that_leave_the_folder_are_refused_both_ways(tmp_path, name):
    content = one_image()
    dataset = on_disk(content, tmp_path / "source")
    root = coco_folder(tmp_path / "set", content)
    dataset.parts[0].images[0]["file_name"] = name
    write_json(root / "annotations" / "instances_train.json", content)
    with pytest.raises(ValueError, match="expected a name inside"):
        read_raw_coco(root)
    with pytest.raises(ValueError, match="expected a name inside"):
        write_raw_coco(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_that_disagree_between_parts_are_refused(tmp_path):
    root = coco_folder(tmp_path, one_image())
    coco_folder(tmp_path, one_image(names=("bus", "car")), "val")
    with pytest.raises(ValueError, match="category 1: expected one name"):
        read_raw_coco(root)


def test_an_image_id_given_twice_is_refused(tmp_path):
    content = one_image()
    content["images"] *= 2
    with pytest.raises(ValueError, match="found 1 twice"):
        read_raw_coco(coco_folder(tmp_path, content))


def test_a_missing_image_is_a_problem_and_the_rest_is_written(tmp_path):
    root = coco_folder(tmp_path / "a", one_image())
    (root / "images" / "train" / "a.png").unlink()
    (loss,) = write_raw_coco(read_raw_coco(root), tmp_path / "b")
    assert loss.is_problem and loss.what == "image file missing" and loss.example == "train: a.png"


HOSTILE = [
    {"bbox": [10**400, 0, 1, 1]},
    {"bbox": [1, 2, 3, 4], "area": 10**400, "category_id": [1]},
    {"bbox": [1, 2, 3, 4], "area": {}, "id": [], "iscrowd": "x", "segmentation": [[10**400] * 6, 5, []]},
    {"bbox": [1e29, -1e29, 1e29, 1e29], "segmentation": {"size": [-1, 10**400], "counts": "~"}},
]


@pytest.mark.parametrize("annotation", HOSTILE)
@pytest.mark.parametrize("to", ["coco", "yolo", "voc", "csv"])
def test_hostile_annotations_are_carried_or_told(tmp_path, annotation, to):
    root = coco_folder(tmp_path / "set", one_image(annotation, {"bbox": [1, 2, 3, 4], "area": 12}))
    convert(root, tmp_path / "out", to, polygons=True)
    (part,) = read_dataset(tmp_path / "out", to).parts
    assert [each["bbox"] for each in part.annotations][-1] == [1, 2, 3, 4]


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_list_that_is_none_is_named(tmp_path, key):
    root = coco_folder(tmp_path, one_image())
    write_json(root / "annotations" / "instances_train.json", one_image() | {key: 5})
    with pytest.raises(ValueError, match=f"expected {key} to be a list, found 5"):
        read_raw_coco(root)
