"""How long a run is to be, from one phrase: "30 epochs" or "20 minutes" become epochs, batch and validations.

Minutes are measured on trial steps of the same detector, images and augmentation; the run is cut so that it ends in
time with its schedule complete.
"""

import copy
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kit.batch_size import Choice, Kind, probed_batch_size
from kit.data.coco import CocoFile
from kit.data.dataset import CocoDataset
from kit.data.sampling import counted_objects
from kit.dfine.detector import Detector
from kit.files import read_json, write_json
from kit.optimisation import RECIPES, Plan
from kit.presets import LONG
from kit.train import Fit

LEAST_STEPS = 1000  # of a run; before there are fewer, the batch gets smaller
LEAST_BATCH = 4  # images that the statistics of a norm are worth being taken from
MARGIN = 0.1  # of the time: machines are not always as fast as in a trial
VAL_SHARE = 0.15  # of the time, at most, for validations
TRIAL_SHARE = 0.04  # of the time, at most, for a trial; of these there are one or two
TRIAL_IMAGES = 48  # of val that are validated on in a trial

MakePlan = Callable[..., Plan]  # of epochs and batch_size


@dataclass(frozen=True)
class Budget:
    """One of the two is given."""

    epochs: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Pace:
    """Seconds: until the first step, of a step, of a validation, of saving."""

    start_s: float
    step_s: float
    val_s: float
    save_s: float


@dataclass(frozen=True)
class Length:
    """What was chosen, and a line that tells why."""

    epochs: int
    batch_size: int
    val_every: int = 1
    max_minutes: float | None = None
    why: str = ""


def read_budget(text: str) -> Budget:
    """Such as 30 epochs, 20 minutes or 1.5 hours."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(epochs?|minutes?|hours?)\s*", text)
    if found is None or not float(found[1]):
        raise ValueError(f'budget: expected a text such as "30 epochs" or "20 minutes", got {text!r}')
    number, unit = float(found[1]), found[2].rstrip("s")
    if unit != "epoch":
        return Budget(minutes=number * (60 if unit == "hour" else 1))
    if not number.is_integer():
        raise ValueError(f"budget: expected a whole number of epochs, got {text!r}")
    return Budget(epochs=int(number))


def batch_for(images_seen: float, images: int, most: int, shares: int = 1) -> int:
    """`most`, halved until the run has LEAST_STEPS steps and an epoch one; a multiple of shares, the
    parts that a step is made in."""
    batch = most
    while batch % (2 * shares) == 0 and (
        batch > images or (batch // 2 >= LEAST_BATCH and images_seen / batch < LEAST_STEPS)
    ):
        batch //= 2
    return batch


def length_for(
    budget: Budget,
    images: int,
    most_batch: int,
    *,
    shares: int = 1,
    pace_of: Callable[[int, float], Pace] | None = None,
) -> Length:
    """For so many images and at most so many a step. pace_of: batch and seconds to spend -> how fast; for minutes."""
    if budget.epochs is not None:
        batch = batch_for(budget.epochs * images, images, most_batch, shares)
        why = f"{budget.epochs} epochs of {images} images: {budget.epochs * (images // batch)} steps of {batch}"
        return Length(budget.epochs, batch, why=why)
    if budget.minutes is None or pace_of is None:
        raise ValueError("budget: minutes have to be measured, expected pace_of, got None")
    began, limit_s = time.monotonic(), budget.minutes * 60
    batch = batch_for(0, images, most_batch, shares)  # the smallest is the quickest to be tried
    pace = pace_of(batch, limit_s * TRIAL_SHARE)
    larger = batch_for(limit_s / pace.step_s * batch, images, most_batch, shares)
    if larger != batch:
        batch, pace = larger, pace_of(larger, limit_s * TRIAL_SHARE)
    return length_in(limit_s, time.monotonic() - began, images, batch, pace)


def length_in(limit_s: float, spent_s: float, images: int, batch: int, pace: Pace) -> Length:
    """As many whole epochs as fit into what is left of the time, with validations that take their share at most."""
    steps = max(1, images // batch)
    train_s = steps * pace.step_s + pace.save_s
    val_every = max(1, round(pace.val_s * (1 - VAL_SHARE) / (VAL_SHARE * train_s)))
    left_s = (limit_s - spent_s) * (1 - MARGIN) - pace.start_s - pace.val_s
    epochs = int(left_s / (train_s + pace.val_s / val_every))
    if epochs < 1:
        needed = (spent_s + (train_s + pace.val_s + pace.start_s) / (1 - MARGIN)) / 60
        raise ValueError(
            f"budget: expected time for one epoch of {images} images at least, {needed:.1f} minutes here, "
            f"got {limit_s / 60:g}; give more, or take a smaller input or model"
        )
    why = (
        f"{epochs} epochs of {steps} steps of {batch} images in {limit_s / 60:g} minutes: a step takes "
        f"{pace.step_s:.2f} s here, a validation {pace.val_s:.1f} s, the trial took {spent_s:.0f} s"
    )
    return Length(epochs, batch, min(val_every, epochs), (limit_s - spent_s) / 60, why)


def measured_pace(
    detector: Detector, train_set: CocoDataset, val_set: CocoDataset | None, plan: Plan, seconds: float
) -> Pace:
    """Trial steps of a copy, as `fit` does them, for so long, and at least five."""
    some = val_set and some_of(val_set, TRIAL_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        trial = Fit(copy.deepcopy(detector), train_set, some, Path(folder), plan, lambda figures: None)
        start_s, step_s = timed_steps(trial, seconds)
        val_s = timed(lambda: trial.validate(some)) * len(val_set) / len(some) if val_set and some else 0.0
        save_s = 2 * timed(trial.store.save)  # before and after a validation
    return Pace(start_s, step_s, val_s, save_s)


def timed_steps(trial: Fit, seconds: float) -> tuple[float, float]:
    """Until the first two steps are done, and the mean of those after; what the loader had ready counts with them."""
    accumulate = trial.plan.accumulate
    batches, began, done = trial.batches(), time.monotonic(), 0
    warm = began
    while done < min(5, trial.total_steps) or (time.monotonic() - warm < seconds and done < trial.total_steps):
        trial.train_step([next(batches) for _ in range(accumulate)])
        done += 1
        if done == 2:
            warm = time.monotonic()
    now = time.monotonic()
    return (warm - began, (now - warm) / (done - 2)) if done > 2 else (0.0, (now - began) / done)


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def some_of(dataset: CocoDataset, most: int) -> CocoDataset:
    """The same with its first images alone."""
    coco = dataset.coco
    few = CocoFile(coco.path, [coco.records[row] for row in range(min(most, len(dataset)))], *names_of(coco))
    return CocoDataset(few, dataset.images, dataset.policy, dataset.seed, dataset.channels)


def names_of(coco: CocoFile) -> tuple[list[int], list[str]]:
    return coco.category_ids, coco.names


def run_length(
    text: str | None,
    detector: Detector,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    *,
    epochs: int,
    batch_size: int | None,
    make_plan: MakePlan,
    file: Path,
    resume: bool = True,
    accumulate: int = 1,
    processes: int = 1,
    workers: int = 2,
    amp: str = "no",
) -> Length:
    """What a budget comes to with this detector and set, or, without one, epochs and batch_size as they are.

    batch_size: with a budget, at most; None: as many as the memory holds, and no more than were published with.
    train_set: under its strongest augmentation, which is the slowest. file: keeps what was chosen, for a run that goes
    on. The batch can be shared out among so many processes; minutes are measured in this one alone.
    """
    if text is None and batch_size is not None:
        return Length(epochs, batch_size, why=f"{epochs} epochs of {max(1, len(train_set) // batch_size)} steps")
    budget, images, shares = read_budget(text) if text else None, len(train_set), accumulate * processes

    def pace_of(batch: int, seconds: float) -> Pace:
        plan = replace(make_plan(epochs=LONG, batch_size=batch), accumulate=accumulate, workers=workers)
        return measured_pace(detector, train_set, val_set, plan, seconds)

    def choose() -> Length:
        most, reasons = batch_size, []
        if most is None:
            probed = probed_batch(detector, train_set, make_plan(epochs=1, batch_size=1), shares, amp)
            most, reasons = probed.batch_size * shares, [probed.why]
        if budget is None:
            return Length(epochs, batch_for(LONG * images, images, most, shares), why="; ".join(reasons))
        length = length_for(budget, images, most, shares=shares, pace_of=pace_of)
        return replace(length, why="; ".join([*reasons, length.why]))

    size_hw = make_plan(epochs=1, batch_size=1).size_hw
    key: list[object] = [text, detector.size.name, *size_hw, images, batch_size, shares, amp]
    return kept_length(file, key, resume, choose)


def probed_batch(detector: Detector, train_set: CocoDataset, plan: Plan, shares: int, amp: str) -> Choice:
    """Of one forward pass, with as many objects as the fullest image has, at the largest of the sizes."""
    objects = np.bincount(counted_objects(train_set.coco)[0], minlength=1).max()
    largest_hw = max([plan.size_hw, *plan.sizes])
    kind = Kind(detector.size, detector.num_classes, largest_hw, detector.channels, int(objects), amp)
    most = max(1, min(RECIPES[detector.size.name].batch_size, len(train_set)) // shares)
    return probed_batch_size(kind, next(detector.parameters()).device, most)


def kept_length(file: Path, key: list[object], resume: bool, choose: Callable[[], Length]) -> Length:
    """What was chosen for a run that goes on, where the key is the same as then; else it is chosen, and kept."""
    if resume and file.exists():
        found = read_json(file)
        if found["key"] == key:
            return Length(**found["length"])
    length = choose()
    write_json(file, {"key": key, "length": asdict(length)}, indent=1)
    return length
