"""The processes of one training: what they share, and how they wait for each other."""

from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as Parallel
from torchvision.ops import FrozenBatchNorm2d

from kit.boxes import Target
from kit.dfine.backbone import freeze_norms
from kit.dfine.denoising import Share
from kit.dfine.detector import Detector
from kit.train.norms import synchronise


def rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def distributed(detector: Detector, device: torch.device) -> Parallel:
    """The detector with gradients averaged and BatchNorm's statistics taken over all processes.

    To be called again where other weights than before are to be trained. The statistics being the same everywhere,
    none have to be sent.
    """
    model = synchronise(detector, device)
    for weight in model.parameters():
        if weight.requires_grad and 1 in weight.shape:
            weight.register_hook(partial(in_the_layout_of, weight.stride()))
    return Parallel(model, device_ids=[device] if device.type == "cuda" else None, forward_sync_buffers=False)


def in_the_layout_of(strides: tuple[int, ...], gradient: Tensor) -> Tensor:
    """The same numbers in the same places, told by other strides.

    A convolution that works in channels-last tells those of axes of length 1 otherwise than its weight does, which
    makes no difference, but a process group would warn of it.
    """
    same = gradient.is_contiguous() and gradient.stride() != strides
    return gradient.as_strided(gradient.shape, strides) if same else gradient


def share_of(
    targets: list[Target], rank: int, world: int, group: torch.distributed.ProcessGroup | None
) -> Share | None:
    """What this process has of a batch; None where it is the only one. group: exchanges tensors of the CPU."""
    if world == 1:
        return None
    longest = torch.tensor(max(len(target.labels) for target in targets))
    torch.distributed.all_reduce(longest, torch.distributed.ReduceOp.MAX, group)
    return Share(rank, world, int(longest))


def mean_over_ranks(value: Tensor) -> Tensor:
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()


def gathered(found: list[Any], world: int) -> list[Any]:
    """What all ranks have found."""
    if world == 1:
        return found
    parts: list[list[Any]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(parts, found)
    return [detection for part in parts for detection in part]


def averaged(sums: dict[str, float], world: int) -> dict[str, float]:
    """The mean over the ranks, which all have the same names."""
    if world == 1 or not sums:
        return sums
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    if torch.distributed.get_backend() == "nccl":
        values = values.cuda()
    return dict(zip(sums, mean_over_ranks(values).tolist(), strict=True))


def from_first_rank(figures: dict[str, float], world: int) -> dict[str, float]:
    if world == 1:
        return figures
    box = [figures]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all(world: int) -> None:
    if world > 1:
        torch.distributed.barrier()


def frozen_parts(detector: Detector) -> dict[str, list[str]]:
    """Names of the largest parts of which nothing is trained: weights, and norms that keep their statistics."""
    weights = [
        name
        for name, part in detector.named_modules()
        if name and list(part.parameters()) and not any(weight.requires_grad for weight in part.parameters())
    ]
    norms = [name for name, part in detector.named_modules() if name and keeps_statistics(part)]
    return {"weights": outermost(weights), "norms": outermost(norms)}


def keeps_statistics(part: nn.Module) -> bool:
    """It holds frozen norms, and none that move."""
    kinds = [isinstance(each, FrozenBatchNorm2d) for each in part.modules() if is_norm(each)]
    return bool(kinds) and all(kinds)


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d)


def outermost(names: list[str]) -> list[str]:
    """Without those that lie in others; the names are in order from outside."""
    kept: list[str] = []
    for name in names:
        if not any(name.startswith(f"{other}.") for other in kept):
            kept.append(name)
    return kept


def refreeze(detector: Detector, parts: dict[str, list[str]]) -> None:
    """What `frozen_parts` has told of another detector of this size."""
    for name in parts["norms"]:
        freeze_norms(detector.get_submodule(name))
    for name in parts["weights"]:
        detector.get_submodule(name).requires_grad_(False)
