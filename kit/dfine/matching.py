"""Which query answers for which object: the cost of every pair, the cheapest assignment, and the union over layers."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kit.boxes import Target, cxcywh_to_xyxy, pairwise_giou
from kit.dfine.denoising import padded

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0  # of the focal class cost


@dataclass(frozen=True)
class Pairs:
    """Matched pairs; answer, image, query: (M,) int64 of the prediction; target: (M,) counting over the batch.

    `answer` counts the heads asked (layers, first head, proposals); it is 0 throughout where one matching serves all.
    """

    answer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: list[Target]) -> tuple[Pairs, Pairs]:
    """logits: (T, B, Q, K), boxes: (T, B, Q, 4) of T heads -> each head's matching, and the union over all."""
    counts = [len(target.labels) for target in targets]
    costs = pair_costs(logits, boxes, targets).cpu().numpy()  # (T, B, Q, N), the one transfer
    rows = [
        np.stack(np.broadcast_arrays(t, b, *linear_sum_assignment(costs[t, b, :, :count])))
        for t in range(len(costs))
        for b, count in enumerate(counts)
    ]
    each = np.concatenate(rows, axis=1).astype(np.int64)  # (4, M)
    starts = np.cumsum([0, *counts[:-1]])
    return on_device(each, starts, logits.device), on_device(union(each), starts, logits.device)


def pair_costs(logits: Tensor, boxes: Tensor, targets: list[Target]) -> Tensor:
    """2 focal + 5 L1 + 2 (-GIoU) of each query with each object of its image -> (T, B, Q, N), N the most of any."""
    longest = max(len(target.labels) for target in targets)
    labels, true_boxes = padded(targets, longest, 0)  # (B, N), (B, N, 4)
    index = labels[None, :, None].expand(*logits.shape[:3], -1)  # (T, B, Q, N)
    cost = CLASS_COST * focal_cost(logits.float().gather(-1, index).sigmoid())
    cost = cost + L1_COST * torch.cdist(boxes.float(), true_boxes.expand(len(boxes), -1, -1, -1), p=1)
    _, giou = pairwise_giou(cxcywh_to_xyxy(boxes.float()), cxcywh_to_xyxy(true_boxes)[None])
    return (cost - GIOU_COST * giou).nan_to_num_(nan=1.0)


def focal_cost(p: Tensor, eps: float = 1e-8) -> Tensor:
    """The focal loss of calling it an object, less that of calling it background (arXiv 1708.02002)."""
    positive = ALPHA * (1 - p) ** GAMMA * -(p + eps).log()
    negative = (1 - ALPHA) * p**GAMMA * -(1 - p + eps).log()
    return positive - negative


def union(each: np.ndarray) -> np.ndarray:
    """Each query takes the target that most heads gave it; of equals the first.

    each: (4, M) rows answer, image, query, target -> the same with answer 0, in order of image and query.
    """
    pairs, votes = np.unique(each[1:], axis=1, return_counts=True)  # sorted by image, query, target
    order = np.lexsort((pairs[2], -votes, pairs[1], pairs[0]))
    pairs = pairs[:, order]
    first = np.ones(pairs.shape[1], bool)
    first[1:] = (pairs[:2, 1:] != pairs[:2, :-1]).any(axis=0)
    return np.concatenate([np.zeros((1, first.sum()), np.int64), pairs[:, first]])


def on_device(rows: np.ndarray, starts: np.ndarray, device: torch.device) -> Pairs:
    """(4, M) rows, targets counting within their image; starts: (B,) of each image's targets in the batch."""
    answer, image, query, target = rows
    joined = torch.from_numpy(np.stack([answer, image, query, target + starts[image]]))
    return Pairs(*joined.to(device, non_blocking=True))
