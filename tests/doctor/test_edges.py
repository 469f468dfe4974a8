"""Boxes on edges: right ones are best where they are, moved ones elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from kit.data.dataset import CocoDataset
from kit.doctor.edges import GRID, REACH, check_place, place, shift_scores
from tests import tiny


@pytest.fixture(scope="module")
def train_set(tmp_path_factory):
    return tiny.dataset(tmp_path_factory.mktemp("edges"), images=24, objects=1)


def moved(train_set, x_px, y_px):
    records = [replace(r, boxes_xywh_px=r.boxes_xywh_px + np.array([x_px, y_px, 0, 0])) for r in train_set.coco.records]
    return CocoDataset(replace(train_set.coco, records=records), train_set.images, train_set.policy)


def test_a_square_fits_its_own_box_best():
    image = np.zeros((GRID, GRID), np.float32)
    image[40:80, 50:100] = 1.0
    scores = shift_scores(image, np.array([[50.0, 40.0, 100.0, 80.0]]))
    assert divmod(int(scores.argmax()), 2 * REACH + 1) == (REACH, REACH)
    left = shift_scores(image, np.array([[53.0, 45.0, 103.0, 85.0]]))
    assert divmod(int(left.argmax()), 2 * REACH + 1) == (REACH - 5, REACH - 3)


def test_nothing_is_told_of_an_image_without_boxes_or_change():
    flat, box = np.ones((GRID, GRID), np.float32), np.array([[50.0, 40.0, 100.0, 80.0]])
    assert shift_scores(flat, box) is None and shift_scores(flat, np.zeros((0, 4))) is None
    speck = np.random.default_rng(0).random((GRID, GRID), np.float32)
    assert shift_scores(speck, np.array([[50.0, 40.0, 52.0, 42.0]])) is None


def test_right_boxes_are_well(train_set):
    (verdict,), scores = check_place(train_set, 24, 0, None)
    assert verdict.mark == "well" and scores.shape == (2 * REACH + 1, 2 * REACH + 1)


def test_shifted_boxes_are_wrong_and_the_shift_is_told(train_set):
    """3 px of 64 to the right are 4.7 %: they fit best when moved back."""
    (verdict,), _ = check_place(moved(train_set, 3, -3), 24, 0, None)
    assert verdict.mark == "wrong" and "shifted" in verdict.mend
    x, y = place(moved(train_set, 3, -3), 24, 0, None).best_xy
    assert abs(x + 7.5) <= 1.5 and abs(y - 7.5) <= 1.5


def test_boxes_of_other_images_are_to_be_looked_at(train_set):
    records = list(train_set.coco.records)
    others = [
        replace(r, boxes_xywh_px=o.boxes_xywh_px) for r, o in zip(records, records[1:] + records[:1], strict=True)
    ]
    mixed = CocoDataset(replace(train_set.coco, records=others), train_set.images, train_set.policy)
    assert check_place(mixed, 24, 0, None)[0][0].mark != "well"


def test_of_few_images_nothing_is_said(tmp_path):
    (verdict,), scores = check_place(tiny.dataset(tmp_path, images=3), 24, 0, None)
    assert verdict.mark == "look" and "fewer than" in verdict.found and scores is None
