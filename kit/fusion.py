"""What `kit.ensemble` is made of: one table of all models' boxes, and what each method makes of it.

All images and labels are worked on at once; only the loops that cannot be (a box may move the next one's cluster)
are compiled, by Numba, in less than a second at their first call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numba import njit

Confidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]
Decay = Literal["linear", "gaussian"]
Order = Callable[[np.ndarray], np.ndarray]  # of some scores, rising


@dataclass(frozen=True)
class Found:
    """The boxes of all models, model by model, as they stood in its list; of any number of images.

    boxes_xyxy: (N, 4) float64 in [0, 1], none empty; scores: (N,) as the models gave them; images, labels, models,
    rows: (N,) int64, labels in 0..K-1; label_ids: (K,) what they are called outside, rising.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    models: np.ndarray
    rows: np.ndarray
    label_ids: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """(N,) one number for each image and label."""
        return self.images * len(self.label_ids) + self.labels


@dataclass(frozen=True)
class Fused:
    """M fused boxes in the order they are handed out: boxes_xyxy (M, 4), scores, images, labels (M,).

    members: (A,) rows of Found, the best weighted score first; owners: (A,) the fused box that each went into.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    members: np.ndarray
    owners: np.ndarray

    def take(self, order: np.ndarray) -> "Fused":
        """order: (L,) which boxes, in which order."""
        place = np.full(len(self.scores), -1)
        place[order] = np.arange(len(order))
        owners = place[self.owners]  # (A,), -1 where the box goes
        boxes_xyxy, scores, images, labels = (
            each[order] for each in (self.boxes_xyxy, self.scores, self.images, self.labels)
        )
        return Fused(boxes_xyxy, scores, images, labels, self.members[owners >= 0], owners[owners >= 0])


# ---- what goes in ----


def found_in(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    images_list: Sequence[np.ndarray] | None = None,
    skip: float = 0.0,
) -> Found:
    """One table of all models' boxes: corners sorted and cut at the rim; without the weak (< skip) and the empty."""
    if not len(boxes_list) == len(scores_list) == len(labels_list):
        lengths = f"{len(boxes_list)}, {len(scores_list)}, {len(labels_list)}"
        raise ValueError(f"boxes, scores, labels: expected one list a model in each, got {lengths}")
    boxes = [np.asarray(each, np.float64).reshape(-1, 4) for each in boxes_list]
    counts = [len(each) for each in boxes]
    if counts != [len(each) for each in scores_list] or counts != [len(each) for each in labels_list]:
        raise ValueError("boxes, scores, labels: expected as many of each in every model; check how they were split")
    strong = joined([np.asarray(each) >= skip for each in scores_list], bool)
    scores = joined(scores_list, np.float64)
    if not np.all((scores >= 0) & (scores < np.inf)):
        wrong = scores[~((scores >= 0) & (scores < np.inf))][0]
        raise ValueError(f"scores: expected 0 or more, got {wrong}; look at the model that gave them")
    boxes_xyxy = inside(joined(boxes, np.float64).reshape(-1, 4))
    size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    images = np.zeros(len(scores), np.int64) if images_list is None else joined(images_list, np.int64)
    kept = np.flatnonzero(strong & (size[:, 0] * size[:, 1] > 0))
    label_ids, labels = np.unique(joined(labels_list, np.int64)[kept], return_inverse=True)
    models = np.repeat(np.arange(len(counts)), counts)[kept]
    rows = joined([np.arange(count) for count in counts], np.int64)[kept]
    return Found(boxes_xyxy[kept], scores[kept], images[kept], labels, models, rows, label_ids)


def joined(parts: Sequence[Any], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(part).astype(dtype).ravel() for part in parts)])


def inside(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, 4) -> (N, 4) the low corner first, cut at the image; far outside is an error."""
    if not np.all((boxes_xyxy > -1) & (boxes_xyxy < 2)):
        wrong = boxes_xyxy[~((boxes_xyxy > -1) & (boxes_xyxy < 2)).all(axis=1)][0]
        raise ValueError(
            f"boxes: expected corners in [0, 1] of the image, got {wrong.round(3).tolist()}; "
            "are they pixels, or were they found in an image of another size?"
        )
    low, high = np.minimum(boxes_xyxy[:, :2], boxes_xyxy[:, 2:]), np.maximum(boxes_xyxy[:, :2], boxes_xyxy[:, 2:])
    return np.concatenate([low, high], axis=1).clip(0, 1)


def checked_weights(weights: Sequence[float] | None, models: int) -> np.ndarray:
    """-> (models,) all 1 without any."""
    values = np.array([1.0] * models if weights is None or len(weights) == 0 else weights, dtype=np.float64)
    if len(values) != models or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"weights: expected {models} numbers over 0, one a model, got {values.tolist()}")
    return values


# ---- order ----


def falling(scores: np.ndarray, groups: np.ndarray, argsort: Order = np.argsort) -> np.ndarray:
    """(N,) rows by group, in each by falling score; equal scores in the reverse of what argsort makes of the group."""
    order = np.lexsort((-scores, groups))
    scores_, groups_ = scores[order], groups[order]
    tied = (scores_[1:] == scores_[:-1]) & (groups_[1:] == groups_[:-1])
    for group in np.unique(groups_[1:][tied]):
        start, end = np.searchsorted(groups_, [group, group + 1])
        rows = np.sort(order[start:end])
        order[start:end] = rows[argsort(scores[rows])[::-1]]
    return order


def starts_of(groups: np.ndarray) -> np.ndarray:
    """(N,) numbers from 0, equal ones together -> (groups + 1,) where each begins, and N."""
    return np.append(np.flatnonzero(np.diff(groups, prepend=-1)), len(groups))


def rising_as_numba(scores: np.ndarray) -> np.ndarray:
    """Numba's order, which keeps equals in place among up to 15: there without compiling."""
    return np.argsort(scores, kind="stable") if len(scores) <= 15 else numba_argsort(scores)


@njit
def numba_argsort(scores):  # type: ignore[no-untyped-def]  # Numba finds the types
    return scores.argsort()


def best_first(fused: Fused, top_k: int | None) -> Fused:
    """By image, then by falling score, equal ones as they stand; of each image no more than top_k."""
    order = np.lexsort((-fused.scores, fused.images))
    images = fused.images[order]
    rank = np.arange(len(order)) - np.searchsorted(images, images)  # (M,) in its image
    return fused.take(order if top_k is None else order[rank < top_k])


# ---- what is made of it ----


@dataclass(frozen=True)
class Clusters:
    """Boxes that overlap, image by image and label by label, in the order in which their first members came.

    members: (A,) rows of Found in the order they were looked at; owners: (A,) the cluster of each; first: (M,) and
    boxes_xyxy: (M, 4) its first member and its box; sums: (M, 4) float32 and masses: (M,) of score (NMW: times IoU).
    """

    members: np.ndarray
    owners: np.ndarray
    first: np.ndarray
    boxes_xyxy: np.ndarray
    sums: np.ndarray
    masses: np.ndarray

    def fused(self, boxes_xyxy: np.ndarray, scores: np.ndarray, found: Found) -> Fused:
        images, labels = found.images[self.first], found.labels[self.first]
        return Fused(boxes_xyxy, scores, images, labels, self.members, self.owners)


def clustered(found: Found, scores: np.ndarray, iou: float, moving: bool, argsort: Order = np.argsort) -> Clusters:
    """Each box joins the cluster of its image and label that it overlaps most and by more than iou, or founds one."""
    members = falling(scores, found.groups, argsort)
    groups = found.groups[members]
    starts = starts_of(groups)
    boxes_xyxy, scores = found.boxes_xyxy[members], scores[members]
    count = len(members)
    owners, first = np.empty(count, np.int64), np.empty(count, np.int64)
    leaders, sums, masses = np.empty((count, 5)), np.zeros((count, 4), np.float32), np.zeros(count)
    number = join_boxes(boxes_xyxy, scores, starts, float(iou), moving, owners, first, leaders, sums, masses)
    return Clusters(members, owners, members[first[:number]], leaders[:number, :4], sums[:number], masses[:number])


@njit(nogil=True)
def join_boxes(boxes, scores, starts, iou, moving, owners, first, leaders, sums, masses):  # type: ignore[no-untyped-def]
    """The loop of `clustered`, written so that it compiles fast -> how many clusters.

    moving: a cluster's box is its members' mean, in float32; else its first member's. Written: owners (N,), and of each
    cluster first (N,), leaders (N, 5) its box and area, sums (N, 4) float32 and masses (N,), which start at 0.
    """
    clusters = 0
    for group in range(len(starts) - 1):
        oldest = clusters
        for row in range(starts[group], starts[group + 1]):
            x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
            area = (x2 - x1) * (y2 - y1)
            best, best_iou = -1, iou
            for cluster in range(oldest, clusters):
                width = min(leaders[cluster, 2], x2) - max(leaders[cluster, 0], x1)
                height = min(leaders[cluster, 3], y2) - max(leaders[cluster, 1], y1)
                if width > 0 and height > 0:
                    overlap = width * height
                    overlap = overlap / (leaders[cluster, 4] + area - overlap)
                    if overlap > best_iou:
                        best, best_iou = cluster, overlap
            founds = best < 0
            if founds:
                best, best_iou = clusters, 1.0
                clusters += 1
                first[best] = row
            owners[row] = best
            mass = scores[row] if moving else scores[row] * best_iou
            masses[best] += mass
            for side in range(4):
                sums[best, side] += mass * boxes[row, side]
                if founds:
                    leaders[best, side] = boxes[row, side]
                elif moving and masses[best] > 0:
                    leaders[best, side] = np.float32(sums[best, side] / masses[best])
            leaders[best, 4] = (leaders[best, 2] - leaders[best, 0]) * (leaders[best, 3] - leaders[best, 1])
    return clusters


def wbf_of(
    found: Found, weights: np.ndarray, iou: float, confidence: Confidence = "avg", allows_overflow: bool = False
) -> Fused:
    clusters = clustered(found, found.scores * weights[found.models], iou, moving=True)
    counts = np.bincount(clusters.owners)  # (M,)
    best = (found.scores * weights[found.models])[clusters.first]  # (M,)
    scores = best if confidence == "max" else clusters.masses / counts
    scores = np.where(counts > 1, scores.astype(np.float32), scores)
    if confidence == "avg":
        scores = scores * (counts if allows_overflow else np.minimum(len(weights), counts)) / weights.sum()
    elif confidence == "max":
        scores = scores / weights.max(initial=0)
    else:
        scores = scores_by_presence(found, clusters, scores, counts, weights, confidence)
    return in_falling_order(clusters.fused(clusters.boxes_xyxy, scores, found), found)


def scores_by_presence(
    found: Found, clusters: Clusters, scores: np.ndarray, counts: np.ndarray, weights: np.ndarray, kind: Confidence
) -> np.ndarray:
    """The confidences that ask which models have found a cluster: (M,) mean scores, (M,) counts -> (M,)."""
    models = found.models[clusters.members]
    mass = np.bincount(clusters.owners, weights=weights[models])  # (M,) of weights, one for each member
    mass = np.where(counts > 1, mass.astype(np.float32), mass)
    present = np.zeros((len(counts), len(weights)), dtype=bool)
    present[clusters.owners, models] = True
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    if kind == "box_and_model_avg":
        there = np.array([weights[pattern].sum() for pattern in patterns])[which]
        return scores * counts / mass * there / weights.sum()
    if kind == "absent_model_aware_avg":
        absent = np.array([weights[~pattern].sum() for pattern in patterns])[which]
        return scores * counts / (mass + absent)
    raise ValueError(f"conf_type: expected avg, max, box_and_model_avg or absent_model_aware_avg, got {kind!r}")


def nmw_of(found: Found, weights: np.ndarray, iou: float) -> Fused:
    weighted = found.scores * (weights / weights.max(initial=0))[found.models]
    clusters = clustered(found, weighted, iou, moving=False)
    masses = clusters.masses[:, None]
    means = clusters.sums / np.where(masses > 0, masses, 1)
    boxes_xyxy = np.where(masses > 0, means, clusters.boxes_xyxy).astype(np.float32)
    fused = in_falling_order(clusters.fused(boxes_xyxy, weighted[clusters.first].astype(np.float32), found), found)
    return replace(fused, boxes_xyxy=fused.boxes_xyxy.astype(np.float64), scores=fused.scores.astype(np.float64))


def in_falling_order(fused: Fused, found: Found) -> Fused:
    """Best first in each image; equal scores as they stand, the label first whose first box stands first in Found."""
    starts = starts_of(found.groups[fused.members])
    seen = np.minimum.reduceat(fused.members, starts[:-1])  # (groups,) the first row of Found
    clusters = np.diff(np.append(fused.owners[starts[:-1]], len(fused.scores)))  # (groups,) how many of each
    standing = np.argsort(np.repeat(seen, clusters), kind="stable")
    return fused.take(standing[falling(fused.scores[standing], fused.images[standing])])


def nms_of(found: Found, weights: np.ndarray, total: float, iou: float) -> Fused:
    scores = found.scores * weights[found.models] / total
    clusters = clustered(found, scores, iou, moving=False, argsort=rising_as_numba)
    return clusters.fused(clusters.boxes_xyxy, scores[clusters.first], found)


def soft_nms_of(
    found: Found,
    weights: np.ndarray,
    total: float,
    iou: float,
    decay: Decay = "gaussian",
    sigma: float = 0.5,
    thresh: float = 0.001,
    lowered: bool = True,
) -> Fused:
    if decay not in ("linear", "gaussian"):
        raise ValueError(f"decay: expected linear or gaussian, got {decay!r}")
    scores = found.scores * weights[found.models] / total
    members = np.argsort(found.groups, kind="stable")
    after = scores[members]
    for start, end in pairwise(starts_of(found.groups[members])):
        order, rows = np.arange(end - start), members[start:end]
        select_softly(decays(found.boxes_xyxy[rows], iou, decay, sigma), after[start:end], order)
        members[start:end] = rows[order]
    members, after = members[after > thresh], after[after > thresh]
    return Fused(
        found.boxes_xyxy[members],
        after if lowered else scores[members],
        found.images[members],
        found.labels[members],
        members,
        np.arange(len(members)),
    )


def decays(boxes_xyxy: np.ndarray, iou: float, decay: Decay, sigma: float) -> np.ndarray:
    """(N, 4) -> (N, N) what each box leaves of the score of each other."""
    ious = np.zeros((len(boxes_xyxy), len(boxes_xyxy)))
    fill_ious(boxes_xyxy, ious)
    touching = ious > (iou if decay == "linear" else 0)
    values = ious[touching]  # few of the N * N
    left = np.ones_like(ious)
    left[touching] = 1 - values if decay == "linear" else np.exp(-(values * values) / sigma)
    return left


@njit(nogil=True)
def fill_ious(boxes, ious):  # type: ignore[no-untyped-def]  # Numba finds the types
    """boxes: (N, 4) xyxy; ious: (N, N) zeros, written where boxes overlap."""
    for a in range(len(boxes)):
        for b in range(a + 1):
            width = min(boxes[a, 2], boxes[b, 2]) - max(boxes[a, 0], boxes[b, 0])
            height = min(boxes[a, 3], boxes[b, 3]) - max(boxes[a, 1], boxes[b, 1])
            if width > 0 and height > 0:
                overlap = width * height
                area_a = (boxes[a, 2] - boxes[a, 0]) * (boxes[a, 3] - boxes[a, 1])
                area_b = (boxes[b, 2] - boxes[b, 0]) * (boxes[b, 3] - boxes[b, 1])
                ious[a, b] = ious[b, a] = overlap / (area_a + area_b - overlap)


@njit(nogil=True)
def select_softly(decay, scores, order):  # type: ignore[no-untyped-def]  # Numba finds the types
    """decay: (N, N); scores: (N,), lowered and put in the order of choice; order: (N,) the same done to 0..N-1."""
    for place in range(len(scores)):
        best = place
        for other in range(place + 1, len(scores)):
            if scores[other] > scores[best]:
                best = other
        order[place], order[best] = order[best], order[place]
        scores[place], scores[best] = scores[best], scores[place]
        for other in range(place + 1, len(scores)):
            scores[other] *= decay[order[place], order[other]]
