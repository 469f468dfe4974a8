"""One COCO file as arrays for the check: every entry in the order of the file, doubles and strays among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.data.check_report import Box, Finding, Found
from kit.data.coco import name_of_part
from kit.data.coco_entries import Entries, read_entries


@dataclass(frozen=True)
class Source:
    """One part of a data set."""

    name: str
    annotations: Path
    images: Path


@dataclass(frozen=True)
class Rows:
    """N boxes with what the rules judge them by."""

    boxes_xywh_px: np.ndarray  # (N, 4) float64; NaN where the file has no four numbers
    sizes_hw: np.ndarray  # (N, 2) int64, of their images; 0 where the file gives none
    labels: np.ndarray  # (N,) int64, or UNKNOWN
    is_crowd: np.ndarray  # (N,) bool
    images: np.ndarray  # (N,) int64, boxes of one image have one number

    def only(self, rows: np.ndarray) -> "Rows":
        """rows: (N,) bool, or indices."""
        return Rows(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True)
class Table:
    """I images and N annotations. Of two images with one id, the annotations belong to the first."""

    entries: Entries
    part: str
    image_rows: np.ndarray  # (N,) int64; -1: the image is not in the list
    rows: Rows
    listed_categories: list[tuple[int, str]]  # as they stand
    names: list[str]  # K

    @property
    def image_ids(self) -> np.ndarray:
        """(I,) int64."""
        return self.entries.images.image_ids

    @property
    def annotation_ids(self) -> np.ndarray:
        """(N,) int64; 0 where the file gives none."""
        return self.entries.annotations.annotation_ids

    @property
    def file_names(self) -> Sequence[str]:
        return self.entries.images.file_names

    @property
    def image_is_again(self) -> np.ndarray:
        """(I,) bool: an image with this id has been there before."""
        return again(self.image_ids)

    def about_image(self, kind: str, row: int, detail: str = "") -> Finding:
        return Finding(kind, self.part, int(self.image_ids[row]), self.file_names[row], detail=detail)

    def about_annotation(self, kind: str, row: int, detail: str = "") -> Finding:
        """row: of the annotation."""
        image = int(self.image_rows[row])
        name = self.file_names[image] if image >= 0 else ""
        x, y, width, height = self.rows.boxes_xywh_px[row].tolist()
        box: Box = (x, y, width, height)
        ids = (int(self.annotation_ids[row]),)
        return Finding(kind, self.part, int(self.entries.annotations.image_ids[row]), name, ids, box, detail)

    def found(self, kind: str, is_hit: np.ndarray, detail: str = "") -> Found:
        """is_hit: (N,) bool, of annotations."""
        return Found(np.flatnonzero(is_hit), lambda row: self.about_annotation(kind, row, detail))

    def found_images(self, kind: str, is_hit: np.ndarray, detail: str = "") -> Found:
        """is_hit: (I,) bool, of images."""
        return Found(np.flatnonzero(is_hit), lambda row: self.about_image(kind, row, detail))


def again(keys: Any) -> np.ndarray:
    """What has been there before: (n,) -> (n,) bool."""
    return np.asarray(pd.Series(keys).duplicated(), bool)


def read_table(path: Path, part: str = "") -> Table:
    """The whole file; ValueError where it is no COCO file."""
    return table_of(read_entries(path), part)


def table_of(entries: Entries, part: str = "") -> Table:
    """part: its name; by the name of the file where it is not given."""
    images, own = entries.images, entries.annotations
    listed = [(int(each["id"]), str(each.get("name", each["id"]))) for each in entries.categories]
    first = dict(reversed(listed))
    image_rows = positions(own.image_ids, images.image_ids)
    sizes_hw = np.concatenate([images.sizes_hw, [[0, 0]]])[image_rows]  # the last: of images that are not listed
    labels = positions(own.category_ids, np.array(sorted(first), np.int64))
    rows = Rows(own.boxes_xywh_px, sizes_hw, labels, own.is_crowd, image_rows)
    names = [first[category_id] for category_id in sorted(first)]
    return Table(entries, part or name_of_part(entries.path), image_rows, rows, listed, names)


def positions(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each key stands for the first time in the list, -1 where it does not: (n,), (m,) -> (n,)."""
    if not len(among):
        return np.full(len(keys), -1)
    order = np.argsort(among, kind="stable")
    places = np.searchsorted(among[order], keys).clip(max=len(among) - 1)
    return np.where(among[order][places] == keys, order[places], -1)
