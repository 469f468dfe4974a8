import numpy as np
import pandas as pd
import pytest

from kit.data.census import objects_table
from kit.data.coco import read_coco
from kit.data.label_sanity import suspects
from kit.data.views import TRACK4_VIEW


def objects_of(boxes_xywh_px, camera="1", labels=None, images=None, size_px=1000):
    """A table as objects_table makes it: all in one class and one image each, unless told."""
    boxes = np.asarray(boxes_xywh_px, float).reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    table = pd.DataFrame(boxes[:, :2], columns=["x1", "y1"])
    table["x2"], table["y2"] = (boxes[:, :2] + boxes[:, 2:]).T
    table["side_px"], table["aspect"] = np.sqrt(boxes[:, 2] * boxes[:, 3]), boxes[:, 2] / boxes[:, 3]
    table["label"], table["name"] = labels, np.array(["car", "bus"], object)[labels]
    table["part"], table["camera"], table["height"], table["width"] = "train", camera, size_px, size_px
    table["image_id"] = np.arange(len(boxes)) if images is None else images
    return table


def street(count=200):
    """Boxes along a line that grow from 10 to 200 px, as a fisheye lens shows them."""
    sides = np.geomspace(10, 200, count)
    return np.stack([np.linspace(0, 700, count), np.full(count, 400), sides, sides], axis=1)


def grown(boxes, row, factor):
    """Another size about the same centre."""
    result = boxes.copy()
    result[row, :2] += boxes[row, 2:] * (1 - factor) / 2
    result[row, 2:] *= factor
    return result


def kinds(table):
    return table["kind"].tolist()


def test_boxes_that_grow_along_the_road_are_not_odd():
    assert kinds(suspects(objects_of(street()))) == []


@pytest.mark.parametrize(("factor", "word"), [(3.0, "larger"), (1 / 3, "smaller")])
def test_a_box_of_another_size_than_those_around_it_is_odd_though_its_size_is_usual(factor, word):
    (row,) = suspects(objects_of(grown(street(), 100, factor))).itertuples()
    assert (row.kind, row.image_id) == ("odd size", 100) and "its class is here" in row.why
    assert f"3.0 x {word}" in row.why


def test_a_box_of_another_shape_than_those_around_it_is_odd():
    (row,) = suspects(objects_of(grown(street(), 50, np.array([2, 0.5])))).itertuples()
    assert (row.kind, row.image_id) == ("odd shape", 50) and "wider" in row.why


def test_without_a_camera_a_box_is_compared_with_its_class():
    boxes = np.tile([100.0, 100, 40, 40], (60, 1)) + np.random.default_rng(0).uniform(0, 4, (60, 4))
    assert kinds(suspects(objects_of(boxes, camera="-"))) == []
    boxes[7, 2:] = 600
    (row,) = suspects(objects_of(boxes, camera="-")).itertuples()
    assert (row.kind, row.image_id) == ("odd size", 7) and "usual in its class" in row.why


def test_a_class_of_few_boxes_has_no_usual_size():
    assert kinds(suspects(objects_of([[0, 0, 5 * 4**row, 5 * 4**row] for row in range(4)], camera="-"))) == []


def test_two_on_one_object_are_told_by_class_and_the_later_one_is_marked():
    boxes = [[100, 100, 40, 40], [101, 100, 40, 40], [300, 300, 40, 40], [300, 301, 40, 40], [100, 300, 40, 40]]
    table = suspects(objects_of(boxes, labels=[0, 0, 0, 1, 1], images=[1] * 5))
    assert dict(zip(table["kind"], table.index, strict=True)).keys() == {
        "twice at one place",
        "two classes at one place",
    }
    assert table["x1"].tolist() == [101, 300] and table["why"].tolist()[1] == "IoU 0.95 with a car"
    apart = suspects(objects_of(boxes, labels=[0, 0, 0, 1, 1], images=[1, 2, 3, 4, 5]))
    assert kinds(apart) == []


def test_boxes_are_on_one_object_from_an_iou_of_seven_tenths_on():
    near, far = [0, 0, 100, 70.0], [0, 0, 100, 69.0]
    for other, count in ((near, 1), (far, 0)):
        assert len(suspects(objects_of([[0, 0, 100, 100], other], images=[1, 1]))) == count


def test_a_tiny_box_and_a_single_huge_one_are_told():
    boxes = np.tile([100.0, 100, 40, 40], (60, 1))
    boxes[0], boxes[1] = [0, 0, 3.9, 30], [0, 0, 900, 900]
    table = suspects(objects_of(boxes))
    assert {("tiny", 0), ("huge", 1)} <= set(zip(table["kind"], table["image_id"], strict=True))
    assert "81% of the image" in table.loc[table["kind"] == "huge", "why"].item()


def test_in_a_set_of_close_ups_huge_boxes_are_nothing_odd():
    assert kinds(suspects(objects_of(np.tile([0.0, 0, 900, 900], (60, 1))))) == []


def test_the_strongest_of_a_kind_stands_first():
    boxes = grown(grown(street(), 60, 3), 140, 5)
    assert suspects(objects_of(boxes))["image_id"].tolist() == [140, 60]


def test_no_objects_have_no_suspects():
    table = suspects(objects_of(np.zeros((0, 4))))
    assert len(table) == 0 and {"kind", "strength", "why"} <= set(table.columns)


def test_planted_slips_in_fisheye8k_are_found(shared):
    """200 boxes are made three times as large."""
    coco = read_coco(shared("data/fisheye8k_mini/annotations_full/fisheye8k_gt_test.json.gz"))
    objects = objects_table({"val": coco}, TRACK4_VIEW)
    before = len(suspects(objects))
    rng = np.random.default_rng(0)
    rows = rng.choice(np.flatnonzero(objects["name"].isin(["Bike", "Car"])), 200, replace=False)
    planted = objects.copy()
    planted.loc[rows, "side_px"] *= 3
    found = suspects(planted)
    ids = set(found.loc[found["kind"] == "odd size", "annotation_id"])
    assert np.isin(objects["annotation_id"].to_numpy()[rows], list(ids)).mean() > 0.95
    assert len(found) - before < 230
