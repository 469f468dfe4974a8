"""The pixels of an image file, as every part of the kit gets them."""

from pathlib import Path

import cv2
import numpy as np

from kit.files import one_line


def read_image(path: Path | str, channels: int = 3) -> np.ndarray:
    """8-bit pixels as stored, 1 channel grey, 3 RGB, 4 RGB and the file's fourth (255 where there is none).

    16-bit values are scaled to 8 bits, in every image alike; CMYK becomes RGB; transparency is ignored for 1 and 3.
    -> (H, W, C) uint8.
    """
    flags = {
        1: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
        3: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
        4: cv2.IMREAD_UNCHANGED,
    }
    if channels not in flags:
        raise ValueError(f"channels must be 1, 3 or 4, got {channels}")
    try:
        image = cv2.imread(str(path), flags[channels])
    except cv2.error as error:  # of more pixels than OpenCV allows, or than there is memory for
        raise ValueError(f"{path}: expected an image, {one_line(error)}; run the check of the data set") from error
    if image is None:
        state = "cannot be decoded" if Path(path).is_file() else "is missing"
        raise ValueError(f"{path}: expected an image, the file {state}; run the check of the data set")
    return with_four_channels(image) if channels == 4 else image.reshape(*image.shape[:2], channels)


def with_four_channels(image: np.ndarray) -> np.ndarray:
    """OpenCV's unchanged image, grey, BGR or BGRA, 8 or 16 bits -> (H, W, 4) uint8, RGB first."""
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"image must have 8 or 16 bits a value, got {image.dtype}; convert the file")
    image = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    stored = 1 if image.ndim == 2 else image.shape[2]
    return cv2.cvtColor(image, {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}[stored])
