"""Which learning rate? The loss over a rate that rises from step to step (arXiv 1506.01186)."""

import math
from collections.abc import Iterator

from kit.data.dataset import Batch
from kit.dfine.detector import Detector
from kit.doctor.report import Curve, Verdict, judged
from kit.doctor.steps import Setting, Trial
from kit.optimisation import Recipe, make_optimizer
from kit.predict import Progress

PART = "rate"
LOWEST, HIGHEST = 1.0e-6, 1.0e-1
SMOOTHING = 0.8  # of the loss, from step to step
RISEN = 1.5  # times the least loss: no use to go on
LEAST_FALL = 0.03  # of the loss, or it does not fall
BELOW = 10.0  # times lower than where the loss is least


def check_rates(
    detector: Detector,
    batches: Iterator[Batch],
    recipe: Recipe,
    setting: Setting,
    steps: int,
    progress: Progress | None,
) -> tuple[Verdict, Curve]:
    trial = Trial.of(detector, setting)
    optimizer = make_optimizer(trial.detector, recipe)
    rates: list[float] = []
    losses: list[float] = []
    for step in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["peak_lr"] / recipe.lr  # the backbone's at its share
        loss = trial.learn(optimizer, next(batches).to(trial.device), step)
        over = not math.isfinite(loss) or bool(losses and smoothed([*losses, loss])[-1] > RISEN * min(smoothed(losses)))
        if math.isfinite(loss):
            rates.append(rate)
            losses.append(loss)
        if progress:
            progress(steps if over else step + 1, steps)
        if over:
            break
    return verdict(rates, smoothed(losses), recipe.lr)


def smoothed(losses: list[float]) -> list[float]:
    """A running mean that forgets; the young one is set right."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**count))
    return found


def verdict(rates: list[float], losses: list[float], planned: float) -> tuple[Verdict, Curve]:
    """The suggested rate lies BELOW where the loss is least; well is what lies between a tenth of it and that place."""
    question = "Is the learning rate in the range where the loss falls?"
    if not losses:
        found = "a loss that is not finite at the lowest rate"
        return judged(PART, question, True, True, "a loss that falls", found, "see the loss at the start"), Curve(
            [], [], "learning rate", "loss", is_log_x=True
        )
    least = min(range(len(losses)), key=losses.__getitem__)
    suggested, highest = rates[least] / BELOW, rates[least]
    fall = 1 - losses[least] / losses[0]
    curve = Curve(rates, losses, "learning rate", "loss, smoothed", None, planned, is_log_x=True)
    found = f"lr {planned:.1e}; the loss is least at {highest:.1e}, so {suggested:.1e} is suggested"
    if fall < LEAST_FALL:
        return judged(
            PART,
            question,
            True,
            True,
            f"a loss that falls by {LEAST_FALL:.0%} or more at some rate",
            f"a fall of {max(0.0, fall):.1%}",
            "the weights do not learn at any rate: see the loss at the start and the gradients",
        ), curve
    expected = f"lr between {suggested / BELOW:.1e} and {highest:.1e}"
    is_off = not suggested / BELOW <= planned <= highest
    return judged(PART, question, False, is_off, expected, found, f"try lr: {suggested:.1e}"), curve
