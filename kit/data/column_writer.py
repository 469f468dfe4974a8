"""Writing a COCO file of any size from its columns: some thousand entries at a time, and no object for the others."""

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from kit.data.columns import Columns
from kit.data.record import UNKNOWN
from kit.files import atomic

BLOCK = 20_000  # entries that are objects at a time
ENCODER = msgspec.json.Encoder()


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int
    width: int


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def write_columns(
    path: Path | str,
    columns: Columns,
    category_ids: list[int],
    names: list[str],
    info: Mapping[str, Any] | None = None,
) -> Path:
    """The file is whole or not there; .gz by its ending. ValueError where JSON or COCO cannot hold it."""
    path = Path(path)
    refuse_unwritable(columns, path)
    categories = [{"id": each, "name": name} for each, name in zip(category_ids, names, strict=True)]
    with atomic(path) as temporary, packed(temporary) as file:
        file.write(b'{"info": %s, ' % strict_json(dict(info)) if info else b"{")
        file.write(b'"images": [')
        write_blocks(file, image_blocks(columns))
        file.write(b'], "annotations": [')
        write_blocks(file, annotation_blocks(columns, category_ids))
        file.write(b'], "categories": %s}' % strict_json(categories))
    return path


def strict_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def refuse_unwritable(columns: Columns, path: Path) -> None:
    """An unknown category, and numbers that JSON has not."""
    is_unknown = columns.labels == UNKNOWN
    is_finite = np.isfinite(columns.boxes_xywh_px).all(axis=1) & np.isfinite(columns.areas_px2)
    for is_bad, what in ((is_unknown, "an unknown category"), (~is_finite, "a box or an area without numbers")):
        if is_bad.any():
            image = columns.image_ids[np.searchsorted(columns.offsets, is_bad.argmax(), side="right") - 1]
            raise ValueError(f"{path}: image {image} has {what}; check and clean the file first")


@contextmanager
def packed(path: Path) -> Iterator[IO[bytes]]:
    """Gzipped by the ending .gz, the same bytes for the same content."""
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as unpacked:
            yield unpacked  # type: ignore[misc]  # it is written to as any file


def write_blocks(file: IO[bytes], blocks: Iterator[list[msgspec.Struct]]) -> None:
    for number, block in enumerate(blocks):
        file.write(b", " if number else b"")
        file.write(ENCODER.encode(block)[1:-1])


def image_blocks(columns: Columns) -> Iterator[list[msgspec.Struct]]:
    for first in range(0, len(columns), BLOCK):
        part = slice(first, first + BLOCK)
        sizes, ids = columns.sizes_hw[part].tolist(), columns.image_ids[part].tolist()
        names = columns.file_names[part]
        yield [_Image(each, name, *size) for each, name, size in zip(ids, names, sizes, strict=True)]


def annotation_blocks(columns: Columns, category_ids: list[int]) -> Iterator[list[msgspec.Struct]]:
    known = np.array(category_ids, np.int64)
    for first in range(0, len(columns.labels), BLOCK):
        last = min(first + BLOCK, len(columns.labels))
        rows = np.searchsorted(columns.offsets, np.arange(first, last), side="right") - 1
        parts = (
            columns.annotation_ids[first:last].tolist(),
            columns.image_ids[rows].tolist(),
            known[columns.labels[first:last]].tolist(),
            columns.boxes_xywh_px[first:last].tolist(),
            columns.areas_px2[first:last].tolist(),
            columns.is_crowd[first:last].astype(int).tolist(),
            segmentations(columns, first, last),
        )
        yield [_Annotation(*each) for each in zip(*parts, strict=True)]


def segmentations(columns: Columns, first: int, last: int) -> list[msgspec.Raw | msgspec.UnsetType]:
    if not columns.segmentations.data:
        return [msgspec.UNSET] * (last - first)
    texts = columns.segmentations.between(first, last)
    return [msgspec.Raw(refuse_nan(text)) if text else msgspec.UNSET for text in texts]


def refuse_nan(text: bytes) -> bytes:
    """Segmentations are written as they were read, and a file may have been read that is no strict JSON."""
    if b"NaN" in text or b"Infinity" in text:
        json.loads(text, parse_constant=no_number)
    return text


def no_number(name: str) -> None:
    raise ValueError(f"segmentation: expected numbers that JSON can hold, got {name}; check and clean the file first")
