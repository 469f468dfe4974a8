"""Where a detector errs: each false detection and each missed object with its cause, as tables to count and to draw."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kit.metrics import TRACK4_AREAS, Groups, Matches, Thresholds, pr_f1_curve, read_tables
from kit.metrics.matches import Pairs, find_pairs, match_greedily
from kit.metrics.tables import Entries, Tables
from kit.metrics.thresholds import limit_table

FALSE_CAUSES = ("localisation", "confusion", "duplicate", "background")
MISSED_CAUSES = ("confusion", "localisation", "low_score", "unseen")
BACKGROUND = "background"
LEAST_IOU = 0.1  # below it, a detection has nothing to do with an object
DISTANCES = (0.0, 0.25, 0.5, 0.75, 1.0)  # from the image centre, in halves of the shorter side
DISTANCE_NAMES = ("0-0.25", "0.25-0.5", "0.5-0.75", "0.75-1", "over 1")
NO_CAP = 2**31


@dataclass(frozen=True)
class Errors:
    """What became of each detection above its threshold and of each object, at one IoU threshold.

    detections: row (in the predictions), image_id, category, score, x_px, y_px, w_px, h_px, outcome, iou (best with its
    own class), other (the class it lies on, if confused), counted_as (the class it takes in the confusion matrix),
    size, radius, distance. outcome: true; ignored (on a crowd); or the cause of the false positive,
        duplicate     on an object of its class that a higher score has taken
        confusion     on an object of another class
        localisation  overlaps an object of its class, too little
        background    none of these
    truths (crowds left out): annotation_id, image_id, category, x_px, ..., outcome, other, counted_as, size, radius,
    distance. outcome: found; or the cause of the false negative,
        confusion     a false detection of another class lies on it
        localisation  a false detection of its class overlaps it, too little
        low_score     one below the threshold would have found it
        unseen        none of these
    Where several hold, the first listed counts.
    """

    detections: pd.DataFrame
    truths: pd.DataFrame
    images: pd.DataFrame  # image_id, file_name
    names: tuple[str, ...]


def find_errors(
    predictions: Entries,
    annotations: Entries,
    thresholds: float | Thresholds,
    groups: Groups | None = None,
    *,
    iou: float = 0.5,
    areas: Mapping[str, tuple[float, float]] = TRACK4_AREAS,
    max_per_class_image: int = 100,
) -> Errors:
    """Match as the metrics do, then ask of each detection and object why. areas: the size bins, in square pixels."""
    tables = read_tables(predictions, annotations)
    truths, detections = tables.truths, tables.detections
    kept = _match_kept(
        tables, limit_table(thresholds, tables.image_ids, tables.category_ids, groups), iou, max_per_class_image
    )
    overlaps = find_overlaps(tables, kept.rows, np.flatnonzero(~truths.is_crowd), LEAST_IOU)
    outcome, own_iou, other = _detection_causes(tables, kept, overlaps, iou)
    truth_outcome, truth_other = _truth_causes(tables, kept, overlaps, iou)
    counted_as, truth_counted_as = _one_to_one(tables, kept, iou)
    names = np.array([*tables.names, BACKGROUND, ""], dtype=object)
    rows = kept.rows
    detection_table = pd.DataFrame(
        {"row": rows, **_class_columns(tables, detections.image[rows], detections.label[rows], groups)}
        | _place_columns(tables, detections.image[rows], detections.boxes_xywh_px[rows], None, areas)
        | {"score": detections.score[rows], "outcome": _ordered(outcome, ("true", "ignored", *FALSE_CAUSES))}
        | {"iou": own_iou, "other": names[other], "counted_as": names[counted_as]}
    )
    truth_table = pd.DataFrame(
        {"annotation_id": truths.annotation_ids, **_class_columns(tables, truths.image, truths.label, groups)}
        | _place_columns(tables, truths.image, truths.boxes_xywh_px, truths.area_px2, areas)
        | {"outcome": _ordered(truth_outcome, ("found", *MISSED_CAUSES))}
        | {"other": names[truth_other], "counted_as": names[truth_counted_as]}
    )
    files = [image.get("file_name", "") for image in tables.images]
    images = pd.DataFrame({"image_id": tables.image_ids, "file_name": files})
    return Errors(detection_table, truth_table[~truths.is_crowd].reset_index(drop=True), images, tables.names)


# Causes.


@dataclass(frozen=True)
class Kept:
    """The detections above their thresholds, and what they found."""

    rows: np.ndarray  # (kept,) in the table of detections, ascending
    taken: np.ndarray  # (kept,) the annotation found, or -1
    found: np.ndarray  # (annotations,) bool
    reachable: np.ndarray  # (annotations,) bool, found if nothing had been below its threshold


def _match_kept(tables: Tables, limits: np.ndarray, iou: float, max_per_class_image: int) -> Kept:
    """limits: (images, K), the thresholds."""
    truths, detections = tables.truths, tables.detections
    pairs = find_pairs(tables, max_per_class_image, min_iou=iou)
    matched = match_greedily(pairs, truths.is_crowd, truths.is_crowd, np.array([iou]))[:, 0]  # (rows,)
    image, label = detections.image[pairs.rows], detections.label[pairs.rows]
    is_high = np.flatnonzero(detections.score[pairs.rows] >= limits[image, label])
    order = is_high[np.argsort(pairs.rows[is_high])]
    everything = np.arange(len(truths.image))
    return Kept(pairs.rows[order], matched[order], np.isin(everything, matched[order]), np.isin(everything, matched))


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a chosen detection and a chosen object of its image, of any class."""

    detection: np.ndarray  # (pairs,) place among the chosen
    truth: np.ndarray  # (pairs,) row of the annotation
    iou: np.ndarray  # (pairs,)
    same: np.ndarray  # (pairs,) bool, of one class
    pairs: Pairs  # the same by places among the chosen


def find_overlaps(tables: Tables, rows: np.ndarray, truth_rows: np.ndarray, min_iou: float) -> Overlaps:
    """Of these detections with these annotations: all are given one class, and paired."""
    truths, detections = tables.truths, tables.detections
    some_detections = replace(
        detections,
        image=detections.image[rows],
        label=np.zeros_like(rows),
        boxes_xywh_px=detections.boxes_xywh_px[rows],
        score=detections.score[rows],
    )
    some_truths = replace(
        truths,
        image=truths.image[truth_rows],
        label=np.zeros_like(truth_rows),
        boxes_xywh_px=truths.boxes_xywh_px[truth_rows],
        is_crowd=truths.is_crowd[truth_rows],
    )
    one_class = replace(tables, category_ids=[0], detections=some_detections, truths=some_truths)
    pairs = find_pairs(one_class, NO_CAP, min_iou)
    detection, truth = pairs.rows[pairs.detection], truth_rows[pairs.truth]
    same = detections.label[rows[detection]] == truths.label[truth]
    return Overlaps(detection, truth, pairs.iou, same, pairs)


def _detection_causes(
    tables: Tables, kept: Kept, overlaps: Overlaps, iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, best IoU with the own class, and label of the class confused with (-1: none): (kept,) three times."""
    taken, same, count = kept.taken, overlaps.same, len(kept.taken)
    own_iou, _ = _best(overlaps.detection[same], overlaps.iou[same], overlaps.truth[same], count)
    other_iou, other_truth = _best(overlaps.detection[~same], overlaps.iou[~same], overlaps.truth[~same], count)
    on_crowd = (taken >= 0) & np.append(tables.truths.is_crowd, False)[taken]
    is_confused = (taken < 0) & (own_iou < iou) & (other_iou >= iou)
    outcome = np.select(
        [on_crowd, taken >= 0, own_iou >= iou, is_confused, own_iou >= LEAST_IOU],
        ["ignored", "true", "duplicate", "confusion", "localisation"],
        default="background",
    )
    return outcome, own_iou, np.where(is_confused, np.append(tables.truths.label, -1)[other_truth], -1)


def _truth_causes(tables: Tables, kept: Kept, overlaps: Overlaps, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcome, and label of the class confused with (-1: none): (annotations,) twice."""
    is_false, count = kept.taken[overlaps.detection] < 0, len(kept.found)
    on_it = is_false & ~overlaps.same & (overlaps.iou >= iou)
    near_it = is_false & overlaps.same & (overlaps.iou < iou)
    _, detection_on = _best(overlaps.truth[on_it], overlaps.iou[on_it], overlaps.detection[on_it], count)
    _, detection_near = _best(overlaps.truth[near_it], overlaps.iou[near_it], overlaps.detection[near_it], count)
    is_confused = ~kept.found & (detection_on >= 0)
    outcome = np.select(
        [kept.found, is_confused, detection_near >= 0, kept.reachable],
        ["found", "confusion", "localisation", "low_score"],
        default="unseen",
    )
    labels = np.append(tables.detections.label[kept.rows], -1)
    return outcome, np.where(is_confused, labels[detection_on], -1)


def _best(index: np.ndarray, iou: np.ndarray, partner: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each index and with whom; 0 and -1 without any: (pairs,) x 3 -> (length,) x 2."""
    order = np.argsort(iou, kind="stable")  # of repeated indices the last is stored
    best_iou, best_partner = np.zeros(length), np.full(length, -1)
    best_iou[index[order]], best_partner[index[order]] = iou[order], partner[order]
    return best_iou, best_partner


def _one_to_one(tables: Tables, kept: Kept, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """For the confusion matrix, false detections take missed objects, from the highest score down, classes aside.

    -> label of the object that each detection stands for (kept,), and of the detection that stands for each object
    (annotations,); the number of classes means background.
    """
    truth_label, label, background = tables.truths.label, tables.detections.label[kept.rows], len(tables.names)
    false, missed = np.flatnonzero(kept.taken < 0), np.flatnonzero(~kept.found & ~tables.truths.is_crowd)
    pairs = find_overlaps(tables, kept.rows[false], missed, iou).pairs
    nothing = np.zeros(len(missed), dtype=bool)
    matched = match_greedily(pairs, nothing, nothing, np.array([iou]))[:, 0]
    detection, truth = false[pairs.rows[matched >= 0]], missed[matched[matched >= 0]]
    counted_as = np.where(kept.taken >= 0, label, background)
    truth_counted_as = np.where(kept.found, truth_label, background)
    counted_as[detection], truth_counted_as[truth] = truth_label[truth], label[detection]
    return counted_as, truth_counted_as


# Columns.


def _class_columns(tables: Tables, image: np.ndarray, label: np.ndarray, groups: Groups | None) -> dict[str, Any]:
    image_ids = [tables.image_ids[row] for row in image]
    columns = {"image_id": image_ids, "category": _ordered(np.array(tables.names, dtype=object)[label], tables.names)}
    return columns | ({} if groups is None else {"group": [groups[image_id] for image_id in image_ids]})


def _place_columns(
    tables: Tables,
    image: np.ndarray,
    boxes_xywh_px: np.ndarray,
    area_px2: np.ndarray | None,
    areas: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Box, size bin, and distance of its centre from the image's."""
    unsized = [entry["id"] for entry in tables.images if not ("width" in entry and "height" in entry)]
    if unsized:
        raise ValueError(f"annotations: {len(unsized)} images lack width or height, such as {unsized[0]}; add them")
    sizes_wh = np.array([(entry["width"], entry["height"]) for entry in tables.images], dtype=np.float64)[image]
    offset = boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:] / 2 - sizes_wh / 2  # (boxes, 2)
    radius = np.hypot(offset[:, 0], offset[:, 1]) / (sizes_wh.min(axis=1, initial=np.inf) / 2)
    area_px2 = boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3] if area_px2 is None else area_px2
    size = np.searchsorted([limit for _, limit in areas.values()], area_px2)
    distance = np.searchsorted(DISTANCES, radius, side="right") - 1
    return {
        **dict(zip(("x_px", "y_px", "w_px", "h_px"), boxes_xywh_px.T, strict=True)),
        "size": _ordered(np.array(list(areas), dtype=object)[np.minimum(size, len(areas) - 1)], tuple(areas)),
        "radius": radius,
        "distance": _ordered(np.array(DISTANCE_NAMES, dtype=object)[distance], DISTANCE_NAMES),
    }


def _ordered(values: np.ndarray, names: tuple[str, ...]) -> pd.Categorical:
    return pd.Categorical(values, categories=list(names))


# Tables.


def false_positives_by(errors: Errors, by: str) -> pd.DataFrame:
    """Counts: a row each category, size or distance (or group, or image_id), a column each cause."""
    return _counts(errors.detections, by, FALSE_CAUSES)


def false_negatives_by(errors: Errors, by: str) -> pd.DataFrame:
    """As false_positives_by, of the objects that were missed."""
    return _counts(errors.truths, by, MISSED_CAUSES)


def scores_by(errors: Errors, by: str) -> pd.DataFrame:
    """true, false, missed, precision, recall, f1 (at one IoU) by category, size, distance, group or image_id.

    By size or distance a detection counts where it lies itself, an object where it lies: near a border of two bins
    they may differ, so recall is taken from the objects, precision from the detections.
    """
    of_detections = _counts(errors.detections, by, ("true", *FALSE_CAUSES))
    of_truths = _counts(errors.truths, by, ("found", *MISSED_CAUSES))
    index = of_detections.index.union(of_truths.index, sort=False)
    of_detections, of_truths = (counts.reindex(index, fill_value=0) for counts in (of_detections, of_truths))
    table = pd.DataFrame({"true": of_detections["true"], "false": of_detections[list(FALSE_CAUSES)].sum(axis=1)})
    table["missed"] = of_truths[list(MISSED_CAUSES)].sum(axis=1)
    table["precision"] = table["true"] / (table["true"] + table["false"]).clip(lower=1)
    table["recall"] = of_truths["found"] / (of_truths["found"] + table["missed"]).clip(lower=1)
    both = table["precision"] + table["recall"]
    table["f1"] = (2 * table["precision"] * table["recall"] / both.where(both > 0, 1)).astype(float)
    return table


def _counts(table: pd.DataFrame, by: str, outcomes: tuple[str, ...]) -> pd.DataFrame:
    if by not in table:
        raise ValueError(f"by must be one of the columns {', '.join(map(str, table.columns))}, got {by!r}")
    counts = table.groupby([by, "outcome"], observed=False).size().unstack("outcome", fill_value=0)
    counts.index, counts.columns = (pd.Index(list(axis), name=axis.name) for axis in counts.axes)  # not categories
    return counts.reindex(columns=list(outcomes), fill_value=0).rename_axis(columns=None)


def confusion_matrix(errors: Errors) -> pd.DataFrame:
    """Objects (rows) against what was detected in their place (columns), one to one; background: nothing was there,
    or nothing was found. A duplicate, and a confusion with an object that was also found, count as background."""
    names = [*errors.names, BACKGROUND]
    matrix = pd.DataFrame(0, index=pd.Index(names, name="object"), columns=pd.Index(names, name="detection"))
    detections = errors.detections[errors.detections["outcome"] != "ignored"]
    lost = errors.truths[errors.truths["counted_as"] == BACKGROUND]
    cells = [*zip(detections["counted_as"], detections["category"], strict=True)]
    cells += [(name, BACKGROUND) for name in lost["category"]]
    for (there, detected), count in Counter(cells).items():
        matrix.loc[there, detected] = count
    return matrix


def worst_images(errors: Errors) -> pd.DataFrame:
    """All images, worst first: file_name, true, false, missed, f1, badness (false and missed together)."""
    table = scores_by(errors, "image_id").reindex(errors.images["image_id"], fill_value=0)
    table.insert(0, "file_name", errors.images.set_index("image_id")["file_name"])
    table["badness"] = table["false"] + table["missed"]
    table = table[["file_name", "true", "false", "missed", "f1", "badness"]]
    return table.sort_values(["badness", "f1"], ascending=[False, True], kind="stable")


def threshold_curves(matches: Matches, iou: float = 0.5) -> pd.DataFrame:
    """Precision, recall and F1 against the threshold, a row each category and score; category "all" pools them."""
    curves = {name: pr_f1_curve(matches, None if name == "all" else name, iou) for name in ("all", *matches.names)}
    return pd.concat(
        [pd.DataFrame({"category": name, **vars(curve)}) for name, curve in curves.items()], ignore_index=True
    )
