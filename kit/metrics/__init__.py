"""Detections against annotations: COCO AP, the official Track-4 F1, and the score thresholds that raise it.

tables.py reads both files into arrays, matches.py pairs detections with objects once; every figure in result.py and
f1.py, and every threshold in thresholds.py, is then a sum over those matches.
"""

from kit.metrics.f1 import class_f1, mean_f1, official_f1_curve, pr_f1_curve
from kit.metrics.matches import IOU_THRESHOLDS, Matches, match
from kit.metrics.result import COCO_AREAS, TRACK4_AREAS, Result, evaluate
from kit.metrics.tables import read_predictions, read_tables
from kit.metrics.thresholds import (
    CrossFit,
    Groups,
    Level,
    Thresholds,
    apply_thresholds,
    cross_fit,
    f1_at,
    search_thresholds,
)

__all__ = [
    "COCO_AREAS",
    "IOU_THRESHOLDS",
    "TRACK4_AREAS",
    "CrossFit",
    "Groups",
    "Level",
    "Matches",
    "Result",
    "Thresholds",
    "apply_thresholds",
    "class_f1",
    "cross_fit",
    "evaluate",
    "f1_at",
    "match",
    "mean_f1",
    "official_f1_curve",
    "pr_f1_curve",
    "read_predictions",
    "read_tables",
    "search_thresholds",
]
