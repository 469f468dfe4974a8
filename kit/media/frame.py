"""One picture of a source, and how its pixels become those that a detector takes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

Kind = Literal["image", "video", "pdf"]
Load = Callable[[int], np.ndarray]  # channels wanted -> (H, W, C) uint8, or Unreadable


class Unreadable(ValueError):
    """An image, a video or one of its frames, a PDF or one of its pages that cannot be read."""


@dataclass(frozen=True)
class Frame:
    """One picture of a source. It is decoded by load, in whichever thread calls it."""

    name: str  # of its file, from the folder that all files of the source share
    kind: Kind
    load: Load
    path: Path | None = None
    index: int = 0  # of the frame in its video, or the page in its PDF
    time_s: float | None = None  # in its video


def constant(image: np.ndarray) -> Load:
    return lambda channels: with_channels(image, channels)


def unreadable(reason: str) -> Load:
    def load(channels: int) -> np.ndarray:
        raise Unreadable(reason)

    return load


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) or (H, W, C) uint8, grey, RGB or RGB and a fourth -> (H, W, channels)."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.dtype != np.uint8 or 0 in image.shape:
        raise Unreadable(
            f"image must be (H, W) or (H, W, C) uint8 with 1, 3 or 4 channels, got {image.shape} {image.dtype}"
        )
    has = image.shape[2]
    if has == channels:
        return image
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)[..., None]
    colours = np.repeat(image, 3, axis=2) if has == 1 else image[..., :3]  # (H, W, 3)
    return np.ascontiguousarray(
        colours if channels == 3 else np.dstack([colours, np.full(image.shape[:2], 255, np.uint8)])
    )
