"""A predictor that needs no weights: its detector finds what is bright."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.deploy.about import About
from kit.deploy.runtimes import Found
from kit.predictor import Predictor

NAMES = ["lamp", "sun"]
SIDE = 64


class Bright:
    """The box around what is bright, three times: as a lamp with 0.9, as a sun with 0.5, as a lamp with 0.2."""

    runtime, device = "torch", "cpu"

    def __init__(self, batch: int | None = None, channels: int = 3):
        self.about = About(
            size="n", names=NAMES, category_ids=[3, 7], channels=channels, height_px=SIDE, width_px=SIDE, top_k=3,
            batch=batch,
        )  # fmt: skip
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        self.batches.append(len(images))
        boxes = np.stack([self.box(image) * [w, h, w, h] for image, (h, w) in zip(images, sizes_hw, strict=True)])
        count = len(images)
        return Found(
            np.repeat(boxes[:, None], 3, axis=1).astype(np.float32),
            np.tile(np.array([0.9, 0.5, 0.2], np.float32), (count, 1)),
            np.tile(np.array([0, 1, 0], np.int32), (count, 1)),
        )

    def box(self, image: np.ndarray) -> np.ndarray:
        """-> (4,) xyxy in [0, 1] of the image; the whole image where nothing is bright."""
        rows, columns = (np.flatnonzero((image[..., 0] > 127).any(axis=axis)) for axis in (1, 0))
        if len(rows) == 0:
            return np.array([0.0, 0.0, 1.0, 1.0])
        height, width = image.shape[:2]
        return np.array([columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height])


@pytest.fixture
def predictor_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Predictor]:
    """A Predictor around a detector of the test's own; further arguments are those of Predictor."""

    def make(runner: Any = None, **arguments: Any) -> Predictor:
        monkeypatch.setattr("kit.predictor.predictor.opened", lambda *_: (runner or Bright(), "it is drawn"))
        return Predictor("bright.pt", **arguments)

    return make


def bright(
    box_xyxy_px: tuple[int, int, int, int] = (40, 20, 120, 60), size_hw: tuple[int, int] = (128, 256)
) -> np.ndarray:
    """A dark picture with a bright box."""
    image = np.zeros((*size_hw, 3), np.uint8)
    x1, y1, x2, y2 = box_xyxy_px
    image[y1:y2, x1:x2] = 255
    return image


def write_bright(path: Path, *arguments: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), bright(*arguments))
    return path
