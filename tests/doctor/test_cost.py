"""Time and memory of a step, and the end of the planned run."""

from dataclasses import replace

import pytest

from kit.doctor.cost import GIB, Cost, check_cost, hours_text, measure, saved_bytes
from kit.doctor.steps import Setting, Trial, plain_batch
from tests import tiny


def test_a_step_is_measured_and_the_run_follows_in_proportion(tmp_path):
    data, detector = tiny.dataset(tmp_path), tiny.detector()
    batch = plain_batch(data, [0, 1], (64, 64))
    cost = measure(detector, batch, tiny.plan(batch_size=4, epochs=3), images=400, val_images=0)
    assert cost.measured_images == 2 and cost.step_s == pytest.approx(4 / cost.rate)
    assert cost.hours * 3600 == pytest.approx(3 * 100 * cost.step_s)
    weights = sum(weight.nbytes for weight in detector.parameters())
    assert cost.step_bytes > 5 * weights and cost.free_bytes > 0


def test_memory_grows_with_the_images(tmp_path):
    data, trial = tiny.dataset(tmp_path), Trial.of(tiny.detector(), Setting("vfl", 0, (64, 64)))
    one, four = (saved_bytes(trial, plain_batch(data, rows, (64, 64))) for rows in ([0], [0, 1, 2, 3]))
    assert 2.5 < four / one < 4.5


def test_what_does_not_fit_is_wrong_and_what_is_narrow_or_long_is_told():
    cost = Cost(1.0, 5 * GIB, 10 * GIB, 4.0, 10.0, 2)
    plan = tiny.plan(batch_size=4)
    marks = [
        [verdict.mark for verdict in check_cost(replace(cost, step_bytes=size * GIB, hours=hours), plan)]
        for size, hours in ((5, 10), (9, 100), (11, 10))
    ]
    assert marks == [["well", "well"], ["look", "look"], ["wrong", "well"]]
    assert "from steps of 2" in check_cost(cost, plan)[0].found
    assert "from steps" not in check_cost(replace(cost, measured_images=4), plan)[0].found


def test_hours_are_told_in_minutes_where_they_are_few():
    assert hours_text(0.5) == "30 minutes" and hours_text(3.25) == "3.2 hours"
