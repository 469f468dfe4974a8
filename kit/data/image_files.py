"""The state of image files before anything is trained on them: there, whole, and of which size."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from PIL import Image, UnidentifiedImageError

from kit.files import one_line

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
EXIF_ORIENTATION = 0x0112  # values from 5 on swap height and width
MOST_NAME_BYTES = 255  # of one file or folder: what file systems take
UNUSABLE_NAME = "unusable file name"  # fault of a file that is not looked for

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class FileState:
    """What one image file is like. fault: empty where it can be decoded to its end."""

    fault: str = ""
    detail: str = ""
    size_hw: tuple[int, int] = (0, 0)  # as stored
    is_turned: bool = False  # the EXIF orientation would swap height and width


def name_fault(name: str) -> str:
    """Why a name can be that of no file below its folder; empty where it can."""
    plain = os.path.normpath(name)
    if not name:
        return "is empty"
    if "\0" in name:
        return "holds a NUL"
    if os.path.isabs(name) or plain.split(os.sep)[0] == "..":
        return "leads out of the image folder"
    if plain == ".":
        return "is that of the image folder"
    longest = max(len(each.encode("utf-8", "surrogatepass")) for each in plain.split(os.sep))
    return f"has {longest:,} bytes, more than the {MOST_NAME_BYTES} of a file" * (longest > MOST_NAME_BYTES)


def read_states(paths: Sequence[Path], progress: Progress | None = None) -> list[FileState]:
    """The state of each file, in order."""
    return _read(read_state, paths, progress)


def read_named(folder: Path, names: Sequence[str], progress: Progress | None = None) -> list[FileState]:
    """The state of each file of a folder, in order; a name that leads elsewhere is not followed."""
    return _read(partial(_state_in, folder), names, progress)


def _read(state_of: Callable[[Any], FileState], files: Sequence[Any], progress: Progress | None) -> list[FileState]:
    states = []
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        for done, state in enumerate(pool.map(state_of, files), 1):
            states.append(state)
            if progress:
                progress(done, len(files))
    return states


def _state_in(folder: Path, name: str) -> FileState:
    fault = name_fault(name)
    return FileState(UNUSABLE_NAME, fault) if fault else read_state(folder / name)


def read_state(path: Path) -> FileState:
    """Reads one file to its end, as cheaply as its format allows."""
    try:
        if not path.is_file():
            return FileState("missing image")
    except OSError as error:  # such as a path that is too long, or a folder that may not be read
        return FileState("missing image", one_line(error.strerror))
    size_hw, bytes_text = (0, 0), f"{path.stat().st_size} bytes"
    try:
        with Image.open(path) as image:
            size_hw = (image.height, image.width)
            is_turned = image.format != "PNG" and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            read_to_the_end(image)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        return FileState("unreadable image", f"{bytes_text}, {error}")
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on broken data
        return FileState("truncated image", f"{bytes_text}, {error}", size_hw)
    if not cv2.haveImageReader(str(path)):
        return FileState("unreadable image", f"{bytes_text}, of a kind that OpenCV does not read", size_hw)
    return FileState(size_hw=size_hw, is_turned=is_turned)


def read_to_the_end(image: Image.Image) -> None:
    """JPEG: all coefficients, but pixels at an eighth of the size. PNG: the checksums of all parts. Others: decoded."""
    if image.format == "PNG":
        image.verify()
        return
    if image.format == "JPEG":
        image.draft("L", (image.width // 8, image.height // 8))
    image.load()
