"""Images for INT8: those that calibrate, those that control, and the AP that a model has on the latter.

Ranges are measured on training images alone. What decides which layers stay float is no training image that they were
measured on either; where it is the validation set, the AP told on it has been chosen on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kit.data.augment import resized
from kit.data.coco import CocoFile, Split, as_coco, read_coco
from kit.data.pixels import read_image
from kit.data.unlabelled import same_content
from kit.deploy.about import INPUTS, About
from kit.deploy.runtimes import Found, as_input
from kit.metrics import evaluate
from kit.predict import Detections, Progress, coco_results

MIN_SCORE = 0.01  # of the detections that AP is computed from, as in kit.predict_dataset

RANKED = 50  # control images on which layers are compared with each other

Find = Callable[[np.ndarray, np.ndarray], Found]  # images (B, H, W, C) uint8, sizes_hw (B, 2) float32; a Runner is one


class Steps:
    """Counts images looked at. Where layers are given back, more are looked at than planned, and the end moves on.

    looks: how often each control image is, if none is given back.
    """

    def __init__(self, progress: Progress | None, looks: int = 2):
        self.progress, self.looks, self.done, self.planned = progress, looks, 0, 0

    def plan(self, calibration: int, control: int) -> None:
        """All are read once besides."""
        self.planned = calibration + control + self.looks * control

    def __call__(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, max(self.planned, self.done + 1))

    def finish(self) -> None:
        if self.progress:
            self.progress(self.done, self.done)


@dataclass(frozen=True)
class Pool:
    """Some images of a split, as the file takes them: pixels (N, H, W, C) uint8, in the order of coco.records."""

    coco: CocoFile
    pixels: np.ndarray
    original_sizes_hw: np.ndarray  # (N, 2) float32

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Feeds:
    """What the graph's inputs are fed with, batch by batch, as often as one likes; only one batch is held."""

    pool: Pool
    about: About

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for images, sizes_hw, _ in batches(self.pool, self.about):
            yield dict(zip(INPUTS, (as_input(images, self.about), sizes_hw), strict=True))


@dataclass(frozen=True)
class Pools:
    """The images that ranges are measured on, and those that AP is measured on."""

    calibration: Pool
    control: Pool


def read_pools(
    about: About, train: Split, control: Split | None, images: int, control_images: int, step: Steps
) -> Pools:
    """Evenly spread over the files, so that every camera has its share; control None: further images of train."""
    if images < 1 or control_images < 1:
        raise ValueError(f"expected at least 1 image to calibrate and 1 to control, got {images} and {control_images}")
    if control is None:
        control = train
        ours, others = shared_out(read_coco(train.annotations), images, control_images)
    else:
        ours = spread(read_coco(train.annotations), images)
        others = spread(read_coco(control.annotations), control_images)
    refuse_unfit(others, about)
    refuse_shared(ours, train.images, others, control.images)
    step.plan(len(ours.records), len(others.records))
    return Pools(read_pool(ours, train.images, about, step), read_pool(others, control.images, about, step))


def shared_out(coco: CocoFile, images: int, control_images: int) -> tuple[CocoFile, CocoFile]:
    """Two parts without a common image, of the wanted counts or else in their proportion."""
    chosen = spread(coco, images + control_images)
    count = len(chosen.records)
    first = spread_rows(count, max(1, count * images // (images + control_images)))
    return only(chosen, first), only(chosen, np.setdiff1d(np.arange(count), first))


def spread_rows(count: int, wanted: int) -> np.ndarray:
    """Which of `count` to take so that `wanted` lie evenly among them -> (min(count, wanted),) rising."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)


def spread(coco: CocoFile, wanted: int) -> CocoFile:
    """By the order of their file names."""
    by_name = sorted(range(len(coco.records)), key=lambda row: coco.records[row].file_name)
    return only(coco, np.array(by_name, np.int64)[spread_rows(len(by_name), wanted)])


def only(coco: CocoFile, rows: np.ndarray) -> CocoFile:
    return replace(coco, records=[coco.records[row] for row in rows])


def refuse_unfit(control: CocoFile, about: About) -> None:
    if not any(len(record.labels) for record in control.records):
        raise ValueError(
            f"{control.path}: expected annotated images to control the accuracy by, found {len(control.records)} "
            "images without one; give another split, or more images"
        )
    if len(control.category_ids) != len(about.names):
        raise ValueError(
            f"{control.path}: expected the {len(about.names)} classes of the model ({', '.join(about.names)}), found "
            f"{len(control.category_ids)} ({', '.join(control.names)}); give the data that it was trained on"
        )


def refuse_shared(calibration: CocoFile, images: Path, control: CocoFile, control_images: Path) -> None:
    """ValueError where a file calibrates that is evaluated too, under whatever name."""
    paths = [(images / record.file_name).resolve() for record in calibration.records]
    others = [(control_images / record.file_name).resolve() for record in control.records]
    place = {path: row for row, path in enumerate(others)}
    shared = {row: place[path] for row, path in enumerate(paths) if path in place} or same_content(paths, others)
    if shared:
        named = ", ".join(f"{paths[row]} = {others[other]}" for row, other in list(shared.items())[:3])
        raise ValueError(
            f"{len(shared)} of {len(paths)} images to calibrate on are among those that the accuracy is measured on "
            f"({named}); calibrate on training images alone"
        )


def read_pool(coco: CocoFile, images: Path, about: About, step: Steps) -> Pool:
    """Read and resized once: an accuracy control looks at them many times."""
    pixels = np.empty((len(coco.records), *about.size_hw, about.channels), np.uint8)
    sizes_hw = np.empty((len(coco.records), 2), np.float32)
    for row, record in enumerate(coco.records):
        image = read_image(images / record.file_name, about.channels)
        pixels[row], sizes_hw[row] = resized(image, about.size_hw), image.shape[:2]
        step()
    return Pool(coco, pixels, sizes_hw)


def batches(pool: Pool, about: About) -> Iterator[tuple[np.ndarray, np.ndarray, slice]]:
    """images (B, H, W, C), sizes_hw (B, 2), rows of the pool.

    B is what the file takes, 1 where it takes any; the last batch is filled up with the last image.
    """
    size = about.batch or 1
    for start in range(0, len(pool), size):
        rows = np.minimum(np.arange(start, start + size), len(pool) - 1)
        yield pool.pixels[rows], pool.original_sizes_hw[rows], slice(start, min(start + size, len(pool)))


def average_precision(find: Find, pool: Pool, about: About, step: Steps) -> float:
    """COCO AP: a figure of the set, which two detections that change places do not move."""
    results = []
    for images, sizes_hw, rows in batches(pool, about):
        found = find(images, sizes_hw)
        for place, record in enumerate(pool.coco.records[rows]):
            boxes, scores, labels = (each[place] for each in (found.boxes_xyxy, found.scores, found.labels))
            detections = Detections(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels))
            height, width = (int(side) for side in sizes_hw[place])
            results += coco_results(detections, record.image_id, (height, width), pool.coco.category_ids, MIN_SCORE)
            step()
    return max(evaluate(results, as_coco(pool.coco)).ap, 0.0)  # a part of the images may have nothing to find


def part(pool: Pool, rows: np.ndarray) -> Pool:
    """Some of the images; rows: indices."""
    return Pool(only(pool.coco, rows), pool.pixels[rows], pool.original_sizes_hw[rows])
