"""COCO's matching of detections with objects, for all images, classes and IoU thresholds together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from kit.data.coco import CocoFile
from kit.metrics.tables import Detections, Entries, Tables, Truths, read_tables

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
ALL_AREAS = (0.0, 1e10)  # square pixels, both ends included


@dataclass(frozen=True)
class Matches:
    """Each detection that counts, and at which IoU thresholds it is right.

    Detections are matched from the highest score down, so those below a threshold never disturb those above it:
    these rows answer for every threshold. They stand by class, then by falling score, then by image.
    """

    image_ids: list[int]
    category_ids: list[int]
    names: tuple[str, ...]
    image: np.ndarray  # (detections,) row in image_ids
    label: np.ndarray  # (detections,) row in category_ids
    score: np.ndarray  # (detections,)
    rank: np.ndarray  # (detections,) 0 for the highest score of its class in its image
    is_true: np.ndarray  # (detections, ious) bool, matched to an object
    is_false: (
        np.ndarray
    )  # (detections, ious) bool, matched to nothing; neither: on a crowd or out of the area, not counted
    ground_truths: np.ndarray  # (images, K) int64, objects that count

    def subset(self, image_ids: Iterable[int]) -> "Matches":
        """Those of some images only."""
        wanted = set(image_ids)
        is_wanted = np.array([image_id in wanted for image_id in self.image_ids], dtype=bool)  # (images,)
        ground_truths = np.where(is_wanted[:, None], self.ground_truths, 0)
        return replace(self.keep(is_wanted[self.image]), ground_truths=ground_truths)

    def keep(self, kept: np.ndarray) -> "Matches":
        """Those of some detections only: kept (detections,) bool."""
        columns = ("image", "label", "score", "rank", "is_true", "is_false")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})


@dataclass(frozen=True)
class Pairs:
    """Detections that count, and the pairs (detection, annotation) of one image and class that overlap enough."""

    rows: np.ndarray  # (rows,) in the table of detections; by class, then falling score, then image
    rank: np.ndarray  # (rows,) 0 for the highest score of its class in its image
    detection: np.ndarray  # (pairs,) place in rows
    truth: np.ndarray  # (pairs,) row in the table of annotations
    iou: np.ndarray  # (pairs,)


def match(predictions: Entries, annotations: Entries | CocoFile, *, max_per_class_image: int = 100) -> Matches:
    """Detections against annotations, once; only the highest scores of each class in each image count."""
    tables = read_tables(predictions, annotations)
    return match_areas(tables, find_pairs(tables, max_per_class_image), ALL_AREAS)


def match_areas(tables: Tables, pairs: Pairs, area_px2: tuple[float, float]) -> Matches:
    """COCO's rule for an area range: objects outside are ignored, and so are detections that match them or,
    being outside, match nothing."""
    truths, detections = tables.truths, tables.detections
    ignored = truths.is_crowd | _outside(truths.area_px2, area_px2)
    matched = match_greedily(pairs, truths.is_crowd, ignored, IOU_THRESHOLDS)  # (rows, ious)
    on_ignored = (matched >= 0) & np.append(ignored, False)[matched]
    sides_px = detections.boxes_xywh_px[pairs.rows, 2:]  # (rows, 2)
    outside = _outside(sides_px[:, 0] * sides_px[:, 1], area_px2)
    classes = len(tables.category_ids)
    cells = (truths.image * classes + truths.label)[~ignored]
    ground_truths = np.bincount(cells, minlength=len(tables.image_ids) * classes)
    return Matches(
        tables.image_ids,
        tables.category_ids,
        tables.names,
        detections.image[pairs.rows],
        detections.label[pairs.rows],
        detections.score[pairs.rows],
        pairs.rank,
        (matched >= 0) & ~on_ignored,
        (matched < 0) & ~outside[:, None],
        ground_truths.reshape(len(tables.image_ids), classes),
    )


def find_pairs(tables: Tables, max_per_class_image: int, min_iou: float = IOU_THRESHOLDS[0]) -> Pairs:
    """The highest scores of each class in each image, with every annotation of that class they overlap."""
    truths, detections, classes = tables.truths, tables.detections, len(tables.category_ids)
    cell = detections.image * classes + detections.label
    rows = np.lexsort((-detections.score, cell))  # stable: of equal scores the first in the file comes first
    rank = _rank_in_run(cell[rows])
    rows, rank = rows[rank < max_per_class_image], rank[rank < max_per_class_image]
    order = np.lexsort((rank, detections.image[rows], -detections.score[rows], detections.label[rows]))
    rows, rank = rows[order], rank[order]
    detection, truth = _same_cell(cell[rows], truths.image * classes + truths.label)
    iou = iou_of_rows(detections, rows[detection], truths, truth)
    near = iou >= min_iou
    return Pairs(rows, rank, detection[near], truth[near], iou[near])


def match_greedily(pairs: Pairs, is_crowd: np.ndarray, ignored: np.ndarray, iou_thresholds: np.ndarray) -> np.ndarray:
    """From the highest score down, each detection takes the free object of largest IoU, of equal ones the last;
    an ignored one only if there is no other. A crowd is always free.

    is_crowd, ignored: (annotations,) bool -> (rows, ious), the annotation taken, or -1.
    Detections of one rank never compete, so all images and classes advance together, rank by rank.
    """
    rank, ignored_pair = pairs.rank[pairs.detection], ignored[pairs.truth]
    order = np.lexsort((-pairs.truth, -pairs.iou, ignored_pair, pairs.detection, rank))  # best first
    detection, truth = pairs.detection[order], pairs.truth[order]
    allowed = pairs.iou[order, None] >= iou_thresholds  # (pairs, ious)
    bounds = np.searchsorted(rank[order], np.arange(rank.max(initial=-1) + 2))

    matched = np.full((len(pairs.rows), len(iou_thresholds)), -1, dtype=np.int64)
    taken = np.zeros((len(is_crowd), len(iou_thresholds)), dtype=bool)
    for start, stop in pairwise(bounds.tolist()):
        if start == stop:
            continue
        free = allowed[start:stop] & (is_crowd[truth[start:stop], None] | ~taken[truth[start:stop]])
        first_of_detection = np.flatnonzero(np.diff(detection[start:stop], prepend=-1))
        candidates = np.where(free, np.arange(start, stop)[:, None], stop)  # (pairs of this rank, ious)
        choice = np.minimum.reduceat(candidates, first_of_detection, axis=0)  # (detections of this rank, ious)
        row, column = np.nonzero(choice < stop)
        choice = choice[row, column]
        matched[detection[choice], column] = truth[choice]
        taken[truth[choice], column] = True
    return matched


def iou_of_rows(detections: Detections, rows: np.ndarray, truths: Truths, truth_rows: np.ndarray) -> np.ndarray:
    """IoU of row i with row i, in pycocotools' order of operations; with a crowd, the share of the box inside it.

    rows, truth_rows: (pairs,) -> (pairs,)
    """
    a_xywh_px, b_xywh_px = detections.boxes_xywh_px[rows], truths.boxes_xywh_px[truth_rows]
    low = np.maximum(a_xywh_px[:, :2], b_xywh_px[:, :2])
    high = np.minimum(a_xywh_px[:, 2:] + a_xywh_px[:, :2], b_xywh_px[:, 2:] + b_xywh_px[:, :2])
    sides = high - low  # (pairs, 2)
    overlap = sides[:, 0] * sides[:, 1]
    a_area, b_area = a_xywh_px[:, 2] * a_xywh_px[:, 3], b_xywh_px[:, 2] * b_xywh_px[:, 3]
    union = np.where(truths.is_crowd[truth_rows], a_area, a_area + b_area - overlap)
    iou = np.zeros(len(rows))
    np.divide(overlap, union, out=iou, where=(sides > 0).all(axis=1))
    return iou


def _same_cell(detection_cell: np.ndarray, truth_cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every detection with every annotation of its image and class: (rows,), (annotations,) -> (pairs,), (pairs,)."""
    order = np.argsort(truth_cell, kind="stable")
    first, last = (np.searchsorted(truth_cell[order], detection_cell, side=side) for side in ("left", "right"))
    count = last - first
    detection = np.repeat(np.arange(len(detection_cell)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, ... within its detection
    return detection, order[first[detection] + place]


def _rank_in_run(ordered: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values: (n,) -> (n,)."""
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    return np.arange(len(ordered)) - np.repeat(start, np.diff(start, append=len(ordered)))


def _outside(area_px2: np.ndarray, limits_px2: tuple[float, float]) -> np.ndarray:
    return (area_px2 < limits_px2[0]) | (area_px2 > limits_px2[1])
