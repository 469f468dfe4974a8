"""A runner over images: resized, batched, and told in pixels of the images; COCO results of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit.data.augment import resized
from kit.data.coco import CocoFile
from kit.data.dataset import read_indexed
from kit.deploy.about import About
from kit.deploy.runtimes import Found, Runner
from kit.predict import Detections, Progress, coco_results


def fed(image: np.ndarray, about: About) -> np.ndarray:
    """The image as the detector takes it, by the resize of its training: (H, W, C) uint8 -> (H', W', C)."""
    return resized(image, about.size_hw)


def find(runner: Runner, images: Sequence[np.ndarray]) -> list[Detections]:
    """Of each image (H, W, C) uint8, in its own pixels; a file of fixed batch gets that many at once, the last ones
    repeated where there are too few."""
    about = runner.about
    step = about.batch or max(len(images), 1)
    found = []
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        rows = [min(index, len(chunk) - 1) for index in range(about.batch or len(chunk))]
        batch = np.stack([fed(chunk[row], about) for row in rows])
        sizes_hw = np.array([chunk[row].shape[:2] for row in rows], np.float32)
        found += detections_of(runner(batch, sizes_hw))[: len(chunk)]
    return found


def detections_of(found: Found) -> list[Detections]:
    """One for each image of the batch."""
    arrays = (found.boxes_xyxy, found.scores, found.labels.astype(np.int64))
    return [Detections(*each) for each in zip(*(torch.from_numpy(array) for array in arrays), strict=True)]


def dataset_results(
    runner: Runner,
    coco: CocoFile,
    images: Path | str,
    *,
    batch_size: int = 1,
    min_score: float = 0.01,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """COCO results of every image of the file, as kit.predict_dataset gives them for the checkpoint."""
    if len(coco.names) != len(runner.about.names):
        expected, found = ", ".join(runner.about.names), ", ".join(coco.names)
        raise ValueError(f"{coco.path}: expected the classes of the detector ({expected}), found {found}")
    step = runner.about.batch or batch_size
    results: list[dict[str, Any]] = []
    for start in range(0, len(coco.records), step):
        records = coco.records[start : start + step]
        pictures = [
            read_indexed(coco, Path(images), start + place, runner.about.channels) for place in range(len(records))
        ]
        for record, detections in zip(records, find(runner, pictures), strict=True):
            results += coco_results(detections, record.image_id, record.size_hw, coco.category_ids, min_score)
        if progress:
            progress(min(start + step, len(coco.records)), len(coco.records))
    return results
