"""Decoded pixels kept from epoch to epoch, in memory or in a file, up to a stated number of bytes, for all workers.

One file has a place for each image that fits: a mark of 8 bytes, and the pixels. The mark is made of the image file's
path, size and time of change, and of the pixels: an image that has changed since, or was half written when the machine
went down, is decoded again. Which images have a place follows from their sizes alone, so that no worker has to ask
another. Memory is taken as images are read, disk at once.
"""

import hashlib
import mmap
import os
import weakref
import zlib
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.data.coco import CocoFile
from kit.data.picture import Size
from kit.files import atomic

Kind = Literal["none", "ram", "disk"]
MARK_BYTES = 8


class PixelCache:
    """Pixels of the images of one data set. `open_cache` makes it; a spawned worker opens the same file anew."""

    def __init__(self, path: Path, sizes_hw: list[Size], channels: int, most_bytes: int):
        self.path, self.sizes_hw, self.channels, self.most_bytes = path, sizes_hw, channels, most_bytes
        self.starts = places(sizes_hw, channels, most_bytes)
        self.shared, self.own = maps(path)
        self.proven: set[int] = set()  # whose pixels this process has found whole

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelCache, (self.path, self.sizes_hw, self.channels, self.most_bytes)

    def read(self, index: int, file: Path, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The pixels of an image, decoded where the cache has not got them; not to be written to -> (H, W, C) uint8."""
        start = self.starts[index]
        if start < 0:
            return decode()
        shape = (*self.sizes_hw[index], self.channels)
        size = int(np.prod(shape))
        stamp = stamp_of(file)
        mark, first = slice(start, start + MARK_BYTES), start + MARK_BYTES
        if self.own[mark][:4].tobytes() == stamp and self.is_whole(index, self.own[mark], first, size):
            return self.own[first : first + size].reshape(shape)
        pixels = decode()
        self.proven.discard(index)
        self.shared[mark] = 0  # from here to the end it is nobody's
        self.shared[first : first + size] = pixels.reshape(-1)
        self.shared[mark] = np.frombuffer(stamp + checksum(pixels), np.uint8)
        return pixels

    def is_whole(self, index: int, mark: np.ndarray, first: int, size: int) -> bool:
        """Whether the pixels are those of the mark: looked at once."""
        if index not in self.proven and checksum(self.own[first : first + size]) == mark[4:].tobytes():
            self.proven.add(index)
        return index in self.proven


def open_cache(
    kind: Kind, coco: CocoFile, channels: int, most_bytes: int, folder: Path | str | None = None
) -> PixelCache | None:
    """A cache of at most so many bytes: ram, which goes with this process; disk, a file in the folder that stays.

    What a file on the disk already has is used. Another set of images or another bound is another file; old ones are
    yours to delete.
    """
    if kind == "none":
        return None
    if kind == "disk" and folder is None:
        raise ValueError("open_cache: expected a folder for a cache on the disk, got None; name one")
    sizes_hw = [record.size_hw for record in coco.records]
    total = total_bytes(sizes_hw, channels, most_bytes)
    if kind == "ram":
        memory = os.memfd_create("kit pixels")
        os.truncate(memory, total)
        cache = PixelCache(Path(f"/proc/{os.getpid()}/fd/{memory}"), sizes_hw, channels, most_bytes)
        weakref.finalize(cache, os.close, memory)
        return cache
    names = "\n".join(record.file_name for record in coco.records)
    layout = hashlib.sha256(f"{sizes_hw} {channels} {most_bytes} {names}".encode()).hexdigest()[:16]
    path = Path(folder or "") / f"pixels-{layout}.bin"
    if not path.exists() or path.stat().st_size != total:
        with atomic(path) as temporary:
            allocate(temporary, total)
    return PixelCache(path, sizes_hw, channels, most_bytes)


def places(sizes_hw: list[Size], channels: int, most_bytes: int) -> list[int]:
    """Where in the file each image begins; -1: it has no place. The first images that fit have one."""
    ends = list(accumulate(MARK_BYTES + height * width * channels for height, width in sizes_hw))
    return [start if end <= most_bytes else -1 for start, end in zip([0, *ends], ends, strict=False)]


def total_bytes(sizes_hw: list[Size], channels: int, most_bytes: int) -> int:
    """Of the file: at most most_bytes, and one page where nothing fits."""
    ends = accumulate(MARK_BYTES + height * width * channels for height, width in sizes_hw)
    return max((end for end in ends if end <= most_bytes), default=mmap.PAGESIZE)


def allocate(path: Path, size: int) -> None:
    """Room on the disk for all of it now: a map of a file that finds none later would end the process."""
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ValueError(
                f"{path.parent}: expected room for {size / 2**30:.2f} GiB of cache, {error.strerror}; lower the bound"
            ) from error


def maps(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of the file twice: to write to for all processes, and to read."""
    with path.open("r+b") as file:
        shared = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)
        return shared, np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def stamp_of(file: Path) -> bytes:
    """4 bytes that change with the path, the size and the time of change of a file; b"" where there is none."""
    try:
        state = file.stat()
    except FileNotFoundError:
        return b""
    return hashlib.blake2b(f"{file} {state.st_size} {state.st_mtime_ns}".encode(), digest_size=4).digest()


def checksum(pixels: np.ndarray) -> bytes:
    """4 bytes, never all zero: that is what an empty place has."""
    return (zlib.crc32(np.ascontiguousarray(pixels).data) or 1).to_bytes(4, "little")
