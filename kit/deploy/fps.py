"""Frames a second as the organisers of Track 4 count them: one image at a time, the reading of the file left out.

The timer runs over preprocessing, detector and post-processing; the rate is the number of images over the sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from kit.data.coco import CocoFile
from kit.data.pixels import read_image
from kit.deploy.about import About
from kit.deploy.results import detections_of, fed
from kit.deploy.runtimes import Found, Runner
from kit.predict import Progress, coco_results

STAGES = ("reading", "preprocessing", "detector", "postprocessing")
WARM_UP = 5  # calls before the clock starts


@dataclass(frozen=True)
class FrameTimes:
    """Milliseconds of each image and stage: (images, 4), in the order of STAGES."""

    stages_ms: np.ndarray

    @property
    def total_ms(self) -> np.ndarray:
        """(images,): all but the reading."""
        total: np.ndarray = self.stages_ms[:, 1:].sum(axis=1)
        return total

    @property
    def fps(self) -> float:
        return float(1000 * len(self.stages_ms) / self.total_ms.sum())

    @property
    def fps_with_reading(self) -> float:
        return float(1000 * len(self.stages_ms) / self.stages_ms.sum())

    def as_dict(self) -> dict[str, float]:
        """fps, fps_with_reading, the mean of each stage, and percentiles of the total, in milliseconds."""
        means = dict(zip((f"{stage}_ms" for stage in STAGES), self.stages_ms.mean(axis=0).tolist(), strict=True))
        ranks = {f"p{rank}_ms": float(np.percentile(self.total_ms, rank)) for rank in (50, 90, 99)}
        return {"fps": self.fps, "fps_with_reading": self.fps_with_reading} | means | ranks


@dataclass(frozen=True)
class JudgedRun:
    """What a pass over a folder has found, as COCO results, and how long each image took."""

    times: FrameTimes
    predictions: list[dict[str, Any]]


def run_as_judged(
    runner: Runner,
    coco: CocoFile,
    images: Path | str,
    *,
    least_scores: float | Mapping[int, float] = 0.01,
    progress: Progress | None = None,
) -> JudgedRun:
    """Every image of `coco` by itself, in the order of the file names.

    least_scores: what a detection needs to be kept, for all classes or by category id.
    """
    about = runner.about
    if about.batch not in (None, 1):
        raise ValueError(
            f"{runner.runtime}: expected a file that takes one image, found one for {about.batch}; export with batch=1"
        )
    records = sorted(coco.records, key=lambda record: record.file_name)
    if not records:
        raise ValueError("expected images to measure with, the annotations list none")
    blank = np.zeros((1, *about.size_hw, about.channels), np.uint8)
    for _ in range(WARM_UP):
        runner(blank, np.array([about.size_hw], np.float32))
    rows, predictions = [], []
    for index, record in enumerate(records):
        stamps = [perf_counter()]
        image = read_image(Path(images) / record.file_name, about.channels)
        stamps.append(perf_counter())
        inputs = preprocessed(image, about)
        stamps.append(perf_counter())
        found = runner(*inputs)
        stamps.append(perf_counter())
        predictions += postprocessed(found, record.image_id, image.shape[:2], coco.category_ids, least_scores)
        stamps.append(perf_counter())
        rows.append(np.diff(stamps) * 1000)
        if progress:
            progress(index + 1, len(records))
    return JudgedRun(FrameTimes(np.array(rows)), predictions)


def preprocessed(image: np.ndarray, about: About) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, C) uint8 -> (1, H', W', C) uint8, (1, 2) float32 height and width before."""
    return fed(image, about)[None], np.array([image.shape[:2]], np.float32)


def postprocessed(
    found: Found,
    image_id: int,
    size_hw: tuple[int, int],
    category_ids: list[int],
    least_scores: float | Mapping[int, float],
) -> list[dict[str, Any]]:
    """COCO results of the first image of a batch."""
    least = min(least_scores.values()) if isinstance(least_scores, Mapping) else least_scores
    entries = coco_results(detections_of(found)[0], image_id, size_hw, category_ids, least)
    if not isinstance(least_scores, Mapping):
        return entries
    return [entry for entry in entries if entry["score"] >= least_scores[entry["category_id"]]]
