"""The state of image files before anything is trained on them: there, whole, and of which size."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image, UnidentifiedImageError

EXIF_ORIENTATION = 0x0112  # values from 5 on swap height and width

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class FileState:
    """What one image file is like. fault: empty where it can be decoded to its end."""

    fault: str = ""
    detail: str = ""
    size_hw: tuple[int, int] = (0, 0)  # as stored
    is_turned: bool = False  # the EXIF orientation would swap height and width


def read_states(paths: Sequence[Path], progress: Progress | None = None) -> list[FileState]:
    """The state of each file, in order."""
    states = []
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        for done, state in enumerate(pool.map(read_state, paths), 1):
            states.append(state)
            if progress:
                progress(done, len(paths))
    return states


def read_state(path: Path) -> FileState:
    """Reads one file to its end, as cheaply as its format allows."""
    if not path.is_file():
        return FileState("missing image")
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
