"""Parts of a data set that share no camera: folds to train on, folds to fit thresholds on, a part kept for the report.

Pictures of one fixed camera share their background, so a part that shares a camera with the training flatters. Groups
(a camera; without cameras a cluster of near duplicates, or the image alone) are never torn apart. Within that rule the
parts get as equal shares as can be found of every class, of every class by night, and of the images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from kit.data.coco import CocoFile, write_coco_file
from kit.data.columns import Records
from kit.data.dataset import targets_of
from kit.data.views import group_of, view_of

Level = Literal["camera", "scene", "image"]
Clusters = Mapping[int, int]  # image id -> cluster of near duplicates; images alone need not be named

LEVELS: tuple[Level, ...] = ("camera", "scene", "image")  # from coarse to fine; a scene is a camera at a time of day
IMAGES_WEIGHT = 4.0  # of the number of images among the shares to be met; a class has 1
RESTARTS = 24  # searches from different starts; the best is taken
MOST_SWAPPED = 400  # groups; with more, only moves are tried, of which there are enough then
BLOCK = 10_000  # images that are counted at a time
LEAST_GROUPS = 3  # for a report of whole cameras: two to choose on, and one to report on
NEAR_SHARE = 0.4  # a report of whole cameras may miss its share of the images by so much of it


@dataclass(frozen=True)
class Folds:
    """The k parts of a file."""

    coco: CocoFile
    fold: np.ndarray  # (images,) int64, 0..k-1, in order of coco.records
    groups: list[str]  # of each image, in the same order
    seed: int

    @property
    def k(self) -> int:
        return int(self.fold.max(initial=0)) + 1

    def held_out(self, fold: int) -> CocoFile:
        return part(self.coco, self.fold == fold)

    def rest(self, fold: int) -> CocoFile:
        return part(self.coco, self.fold != fold)

    def members(self, fold: int) -> list[str]:
        """The groups of one part, camera 2 before camera 10."""
        return in_order({group for group, own in zip(self.groups, self.fold, strict=True) if own == fold})

    def as_dict(self) -> dict[int, int]:
        """image id -> fold."""
        return dict(zip(image_ids_of(self.coco), self.fold.tolist(), strict=True))


def write_folds(folds: Folds, folder: Path | str, view_pattern: str | None = None) -> list[Path]:
    """fold<k>_train.json and fold<k>_val.json for each k, with the recipe in `info`; all ids and names stay."""
    paths = []
    for fold, name in product(range(folds.k), ("train", "val")):
        own = folds.held_out(fold) if name == "val" else folds.rest(fold)
        info = {"source": folds.coco.path.name, "folds": folds.k, "fold": fold, "part": name, "seed": folds.seed}
        info |= {"view_pattern": view_pattern, "held_out": folds.members(fold)}
        paths.append(write_coco_file(Path(folder) / f"fold{fold}_{name}.json", own, info))
    return paths


# --- what is kept together ---


def groups_of(
    coco: CocoFile, view_pattern: str | None, level: Level = "camera", clusters: Clusters | None = None
) -> list[str]:
    """The group of each image, in order of coco.records. An image whose name tells no camera is in the group of its
    near duplicates, or alone."""
    images = zip(names_of(coco), image_ids_of(coco), strict=True)
    return [group_name(name, image_id, view_pattern, level, clusters or {}) for name, image_id in images]


def group_name(file_name: str, image_id: int, view_pattern: str | None, level: Level, clusters: Clusters) -> str:
    view = view_of(file_name, view_pattern)
    if view is not None and level != "image":
        return f"camera {view.camera}" + (f" {view.scene}" if level == "scene" else "")
    cluster = clusters.get(image_id)
    return file_name if cluster is None else f"alike {cluster}"


def names_of(coco: CocoFile) -> Sequence[str]:
    """The file name of each image, without making its record."""
    if isinstance(coco.records, Records):
        return coco.records.columns.file_names
    return [record.file_name for record in coco.records]


def image_ids_of(coco: CocoFile) -> list[int]:
    if isinstance(coco.records, Records):
        ids: list[int] = coco.records.columns.image_ids.tolist()
        return ids
    return [record.image_id for record in coco.records]


def in_order(groups: set[str]) -> list[str]:
    return sorted(groups, key=lambda name: (len(name), name))


# --- the parts ---


def grouped_folds(
    coco: CocoFile,
    k: int,
    view_pattern: str | None,
    seed: int = 0,
    *,
    level: Level = "camera",
    clusters: Clusters | None = None,
) -> Folds:
    """k parts as alike as whole groups allow; ValueError where there are fewer groups than parts."""
    groups = groups_of(coco, view_pattern, level, clusters)
    names = in_order(set(groups))
    if not 2 <= k <= len(names):
        found = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
        raise ValueError(
            f"folds must be from 2 to the number of groups, {len(names)} in {coco.path} ({found}), got {k}; "
            "lower it, or take usable_folds, which makes as many as there can be"
        )
    return Folds(coco, assigned(coco, groups, np.full(k, 1 / k), seed, view_pattern), groups, seed)


def usable_folds(
    coco: CocoFile, k: int, view_pattern: str | None, seed: int = 0, *, clusters: Clusters | None = None
) -> Folds:
    """At most k parts: of whole cameras where there are two or more. With one camera its scenes are told apart, and
    without that, or without names that tell, the images. A single group is all of fold 0."""
    level = usable_level(coco, view_pattern, 2, clusters)
    groups = groups_of(coco, view_pattern, level, clusters)
    k = min(k, len(set(groups)))
    if k < 2:
        return Folds(coco, np.zeros(len(groups), np.int64), groups, seed)
    return grouped_folds(coco, k, view_pattern, seed, level=level, clusters=clusters)


def fold_of(
    coco: CocoFile, k: int, seed: int, view_pattern: str | None, clusters: Clusters | None = None
) -> dict[int, int]:
    """image id -> fold of usable_folds, for fitting on all folds but one and judging on that one."""
    return usable_folds(coco, k, view_pattern, seed, clusters=clusters).as_dict()


def usable_level(coco: CocoFile, view_pattern: str | None, least: int, clusters: Clusters | None = None) -> Level:
    """The coarsest level with at least so many groups; images where none has."""
    found = (level for level in LEVELS if len(set(groups_of(coco, view_pattern, level, clusters))) >= least)
    return next(found, "image")


def split_report(
    coco: CocoFile,
    report_share: float,
    view_pattern: str | None,
    clusters: Clusters | None = None,
    seed: int = 0,
) -> tuple[CocoFile, CocoFile | None]:
    """-> what choices are made on, and what is only reported on; a share of 0 (or a single image) keeps all for the
    choices: (coco, None).

    The report is of whole cameras where at least 3 of them come near the share, else of whole scenes, else of images.
    """
    if not 0 <= report_share < 1:
        raise ValueError(f"report_share must be from 0 to less than 1, got {report_share}")
    if report_share == 0 or len(coco.records) < 2:
        return coco, None
    is_report = report_mask(coco, report_share, seed, view_pattern, clusters)
    return part(coco, ~is_report), part(coco, is_report)


def report_mask(
    coco: CocoFile, share: float, seed: int, view_pattern: str | None, clusters: Clusters | None
) -> np.ndarray:
    """(images,) bool."""
    for level in LEVELS:
        groups = groups_of(coco, view_pattern, level, clusters)
        is_last = level == LEVELS[-1]
        if len(set(groups)) < (2 if is_last else LEAST_GROUPS):
            continue
        is_report = assigned(coco, groups, np.array([1 - share, share]), seed, view_pattern) == 1
        if is_last or abs(is_report.mean() - share) <= NEAR_SHARE * share:
            return is_report
    return np.arange(len(coco.records)) >= len(coco.records) * (1 - share)  # all images are alike: one cluster


def part(coco: CocoFile, stays: np.ndarray) -> CocoFile:
    """stays: (images,) bool, in order of coco.records."""
    if isinstance(coco.records, Records):
        return replace(coco, records=Records(coco.records.columns.take(stays)))
    return replace(coco, records=[record for record, own in zip(coco.records, stays, strict=True) if own])


# --- as equal as can be ---


def assigned(
    coco: CocoFile, groups: Sequence[str], shares: np.ndarray, seed: int, view_pattern: str | None
) -> np.ndarray:
    """The part of each image: shares (k,), sum 1 -> (images,) int64."""
    names, group = np.unique(np.asarray(groups, str), return_inverse=True)
    contents = np.zeros((len(names), 2 * len(coco.names) + 2))  # (G, traits)
    first = 0
    for block in traits(coco, view_pattern):
        np.add.at(contents, group[first : first + len(block)], block)
        first += len(block)
    return balanced(contents, shares, seed)[group]


def traits(coco: CocoFile, view_pattern: str | None) -> Iterator[np.ndarray]:
    """What is to be shared out: boxes of each class, the same by night, images, images by night -> (n, 2K + 2) for some
    images after the other, as shares of the whole file. What the file does not have is 0."""
    weights = np.ones(2 * len(coco.names) + 2)
    weights[len(coco.names)] = IMAGES_WEIGHT
    labels = [targets_of(record)[1].astype(np.int32) for record in coco.records]
    is_night = np.array([group_of(name, view_pattern) == "night" for name in names_of(coco)], bool)
    blocks = [slice(first, first + BLOCK) for first in range(0, len(labels), BLOCK)]
    sums = np.zeros(len(weights))
    for block in blocks:
        sums += counts_of(labels[block], is_night[block], len(coco.names)).sum(axis=0)
    for block in blocks:
        counts = counts_of(labels[block], is_night[block], len(coco.names))
        yield counts / np.maximum(sums, 1) * np.sqrt(weights)


def counts_of(labels: Sequence[np.ndarray], is_night: np.ndarray, classes: int) -> np.ndarray:
    """Boxes of each class and the image itself, and the same by night -> (n, 2K + 2). labels: of n images."""
    counts = np.zeros((len(labels), classes + 1))
    for row, own in enumerate(labels):
        counts[row, :classes] = np.bincount(own, minlength=classes)
    counts[:, classes] = 1
    return np.concatenate([counts, counts * is_night[:, None]], axis=1)


def balanced(contents: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """The part of each group, none without a group: contents (G, traits), shares (k,) -> (G,) int64.

    Wanted is the least sum of squared differences between what a part has and its share of all. Groups are dealt from
    the largest down, each to the part that lacks it most; then single moves and swaps as long as one helps.
    """
    best, least = np.zeros(len(contents), np.int64), np.inf
    for restart in range(RESTARTS if len(contents) <= MOST_SWAPPED else 1):
        rng = np.random.default_rng([seed, restart])
        found = improved(dealt(contents, shares, rng), contents, shares)
        cost = float((surplus(found, contents, shares) ** 2).sum())
        if cost < least - 1e-12:
            best, least = found, cost
    return best


def surplus(fold: np.ndarray, contents: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """What each part has above its share: (G,), (G, traits), (k,) -> (k, traits)."""
    result = -shares[:, None] * contents.sum(axis=0)
    np.add.at(result, fold, contents)
    return result


def dealt(contents: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Large groups first, groups of about one size in a random order -> (G,) int64."""
    sizes = np.linalg.norm(contents, axis=1) * rng.uniform(0.8, 1.25, len(contents))
    above = -shares[:, None] * contents.sum(axis=0)  # (k, traits)
    fold, members = np.zeros(len(contents), np.int64), np.zeros(len(shares), np.int64)
    for left, group in zip(range(len(contents), 0, -1), np.argsort(-sizes, kind="stable"), strict=True):
        change = 2 * above @ contents[group] + (contents[group] ** 2).sum()  # (k,) of the cost
        if left <= (members == 0).sum():  # each of the last groups has an empty part waiting
            change = np.where(members == 0, change, np.inf)
        fold[group] = change.argmin()
        above[fold[group]] += contents[group]
        members[fold[group]] += 1
    return fold


def improved(fold: np.ndarray, contents: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The best single move or swap, again and again, until none lowers the cost -> (G,) int64."""
    fold = fold.copy()
    for changed in changes(fold, contents, shares):
        for group, target in changed:
            fold[group] = target
    return fold


def changes(fold: np.ndarray, contents: np.ndarray, shares: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Yields (group, new part) pairs to be carried out on `fold` before the next is asked for. Each lowers the cost, of
    which there are finitely many values, so there is an end."""
    norms = (contents**2).sum(axis=1)  # (G,)
    while True:
        above = surplus(fold, contents, shares)
        pull = contents @ above.T  # (G, k)
        own = pull[np.arange(len(fold)), fold][:, None]  # (G, 1)
        moves = 2 * (pull - own + norms[:, None])  # (G, k): what a move to each part changes
        moves[np.arange(len(fold)), fold] = 0
        moves[np.bincount(fold, minlength=len(shares))[fold] == 1] = 0  # no part is left empty
        gain, group, target = least_of(moves)
        swap_gain, one, other = 0.0, 0, 0
        if len(fold) <= MOST_SWAPPED:
            swap_gain, one, other = least_of(swaps(fold, contents, pull, norms))
        if min(gain, swap_gain) >= -1e-12:
            return
        yield [(group, target)] if gain <= swap_gain else [(one, int(fold[other])), (other, int(fold[one]))]


def swaps(fold: np.ndarray, contents: np.ndarray, pull: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """What changing places changes: (G,), (G, traits), (G, k), (G,) -> (G, G)."""
    there = pull[:, fold]  # (G, G): pull of row's content by the part of the column
    own = np.diag(there)
    distance = norms[:, None] + norms[None, :] - 2 * contents @ contents.T
    result: np.ndarray = 2 * (there + there.T - own[:, None] - own[None, :] + distance)
    result[fold[:, None] == fold[None, :]] = 0
    return result


def least_of(table: np.ndarray) -> tuple[float, int, int]:
    """The least value with its row and column."""
    row, column = np.unravel_index(int(table.argmin()), table.shape)
    return float(table[row, column]), int(row), int(column)
