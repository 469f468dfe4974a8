import numpy as np
import pytest
import torch

from kit.deploy.parity import pair_all
from kit.predict import Detections

CAR, BUS = 0, 1
LEFT, RIGHT = (0, 0, 10, 10), (50, 0, 60, 10)


def found(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def test_rows_that_swap_at_a_near_tie_are_the_same_boxes():
    ours = found((LEFT, 0.5001, CAR), (RIGHT, 0.5, CAR))
    theirs = found((RIGHT, 0.5001, CAR), (LEFT, 0.5, CAR))
    pairs = pair_all([ours], [theirs], 0.1)
    assert pairs.share_matched == 1 and pairs.iou.tolist() == [1, 1]
    assert pairs.score_difference == pytest.approx([1e-4, 1e-4], rel=0.01)


def test_boxes_that_only_one_has_count_against_it():
    pairs = pair_all([found((LEFT, 0.9, CAR))], [found((LEFT, 0.9, CAR), (RIGHT, 0.8, CAR))], 0.1)
    assert (pairs.missing, pairs.added, pairs.share_matched) == (0, 1, 0.5)
    pairs = pair_all([found((LEFT, 0.9, CAR), (RIGHT, 0.8, CAR))], [found((LEFT, 0.9, CAR))], 0.1)
    assert (pairs.missing, pairs.added, pairs.share_matched) == (1, 0, 0.5)


def test_another_label_is_another_box():
    pairs = pair_all([found((LEFT, 0.9, CAR))], [found((LEFT, 0.9, BUS))], 0.1)
    assert (pairs.missing, pairs.added, len(pairs.iou)) == (1, 1, 0)


def test_half_an_overlap_is_needed():
    shifted = (5.1, 0, 15.1, 10)  # IoU 4.9 / 15.1
    assert len(pair_all([found((LEFT, 0.9, CAR))], [found((shifted, 0.9, CAR))], 0.1).iou) == 0
    shifted = (3, 0, 13, 10)  # IoU 7 / 13
    assert pair_all([found((LEFT, 0.9, CAR))], [found((shifted, 0.9, CAR))], 0.1).iou == pytest.approx([7 / 13])


def test_of_two_queries_on_one_object_each_finds_its_own():
    ours = found((LEFT, 0.9, CAR), (LEFT, 0.3, CAR))
    pairs = pair_all([ours], [found((LEFT, 0.31, CAR), (LEFT, 0.89, CAR))], 0.1)
    assert pairs.score_difference == pytest.approx([0.01, 0.01], abs=1e-6)


def test_a_box_on_either_side_of_the_lowest_score_is_not_lost():
    pairs = pair_all([found((LEFT, 0.101, CAR))], [found((LEFT, 0.099, CAR))], 0.1)
    assert pairs.share_matched == 1 and pairs.boxes == 1
    assert pair_all([found((LEFT, 0.101, CAR))], [found((LEFT, 0.04, CAR))], 0.1).missing == 1


def test_what_hardly_scores_is_not_compared():
    pairs = pair_all([found((LEFT, 0.9, CAR), (RIGHT, 0.05, CAR))], [found((LEFT, 0.9, CAR))], 0.1)
    assert pairs.boxes == 1 and pairs.min_score == 0.1


def test_of_a_detector_that_scores_low_the_best_are_compared():
    ours = [found((LEFT, 0.03, CAR), (RIGHT, 0.001, CAR)), found((LEFT, 0.02, CAR))]
    pairs = pair_all(ours, ours, 0.1)
    assert pairs.min_score == pytest.approx(0.02) and pairs.boxes == 2


def test_numbers_that_are_not_finite_are_counted_and_match_nothing():
    theirs = found(((0, 0, np.nan, 10), 0.9, CAR), (RIGHT, np.inf, CAR))
    pairs = pair_all([found((LEFT, 0.9, CAR), (RIGHT, 0.9, CAR))], [theirs], 0.1)
    assert (pairs.broken, pairs.missing, len(pairs.iou)) == (2, 2, 0)


def test_empty_images_compare_as_nothing():
    pairs = pair_all([found(), found()], [found(), found()], 0.1)
    assert (pairs.boxes, pairs.share_matched, pairs.broken) == (0, 0.0, 0)
    assert pair_all([found()], [found((LEFT, 0.9, CAR))], 0.1).added == 1
