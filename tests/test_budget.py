import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit import budget
from kit.batch_size import Choice, Kind
from kit.budget import (
    Budget,
    Length,
    Pace,
    batch_for,
    length_for,
    length_in,
    measured_pace,
    read_budget,
    run_length,
    some_of,
)
from kit.optimisation import Plan, rate_share
from kit.presets import LONG, PRESETS, plan_of, policy_of
from kit.train import fit
from tests import tiny

PACE = Pace(start_s=2.0, step_s=0.5, val_s=3.0, save_s=1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 epochs", Budget(epochs=30)),
        ("1 epoch", Budget(epochs=1)),
        ("20 minutes", Budget(minutes=20.0)),
        ("1.5 hours", Budget(minutes=90.0)),
        (" 2minutes ", Budget(minutes=2.0)),
    ],
)
def test_a_budget_is_a_number_and_a_unit(text: str, expected: Budget) -> None:
    assert read_budget(text) == expected


@pytest.mark.parametrize("text", ["30", "minutes", "0 minutes", "-3 epochs", "2.5 epochs", "3 days", "1e3 epochs"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget: expected a"):
        read_budget(text)


def test_a_short_run_gets_a_smaller_batch_for_more_steps() -> None:
    assert batch_for(100_000, images=5000, most=16) == 16
    assert batch_for(8_000, images=400, most=16) == 8
    assert batch_for(100, images=400, most=16) == 4  # the least
    assert batch_for(100, images=400, most=16, shares=8) == 8  # and a multiple of the passes


def test_a_batch_is_never_larger_than_the_set() -> None:
    assert [batch_for(10**9, images=images, most=16) for images in (1, 3, 9, 16)] == [1, 2, 8, 16]


def test_epochs_set_the_batch_without_a_measurement() -> None:
    length = length_for(Budget(epochs=30), images=100, most_batch=16)
    assert (length.epochs, length.batch_size, length.max_minutes) == (30, 4, None)


def test_minutes_are_filled_but_for_the_margin() -> None:
    length = length_in(600.0, 20.0, 400, 8, PACE)
    steps_s = length.epochs * 50 * PACE.step_s
    saved_s, validated_s = length.epochs * PACE.save_s, length.epochs / length.val_every * PACE.val_s
    assert 0.8 * 580 < steps_s + saved_s + validated_s < 0.9 * 580
    assert length.max_minutes == pytest.approx(580 / 60) and "a step takes 0.50 s here" in length.why


def test_validations_take_their_share_at_most() -> None:
    often, seldom = (length_in(3600.0, 0.0, 40, 8, replace(PACE, val_s=val_s)) for val_s in (0.1, 30.0))
    assert often.val_every == 1
    assert 30.0 / seldom.val_every < 0.2 * (5 * PACE.step_s + PACE.save_s)


def test_a_time_too_short_for_an_epoch_is_told_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"time for one epoch of 4000 images at least, 4\.7 minutes here, got 1"):
        length_in(60.0, 0.0, 4000, 8, PACE)


def test_another_batch_is_measured_again() -> None:
    asked = []

    def pace_of(batch: int, seconds: float) -> Pace:
        asked.append(batch)
        return replace(PACE, step_s=0.01 * batch)

    assert length_for(Budget(minutes=60.0), images=400, most_batch=16, pace_of=pace_of).batch_size == 16
    assert asked == [4, 16]


def test_a_trial_measures_steps_and_leaves_the_detector_as_it_was(tmp_path: Path) -> None:
    train_set = tiny.dataset(tmp_path / "train", images=6)
    val_set = tiny.dataset(tmp_path / "val", images=4, strong=False, seed=1)
    detector = tiny.detector()
    before = copy.deepcopy(detector.state_dict())
    pace = measured_pace(detector, train_set, val_set, tiny.plan(epochs=LONG), seconds=0.0)
    assert min(pace.start_s, pace.step_s, pace.val_s, pace.save_s) > 0
    assert all(value.equal(before[name]) for name, value in detector.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "val"]


def test_a_run_of_a_budget_ends_with_its_schedule_complete(tmp_path: Path) -> None:
    train_set = tiny.dataset(tmp_path / "train", images=6)

    def make_plan(epochs: int, batch_size: int) -> Plan:
        how: dict[str, Any] = {"images": 6, "epochs": epochs, "batch_size": batch_size, "size_hw": (64, 64)}
        return plan_of(PRESETS["scratch_small"], "n", **how)

    how: dict[str, Any] = {"epochs": 1, "batch_size": 2, "make_plan": make_plan, "file": tmp_path / "length.json"}
    length = run_length("3 epochs", tiny.detector(), train_set, None, **how)
    plan = replace(make_plan(length.epochs, length.batch_size), workers=0)
    train_set.policy = policy_of(PRESETS["scratch_small"], length.epochs)
    history = fit(tiny.detector(), train_set, None, out=tmp_path / "run", plan=plan)
    steps = 3 * length.epochs
    last = rate_share(steps - 1, steps, plan.recipe.warmup_steps, plan.flat_until, plan.final_share)
    assert history.finished and len(history.epochs) == 3
    assert history.epochs[-1]["lr"] == pytest.approx(last * plan.recipe.lr) and last < 0.2


def test_what_was_chosen_is_kept_for_the_same_question_alone(tmp_path: Path) -> None:
    detector, train_set = tiny.detector(), tiny.dataset(tmp_path / "train", images=6)

    def make_plan(epochs: int, batch_size: int) -> Plan:
        return tiny.plan(epochs=epochs, batch_size=batch_size)

    def length(text: str, **changes: Any) -> Length:
        how: dict[str, Any] = {"epochs": 9, "batch_size": 4, "make_plan": make_plan, "file": tmp_path / "length.json"}
        return run_length(text, detector, train_set, None, **how | changes)

    assert length("5 epochs").epochs == 5 and length("6 epochs").epochs == 6
    assert run_length(None, detector, train_set, None, epochs=9, batch_size=4, make_plan=make_plan,
                      file=tmp_path / "other.json").epochs == 9  # fmt: skip
    assert not (tmp_path / "other.json").exists()


def test_a_batch_that_is_not_given_is_probed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, train_set = tiny.detector(), tiny.dataset(tmp_path / "train", images=6, objects=3)
    asked: list[tuple[Kind, int]] = []

    def probe(kind: Kind, device: object, most: int) -> Choice:
        asked.append((kind, most))
        return Choice(2, "2 fit")

    monkeypatch.setattr(budget, "probed_batch_size", probe)

    def make_plan(epochs: int, batch_size: int) -> Plan:
        return tiny.plan(epochs=epochs, batch_size=batch_size, sizes=((64, 64), (96, 96)))

    how: dict[str, Any] = {"epochs": 9, "batch_size": None, "make_plan": make_plan, "accumulate": 2, "processes": 1}
    lengths = [run_length(None, detector, train_set, None, file=tmp_path / "a.json", **how) for _ in range(2)]
    assert [(each.epochs, each.batch_size, each.why) for each in lengths] == [(9, 4, "2 fit")] * 2
    assert [(kind.objects, kind.size_hw, most) for kind, most in asked] == [(3, (96, 96), 3)]


def test_some_of_a_set_are_its_first_images(tmp_path: Path) -> None:
    few = some_of(tiny.dataset(tmp_path, images=6), 2)
    assert [record.image_id for record in few.coco.records] == [1, 2] and len(some_of(few, 9)) == 2
