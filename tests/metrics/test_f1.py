import numpy as np
import pytest

from kit.metrics import IOU_THRESHOLDS, Matches, class_f1, mean_f1, official_f1_curve, pr_f1_curve
from kit.metrics.f1 import f1_score


def matches(label, score, is_true, ground_truths):
    """One image, each detection right at all IoU thresholds or at none."""
    order = np.lexsort((-np.array(score), label))
    is_true = np.repeat(np.array(is_true, dtype=bool)[order, None], len(IOU_THRESHOLDS), axis=1)
    label, score = np.array(label, dtype=int)[order], np.array(score, dtype=float)[order]
    names = tuple("ABC"[: len(ground_truths)])
    ids, zero = list(range(len(names))), np.zeros(len(label), dtype=int)
    return Matches([1], ids, names, zero, label, score, zero, is_true, ~is_true, np.array([ground_truths]))


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    assert f1_score(np.array(3.0), np.array(1.0), 6) == pytest.approx(2 * 0.75 * 0.5 / 1.25, abs=1e-8)


def test_nothing_true_gives_zero_and_no_division():
    assert f1_score(np.zeros(2), np.array([0.0, 5.0]), 3).tolist() == [0, 0]


def test_classes_without_objects_stay_out_of_the_mean():
    both = matches([0, 1], [0.9, 0.9], [True, False], [1, 0])
    assert class_f1(both)[1].tolist() == [-1] * 10 and mean_f1(class_f1(both)) == pytest.approx(1, abs=1e-8)


def test_the_curve_of_a_class_counts_what_reaches_each_score():
    curve = pr_f1_curve(matches([0, 0, 0, 1], [0.9, 0.5, 0.5, 0.7], [True, True, False, True], [4, 1]), "A")
    assert curve.threshold.tolist() == [0.9, 0.5]
    assert curve.precision.tolist() == [1, 2 / 3] and curve.recall.tolist() == [0.25, 0.5]


def test_the_pooled_curve_takes_all_classes():
    curve = pr_f1_curve(matches([0, 1], [0.9, 0.7], [True, True], [1, 1]))
    assert curve.recall.tolist() == [0.5, 1] and curve.f1[-1] == pytest.approx(1, abs=1e-8)


def test_the_official_curve_ends_at_the_f1_of_all_detections():
    some = matches([0, 0, 1, 1], [0.9, 0.4, 0.6, 0.2], [True, False, True, True], [2, 3])
    threshold, f1 = official_f1_curve(some)
    assert threshold.tolist() == [0.9, 0.6, 0.4, 0.2] and f1[-1] == pytest.approx(mean_f1(class_f1(some)), abs=1e-15)
    assert f1[0] == pytest.approx((2 / 3 + 0) / 2, abs=1e-8)


def test_curves_of_nothing_are_empty():
    nothing = matches([], [], [], [0])
    assert pr_f1_curve(nothing).f1.size == 0 and official_f1_curve(nothing)[1].size == 0


def test_an_unknown_class_or_iou_is_refused():
    with pytest.raises(ValueError, match="name must be one of A, got 'Car'"):
        pr_f1_curve(matches([0], [0.5], [True], [1]), "Car")
    with pytest.raises(ValueError, match=r"iou must be one of 0\.5"):
        pr_f1_curve(matches([0], [0.5], [True], [1]), iou=0.51)
