"""Score thresholds for the highest F1: one for all, per class, or per class and group; and their honest value."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kit.metrics.f1 import Steps, class_f1, f1_score, mean_f1, mean_over_classes, steps_of
from kit.metrics.matches import Matches
from kit.metrics.tables import column, listed, rows_of

Groups = Mapping[int, str]  # image id -> group, such as day or night
Level = Literal["none", "global", "class", "class_group"]


@dataclass(frozen=True)
class Thresholds:
    """The lowest score that is kept, by category id and group; without groups, one column for all images."""

    category_ids: tuple[int, ...]
    groups: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]  # K rows, a column each group

    def __post_init__(self) -> None:
        columns = max(len(self.groups), 1)
        if len(self.scores) != len(self.category_ids) or any(len(row) != columns for row in self.scores):
            raise ValueError(f"scores must be {len(self.category_ids)} rows of {columns}, got {self.scores}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Thresholds":
        scores = tuple(tuple(map(float, row)) for row in values["scores"])
        return cls(tuple(values["category_ids"]), tuple(values["groups"]), scores)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def apply_thresholds(
    predictions: list[dict[str, Any]], thresholds: float | Thresholds, groups: Groups | None = None
) -> list[dict[str, Any]]:
    """The detections whose score reaches its threshold, unchanged and in their order."""
    image_ids, category_ids, scores = (
        column(predictions, key, "predictions") for key in ("image_id", "category_id", "score")
    )
    images, categories = sorted(set(image_ids)), sorted(set(category_ids))
    limits = limit_table(thresholds, images, categories, groups)
    limits = limits[rows_of(image_ids, images), rows_of(category_ids, categories)]
    return [entry for entry, score, limit in zip(predictions, scores, limits.tolist(), strict=True) if score >= limit]


def f1_at(matches: Matches, thresholds: float | Thresholds, groups: Groups | None = None) -> float:
    """The official F1 of what the thresholds keep."""
    return mean_f1(class_f1(matches.keep(kept_by(matches, thresholds, groups))))


def kept_by(matches: Matches, thresholds: float | Thresholds, groups: Groups | None = None) -> np.ndarray:
    """(detections,) bool."""
    limits = limit_table(thresholds, matches.image_ids, matches.category_ids, groups)
    kept: np.ndarray = matches.score >= limits[matches.image, matches.label]
    return kept


def limit_table(
    thresholds: float | Thresholds, image_ids: Sequence[int], category_ids: Sequence[int], groups: Groups | None
) -> np.ndarray:
    """(images, K) float64."""
    if not isinstance(thresholds, Thresholds):
        return np.full((len(image_ids), len(category_ids)), float(thresholds))
    label = rows_of(category_ids, thresholds.category_ids)  # (K,)
    if (label < 0).any():
        unknown = sorted(set(category_ids) - set(thresholds.category_ids))
        raise ValueError(f"no threshold for category_id {listed(unknown)}, only for {listed(thresholds.category_ids)}")
    group = np.zeros(len(image_ids), dtype=np.int64)  # (images,)
    if thresholds.groups and groups is None:
        raise ValueError(f"these thresholds are by group ({listed(thresholds.groups)}); give groups: image id -> group")
    if thresholds.groups and groups is not None:
        group = _group_rows(image_ids, groups, thresholds.groups)
    scores = np.array(thresholds.scores).reshape(len(thresholds.category_ids), -1)
    return np.take(scores[label].T, group, axis=0)


def _group_rows(image_ids: Sequence[int], groups: Groups, names: Sequence[str]) -> np.ndarray:
    """The row of each image's group: (images,) int64."""
    missing = sorted(set(image_ids) - set(groups))
    if missing:
        raise ValueError(f"groups must name the group of every image, missing: {listed(missing)}")
    rows = rows_of([groups[image_id] for image_id in image_ids], names)
    unknown = sorted({groups[image_id] for image_id in image_ids} - set(names))
    if unknown:
        raise ValueError(f"no threshold for group {listed(unknown)}, only for {listed(names)}")
    return rows


# The search.


def search_thresholds(matches: Matches, groups: Groups | None = None) -> dict[Level, Thresholds]:
    """The thresholds of highest F1 on these images at each level (class_group with groups only), coarse to fine.

    `global` and `class` are exact: mean F1 is a sum over classes, so each class has its own optimum. The groups of a
    class are pooled in its F1; theirs is sought by coordinate ascent, exact in one group while the others stand, from
    the optimum of the class and from the optimum of each group alone: never worse than `class`, not always the best.
    A class that scores nothing here takes the global threshold; a group without its detections, that of the class.
    """
    totals = matches.ground_truths.sum(axis=0).tolist()  # K
    steps = [steps_of(matches, matches.label == label) for label in range(len(totals))]
    f1 = [s.f1(total) for s, total in zip(steps, totals, strict=True)]
    counted = [label for label, total in enumerate(totals) if total]
    score, mean = mean_over_classes([steps[label] for label in counted], [f1[label] for label in counted])
    common = _best_threshold(score, mean, otherwise=0.0)
    by_class = [
        _best_threshold(s.score, values, otherwise=common) if total else common
        for s, values, total in zip(steps, f1, totals, strict=True)
    ]
    ids = tuple(matches.category_ids)
    levels: dict[Level, Thresholds] = {
        "none": Thresholds(ids, (), tuple((0.0,) for _ in ids)),
        "global": Thresholds(ids, (), tuple((common,) for _ in ids)),
        "class": Thresholds(ids, (), tuple((threshold,) for threshold in by_class)),
    }
    return levels if groups is None else levels | {"class_group": _search_groups(matches, by_class, groups)}


def _best_threshold(score: np.ndarray, f1: np.ndarray, otherwise: float) -> float:
    """score: (n,) falling; f1: (n + 1,)."""
    return float(thresholds_between(score)[f1.argmax()]) if f1.max() > 0 else otherwise


def thresholds_between(score: np.ndarray) -> np.ndarray:
    """The threshold of each step, half way from the last score kept to the next: (n,) falling -> (n + 1,).

    Above the first lies 1, below the last 0; where no number lies between, the score itself, or the next above it.
    """
    if score.size == 0:
        return np.zeros(1)
    below = np.append(score[1:], 0.0)
    middle = (score + below) / 2
    middle = np.where((middle > below) & (middle <= score), middle, score)
    nothing = (score[0] + 1) / 2
    return np.append(nothing if nothing > score[0] else np.nextafter(score[0], np.inf), middle)


def _search_groups(matches: Matches, by_class: list[float], groups: Groups) -> Thresholds:
    names = tuple(sorted(set(groups.values())))
    group_of_image = _group_rows(matches.image_ids, groups, names)
    group = group_of_image[matches.image]  # (detections,)
    rows = []
    for label, threshold in enumerate(by_class):
        steps = [steps_of(matches, (matches.label == label) & (group == i)) for i in range(len(names))]
        totals = [int(matches.ground_truths[group_of_image == i, label].sum()) for i in range(len(names))]
        rows.append(_group_thresholds(steps, totals, threshold))
    return Thresholds(tuple(matches.category_ids), names, tuple(rows))


def _group_thresholds(steps: list[Steps], totals: list[int], threshold: float) -> tuple[float, ...]:
    """Of one class: steps and ground truths of each group, the threshold of the class -> that of each group."""
    if not sum(totals):
        return (threshold,) * len(steps)
    together = [int(s.at(threshold)) for s in steps]
    alone = [int(s.f1(total).argmax()) for s, total in zip(steps, totals, strict=True)]
    tries = [_ascend(steps, start, sum(totals)) for start in (together, alone)]
    _, best = max(tries, key=lambda found: found[0])  # the first, where they are equal
    return tuple(
        threshold if step == start else float(thresholds_between(s.score)[step])
        for s, step, start in zip(steps, best, together, strict=True)
    )


def _ascend(steps: list[Steps], start: list[int], total: int) -> tuple[float, list[int]]:
    """Move one group to its best step, the others standing, until none moves -> F1 of the class, steps."""
    current, best, settled, group = list(start), -1.0, 0, 0
    while settled < len(steps):
        others = [i for i in range(len(steps)) if i != group]
        true = steps[group].true + sum(steps[i].true[current[i]] for i in others)
        false = steps[group].false + sum(steps[i].false[current[i]] for i in others)
        f1 = f1_score(true, false, total).mean(axis=1)
        best = float(f1[current[group]])
        settled = settled + 1 if f1.max() <= best else 1
        if f1.max() > best:
            current[group], best = int(f1.argmax()), float(f1.max())
        group = (group + 1) % len(steps)
    return best, current


# The honest value.


@dataclass(frozen=True)
class CrossFit:
    """F1 by level. `fitted` is reported on the images it was fitted on, and flatters; `held_out` gives each image the
    thresholds that were fitted without its fold."""

    fitted: dict[Level, float]
    held_out: dict[Level, float]
    thresholds: dict[Hashable, dict[Level, Thresholds]]  # of each fold, fitted on the others
    kept: dict[Level, np.ndarray]  # (detections,) bool, what those of the fold keep of the image's detections


def cross_fit(matches: Matches, folds: Mapping[int, Hashable], groups: Groups | None = None) -> CrossFit:
    """Fit on all folds but one, report on that one, pool; folds: image id -> fold, such as its camera."""
    missing = sorted(set(matches.image_ids) - set(folds))
    names = list(dict.fromkeys(folds[image_id] for image_id in matches.image_ids if image_id in folds))
    if missing or len(names) < 2:
        raise ValueError(
            f"folds must put each image into one of two or more, got {len(names)}, no fold: {listed(missing)}"
        )
    fold = rows_of([folds[image_id] for image_id in matches.image_ids], names)  # (images,)
    fitted = search_thresholds(matches, groups)
    thresholds: dict[Hashable, dict[Level, Thresholds]] = {}
    kept = {level: np.zeros(len(matches.score), dtype=bool) for level in fitted}
    for row, name in enumerate(names):
        others = [image_id for image_id, of in zip(matches.image_ids, fold, strict=True) if of != row]
        thresholds[name] = search_thresholds(matches.subset(others), groups)
        for level, found in thresholds[name].items():
            kept[level] |= (fold[matches.image] == row) & kept_by(matches, found, groups)
    return CrossFit(
        {level: f1_at(matches, found, groups) for level, found in fitted.items()},
        {level: mean_f1(class_f1(matches.keep(mask))) for level, mask in kept.items()},
        thresholds,
        kept,
    )
