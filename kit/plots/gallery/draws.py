"""Images as a training gets them: the very draws of its sampler, through its data set, the pixels kept exactly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from matplotlib.figure import Figure

from kit.boxes import cxcywh_to_xyxy
from kit.data.augment import Draw, Policy, multi_scale_sizes
from kit.data.dataset import CocoDataset, Sample, TrainSampler
from kit.data.picture import Size
from kit.optimisation import RECIPES
from kit.plots.gallery.shown import Drawn
from kit.plots.pictures import Shot, sample_shot, show_shots, visible

Progress = Callable[[int, int], object]  # done, in all
LONGEST_NAME = 24  # over a picture in a figure
BLANK = Shot(np.full((1, 1, 3), 255, np.uint8), np.empty((0, 4)), np.empty(0, np.int64), "not drawn in an epoch")


@dataclass(frozen=True)
class DrawnSet:
    """What a training is given, and how much of it is to be shown. part: name of the one that it trains on."""

    part: str
    dataset: CocoDataset
    sampler: TrainSampler
    images: int = 24  # spread over those that are shown
    draws: int = 4  # of each, spread over the epochs


def training_sampler(
    length: int,
    *,
    model: Literal["n", "s", "m", "l", "x"],
    batch_size: int,
    accumulate: int,
    epochs: int,
    strong_until_epoch: int,
    size_hw: Size,
    scale_min: float,
    scale_max: float,
    seed: int,
    multi_scale: int | None = None,
) -> TrainSampler:
    """Which image comes in which epoch, and how large: as 03_train has it on one device. length: of the data set."""
    repeat = RECIPES[model].base_size_repeat if multi_scale is None else multi_scale
    sizes = multi_scale_sizes(size_hw, repeat, scale_min, scale_max) if repeat else [size_hw]
    images = max(1, min(batch_size // accumulate, length))
    return TrainSampler(length, images, epochs, seed, sizes, sizes_until_epoch=strong_until_epoch, size_hw=size_hw)


def training_draws(sampler: TrainSampler, indices: Sequence[int], draws: int) -> dict[int, list[Draw]]:
    """Index: its draws, spread from the first epoch to the last; where one leaves an image out, the next."""
    starts = np.unique(np.linspace(0, sampler.epochs - 1, draws).round().astype(int)).tolist()
    found: dict[int, list[Draw]] = {index: [] for index in indices}
    for start, following in pairwise([*starts, sampler.epochs]):
        missing = set(indices)
        for epoch in range(start, following):
            own = [draw for draw in draws_of_epoch(sampler, epoch) if draw.index in missing]
            for draw in own:
                found[draw.index].append(draw)
            missing -= {draw.index for draw in own}
            if not missing:
                break
    return found


def draws_of_epoch(sampler: TrainSampler, epoch: int) -> Iterator[Draw]:
    one = copy(sampler)
    one.start_step, one.epochs = epoch * sampler.steps_per_epoch, epoch + 1
    return chain.from_iterable(one)


@dataclass(frozen=True)
class WrittenDraws:
    """By index in the data set. faults: draws that could not be made, and why."""

    drawn: dict[int, list[Drawn]]
    faults: list[str]


def write_draws(
    given: DrawnSet, places: Mapping[int, int], classes: np.ndarray, folder: Path, progress: Progress | None = None
) -> WrittenDraws:
    """The pixels as PNG, in draws/. places: index in the data set: number in the gallery; classes: of each label.

    One draw after the other: the colours come from one random state.
    """
    wanted = training_draws(given.sampler, list(places), given.draws)
    written: dict[int, list[Drawn]] = {index: [] for index in places}
    faults, jobs = [], [(index, draw) for index, draws in wanted.items() for draw in draws]
    (folder / "draws").mkdir()
    for done, (index, draw) in enumerate(jobs, 1):
        source = f"draws/{places[index]}_{len(written[index])}.png"
        try:
            sample = given.dataset[draw]
        except ValueError as error:  # an image of it cannot be read
            faults.append(f"epoch {draw.epoch} of {given.dataset.coco.records[index].file_name}: {error}")
        else:
            write_picture(folder / source, sample)
            written[index].append(drawn_of(sample, source, phase_text(given.dataset.policy, draw), classes))
        if progress:
            progress(done, len(jobs))
    return WrittenDraws(written, faults)


def drawn_of(sample: Sample, source: str, about: str, classes: np.ndarray) -> Drawn:
    height, width = sample.image.shape[1:]
    boxes_xyxy_px = np.asarray(cxcywh_to_xyxy(sample.boxes), np.float64) * [width, height, width, height]  # (N, 4)
    return Drawn(source, (width, height), about, boxes_xyxy_px, classes[np.asarray(sample.labels)])


def phase_text(policy: Policy, draw: Draw) -> str:
    phase = "light" if policy.recipe(draw.epoch) == policy.light else "strong"
    return f"epoch {draw.epoch}, {phase}, {draw.size_hw[1]} × {draw.size_hw[0]} px"  # noqa: RUF001


def write_picture(path: Path, sample: Sample) -> None:
    """Grey as it is; of four channels the first three."""
    image = np.ascontiguousarray(sample.image[:3].permute(1, 2, 0))  # (H, W, C)
    shown = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), shown):
        raise ValueError(f"{path}: expected to write a picture, the disk refused; is it full?")


def show_draws(given: DrawnSet, indices: Sequence[int]) -> Figure:
    """A row an image: as it is stored, then its draws."""
    shots, dataset = [], given.dataset
    for index, draws in training_draws(given.sampler, [int(index) for index in indices], given.draws).items():
        picture, name = dataset.load(index), Path(dataset.coco.records[index].file_name).name
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
        shots.append(Shot(visible(picture.image), picture.boxes_xyxy_px, picture.labels, short))
        row = [replace(sample_shot(dataset[draw]), heading=phase_text(dataset.policy, draw)) for draw in draws]
        shots += row + [BLANK] * (given.draws - len(row))
    return show_shots(shots, dataset.coco.names, "As stored, and as the model gets it", given.draws + 1)
