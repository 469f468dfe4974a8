"""Denoising queries (DN-DETR, arXiv 2203.01305; contrastive: DINO, arXiv 2203.03605): noisy truth to restore."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kit.boxes import Target, cxcywh_to_xyxy, xyxy_to_cxcywh


@dataclass(frozen=True)
class Denoising:
    """Noisy copies of the objects, in groups of `2 * N_max` queries: first those to restore, then those to reject.

    labels: (B, D) int64, K where there is no object; boxes: (B, D, 4) in (0, 1); blocked: (D + Q, D + Q) bool, True =
    may not look; image, query, target: (M,) the queries to restore, target counting within its image; groups: how many.
    """

    labels: Tensor
    boxes: Tensor
    blocked: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    groups: int


@dataclass(frozen=True)
class Share:
    """What one of several processes has of a batch: the images rank, rank + world, ... of it.

    longest: how many objects the fullest image of the whole batch has.
    """

    rank: int
    world: int
    longest: int


ALONE = Share(0, 1, 0)


def make_denoising(
    targets: list[Target],
    num_classes: int,
    *,
    num_matching: int = 300,
    num_denoising: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    generator: torch.Generator | None = None,
    share: Share | None = None,
) -> Denoising:
    """As many groups as fit in num_denoising, at least one. Without any object all is there, with D = 0.

    share: where targets are those of one process; with the same generator for all, the noise is that of one process
    that has the whole batch. Each has the same number of images then.
    """
    counts = [len(target.labels) for target in targets]
    share = share or Share(0, 1, max(counts))
    longest, device = share.longest, targets[0].boxes.device
    groups = max(1, num_denoising // longest) if longest else 0
    labels, boxes = padded(targets, longest, num_classes)  # (B, N), (B, N, 4)
    labels, boxes = labels.repeat(1, 2 * groups), boxes.repeat(1, 2 * groups, 1)  # (B, D), (B, D, 4)
    image, query, target = positives(counts, longest, groups)
    return Denoising(
        noisy_labels(labels, num_classes, label_noise, generator, share),
        noisy_boxes(boxes, rejects(longest, groups, device), box_noise, generator, share),
        blocked_pairs(longest, groups, num_matching, device),
        image.to(device),
        query.to(device),
        target.to(device),
        groups,
    )


def padded(targets: list[Target], longest: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """All images' objects at one length -> labels (B, N), padded with K, and boxes (B, N, 4), padded with 0."""
    labels = targets[0].labels.new_full((len(targets), longest), num_classes)
    boxes = targets[0].boxes.new_zeros(len(targets), longest, 4)
    for index, target in enumerate(targets):
        labels[index, : len(target.labels)] = target.labels
        boxes[index, : len(target.labels)] = target.boxes
    return labels, boxes


def positives(counts: list[int], longest: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The queries to restore, in order of image, group and object -> image, query, target, (M,) each."""
    image = torch.tensor([i for i, count in enumerate(counts) for _ in range(groups * count)], dtype=torch.int64)
    target = torch.cat([torch.arange(count).repeat(groups) for count in counts])
    group = torch.cat([torch.arange(groups).repeat_interleave(count) for count in counts])
    return image, group * 2 * longest + target, target


def rejects(longest: int, groups: int, device: torch.device) -> Tensor:
    """The second half of each group -> (D,) bool."""
    return (torch.arange(2 * longest, device=device) >= longest).repeat(groups)


def drawn(shape: torch.Size, share: Share) -> tuple[tuple[int, ...], slice]:
    """What is drawn for the whole batch, and which of it is one's own: shape (B, ...) -> (world * B, ...)."""
    return (share.world * shape[0], *shape[1:]), slice(share.rank, None, share.world)


def noisy_labels(
    labels: Tensor, num_classes: int, noise: float, generator: torch.Generator | None, share: Share = ALONE
) -> Tensor:
    """Half of the `noise` share of labels become random ones: (B, D) -> (B, D); padding stays."""
    shape, own = drawn(labels.shape, share)
    chance = torch.rand(shape, generator=generator, device=labels.device)[own]
    other = torch.randint(num_classes, shape, generator=generator, device=labels.device)[own]
    return torch.where((chance < 0.5 * noise) & (labels < num_classes), other, labels)


def noisy_boxes(
    boxes: Tensor, reject: Tensor, noise: float, generator: torch.Generator | None, share: Share = ALONE
) -> Tensor:
    """Each edge moves by up to half the box's size, those to reject by half to one size: (B, D, 4) -> (B, D, 4)."""
    reach = 0.5 * noise * boxes[..., 2:].repeat(1, 1, 2)  # (B, D, 4)
    shape, own = drawn(boxes.shape, share)
    sign = torch.randint(2, shape, generator=generator, device=boxes.device)[own] * 2 - 1
    distance = torch.rand(shape, generator=generator, device=boxes.device)[own] + reject[:, None]
    moved = (cxcywh_to_xyxy(boxes) + sign * distance * reach).clamp(0, 1)
    return (
        xyxy_to_cxcywh(moved).abs().clamp(1e-5, 1 - 1e-5)
    )  # edges may have passed each other; within a sigmoid's reach


def blocked_pairs(longest: int, groups: int, num_matching: int, device: torch.device) -> Tensor:
    """Groups do not see each other, the matching queries see no group -> (D + Q, D + Q) bool."""
    group = torch.arange(groups, device=device).repeat_interleave(2 * longest)  # (D,)
    group = torch.cat([group, torch.full((num_matching,), groups, device=device)])  # (D + Q,)
    return (group[:, None] != group[None]) & (group[None] < groups)
