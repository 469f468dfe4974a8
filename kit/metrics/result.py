"""What a set of detections is worth: COCO AP and AR, and the official Track-4 F1."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kit.data.coco import CocoFile
from kit.metrics.f1 import class_f1, mean_defined, mean_f1
from kit.metrics.matches import ALL_AREAS, Matches, find_pairs, match_areas
from kit.metrics.tables import Entries, Tables, read_tables

COCO_AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # square pixels
TRACK4_AREAS = {"small": (0, 64**2), "medium": (64**2, 192**2), "large": (192**2, 1e10)}
RECALLS = np.linspace(0, 1, 101)
COCO_MAX = 100  # detections of a class in an image


@dataclass(frozen=True)
class Result:
    """The figures of one evaluation. -1 where a figure is not defined: nothing of that size or class was annotated."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float  # COCO's sizes: 32^2, 96^2
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    ap_small_track4: float  # the challenge's sizes: 64^2, 192^2
    ap_medium_track4: float
    ap_large_track4: float
    f1: float  # official Track-4 F1, stats[20]
    per_class: dict[str, dict[str, float]]  # name -> ap, ap50, f1, ground_truths, detections
    notes: tuple[str, ...]  # what in the files makes other tools give other figures

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"notes": list(self.notes)}


def evaluate(predictions: Entries, annotations: Entries | CocoFile, *, f1_max_per_class_image: int = 100) -> Result:
    """COCO AP and AR as pycocotools gives them, to the last digit, and the official Track-4 F1.

    predictions: COCO results, a list or a file; annotations: COCO ground truth, a dict, a file, or one that was read.
    No predictions: all is 0. No annotations: all is -1.
    """
    tables = read_tables(predictions, annotations)
    pairs = find_pairs(tables, max(COCO_MAX, f1_max_per_class_image))
    matches = match_areas(tables, pairs, ALL_AREAS)
    counted = matches.keep(matches.rank < COCO_MAX)
    precision, recall = interpolated_precision(counted), final_recall(counted)
    f1 = class_f1(matches.keep(matches.rank < f1_max_per_class_image))  # (K, ious)
    ground_truths = matches.ground_truths.sum(axis=0)  # (K,)
    sizes = COCO_AREAS | {f"{name}_track4": area for name, area in TRACK4_AREAS.items()}
    by_size = {name: match_areas(tables, pairs, area) for name, area in sizes.items()}
    by_size = {name: sized.keep(sized.rank < COCO_MAX) for name, sized in by_size.items()}
    return Result(
        ap=mean_defined(precision),
        ap50=mean_defined(precision[0]),
        ap75=mean_defined(precision[5]),
        ar1=mean_defined(final_recall(counted.keep(counted.rank < 1))),
        ar10=mean_defined(final_recall(counted.keep(counted.rank < 10))),
        ar100=mean_defined(recall),
        **{f"ap_{name}": mean_defined(interpolated_precision(sized)) for name, sized in by_size.items()},
        **{f"ar_{name}": mean_defined(final_recall(by_size[name])) for name in COCO_AREAS},
        f1=mean_f1(f1),
        per_class={
            name: {
                "ap": mean_defined(precision[:, :, label]),
                "ap50": mean_defined(precision[0, :, label]),
                "f1": mean_defined(f1[label]),
                "ground_truths": int(ground_truths[label]),
                "detections": int((tables.detections.label == label).sum()),
            }
            for label, name in enumerate(tables.names)
        },
        notes=_notes(tables),
    )


def interpolated_precision(matches: Matches) -> np.ndarray:
    """The best precision at each recall or beyond -> (ious, recalls, K), -1 for a class without ground truth."""
    ious, classes = matches.is_true.shape[1], len(matches.category_ids)
    precision = np.full((ious, len(RECALLS), classes), -1.0)
    for label, total in enumerate(matches.ground_truths.sum(axis=0).tolist()):
        if not total:
            continue
        rows = matches.label == label
        true, false = (
            np.cumsum(flags[rows], axis=0, dtype=np.float64) for flags in (matches.is_true, matches.is_false)
        )
        exact = true / (false + true + np.spacing(1))  # (detections, ious)
        best = np.append(np.maximum.accumulate(exact[::-1])[::-1], np.zeros((1, ious)), axis=0)
        for i in range(ious):
            precision[i, :, label] = best[np.searchsorted(true[:, i] / total, RECALLS), i]
    return precision


def final_recall(matches: Matches) -> np.ndarray:
    """Recall of all detections together -> (ious, K), -1 for a class without ground truth."""
    total = matches.ground_truths.sum(axis=0)  # (K,)
    found = np.stack([np.bincount(matches.label, flags, len(total)) for flags in matches.is_true.T])  # (ious, K)
    return np.where(total > 0, found / np.maximum(total, 1), -1.0)


def _notes(tables: Tables) -> tuple[str, ...]:
    ids = tables.truths.annotation_ids
    notes = []
    if 0 in ids:
        notes.append(
            "annotation id 0: pycocotools and the official code call each detection of that object false (if it is the "
            "only object, all figures are 0); here it counts as any other; number annotations from 1"
        )
    if (len(np.unique(ids)) if isinstance(ids, np.ndarray) else len(set(ids))) < len(ids):
        notes.append("annotation ids repeat: pycocotools reads the last of them each time; here each counts as itself")
    return tuple(notes)
