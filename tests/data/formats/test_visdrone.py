from dataclasses import replace
from math import isclose
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.formats.coco import read_raw_coco, write_raw_coco
from kit.data.formats.raw import category_entries
from kit.data.formats.visdrone import NAMES, read_visdrone, write_visdrone
from tests.data.formats.made import any_boxes, content_of, datasets, draw_image, on_disk, one_image, round_trip, write


def visdrone(root, text, part="VisDrone2019-DET-val"):
    draw_image(root / part / "images" / "a.jpg")
    write(root / part / "annotations" / "a.txt", text)
    return root


def test_objects_keep_their_truncation_and_occlusion(tmp_path):
    dataset = read_visdrone(visdrone(tmp_path, "684,8,273,116,1,4,0,2,\n1,2,3,4,1,10,1,0\n"))
    (part,) = dataset.parts
    assert part.name == "val" and part.images == [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}]
    rows = [(each["id"], each["category_id"], each["bbox"], each["iscrowd"]) for each in part.annotations]
    assert rows == [(1, 4, [684, 8, 273, 116], 0), (2, 10, [1, 2, 3, 4], 0)]
    assert [(each["truncation"], each["occlusion"]) for each in part.annotations] == [(0, 2), (1, 0)]
    names = {each["id"]: each["name"] for each in dataset.categories}
    assert len(names) == 10 and names[4] == "car" and names[10] == "motor"


def test_an_ignored_region_is_a_crowd_of_every_class(tmp_path):
    dataset = read_visdrone(visdrone(tmp_path, "1,2,30,40,0,0,0,0\n"))
    rows = [(each["category_id"], each["iscrowd"], each["bbox"]) for each in dataset.parts[0].annotations]
    assert rows == [(number, 1, [1, 2, 30, 40]) for number in range(1, 11)]
    assert dataset.notes == ["1 ignored regions: a crowd box of each of the ten classes"]


def test_an_object_of_score_0_is_a_crowd_of_its_class(tmp_path):
    (each,) = read_visdrone(visdrone(tmp_path, "1,2,3,4,0,6,0,0\n")).parts[0].annotations
    assert each["iscrowd"] == 1 and each["category_id"] == 6


def test_others_are_left_out_and_told_or_kept(tmp_path):
    root = visdrone(tmp_path, "1,2,3,4,1,11,0,0\n")
    assert read_visdrone(root).parts[0].annotations == []
    assert read_visdrone(root).notes == ["1 objects of category 11, others: left out; keep them with --others"]
    kept = read_visdrone(root, others=True)
    assert kept.categories[-1] == {"id": 11, "name": "others"} and kept.parts[0].annotations[0]["category_id"] == 11


def test_all_parts_are_found_and_what_is_missing_is_told(tmp_path):
    visdrone(tmp_path, "1,2,3,4,1,1,0,0\n", "VisDrone2019-DET-train")
    visdrone(tmp_path, "1,2,3,4,1,1,0,0\n", "VisDrone2019-DET-test-dev")
    draw_image(tmp_path / "VisDrone2019-DET-train" / "images" / "b.jpg")
    write(tmp_path / "VisDrone2019-DET-train" / "annotations" / "c.txt", "")
    dataset = read_visdrone(tmp_path)
    assert {part.name: len(part.images) for part in dataset.parts} == {"test-dev": 1, "train": 2}
    assert dataset.notes == ["1 images without a text file: taken as empty"] and "c.txt" in dataset.problems[0]
    assert [part.name for part in read_visdrone(tmp_path / "VisDrone2019-DET-train").parts] == ["train"]


@pytest.mark.parametrize("row", ["1,2,3,4,1,4,0", "1,2,3,4,1,12,0,0", "1,2,3,x,1,4,0,0", "1,2,3,4,1,4.5,0,0"])
def test_a_broken_row_is_named(tmp_path, row):
    with pytest.raises(ValueError, match=r"a\.txt:2: expected"):
        read_visdrone(visdrone(tmp_path, f"1,2,3,4,1,1,0,0\n{row}\n"))


# --- writing ---

sides = st.integers(0, 2000)
flags = st.integers(0, 2)
regions = st.tuples(sides, sides, sides, sides, st.just(0), st.just(0), st.just(0), st.just(0))
judged = st.tuples(sides, sides, sides, sides, st.sampled_from([0, 1, 0.25, -1]), st.integers(1, 11), flags, flags)


@settings(max_examples=25, deadline=None)
@given(st.lists(regions | judged, max_size=6))
def test_rows_come_back_from_coco_to_the_letter(rows):
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    with TemporaryDirectory() as name:
        root = visdrone(Path(name) / "source", text)
        write_raw_coco(read_visdrone(root, others=True), Path(name) / "coco")
        losses = write_visdrone(read_raw_coco(Path(name) / "coco"), Path(name) / "back")
        assert [loss.what for loss in losses] == ["class others: read again only with --others"]
        (written,) = (Path(name) / "back").rglob("*.txt")
        assert written.relative_to(Path(name) / "back").as_posix() == "VisDrone2019-DET-val/annotations/a.txt"
        assert written.read_text() == text


def of_visdrone(content):
    """With its ten classes, images in one folder, and crowds without a score."""
    images = [image | {"file_name": image["file_name"].replace("/", "_")} for image in content["images"]]
    return content | {"images": images, "categories": category_entries(NAMES[:-1])}


about = st.fixed_dictionaries({"iscrowd": st.integers(0, 1), "truncation": flags, "occlusion": flags})


@settings(max_examples=25, deadline=None)
@given(datasets(st.lists(sides, min_size=4, max_size=4), about))
def test_whole_pixels_come_back_from_visdrone_exactly(content):
    losses = []

    def write_and_keep(dataset, out):
        losses.extend(write_visdrone(dataset, out))

    content = of_visdrone(content)
    assert content_of(round_trip(content, write_and_keep, read_visdrone)) == content and losses == []


def edges(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@settings(max_examples=25, deadline=None)
@given(datasets(any_boxes.filter(lambda box: min(box[2:]) >= 1)))
def test_the_largest_rounding_is_the_one_that_is_told(content):
    told = []

    def write_and_keep(dataset, out):
        told.extend(loss for loss in write_visdrone(dataset, out) if loss.what.startswith("decimals"))

    content = of_visdrone(content)
    back = content_of(round_trip(content, write_and_keep, read_visdrone))["annotations"]
    pairs = [(old["bbox"], new["bbox"]) for old, new in zip(content["annotations"], back, strict=True)]
    moved = [max(abs(a - b) for a, b in zip(edges(old), edges(new), strict=True)) for old, new in pairs]
    decimal = [number for number, (old, _) in enumerate(pairs) if any(value != int(value) for value in old)]
    assert all(old == new for number, (old, new) in enumerate(pairs) if number not in decimal)
    assert [loss.count for loss in told] == [len(decimal)] * bool(decimal) and max(moved, default=0) <= 0.5
    for loss in told:
        figure = float(loss.what.partition(", by ")[2].partition(" px")[0])
        assert isclose(figure, max(moved), rel_tol=6e-3, abs_tol=1e-9)


def write_one(folder, *annotations, names=NAMES[:-1], part="val", **more):
    complete = [{"bbox": [1, 2, 3, 4], "area": 12, "truncation": 0, "occlusion": 0} | each for each in annotations]
    dataset = on_disk(one_image(*complete, names=names, **more), folder / "source", part)
    found = {loss.what: loss.count for loss in write_visdrone(dataset, folder / "out")}
    return found, "".join(path.read_text() for path in (folder / "out").rglob("*.txt"))


def test_a_thin_box_stays_a_box_and_its_rounding_is_told(tmp_path):
    losses, text = write_one(tmp_path, {"bbox": [1.625, 2, 0.25, 4], "area": 1})
    assert text == "2,2,1,4,1,1,0,0\n"
    assert losses == {"decimals of boxes: edges rounded to whole pixels, by 1.12 px at most": 1}


def test_what_has_no_place_in_a_row_is_told(tmp_path):
    region = {"iscrowd": 1, "ignored_region": 1}
    odd = {"truncation": None, "occlusion": "much", "score": 0}
    losses, text = write_one(tmp_path, region, odd, {"iscrowd": 1, "score": 0.5, "area": 7}, {"truncation": 1 / 3})
    assert text.splitlines() == ["1,2,3,4,0,1,0,0", "1,2,3,4,1,1,0,0", "1,2,3,4,0,1,0,0", "1,2,3,4,1,1,0.333333333,0"]
    assert losses == {
        "area of annotations": 1,
        "ignored region that is not a crowd of the ten classes in a row: as any object": 1,
        "truncation that is not told as a number: written as 0, none": 1,
        "occlusion that is not told as a number: written as 0, none": 1,
        "score that is 0 or no number: written as 1, for 0 is a crowd": 1,
        "score of a crowd: written as 0": 1,
        "digits of truncation after the ninth": 1,
    }


def test_two_regions_of_one_place_stay_two(tmp_path):
    region = [{"iscrowd": 1, "ignored_region": 1, "category_id": number} for number in range(1, 11)]
    assert write_one(tmp_path, *region, *region) == ({}, "1,2,3,4,0,0,0,0\n" * 2)


def test_classes_go_by_name_and_their_numbers_are_told(tmp_path):
    losses, text = write_one(tmp_path, {}, names=("car", "horse"))
    assert text == "1,2,3,4,1,4,0,0\n"
    assert losses == {
        "ids of categories: VisDrone's own": 1,
        "class that VisDrone has not, without objects: left out": 1,
        "classes not listed: read again all ten are": 1,
    }


def test_a_class_that_visdrone_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected the classes pedestrian, .* found 'horse'; rename it"):
        write_one(tmp_path, {}, names=("horse",))
    assert not (tmp_path / "out").exists()


def test_a_part_without_objects_is_found_again(tmp_path):
    assert write_one(tmp_path) == ({}, "")
    (part,) = read_visdrone(tmp_path / "out").parts
    assert part.name == "val" and len(part.images) == 1 and part.annotations == []


@pytest.mark.parametrize("names", [("train", "fold1"), ("val", "val2017"), ("../val",), ("",)])
def test_parts_that_would_not_be_found_again_are_refused(tmp_path, names):
    one = on_disk(one_image(names=NAMES[:-1]), tmp_path / "source")
    dataset = replace(one, parts=[replace(one.parts[0], name=name) for name in names])
    with pytest.raises(ValueError, match="expected parts such as train, val, test-dev and test, found"):
        write_visdrone(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_that_is_read_under_another_name_is_told(tmp_path):
    assert write_one(tmp_path, {}, part="val2017")[0] == {"name of a part": 1}
    assert [part.name for part in read_visdrone(tmp_path / "out").parts] == ["val"]


def test_an_image_listed_twice_keeps_all_its_objects(tmp_path):
    content = one_image({}, {"image_id": 2}, names=NAMES[:-1])
    boxes = [each | {"bbox": [each["id"], 2, 3, 4], "truncation": 0, "occlusion": 0} for each in content["annotations"]]
    images = [image | {"id": number} for image in content["images"] for number in (1, 2)]
    one = on_disk(content | {"images": images, "annotations": boxes}, tmp_path / "source")
    losses = {loss.what for loss in write_visdrone(one, tmp_path / "out")}
    assert "image listed twice: its objects are together" in losses
    (text,) = (tmp_path / "out").rglob("*.txt")
    assert text.read_text() == "1,2,3,4,1,1,0,0\n2,2,3,4,1,1,0,0\n"
