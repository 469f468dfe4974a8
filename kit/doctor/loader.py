"""Does the loader give every image once, in another order each epoch, the same for the same draw, and how fast?"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from kit.data.augment import Draw
from kit.data.dataset import Batch, CocoDataset, TrainSampler, train_loader
from kit.doctor.report import Verdict, few, judged
from kit.files import one_line
from kit.optimisation import Plan
from kit.predict import Progress

PART = "loader"
STRIDE = 32  # px, of the coarsest level
UNREADABLE = (ValueError, OSError)  # what reading an image raises


@dataclass
class Loaded:
    """What came out of the loader: draws and batches in their order, and the images a second."""

    draws: list[list[Draw]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def rate(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0


def sampler_of(train_set: CocoDataset, plan: Plan, epochs: int) -> TrainSampler:
    """As the training draws, in one process; of a set smaller than a batch, what there is."""
    size = min(max(1, plan.batch_size // plan.accumulate), len(train_set))
    return TrainSampler(len(train_set), size, epochs, plan.seed, plan.sizes or [plan.size_hw])


def load(train_set: CocoDataset, plan: Plan, most_s: float, kept: int, progress: Progress | None) -> Loaded:
    """Batches of an epoch of strong augmentation until the time is over; the first `kept` stay."""
    epoch = max(0, (plan.strong_until_epoch or plan.epochs) - 1) // 2  # past plain epochs, before the light end
    sampler = sampler_of(train_set, plan, epoch + 1)
    start = epoch * sampler.steps_per_epoch
    sampler.start_step = start
    loaded, draws = Loaded(), list(sampler)
    batches: Iterator[Batch] = iter(train_loader(train_set, sampler, plan.workers))
    began = first = time.monotonic()
    try:
        for index, batch in enumerate(batches):
            now = time.monotonic()
            first = now if index == 0 else first  # the workers' start is not of the rate
            loaded.images += len(batch.image_ids) if index or len(draws) == 1 else 0
            loaded.seconds = now - (first if index else began)
            if index < kept:
                loaded.draws.append(draws[index])
                loaded.batches.append(batch)
            over = now - began > most_s or index + 1 == len(draws)
            if progress:
                progress(len(draws) if over else index + 1, len(draws))
            if over:
                break
    except UNREADABLE as error:
        loaded.error = one_line(error)
    return loaded


def check_order(train_set: CocoDataset, plan: Plan) -> list[Verdict]:
    """Of two epochs of the sampler, without opening an image."""
    sampler = sampler_of(train_set, plan, 2)
    draws = list(sampler)
    half = sampler.steps_per_epoch
    first, second = ([draw.index for batch in part for draw in batch] for part in (draws[:half], draws[half:]))
    repeated = len(first) - len(set(first))
    left_out = len(train_set) - len(first)
    same = sum(one == other for one, other in zip(first, second, strict=True)) / max(1, len(first))
    is_short = len(train_set) < 3  # of one or two images there is no order to speak of
    images = f"{len(train_set):,} images"
    return [
        judged(
            PART,
            "Does an epoch show each image once?",
            repeated > 0,
            left_out > len(train_set) / 4,
            f"{images}, none twice, the odd ones of the last batch left out",
            f"{repeated:,} twice, {left_out:,} left out",
            "lower batch_size: a large part of the set is left out of each epoch"
            if not repeated
            else "the sampler repeats images: look at it",
        ),
        judged(
            PART,
            "Is each epoch in another order?",
            not is_short and (same > 0.9 or first == sorted(first)),
            not is_short and same > 0.5,
            "few images at the same place in two epochs",
            f"{same:.0%} at the same place",
            "the sampler does not shuffle: look at it",
        ),
    ]


def check_files(train_set: CocoDataset, most: int, seed: int, progress: Progress | None) -> Verdict:
    """Do images open, with the size that the annotations tell? All of them, or as many drawn by chance."""
    order = np.random.default_rng([seed, 2]).permutation(len(train_set))[:most]
    bad: list[str] = []
    for done, index in enumerate(np.sort(order).tolist(), 1):
        try:
            train_set.load(index)
        except UNREADABLE as error:
            bad.append(one_line(error))
        if progress:
            progress(done, len(order))
    looked = f"of {len(order):,} images {'(all)' if len(order) == len(train_set) else f'of {len(train_set):,}'}"
    found = f"{looked}, {len(bad):,} do not open" + (f": {few(bad, 2)}" if bad else "")
    mend = "python -m kit.data.check names them all, --fix writes a copy without them"
    return judged(
        PART, "Do the images open, in the size that the annotations tell?", bool(bad), False, "all of them", found, mend
    )


def check_batches(loaded: Loaded, train_set: CocoDataset, plan: Plan) -> list[Verdict]:
    """The form of what came, and that the same draw gives the same sample."""
    odd = [problem for draws, batch in pairs(loaded) for problem in oddities(draws, batch, train_set)]
    sizes = sorted({(batch.images.shape[2], batch.images.shape[3]) for batch in loaded.batches})
    shown = few([f"{width} x {height}" for height, width in sizes], 6)
    draws = [draw for batch in loaded.draws for draw in batch][:4]
    unlike = [train_set.coco.records[draw.index].file_name for draw in draws if not is_same_twice(train_set, draw)]
    return [
        judged(
            PART,
            "Do batches come as they were asked for?",
            bool(odd or loaded.error),
            False,
            f"uint8 images of {train_set.channels} channels, sides of multiples of {STRIDE} px, ids as drawn",
            loaded.error or few(odd) or f"{len(loaded.batches)} batches of {shown} px",
            "look at the message; sides are height_px and width_px, rounded to multiples of 32",
        ),
        judged(
            PART,
            "Is a sample the same when it is drawn again?",
            bool(unlike),
            False,
            "the same pixels and boxes",
            f"{len(unlike)} of {len(draws)} differ" + (f": {few(unlike)}" if unlike else ""),
            "chance in the policy or the data set that does not come from (seed, epoch, index)",
        ),
    ]


def pairs(loaded: Loaded) -> Iterator[tuple[list[Draw], Batch]]:
    return zip(loaded.draws, loaded.batches, strict=True)


def oddities(draws: Sequence[Draw], batch: Batch, train_set: CocoDataset) -> Iterator[str]:
    asked = [train_set.coco.records[draw.index].image_id for draw in draws]
    height, width = batch.images.shape[2:]
    if batch.image_ids != asked:
        yield f"image ids {few(batch.image_ids)} where {few(asked)} were drawn"
    if (height, width) != draws[0].size_hw or height % STRIDE or width % STRIDE:
        yield f"images of {width} x {height} px where {draws[0].size_hw[1]} x {draws[0].size_hw[0]} were asked for"
    if batch.images.dtype != torch.uint8 or batch.images.shape[1] != train_set.channels:
        yield f"images of {batch.images.shape[1]} channels, {batch.images.dtype}"


def is_same_twice(train_set: CocoDataset, draw: Draw) -> bool:
    one, other = train_set[draw], train_set[draw]
    return (
        torch.equal(one.image, other.image)
        and torch.equal(one.boxes, other.boxes)
        and torch.equal(one.labels, other.labels)
    )


def check_rate(loaded: Loaded, step_images_per_s: float, workers: int) -> Verdict:
    """Does the training wait for images?"""
    found = f"{loaded.rate:.1f} images/s by {workers} workers, the training takes {step_images_per_s:.1f}"
    return judged(
        PART,
        "Do images come faster than they are trained on?",
        False,
        loaded.rate < 1.2 * step_images_per_s,
        "1.2 times as fast or more",
        found,
        "more workers, cache: ram or disk, or smaller image files",
    )
