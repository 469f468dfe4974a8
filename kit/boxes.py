"""Box formats, and the overlaps IoU and GIoU. `boxes` alone means (cx, cy, w, h) in [0, 1] of the image."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The objects of one image.

    boxes: (N, 4) cx, cy, w, h in [0, 1], float32; labels: (N,) int64 in 0..K-1.
    """

    boxes: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Target":
        return Target(self.boxes.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    centre, size = boxes.split(2, dim=-1)  # (..., 2) each
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) -> (..., 4)."""
    low, high = boxes_xyxy.split(2, dim=-1)  # (..., 2) each
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xywh_px_to_cxcywh(boxes_xywh_px: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """COCO pixels, corner first, to fractions of the image: (..., 4) -> (..., 4)."""
    corner, size = boxes_xywh_px.split(2, dim=-1)  # (..., 2) each
    height, width = size_hw
    return torch.cat([corner + size / 2, size], dim=-1) / boxes_xywh_px.new_tensor([width, height, width, height])


def cxcywh_to_xywh_px(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Fractions of the image to COCO pixels, corner first: (..., 4) -> (..., 4)."""
    centre, size = boxes.split(2, dim=-1)  # (..., 2) each
    height, width = size_hw
    return torch.cat([centre - size / 2, size], dim=-1) * boxes.new_tensor([width, height, width, height])


def area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) -> (...); a box turned inside out has the area of its signed sides, as in the paper's code."""
    size = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]  # (..., 2)
    return size[..., 0] * size[..., 1]


def giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) with broadcasting: (..., 4), (..., 4) -> (...), (...)."""
    overlap = (torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])).clamp(
        min=0
    )
    hull = (torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])).clamp(
        min=0
    )
    intersection = overlap[..., 0] * overlap[..., 1]
    union = area(a_xyxy) + area(b_xyxy) - intersection
    hull_area = hull[..., 0] * hull[..., 1]
    iou = intersection / union
    return iou, iou - (hull_area - union) / hull_area


def paired_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of row i with row i: (M, 4), (M, 4) -> (M,), (M,)."""
    return giou(a_xyxy, b_xyxy)


def pairwise_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of every row with every row: (..., A, 4), (..., B, 4) -> (..., A, B) twice."""
    return giou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])
