"""What test_ranks and test_norms compare: `python -m tests.train.ranked FOLDER` by one process, or by torchrun by two.

In double precision: in single, Adam makes a whole step of the last bit of a gradient that should be zero.

Each run of PLANS goes into FOLDER/<world>/<name>; the first process leaves there how often each image was validated.
"""

import os
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from kit.boxes import Target
from kit.data.dataset import Batch, CocoDataset
from kit.files import write_json
from kit.predict import to_unit
from kit.train import fit, loop
from kit.train.norms import SharedNorm
from tests import tiny

PLANS: dict[str, dict[str, Any]] = {
    "plain": {"batch_size": 4},
    "accumulated": {"batch_size": 4, "accumulate": 2},
    "empty": {"batch_size": 2},  # one image a process, and half of the images have no objects
}
IMAGES, VAL_IMAGES = 8, 3


def train_set(folder: Path, name: str) -> CocoDataset:
    """Of `empty` the second half of the images has no objects."""
    dataset = tiny.dataset(folder, IMAGES, strong=False)
    if name == "empty":
        columns = dataset.coco.records.columns  # type: ignore[union-attr]
        dataset.coco.records.columns = columns.only(columns.image_rows() < IMAGES // 2)  # type: ignore[union-attr]
    return dataset


def in_double_precision() -> None:
    """The whole model and its losses, wherever single precision is asked for by name too."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float, torch.float32 = torch.Tensor.double, torch.float64  # type: ignore[method-assign]
    loop.to_unit = lambda images: to_unit(images, torch.float64)
    Batch.to = lambda batch, device: replace(  # type: ignore[method-assign]
        batch, targets=[Target(target.boxes.double(), target.labels) for target in batch.targets]
    )


def train(folder: Path, name: str, rank: int, world: int) -> None:
    """Two epochs, each with a validation."""
    validated: Counter[int] = Counter()

    def scores(found: list[dict[str, Any]], annotations: dict[str, Any]) -> dict[str, float]:
        validated.update(each["image_id"] for each in found)
        return original(found, annotations)

    original, loop.scores = loop.scores, scores
    own = folder / f"data{world}{rank}{name}"
    validation = tiny.dataset(own / "val", images=VAL_IMAGES, seed=1)
    out = folder / str(world) / name
    plan = tiny.plan(epochs=2, strong_until_epoch=None, **PLANS[name])
    fit(tiny.detector(), train_set(own / "train", name), validation, out=out, plan=plan)
    loop.scores = original
    if rank == 0:
        write_json(out / "validated.json", sorted(validated.items()))


def norms(folder: Path, rank: int, momentum: float | None) -> None:
    """How far a norm of two processes, with 3 and 1 images, is from one BatchNorm that has all 4."""
    chance = torch.Generator().manual_seed(0)
    whole = (3 * torch.randn(4, 5, 6, 7, generator=chance) + 8).requires_grad_()
    slope = torch.randn(4, 5, 6, 7, generator=chance)
    rows = slice(0, 3) if rank == 0 else slice(3, 4)
    alone, part = nn.BatchNorm2d(5, momentum=momentum), whole[rows].detach().requires_grad_()
    nn.init.normal_(alone.weight, generator=chance)
    nn.init.normal_(alone.bias, generator=chance)
    copy = nn.BatchNorm2d(5, momentum=momentum)
    copy.load_state_dict(alone.state_dict())
    shared = SharedNorm(copy)
    for _ in range(2):
        expected, found = alone(whole), shared(part)
    (expected * slope).sum().backward()
    (found * slope[rows]).sum().backward()
    for weight in (shared.weight.grad, shared.bias.grad):
        torch.distributed.all_reduce(weight)
    far = {"output": distance(expected[rows], found), "x": distance(whole.grad[rows], part.grad)}
    far |= {
        "weight": distance(alone.weight.grad, shared.weight.grad),
        "bias": distance(alone.bias.grad, shared.bias.grad),
    }
    far |= {name: distance(value, shared.state_dict()[name]) for name, value in alone.state_dict().items()}
    write_json(folder / f"norms{rank}_{momentum}.json", far)


def distance(one: Tensor | None, other: Tensor | None) -> float:
    assert one is not None and other is not None and one.shape == other.shape
    return (one.detach().double() - other.detach().double()).abs().max().item()


def main(folder: Path) -> None:
    warnings.simplefilter("error")  # the process group's own too
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("gloo")
        norms(folder, rank, 0.1)
        norms(folder, rank, None)
    in_double_precision()
    for name in PLANS:
        train(folder, name, rank, world)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
