"""The learning-rate range."""

import pytest

from kit.doctor.rates import HIGHEST, LOWEST, check_rates, smoothed, verdict
from kit.doctor.steps import Setting, batches_of
from tests import tiny


def test_the_rate_rises_and_the_detector_stays(tmp_path):
    detector, data = tiny.detector(), tiny.dataset(tmp_path)
    before = detector.decoder.score[0].weight.clone()
    batches = batches_of(data, [0, 1, 2], 2, (64, 64))
    said, curve = check_rates(detector, batches, tiny.plan().recipe, Setting("vfl", 0, (64, 64), 0.1), 6, None)
    assert curve.x[0] == LOWEST and curve.x == sorted(curve.x) and curve.x[-1] <= HIGHEST * 1.001
    assert len(curve.x) == len(curve.y) and curve.marked_x == 1e-3 and said.part == "rate"
    assert bool((detector.decoder.score[0].weight == before).all())


def test_a_planned_rate_is_judged_by_where_the_loss_is_least():
    rates, losses = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], [10.0, 9.0, 7.0, 5.0, 9.0]
    assert [verdict(rates, losses, planned)[0].mark for planned in (1e-5, 1e-4, 1e-2, 2e-2)] == [
        "look", "well", "well", "look",
    ]  # fmt: skip
    assert "try lr: 1.0e-03" in verdict(rates, losses, 0.1)[0].mend


def test_a_loss_that_never_falls_is_wrong():
    said, _ = verdict([1e-5, 1e-4, 1e-3], [10.0, 9.9, 12.0], 1e-4)
    assert said.mark == "wrong" and "1.0%" in said.found
    assert verdict([], [], 1e-4)[0].mark == "wrong"


def test_smoothing_starts_at_the_first_loss_and_follows():
    assert smoothed([4.0, 4.0]) == pytest.approx([4.0, 4.0])
    assert smoothed([0.0, 9.0])[1] == pytest.approx(5.0)  # weights 0.2 * 0.8 and 0.2
