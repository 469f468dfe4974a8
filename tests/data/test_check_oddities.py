from pathlib import Path

import numpy as np
import pytest

from kit.data import check_oddities
from kit.data.check_oddities import (
    FEWEST,
    TIMES,
    objects_of,
    problems_across,
    problems_of_classes,
    problems_of_outliers,
)
from kit.data.check_report import ClassCount
from kit.data.check_table import table_of
from kit.data.coco_entries import entries_of


def table(boxes, names=("car", "bus"), part="train", file_names=("a.png",), size_hw=(600, 800)):
    """boxes: x, y, width, height, label, all in the first image."""
    images = [
        {"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
        for number, name in enumerate(file_names, 1)
    ]
    annotations = [
        {"id": number, "image_id": 1, "category_id": label, "bbox": list(box)}
        for number, (*box, label) in enumerate(boxes, 1)
    ]
    categories = [{"id": label, "name": name} for label, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return table_of(entries_of(content, Path("x.json")), part)


def kinds(problems):
    return {problem.kind: problem.count for problem in problems if problem.count}


def count(name, boxes):
    return ClassCount(name, boxes, boxes, [boxes])


def grid(number, side=20.0, label=0):
    return [(30.0 * (row % 20), 30.0 * (row // 20), side, side, label) for row in range(number)]


def test_outliers_are_told_with_their_class_box_and_annotation():
    own = [(200.0, 300.0, 150.0, 150.0, 0), *grid(40), (0.0, 1.0, 20.0, 20.0, 1), (5.0, 500.0, 3.0, 3.0, 0)]
    found = {each.kind: each for each in problems_of_outliers(table(own)) if each.count}
    assert {kind: each.count for kind, each in found.items()} == {
        "odd size": 2, "two classes at one place": 1, "tiny": 1
    }  # fmt: skip
    larger = next(each for each in found["odd size"].findings if "larger" in each.detail)
    assert larger.annotation_ids == (1,) and larger.box_xywh_px == (200, 300, 150, 150)
    assert larger.detail == "car: 7.5 x larger than usual in its class" and larger.part == "train"
    assert found["two classes at one place"].findings[0].detail == "bus: IoU 0.90 with a car"
    assert not any(each.is_fatal for each in found.values())


def test_boxes_that_are_told_elsewhere_are_no_outliers():
    own = [(1.0, 1.0, 20.0, 20.0, 0), (1.0, 1.0, 20.0, 20.0, 0), (1.0, 1.0, 0.0, 20.0, 0), (1.0, 1.0, 2.0, 2.0, 7)]
    assert kinds(problems_of_outliers(table(own))) == {}


def test_an_image_without_a_size_gives_no_huge_box():
    assert kinds(problems_of_outliers(table(grid(60), size_hw=(0, 0)))) == {}


def test_an_image_of_very_many_boxes_is_told_and_left_out(monkeypatch):
    monkeypatch.setattr(check_oddities, "MOST_BOXES", 3)
    own = [(10.0, 10.0, 20.0, 20.0 + row / 10, 0) for row in range(4)]
    assert kinds(problems_of_outliers(table(own))) == {"image with very many boxes": 1}
    assert kinds(problems_of_outliers(table(own[:3]))) == {"twice at one place": 3}


def test_cameras_are_told_by_the_pattern():
    own = table(grid(2), file_names=("cam7_1.png", "other.png"))
    objects = objects_of(own, np.arange(2), r"cam(?P<camera>\d)")
    assert objects["camera"].tolist() == ["7", "7"] and objects["row"].tolist() == [0, 1]
    assert set(objects_of(own, np.arange(2), None)["camera"]) == {"-"}


@pytest.mark.parametrize(
    ("boxes", "is_rare"),
    [(FEWEST, False), (FEWEST - 1, True), (0, False)],
)
def test_too_few_boxes_are_an_imbalance(boxes, is_rare):
    problems = problems_of_classes("train", [count("car", 100), count("bus", boxes)])
    assert ("class imbalance" in kinds(problems)) == is_rare
    assert ("class without boxes" in kinds(problems)) == (boxes == 0)


def test_one_of_a_hundred_is_an_imbalance_however_many():
    most = count("car", 50 * TIMES)
    assert kinds(problems_of_classes("train", [most, count("bus", 51)])) == {}
    (own,) = (each for each in problems_of_classes("train", [most, count("bus", 50)]) if each.count)
    assert own.examples == ["bus: 50 boxes in 50 images; 100 times as many of car"]


def test_a_part_without_labels_has_no_classes_to_be_missed():
    assert problems_of_classes("test", [count("car", 0)]) == problems_of_classes("test", []) == []


def test_categories_that_differ_between_parts_are_wrong_and_unseen_classes_odd():
    train, val = table(grid(3)), table([*grid(1), *grid(2, label=1)], part="val")
    assert kinds(problems_across([train])) == {}
    (unseen,) = (each for each in problems_across([train, val]) if each.count)
    assert unseen.examples == ["bus: 2 boxes"] and not unseen.is_fatal
    other = table([], ("car", "van", "bus"), part="val")
    (differ,) = (each for each in problems_across([train, other]) if each.count)
    assert differ.is_fatal and differ.examples == [
        "category 1 is van in val, bus in train",
        "category 2 is bus in val, not listed in train",
    ]
