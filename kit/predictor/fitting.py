"""A picture into the input of a detector, and its boxes back onto the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
import torch
from torchvision.ops import batched_nms

from kit.data.augment import resized
from kit.predict import Detections

Resize = Literal["plain", "letterbox"]
LETTERBOX_GREY = 114
DEFAULT_THRESHOLD = 0.4


@dataclass(frozen=True)
class Fitted:
    """A picture in the size of the input.

    Boxes are to be told in told_hw, then shifted by -corner_xy_px, and are pixels of the picture.
    """

    image: np.ndarray  # (H, W, C) uint8
    told_hw: tuple[float, float]
    corner_xy_px: tuple[float, float]
    original_hw: tuple[int, int]


def fitted(image: np.ndarray, size_hw: tuple[int, int], resize: Resize) -> Fitted:
    """image: (H, W, C) uint8. plain: as in training, the aspect is not kept; letterbox: kept, grey at two sides."""
    height, width = image.shape[:2]
    if resize == "plain":
        return Fitted(resized(image, size_hw), (height, width), (0.0, 0.0), (height, width))
    scale = min(size_hw[0] / height, size_hw[1] / width)
    inner_hw = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size_hw[0] - inner_hw[0]) // 2, (size_hw[1] - inner_hw[1]) // 2
    canvas = np.full((*size_hw, image.shape[2]), LETTERBOX_GREY, np.uint8)
    canvas[top : top + inner_hw[0], left : left + inner_hw[1]] = resized(image, inner_hw)
    px_y, px_x = height / inner_hw[0], width / inner_hw[1]  # pixels of the picture in one of the input
    return Fitted(canvas, (size_hw[0] * px_y, size_hw[1] * px_x), (left * px_x, top * px_y), (height, width))


def finished(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    place: Fitted,
    thresholds: np.ndarray,
    nms_iou: float | None,
) -> Detections:
    """Of one image: boxes_xyxy (N, 4) in told_hw, scores (N,), labels (N,) -> those that reach the threshold (K,) of
    their class, cut at the rim; without those that have no area, and with nms_iou without weaker doubles of a class."""
    height, width = place.original_hw
    strong = scores >= thresholds[labels]  # (N,)
    shift = np.array([*place.corner_xy_px, *place.corner_xy_px], np.float32)
    boxes_xyxy_px = (boxes_xyxy[strong] - shift).clip(0, np.array([width, height, width, height], np.float32))
    has_area = (boxes_xyxy_px[:, 2:] > boxes_xyxy_px[:, :2]).all(axis=1)
    kept = torch.from_numpy(boxes_xyxy_px[has_area])
    result = Detections(
        kept, torch.from_numpy(scores[strong][has_area]), torch.from_numpy(labels[strong][has_area].astype(np.int64))
    )
    if nms_iou is None:
        return result
    rows = batched_nms(result.boxes_xyxy_px, result.scores, result.labels, nms_iou)
    return Detections(result.boxes_xyxy_px[rows], result.scores[rows], result.labels[rows])


def thresholds_of(threshold: float | Mapping[str, float], names: list[str]) -> np.ndarray:
    """One for each class -> (K,) float64. In a mapping "" stands for the classes that it does not name (else 0.4)."""
    given = {"": threshold} if isinstance(threshold, int | float) else dict(threshold)
    for name, value in given.items():
        if name and name not in names:
            near = get_close_matches(name, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"threshold: no class {name!r}, {meant}")
        if not 0 <= value <= 1:
            raise ValueError(f"threshold{' of ' + name if name else ''} must lie in 0..1, got {value}")
    return np.array([given.get(name, given.get("", DEFAULT_THRESHOLD)) for name in names])
