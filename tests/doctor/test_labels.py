"""Boxes and labels: faults planted in the file, and in what the data set makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.data.dataset import CocoDataset
from kit.doctor.labels import (
    check_annotations,
    check_losses_of_boxes,
    check_plain,
    check_sizes,
    check_targets,
    images_of,
    is_sound,
)
from kit.doctor.loader import load
from tests import tiny


@pytest.fixture
def train_set(tmp_path):
    return tiny.dataset(tmp_path / "data", images=12)


def with_records(train_set, change):
    records = [replace(record, **change(record)) for record in train_set.coco.records]
    coco = replace(train_set.coco, records=records)
    return CocoDataset(coco, train_set.images, train_set.policy)


def targets(train_set, classes=2, queries=20):
    return check_targets(load(train_set, tiny.plan(), 60.0, 3, None), classes, queries)


def test_sound_labels_are_well(train_set):
    verdicts = [*check_annotations(train_set), check_plain(train_set, (64, 64), 12, 0), *targets(train_set)]
    assert [verdict.mark for verdict in verdicts] == ["well"] * 6


def test_corners_taken_for_sizes_are_told_with_the_mend(train_set):
    def corners(record):
        x, y, w, h = record.boxes_xywh_px.T
        return {"boxes_xywh_px": np.stack([x, y, x + w, y + h], axis=1)}

    _, edges = check_annotations(with_records(train_set, corners))
    assert edges.mark == "wrong" and "bbox holds corners" in edges.mend


def test_sizes_taken_for_corners_are_told_with_the_mend(train_set):
    def shrunk(record):
        x, y, w, h = record.boxes_xywh_px.T
        return {"boxes_xywh_px": np.stack([x, y, w - x, h - y], axis=1)}

    _, edges = check_annotations(with_records(train_set, shrunk))
    assert edges.mark == "wrong" and "taken for corners" in edges.mend


def test_one_box_a_little_over_the_edge_is_only_to_be_looked_at(train_set):
    first = train_set.coco.records[0].image_id

    def over(record):
        boxes = record.boxes_xywh_px.copy()
        boxes[0, 2] += 64.0 if record.image_id == first else 0.0
        return {"boxes_xywh_px": boxes}

    assert check_annotations(with_records(train_set, over))[1].mark == "look"


def test_category_ids_one_off_are_told(train_set):
    """Ids 1, 2 of a list that begins at 0: the second is unknown, the first class is empty."""
    shifted = with_records(train_set, lambda record: {"labels": np.where(record.labels == 0, 1, -1)})
    classes, _ = check_annotations(shifted)
    assert classes.mark == "wrong" and "one off" in classes.mend
    empty = with_records(train_set, lambda record: {"labels": np.ones_like(record.labels)})
    assert check_annotations(empty)[0].mark == "look" and "dark" in check_annotations(empty)[0].found


class Planted(CocoDataset):
    """A data set that gives its samples with a fault."""

    fault = staticmethod(lambda sample: sample)

    def sample(self, draw, load):
        return self.fault(super().sample(draw, load))


def planted(train_set, fault):
    broken = Planted(train_set.coco, train_set.images, train_set.policy)
    broken.fault = fault
    return broken


def as_corners(sample):
    cx, cy, w, h = sample.boxes.T
    return replace(sample, boxes=torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1))


def test_labels_counted_from_one_are_wrong(train_set):
    broken = planted(train_set, lambda sample: replace(sample, labels=sample.labels + 1))
    ranges, boxes, _ = targets(broken)
    assert ranges.mark == "wrong" and "1 to 2" in ranges.found and boxes.mark == "well"
    assert check_plain(broken, (64, 64), 12, 0).mark == "wrong"


@pytest.mark.parametrize("fault", [as_corners, lambda sample: replace(sample, boxes=sample.boxes * 64)])
def test_boxes_in_another_format_are_wrong(train_set, fault):
    broken = planted(train_set, fault)
    assert targets(broken)[1].mark == "wrong" and check_plain(broken, (64, 64), 12, 0).mark == "wrong"


def test_shifted_and_swapped_boxes_are_not_those_of_the_file(train_set):
    shifted = planted(train_set, lambda sample: replace(sample, boxes=sample.boxes + torch.tensor([0.02, 0, 0, 0])))
    swapped = planted(train_set, lambda sample: replace(sample, boxes=sample.boxes.flip(0)))
    assert check_plain(shifted, (64, 64), 12, 0).mark == check_plain(swapped, (64, 64), 12, 0).mark == "wrong"


def test_more_objects_than_queries_are_told(train_set):
    assert targets(train_set, queries=1)[2].mark == "look"


def test_boxes_that_augmentation_takes_away_are_counted(train_set):
    loaded = load(train_set, tiny.plan(), 60.0, 3, None)
    assert check_losses_of_boxes(loaded, train_set).mark == "well"
    nothing = planted(train_set, lambda s: replace(s, boxes=s.boxes[:0], labels=s.labels[:0]))
    gone = check_losses_of_boxes(load(nothing, tiny.plan(), 60.0, 3, None), nothing)
    assert gone.mark == "wrong" and "100% lost" in gone.found
    assert targets(nothing)[0].mark == "look"


def test_objects_are_measured_at_the_input_size(train_set):
    """Squares of 12 to 22 px at 64 px: 3 to 5.5 px at 16."""
    assert check_sizes(train_set, (64, 64)).mark == "well" and check_sizes(train_set, (16, 16)).mark == "look"


def test_a_set_without_boxes_is_told_and_breaks_nothing(tmp_path):
    bare = tiny.dataset(tmp_path, images=4, objects=0)
    classes, edges = check_annotations(bare)
    assert classes.mark == "wrong" and edges.mark == "well"
    assert check_sizes(bare, (64, 64)).found == "no boxes"
    loaded = load(bare, tiny.plan(), 60.0, 2, None)
    assert check_losses_of_boxes(loaded, bare).mark == "well" and len(images_of(loaded).boxes_xyxy_px[0]) == 0


def test_a_box_is_sound_within_the_image_only():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.1, 0.2], [0.5, 0.5, 0.0, 0.1]])
    assert is_sound(boxes).tolist() == [True, False, False]
