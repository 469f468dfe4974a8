"""Averages of checkpoints: of the last epochs (SWA, arXiv 1803.05407) and greedy soups (arXiv 2203.05482).

Only files that are named are averaged, in float64; integers are taken as they are, and only checkpoints of the same
detector for the same classes mix. An average's activations are not an average of activations, so the statistics that
BatchNorm keeps are found anew, on training images.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # of any dimension, synchronised too; the frozen kind is none

from kit.data.dataset import CocoDataset, TrainSampler, train_loader
from kit.dfine.detector import Detector
from kit.dfine.weights import read_weights, refuse_misfits
from kit.predict import to_unit

SAME = ("size", "num_classes", "channels", "classes", "category_ids")  # of all files of an average


# --- averages ---


def mean_state(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of the same names and shapes, read one by one; what is no float comes from the last.

    Summed in float64, given back as it came, half precision as float32.
    """
    sums: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    count = 0
    for last in states:
        count += 1
        for name, value in last.items():
            if value.is_floating_point():
                sums[name] = sums[name] + value.double() if name in sums else value.double()
    if not count:
        raise ValueError("expected at least one checkpoint to average, got none; name the files")
    dtypes = {name: torch.promote_types(value.dtype, torch.float32) for name, value in last.items() if name in sums}
    return {name: (sums[name] / count).to(dtypes[name]) if name in sums else value for name, value in last.items()}


def average_weights(files: Sequence[Path | str]) -> dict[str, Tensor]:
    """The plain mean of these files' weights, and of no other's; ValueError where they are not of one kind."""
    return mean_state(alike(files))


def alike(files: Sequence[Path | str]) -> Iterator[dict[str, Tensor]]:
    """The weights of each file, as long as they are of the kind of the first."""
    first: dict[str, Any] = {}
    for file in files:
        weights, info = read_weights(file)
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        kind = {name: info.get(name) for name in SAME} | {"weights": shapes}
        first = first or kind
        differing = [name for name in kind if kind[name] != first[name]]
        if differing:
            raise ValueError(f"{file}: {difference(differing[0], first, kind)} as in {files[0]}; average only alike")
        yield weights


def difference(name: str, first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if name != "weights":
        return f"expected {name} {first[name]}, found {other[name]}; not the same"
    changed = sorted(set(first[name].items()) ^ set(other[name].items()))
    return f"{len(changed)} weights differ in name or shape, such as {changed[0][0]}; not the same"


def load_average(detector: Detector, files: Sequence[Path | str]) -> None:
    """Fills the detector with the average of the files (of one file: with its weights), or leaves it as it was."""
    weights, state = average_weights(files), detector.state_dict()
    refuse_misfits(weights, state, set(), ", ".join(map(str, files)))
    detector.load_state_dict({name: value.to(state[name].dtype) for name, value in weights.items()}, strict=False)


# --- BatchNorm's statistics ---


def reestimate_norms(detector: Detector, batches: Iterable[Tensor]) -> int:
    """Finds the running statistics of every BatchNorm anew, as the mean over the batches -> how many these were.

    batches: (B, channels, H, W) in [0, 1], best all of one size. Nothing else moves: frozen norms stay, weights stay,
    the counts of batches seen before stay. Without a BatchNorm that is not frozen, nothing is done.
    """
    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return 0
    was_training, device = detector.training, next(detector.parameters()).device
    momenta, counts = [norm.momentum for norm in norms], [norm.num_batches_tracked for norm in norms]
    used = 0
    detector.eval()
    try:
        with torch.no_grad():
            for used, images in enumerate(batches, 1):
                for norm in norms if used == 1 else []:  # not before there is a batch: nothing is lost without any
                    begin_anew(norm)
                detector(images.to(device))
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
        detector.train(was_training)
    if not used:
        raise ValueError("expected at least one batch of training images, got none; the statistics stay as they were")
    return used


def begin_anew(norm: _BatchNorm) -> None:
    """From here on the plain mean of all batches; the old count is another tensor, which stays as it is."""
    norm.num_batches_tracked = torch.zeros((), dtype=torch.long, device=norm.weight.device)
    norm.reset_running_stats()
    norm.momentum = None
    norm.train()


def training_batches(
    dataset: CocoDataset, size_hw: tuple[int, int], batch_size: int, count: int, seed: int = 0, workers: int = 0
) -> Iterator[Tensor]:
    """At most `count` full batches of the data set, each image once, in an order of the seed: (B, C, H, W) in [0, 1].

    A data set smaller than a batch gives one batch of all.
    """
    sampler = TrainSampler(len(dataset), min(batch_size, len(dataset)), 1, seed, [size_hw])
    for batch in islice(train_loader(dataset, sampler, workers), count):
        yield to_unit(batch.images)


# --- greedy soup ---


@dataclass(frozen=True)
class Try:
    """One ingredient: the score alone, and that of the soup with it."""

    file: Path
    alone: float
    together: float
    kept: bool


@dataclass(frozen=True)
class Soup:
    """The files whose average scored best on the way, the best alone first; all that was tried, in order."""

    files: tuple[Path, ...]
    score: float
    tries: tuple[Try, ...]


def greedy_soup(files: Sequence[Path], score: Callable[[tuple[Path, ...]], float]) -> Soup:
    """From the best alone down, each file joins the average if this is not worse for it.

    score: of the average of some files, on images that none was trained on; asked for each file alone first.
    """
    alone = {file: score((file,)) for file in dict.fromkeys(files)}
    if not alone:
        raise ValueError("expected at least one checkpoint for the soup, got none; name the files")
    ranked = sorted(alone, key=lambda file: -alone[file])  # stable: of equals the first named
    chosen: tuple[Path, ...] = (ranked[0],)
    best = alone[ranked[0]]
    tries = [Try(ranked[0], best, best, True)]
    for file in ranked[1:]:
        together = score((*chosen, file))
        tries.append(Try(file, alone[file], together, together >= best))
        if together >= best:
            chosen, best = (*chosen, file), together
    return Soup(chosen, best, tuple(tries))
