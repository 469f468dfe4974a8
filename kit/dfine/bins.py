"""Box edges as distributions over bins (D-FINE, section 4.1): the bin values W(n), edges to boxes, boxes to bins."""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 33  # R: bins of an edge, reg_max + 1
UP = 0.5  # a, half the reach of the outermost regular bins


def bin_values(reg_scale: float, device: torch.device | None = None) -> Tensor:
    """W(n) of equation 4: fine steps near zero, coarse ones far out -> (R,), ascending and odd about the middle."""
    reach = UP * reg_scale
    step = (reach + 1) ** (2 / (BINS - 3))
    index = torch.arange(BINS, device=device, dtype=torch.float32) - BINS // 2  # (R,), -16 to 16
    inner = index.sign() * (step ** index.abs() - 1)
    return torch.where(index.abs() == BINS // 2, index.sign() * (2 * reach), inner)


def decode_edges(corners: Tensor, values: Tensor) -> Tensor:
    """The mean of each edge's distribution: logits (..., 4, R), values (R,) -> (..., 4)."""
    return corners.float().softmax(dim=-1) @ values


def move_edges(reference: Tensor, offsets: Tensor, reg_scale: float) -> Tensor:
    """Moves left, top, right, bottom of a box by offsets in units of its size / reg_scale.

    reference: (..., 4) cxcywh; offsets: (..., 4) l, t, r, b, positive outward -> (..., 4) cxcywh.
    """
    size = reference[..., 2:]
    low = reference[..., :2] - (0.5 + offsets[..., :2] / reg_scale) * size
    high = reference[..., :2] + (0.5 + offsets[..., 2:] / reg_scale) * size
    return torch.cat([(low + high) / 2, high - low], dim=-1)


@dataclass(frozen=True)
class EdgeTargets:
    """Where a true edge lies between two bins.

    left: (..., 4) int64, the lower bin; left_weight, right_weight: (..., 4), they sum to 1.
    """

    left: Tensor
    left_weight: Tensor
    right_weight: Tensor


def edge_targets(reference: Tensor, boxes_xyxy: Tensor, reg_scale: float) -> EdgeTargets:
    """The bins whose weighted mean moves `reference` onto the true box (move_edges inverted, within its reach).

    reference: (..., 4) cxcywh; boxes_xyxy: (..., 4).
    """
    unit = reference[..., 2:] / reg_scale + 1e-16
    low = (reference[..., :2] - boxes_xyxy[..., :2]) / unit - 0.5 * reg_scale
    high = (boxes_xyxy[..., 2:] - reference[..., :2]) / unit - 0.5 * reg_scale
    distance = torch.cat([low, high], dim=-1).contiguous()  # (..., 4)
    values = bin_values(reg_scale, distance.device)
    left = (torch.searchsorted(values, distance, right=True) - 1).clamp(0, BINS - 2)  # (..., 4)
    right_weight = ((distance - values[left]) / (values[left + 1] - values[left])).clamp(0, 1)
    return EdgeTargets(left, 1 - right_weight, right_weight)
