"""Two lists of detections of the same images: which boxes are the same, and how far their scores lie apart.

Never by raw order: where scores nearly tie, rounding swaps the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kit.boxes import pairwise_giou
from kit.predict import Detections

LEAST_IOU = 0.5  # below it two boxes are not the same, whatever their scores
REACH = 0.5  # a box that is compared may be matched with one of this share of the lowest score that is compared


@dataclass(frozen=True)
class Pairs:
    """Boxes that both have, of one image or of many, and how many only one has. iou, reference, candidate: (M,)."""

    iou: np.ndarray
    reference: np.ndarray  # score
    candidate: np.ndarray  # score
    missing: int  # boxes of the reference alone
    added: int  # boxes of the candidate alone
    broken: int  # numbers of the candidate that are not finite
    min_score: float  # a box is compared if either gives it this much

    @property
    def boxes(self) -> int:
        return len(self.iou) + self.missing + self.added

    @property
    def share_matched(self) -> float:
        return len(self.iou) / self.boxes if self.boxes else 0.0

    @property
    def score_difference(self) -> np.ndarray:
        """(M,), never negative."""
        return np.abs(self.reference - self.candidate)


def pair_all(reference: Sequence[Detections], candidate: Sequence[Detections], min_score: float) -> Pairs:
    """Image by image, of one label each, so that overlaps are large and scores near.

    Where fewer boxes than images reach min_score (a detector that has hardly been trained), the best are compared all
    the same: as many as there are images.
    """
    floor = lowest_compared(reference, min_score)
    images = [pair(*both, floor) for both in zip(reference, candidate, strict=True)]
    return Pairs(
        iou=np.concatenate([np.zeros(0), *(each.iou for each in images)]),
        reference=np.concatenate([np.zeros(0), *(each.reference for each in images)]),
        candidate=np.concatenate([np.zeros(0), *(each.candidate for each in images)]),
        missing=sum(each.missing for each in images),
        added=sum(each.added for each in images),
        broken=sum(each.broken for each in images),
        min_score=floor,
    )


def lowest_compared(reference: Sequence[Detections], min_score: float) -> float:
    scores = torch.cat([torch.zeros(0), *(each.scores.cpu().float() for each in reference)])  # (all,)
    best = scores.topk(min(len(reference), len(scores))).values
    return min(min_score, float(best[-1])) if len(best) else min_score


def count_broken(found: Detections) -> int:
    return int((~found.boxes_xyxy_px.isfinite()).sum() + (~found.scores.isfinite()).sum())


def only_finite(found: Detections) -> Detections:
    whole = found.boxes_xyxy_px.isfinite().all(dim=1) & found.scores.isfinite()  # (N,)
    return chosen(found, whole)


def chosen(found: Detections, rows: Tensor) -> Detections:
    """rows: (N,) bool."""
    return Detections(found.boxes_xyxy_px[rows], found.scores[rows], found.labels[rows])


def pair(reference: Detections, candidate: Detections, floor: float) -> Pairs:
    """Of one image."""
    ours, theirs = (chosen(each, each.scores >= floor * REACH) for each in (reference, only_finite(candidate)))
    iou = overlaps(ours, theirs)  # (A, B)
    first, second = (each.scores.double().cpu().numpy() for each in (ours, theirs))  # (A,), (B,)
    nearness = 1 - np.abs(first[:, None] - second[None])  # (A, B)
    allowed = (ours.labels.cpu().numpy()[:, None] == theirs.labels.cpu().numpy()[None]) & (iou >= LEAST_IOU)
    row, column = linear_sum_assignment(np.where(allowed, iou + nearness, 0), maximize=True)
    real = allowed[row, column]
    row, column = row[real], column[real]
    counts = np.maximum(first[row], second[column]) >= floor  # (M,)
    return Pairs(
        iou=iou[row, column][counts],
        reference=first[row][counts],
        candidate=second[column][counts],
        missing=int((np.delete(first, row) >= floor).sum()),
        added=int((np.delete(second, column) >= floor).sum()),
        broken=count_broken(candidate),
        min_score=floor,
    )


def overlaps(ours: Detections, theirs: Detections) -> np.ndarray:
    """IoU of all with all, 0 where neither has an area -> (A, B) float64."""
    iou, _ = pairwise_giou(ours.boxes_xyxy_px.double().cpu(), theirs.boxes_xyxy_px.double().cpu())
    found: np.ndarray = iou.nan_to_num(0).numpy()
    return found
