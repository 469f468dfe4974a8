"""A COCO file as arrays: about 60 bytes a box, whatever the number of images, and no object for any of them.

A `Record` is made when it is asked for, from slices of the arrays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, SupportsIndex, overload

import numpy as np

from kit.data.json_stream import decoded
from kit.data.record import RawOutlines, Record, segmentation_texts


@dataclass(frozen=True)
class Packed:
    """Many short texts in one; taking some of them moves no text."""

    data: bytes | bytearray
    starts: np.ndarray  # (N,) int64
    lengths: np.ndarray  # (N,) int32

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Packed":
        texts = list(texts)
        return cls.of_lengths(b"".join(texts), np.fromiter(map(len, texts), np.int32, len(texts)))

    @classmethod
    def of_lengths(cls, data: bytes | bytearray, lengths: np.ndarray) -> "Packed":
        """lengths: (N,) of the texts that follow each other in data."""
        if not data:  # nothing of anything: no place for that either
            return cls(b"", np.broadcast_to(np.int64(0), len(lengths)), np.broadcast_to(np.int32(0), len(lengths)))
        ends = np.cumsum(lengths, dtype=np.int64)
        ends -= lengths
        return cls(data, ends, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        start = int(self.starts[row])
        return bytes(self.data[start : start + int(self.lengths[row])])

    def between(self, first: int, last: int) -> list[bytes]:
        spans = zip(self.starts[first:last].tolist(), self.lengths[first:last].tolist(), strict=True)
        return [bytes(self.data[start : start + length]) for start, length in spans]

    def take(self, rows: np.ndarray) -> "Packed":
        """rows: (J,) indices or (N,) bool."""
        lengths = self.lengths[rows]
        return Packed(self.data, self.starts[rows], lengths) if self.data else Packed.of_lengths(b"", lengths)


class Texts(Sequence[str]):
    """Packed texts as the strings that they are."""

    def __init__(self, packed: Packed):
        self.packed = packed

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        return cls(Packed.of(map(in_bytes, texts)))

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Texts": ...
    def __getitem__(self, row: int | slice) -> "str | Texts":
        if isinstance(row, slice):
            return Texts(self.packed.take(np.arange(len(self))[row]))
        return self.packed[row].decode("utf-8", "surrogatepass")


def in_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can tell halves of characters too


@dataclass(frozen=True)
class Columns:
    """I images and their N boxes, image by image. Of a file that was read the ids ascend, each once."""

    image_ids: np.ndarray  # (I,) int64
    file_names: Texts  # I
    sizes_hw: np.ndarray  # (I, 2) int64; 0 where the file gives none
    offsets: np.ndarray  # (I+1,) int64: the boxes of image i are offsets[i]:offsets[i + 1]
    boxes_xywh_px: np.ndarray  # (N, 4) float64; NaN where the file has no four numbers
    labels: np.ndarray  # (N,) int32, or UNKNOWN
    is_crowd: np.ndarray  # (N,) bool
    annotation_ids: np.ndarray  # (N,) int64; 0 where the file gives none
    areas_px2: np.ndarray  # (N,) float64, of the mask, or of the box
    segmentations: Packed  # N, the JSON of each; empty where there is none

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, row: int) -> str:
        return self.file_names[row]

    def image_rows(self) -> np.ndarray:
        """-> (N,) int64: the image of each box."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def segmentation(self, row: int) -> Any:
        """Of one box, as it stands in the file: polygons, the run lengths of a mask, or None."""
        text = self.segmentations[row]
        return decoded(text, f"segmentation of annotation {self.annotation_ids[row]}") if text else None

    def take(self, rows: np.ndarray) -> "Columns":
        """Some images, in this order; rows: (J,) indices or (I,) bool."""
        rows = np.arange(len(self))[rows]
        counts = np.diff(self.offsets)[rows]
        offsets = offsets_of(counts)
        boxes = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])  # (n,)
        return Columns(
            self.image_ids[rows],
            Texts(self.file_names.packed.take(rows)),
            self.sizes_hw[rows],
            offsets,
            self.boxes_xywh_px[boxes],
            self.labels[boxes],
            self.is_crowd[boxes],
            self.annotation_ids[boxes],
            self.areas_px2[boxes],
            self.segmentations.take(boxes),
        )

    def only(self, rows: np.ndarray) -> "Columns":
        """All images with some of the boxes, in the same order; rows: (N,) bool, or indices that ascend."""
        stays = np.zeros(len(self.labels), bool)
        stays[rows] = True
        return replace(
            self,
            offsets=offsets_of(stays)[self.offsets],
            boxes_xywh_px=self.boxes_xywh_px[stays],
            labels=self.labels[stays],
            is_crowd=self.is_crowd[stays],
            annotation_ids=self.annotation_ids[stays],
            areas_px2=self.areas_px2[stays],
            segmentations=self.segmentations.take(stays),
        )

    def record(self, row: int) -> Record:
        first, last = self.offsets[row : row + 2].tolist()
        is_crowd = self.is_crowd[first:last]
        outlines = None
        if self.segmentations.data:
            raw = RawOutlines(self.segmentations.between(first, last), is_crowd)
            outlines = raw if any(raw) else None
        height, width = self.sizes_hw[row].tolist()
        return Record(
            image_id=int(self.image_ids[row]),
            file_name=self.file_names[row],
            size_hw=(height, width),
            boxes_xywh_px=self.boxes_xywh_px[first:last],
            labels=self.labels[first:last].astype(np.int64),
            is_crowd=is_crowd,
            annotation_ids=self.annotation_ids[first:last],
            areas_px2=self.areas_px2[first:last],
            outlines=outlines,
        )


class Records(Sequence[Record]):
    """The images of columns, each made when it is asked for; a part of them is Records again."""

    def __init__(self, columns: Columns):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, row: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> "Records": ...
    def __getitem__(self, row: SupportsIndex | slice) -> "Record | Records":
        if isinstance(row, slice):
            return Records(self.columns.take(np.arange(len(self))[row]))
        return self.columns.record(range(len(self))[index(row)])


def columns_of_records(records: Sequence[Record]) -> Columns:
    """The images in the order of the list, the arrays of all in one."""
    nothing = [np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(0)]
    parts = [
        (each.boxes_xywh_px, each.labels.astype(np.int32), each.is_crowd, each.annotation_ids, each.areas_px2)
        for each in records
    ]
    boxes, labels, is_crowd, ids, areas = (
        np.concatenate([empty, *(part[place] for part in parts)]) for place, empty in enumerate(nothing)
    )
    return Columns(
        np.array([each.image_id for each in records], np.int64),
        Texts.of(each.file_name for each in records),
        np.array([each.size_hw for each in records], np.int64).reshape(-1, 2),
        offsets_of(np.array([len(each.labels) for each in records], np.int64)),
        boxes,
        labels,
        is_crowd,
        ids,
        areas,
        Packed.of(text for each in records for text in segmentation_texts(each)),
    )


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(I,) -> (I+1,) int64: where each image's boxes begin, and the end."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
