"""The official Track-4 F1, and curves of precision, recall and F1 against the threshold."""

from dataclasses import dataclass

import numpy as np

from kit.metrics.matches import IOU_THRESHOLDS, Matches


def f1_score(true: np.ndarray, false: np.ndarray, ground_truths: int | np.ndarray) -> np.ndarray:
    """F1 of counts, with the organisers' two epsilons; any shapes that broadcast."""
    precision = true / (true + false + np.spacing(1))
    recall = true / ground_truths
    f1: np.ndarray = 2 * precision * recall / (precision + recall + 1e-9)
    return f1


def class_f1(matches: Matches) -> np.ndarray:
    """F1 of all detections together -> (K, ious), -1 for a class without ground truth."""
    total = matches.ground_truths.sum(axis=0)[:, None]  # (K, 1)
    true, false = (
        np.stack([np.bincount(matches.label, column, len(total)) for column in flags.T], axis=1)  # (K, ious)
        for flags in (matches.is_true, matches.is_false)
    )
    return np.where(total > 0, f1_score(true, false, np.maximum(total, 1)), -1.0)


def mean_f1(f1: np.ndarray) -> float:
    """(K, ious) -> the mean over IoU thresholds and classes with ground truth, summed in the official order."""
    return mean_defined(f1.T)


def mean_defined(values: np.ndarray) -> float:
    """COCO's mean: of what is not -1; -1 of nothing."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


@dataclass(frozen=True)
class Steps:
    """What is kept as a threshold falls, from nothing (first) to everything (last)."""

    score: np.ndarray  # (steps - 1,) distinct scores, falling; step i keeps the first i of them
    true: np.ndarray  # (steps, ious)
    false: np.ndarray  # (steps, ious)

    def at(self, threshold: float | np.ndarray) -> np.ndarray:
        """The step of a threshold, which keeps what reaches it."""
        return np.searchsorted(-self.score, -np.asarray(threshold), side="right")

    def f1(self, ground_truths: int) -> np.ndarray:
        """(steps,), the mean over IoU thresholds."""
        mean: np.ndarray = f1_score(self.true, self.false, max(ground_truths, 1)).mean(axis=1)
        return mean


def steps_of(matches: Matches, chosen: np.ndarray) -> Steps:
    """chosen: (detections,) bool, pooled as if of one class."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    score = matches.score[rows]
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # of each run of equal scores: kept or lost together
    nothing = np.zeros((1, matches.is_true.shape[1]))
    true, false = (
        np.concatenate([nothing, np.cumsum(flags[rows], axis=0, dtype=np.float64)[last]])
        for flags in (matches.is_true, matches.is_false)
    )
    return Steps(score[last], true, false)


@dataclass(frozen=True)
class Curve:
    """What is kept with score >= threshold; the thresholds fall. All (n,)."""

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def pr_f1_curve(matches: Matches, name: str | None = None, iou: float = 0.5) -> Curve:
    """One class, or (None) all classes pooled, at one IoU threshold."""
    if name is not None and name not in matches.names:
        raise ValueError(f"name must be one of {', '.join(matches.names)}, got {name!r}")
    nearest = int(np.abs(IOU_THRESHOLDS - iou).argmin())
    if abs(IOU_THRESHOLDS[nearest] - iou) > 1e-6:
        raise ValueError(f"iou must be one of 0.5, 0.55, ... 0.95, got {iou}")
    counted = np.array([name is None or name == other for other in matches.names])  # (K,)
    steps = steps_of(matches, counted[matches.label])
    true, false = steps.true[1:, nearest], steps.false[1:, nearest]
    total = max(int(matches.ground_truths[:, counted].sum()), 1)
    return Curve(steps.score, true / np.maximum(true + false, 1), true / total, f1_score(true, false, total))


def official_f1_curve(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The official F1 against one threshold for all classes -> falling thresholds (n,), F1 (n,)."""
    totals = matches.ground_truths.sum(axis=0).tolist()  # K
    counted = [label for label, total in enumerate(totals) if total]
    steps = [steps_of(matches, matches.label == label) for label in counted]
    score, f1 = mean_over_classes(steps, [s.f1(totals[label]) for s, label in zip(steps, counted, strict=True)])
    return score, f1[1:]


def mean_over_classes(steps: list[Steps], f1: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One threshold for all these classes -> distinct scores (n,), falling, and the mean F1 (n + 1,) of each step."""
    if not steps:
        return np.zeros(0), np.zeros(1)
    score = -np.unique(-np.concatenate([s.score for s in steps]))
    at = np.append(np.inf, score)
    return score, np.mean([values[s.at(at)] for s, values in zip(steps, f1, strict=True)], axis=0)
