"""One image of a COCO file with its annotations, and the outlines that its segmentations tell."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, overload

import numpy as np

from kit.data.outlines import Outline
from kit.data.run_lengths import outline_of_runs

UNKNOWN = -1  # label of an annotation whose category the file does not list


@dataclass(frozen=True)
class Record:
    """One image of a COCO file and its N annotations, in the order of the file."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]  # (0, 0) where the file gives none
    boxes_xywh_px: np.ndarray  # (N, 4) float64; NaN where the file has no four numbers
    labels: np.ndarray  # (N,) int64, index into CocoFile.category_ids, or UNKNOWN
    is_crowd: np.ndarray  # (N,) bool
    annotation_ids: np.ndarray  # (N,) int64; 0 where the file gives none
    areas_px2: np.ndarray  # (N,) float64, by which the evaluation tells small from large: of the mask, or of the box
    outlines: Sequence[Outline | None] | None = (
        None  # N, as polygons or masks of the file tell; None: none, of one or of all
    )

    def __post_init__(self) -> None:
        if self.outlines is not None and len(self.outlines) != len(self.labels):
            counts = f"{len(self.labels)} annotations and {len(self.outlines)} outlines"
            raise ValueError(f"{self.file_name}: expected as many outlines as annotations, got {counts}; use only()")

    def only(self, rows: np.ndarray) -> "Record":
        """The image with these annotations alone; rows: (N,) bool, or indices."""
        chosen = np.arange(len(self.labels))[rows].tolist()
        return replace(
            self,
            boxes_xywh_px=self.boxes_xywh_px[rows],
            labels=self.labels[rows],
            is_crowd=self.is_crowd[rows],
            annotation_ids=self.annotation_ids[rows],
            areas_px2=self.areas_px2[rows],
            outlines=chosen_outlines(self.outlines, chosen) if self.outlines else self.outlines,
        )


class RawOutlines(Sequence[Outline | None]):
    """The outlines of N annotations, made from the text of the file when they are asked for.

    texts: N segmentations in JSON, b"" where there is none; is_crowd: (N,) bool: crowds have no outline.
    """

    def __init__(self, texts: Sequence[bytes], is_crowd: np.ndarray):
        self.texts, self.is_crowd = texts, is_crowd

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, row: int) -> Outline | None: ...
    @overload
    def __getitem__(self, row: slice) -> list[Outline | None]: ...
    def __getitem__(self, row: int | slice) -> Outline | list[Outline | None] | None:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        if not self.texts[row] or self.is_crowd[row]:
            return None
        return list(rings_of_text(self.texts[row])) or None


@lru_cache(maxsize=1024)  # an image is asked for several times in a row, and a mask takes a millisecond
def rings_of_text(text: bytes) -> tuple[np.ndarray, ...]:
    """Of a segmentation in JSON; whoever gets them gets the same, so they cannot be written to."""
    try:
        rings = tuple(outline_of({"segmentation": json.loads(text)}) or ())
    except (ValueError, RecursionError):  # numbers of thousands of digits, brackets within brackets: no polygon
        return ()
    for ring in rings:
        ring.flags.writeable = False
    return rings


def chosen_outlines(outlines: Sequence[Outline | None], rows: list[int]) -> Sequence[Outline | None]:
    if isinstance(outlines, RawOutlines):
        return RawOutlines([outlines.texts[row] for row in rows], outlines.is_crowd[rows])
    return [outlines[row] for row in rows]


def segmentation_texts(record: Record) -> list[bytes]:
    """N, in JSON: as they stood in the file where they still do, else of the outlines; b"" where there is none."""
    if isinstance(record.outlines, RawOutlines):
        return list(record.outlines.texts)
    outlines = record.outlines or [None] * len(record.labels)
    return [json.dumps(polygons(each)).encode() if each else b"" for each in outlines]


def polygons(outline: Outline) -> list[list[float]]:
    """An outline as the segmentation of an annotation."""
    return [ring.reshape(-1).tolist() for ring in outline]


def outline_of(annotation: Mapping[str, Any]) -> Outline | None:
    """The polygons of an annotation, or those around its mask; None where it has none that enclose anything."""
    parts = annotation.get("segmentation")
    if isinstance(parts, dict) and not annotation.get("iscrowd"):
        return outline_of_runs(parts)
    if not isinstance(parts, list) or annotation.get("iscrowd"):
        return None
    rings = [ring for part in parts if (ring := ring_of(part)) is not None]
    return rings or None


def ring_of(numbers: object) -> np.ndarray | None:
    """x, y, x, y, ... of at least three points -> (P, 2); None where it is anything else."""
    if not isinstance(numbers, list) or len(numbers) < 6 or len(numbers) % 2:
        return None
    if not all(isinstance(value, int | float) for value in numbers):
        return None
    ring = np.array([finite(value) for value in numbers], np.float64).reshape(-1, 2)
    return ring if np.isfinite(ring).all() else None


def finite(value: float) -> float:
    """A number of a file as a float; infinity where it is a whole number that no float can hold."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
