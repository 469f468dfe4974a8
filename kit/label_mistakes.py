"""Labels that are likely wrong, the most likely first: where a detector that is sure of itself contradicts the file."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torchvision.ops import batched_nms

from kit.errors import LEAST_IOU, find_overlaps
from kit.metrics.matches import find_pairs, match_greedily
from kit.metrics.tables import Entries, Tables, read_tables

KINDS = ("missing", "class", "place", "spurious")
FOUND_IOU = 0.5  # from here on a detection has found an object
WELL_PLACED_IOU = 0.7  # from here on label and detection agree about the place
LEAST_SCORE = 0.05  # lower ones say nothing
SURE = 0.9  # share of the right detections that have a lower score than a sure one
SIZES = 4  # groups of equally many labels, by area
EVEN_OUT = 8  # labels of the class, whatever their size, that are added to such a group
NO_CAP = 2**31
SIDES = ("x_px", "y_px", "w_px", "h_px")


def find_label_mistakes(predictions: Entries, annotations: Entries, *, least_suspicion: float = 0.4) -> pd.DataFrame:
    """A row each suspect, the most likely mistake first.

    kind:
        missing   detected where the file has nothing
        class     detected as another class than the file says
        place     detected at another place or size: the overlap is small
        spurious  in the file, not detected, though most of its class and size are
    suspicion: 0..1, how sure the detector is that the file is wrong. image_id, file_name; annotation_id (0: missing),
    category (of the file, empty: missing), suggestion (of the detector, empty: spurious); row of the prediction (-1:
    spurious), score (NaN: spurious), iou of the two; x_px, y_px, w_px, h_px of the detection (of the label: spurious),
    label_x_px, ... of the label (NaN: missing).
    """
    tables = read_tables(predictions, annotations)
    look = look_at(tables)
    finders = (missing, of_other_class, misplaced, spurious)
    kinds = [find(tables, look).assign(kind=kind) for kind, find in zip(KINDS, finders, strict=True)]
    found = pd.concat(kinds, ignore_index=True)
    found["score"] = np.append(look.score, np.nan)[found["detection"]]
    found = found[found["suspicion"] >= least_suspicion].sort_values(["suspicion", "score"], ascending=False)
    repeated = (found["truth"] >= 0) & found["truth"].duplicated()  # of one label the most suspicious stays
    return described(tables, look, found[~repeated].reset_index(drop=True))


# What the detector makes of the file.


@dataclass(frozen=True)
class Look:
    """The D detections that say something, what each has found, and every label it overlaps."""

    rows: np.ndarray  # (D,) in the table of detections
    image: np.ndarray  # (D,)
    label: np.ndarray  # (D,)
    boxes_xywh_px: np.ndarray  # (D, 4)
    score: np.ndarray  # (D,)
    trust: np.ndarray  # (D,) 0..1, the score in shares of a sure one
    own: np.ndarray  # (D,) the annotation of its class that it has found, or -1
    detection: np.ndarray  # (pairs,) in 0..D-1; pairs of any two classes, crowds included
    truth: np.ndarray  # (pairs,) row of the annotation
    iou: np.ndarray  # (pairs,)
    same: np.ndarray  # (pairs,) bool, of one class


def look_at(tables: Tables) -> Look:
    truths, detections = tables.truths, tables.detections
    pairs = find_pairs(tables, NO_CAP, FOUND_IOU)
    own = np.full(len(detections.image), -1)
    own[pairs.rows] = match_greedily(pairs, truths.is_crowd, truths.is_crowd, np.array([FOUND_IOU]))[:, 0]
    rows = np.flatnonzero(detections.score >= LEAST_SCORE)
    score, own = detections.score[rows], own[rows]
    near = find_overlaps(tables, rows, np.arange(len(truths.image)), LEAST_IOU)
    return Look(
        rows,
        detections.image[rows],
        detections.label[rows],
        detections.boxes_xywh_px[rows],
        score,
        np.minimum(score / sure_score(score[own >= 0]), 1),
        own,
        *(near.detection, near.truth, near.iou, near.same),
    )


def sure_score(right: np.ndarray) -> float:
    """What a sure detection scores, by the scores of the right ones (n,): 0.9 with one detector, 0.5 with another."""
    return float(np.quantile(right, SURE)) if len(right) else 1.0


# The kinds: tables of detection (in 0..D-1, -1: none), truth (row of the annotation, -1: none), iou and suspicion.


def missing(tables: Tables, look: Look) -> pd.DataFrame:
    """Detections that no label accounts for, and of several on one spot the surest."""
    is_found = np.isin(np.arange(len(tables.truths.image)), look.own)
    accounts = (look.iou >= FOUND_IOU) | ~is_found[look.truth] | tables.truths.is_crowd[look.truth]
    is_free = look.own < 0
    is_free[look.detection[accounts]] = False
    rows = np.flatnonzero(is_free)
    low, size = look.boxes_xywh_px[rows, :2], look.boxes_xywh_px[rows, 2:]
    boxes_xyxy_px = torch.from_numpy(np.concatenate([low, low + size], axis=1))
    score, image = torch.from_numpy(look.score[rows]), torch.from_numpy(look.image[rows])
    rows = rows[batched_nms(boxes_xyxy_px, score, image, FOUND_IOU).numpy()]
    return suspects(rows, np.full(len(rows), -1), np.zeros(len(rows)), look.trust[rows])


def of_other_class(tables: Tables, look: Look) -> pd.DataFrame:
    """Detections of another class on a label, as far as its own class is not detected there."""
    on_it = look.iou >= FOUND_IOU
    confirmed = largest(look.truth, look.trust[look.detection], look.same & on_it, len(tables.truths.image))
    is_explained = look.own >= 0  # by a label of its own class, which it or a better one has found
    is_explained[look.detection[look.same & on_it]] = True
    chosen = on_it & ~look.same & ~is_explained[look.detection] & ~tables.truths.is_crowd[look.truth]
    detection, truth = look.detection[chosen], look.truth[chosen]
    return suspects(detection, truth, look.iou[chosen], look.trust[detection] * (1 - confirmed[truth]))


def misplaced(tables: Tables, look: Look) -> pd.DataFrame:
    """Labels that even the nearest detection of their class overlaps too little: the less, the more suspicious."""
    own = look.own[look.detection]
    is_its = look.same & ((own == look.truth) | (own < 0)) & ~tables.truths.is_crowd[look.truth]
    nearest = largest(look.truth, look.iou, is_its, len(tables.truths.image))
    chosen = is_its & (look.iou == nearest[look.truth]) & (look.iou < WELL_PLACED_IOU)
    detection, iou = look.detection[chosen], look.iou[chosen]
    gap = (WELL_PLACED_IOU - iou) / (WELL_PLACED_IOU - LEAST_IOU)  # 0..1
    return suspects(detection, look.truth[chosen], iou, look.trust[detection] * gap)


def spurious(tables: Tables, look: Look) -> pd.DataFrame:
    """Labels with no detection on them, as far as others of their class and size have one."""
    truths = tables.truths
    own = look.own[look.detection]
    seen = largest(look.truth, look.trust[look.detection], (own == look.truth) | (own < 0), len(truths.image))
    rows = np.flatnonzero(~truths.is_crowd)
    sides_px = truths.boxes_xywh_px[rows, 2:]
    expected = expected_of(truths.label[rows], sides_px[:, 0] * sides_px[:, 1], seen[rows])
    return suspects(np.full(len(rows), -1), rows, np.zeros(len(rows)), expected * (1 - seen[rows]))


def expected_of(label: np.ndarray, area_px2: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean of `seen` among labels of like class and size: (n,) x 3 -> (n,)."""
    expected = np.zeros(len(seen))
    for each in np.unique(label):
        own = np.flatnonzero(label == each)
        mean = seen[own].mean()
        for rows in np.array_split(own[np.argsort(area_px2[own], kind="stable")], SIZES):
            expected[rows] = (seen[rows].sum() + EVEN_OUT * mean) / (len(rows) + EVEN_OUT)
    return expected


def largest(index: np.ndarray, value: np.ndarray, chosen: np.ndarray, length: int) -> np.ndarray:
    """Of each index the largest chosen value, 0 without any: (pairs,) x 3 -> (length,)."""
    best = np.zeros(length)
    np.maximum.at(best, index[chosen], value[chosen])
    return best


def suspects(detection: np.ndarray, truth: np.ndarray, iou: np.ndarray, suspicion: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"detection": detection, "truth": truth, "iou": iou, "suspicion": suspicion})


# The table.


def described(tables: Tables, look: Look, found: pd.DataFrame) -> pd.DataFrame:
    """Row numbers turned into what a person, or a labelling tool, needs."""
    detection, truth = found["detection"].to_numpy(), found["truth"].to_numpy()
    is_detected, nothing = detection >= 0, np.full((1, 4), np.nan)
    label_xywh_px = np.vstack([tables.truths.boxes_xywh_px, nothing])[truth]
    boxes_xywh_px = np.vstack([look.boxes_xywh_px, nothing])[detection]
    boxes_xywh_px = np.where(is_detected[:, None], boxes_xywh_px, label_xywh_px)
    image = np.where(is_detected, np.append(look.image, 0)[detection], np.append(tables.truths.image, 0)[truth])
    names = np.array([*tables.names, ""], dtype=object)
    return pd.DataFrame(
        {
            "suspicion": found["suspicion"],
            "kind": found["kind"],
            "image_id": [tables.image_ids[row] for row in image],
            "file_name": [tables.images[row].get("file_name", "") for row in image],
            "annotation_id": [tables.truths.annotation_ids[row] if row >= 0 else 0 for row in truth],
            "category": names[np.append(tables.truths.label, -1)[truth]],
            "suggestion": names[np.append(look.label, -1)[detection]],
            "row": np.append(look.rows, -1)[detection],
            "score": found["score"],
            "iou": found["iou"],
            **dict(zip(SIDES, boxes_xywh_px.T, strict=True)),
            **{f"label_{name}": column for name, column in zip(SIDES, label_xywh_px.T, strict=True)},
        }
    )
