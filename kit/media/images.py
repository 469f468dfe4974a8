"""Image files, whole and upright."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from kit.data.image_files import EXIF_ORIENTATION, read_state
from kit.data.pixels import read_image
from kit.files import one_line
from kit.media.frame import Unreadable

TURNED_FORMATS = ("JPEG", "MPO", "WEBP")  # whose EXIF orientation viewers follow
LAST_BYTES = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # of a file that is whole


def read_picture(path: Path | str, channels: int = 3, exif: bool = True) -> np.ndarray:
    """As kit.data.pixels.read_image, but upright with exif, and Unreadable where it is cut off -> (H, W, C) uint8."""
    path = Path(path)
    if not path.is_file():
        raise Unreadable(f"{path}: expected an image, found {'a folder' if path.is_dir() else 'nothing'}")
    orientation = orientation_of(path)
    try:
        image = read_image(path, channels)
    except (ValueError, cv2.error) as error:
        raise Unreadable(f"{path}: expected an image that OpenCV reads, {one_line(error)}") from error
    return upright(image, orientation) if exif else image


def orientation_of(path: Path) -> int:
    """The EXIF orientation, 1 to 8; Unreadable where the file is no image or not whole.

    OpenCV fills up what is missing at the end of a file with grey and says nothing, so its end is looked at first.
    """
    try:
        with Image.open(path) as image:
            kind, orientation = str(image.format), 1
            if kind in TURNED_FORMATS:
                orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        raise Unreadable(f"{path}: expected an image, got {size} bytes of something else") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise Unreadable(f"{path}: expected an image, {one_line(error)}") from error
    if not ends_with(path, LAST_BYTES.get(kind)):
        state = read_state(path)  # reads it to the end, which costs as much as decoding
        if state.fault:
            raise Unreadable(f"{path}: {state.fault}, {state.detail}")
    return orientation


def ends_with(path: Path, last_bytes: bytes | None) -> bool:
    if last_bytes is None:
        return False
    with path.open("rb") as file:
        file.seek(-min(len(last_bytes), path.stat().st_size), os.SEEK_END)
        return file.read() == last_bytes


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) as stored, and how EXIF says that it lies -> as it is to be seen."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
