"""What is split: the images and annotations of one COCO file as arrays, and where its image files lie."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from kit.data.coco_columns import NOWHERE
from kit.data.coco_entries import AnnotationEntries, read_entries
from kit.data.formats.coco import coco_files, image_folder
from kit.data.formats.images import inside
from kit.data.json_stream import Progress
from kit.data.partition import MOST_NAMED, Contents, contents_of_entries, some


class ImageFiles(Sequence[Path | None]):
    """The file of each image, made when it is asked for; None where it is missing."""

    def __init__(self, folder: Path, names: Sequence[str], is_there: np.ndarray):
        self.folder, self.names, self.is_there = folder, names, is_there

    def __len__(self) -> int:
        return len(self.is_there)

    @overload
    def __getitem__(self, row: int) -> Path | None: ...
    @overload
    def __getitem__(self, row: slice) -> "ImageFiles": ...
    def __getitem__(self, row: int | slice) -> "Path | ImageFiles | None":
        if isinstance(row, slice):
            return ImageFiles(self.folder, self.names[row], self.is_there[row])
        return self.folder / self.names[row] if self.is_there[row] else None


@dataclass(frozen=True)
class Source:
    """I images and A annotations, in the order of the file."""

    path: Path
    contents: Contents
    image_rows: np.ndarray  # (A,) int32, the image of each annotation, or NOWHERE
    files: ImageFiles
    dangling: list[str]  # annotations that no part can have, in words

    def missing(self) -> list[str]:
        """Image files that are not there, in words."""
        rows = np.flatnonzero(~self.files.is_there)
        names = [self.contents.file_names[row] for row in rows[:MOST_NAMED]]
        return [f"{len(rows)} image files are missing: {some(names, len(rows))}"] if len(rows) else []


def read_source(source: Path, part: str | None, images: Path | None, progress: Progress | None = None) -> Source:
    """The one annotation file to be split. images: the folder of its images, where it is not beside it as usual."""
    files = coco_files(source) if source.exists() else {}
    if part is not None and part in files:
        files = {part: files[part]}
    if len(files) != 1 or (part is not None and part not in files):
        found = f"the parts {', '.join(files)}" if files else "none"
        mend = "choose one by --part, or join them first: python -m kit.data.merge OUT SOURCE --into all"
        raise ValueError(f"{source}: expected one COCO file{f' of {part}' if part else ''}, found {found}; {mend}")
    ((name, path),) = files.items()
    return source_of(path, images or image_folder(path, name), progress)


def source_of(path: Path, folder: Path, progress: Progress | None = None) -> Source:
    entries = read_entries(path, progress)
    refuse_repeated_ids(entries.images.image_ids, path)
    contents, rows = contents_of_entries(entries)
    is_there = np.fromiter((is_file(folder, name, path) for name in contents.file_names), bool, len(contents.image_ids))
    files = ImageFiles(folder, contents.file_names, is_there)
    return Source(path, contents, rows, files, dangling(entries.annotations, rows))


def refuse_repeated_ids(image_ids: np.ndarray, path: Path) -> None:
    in_order = np.sort(image_ids)
    again = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(again):
        raise ValueError(f"{path}: expected image ids given once, found {again[0]} twice; see kit.data.check")


def is_file(folder: Path, name: str, where: Path) -> bool:
    """ValueError for a name that leads out of the folder. Plain names are not taken apart: there are millions."""
    if not name or name[0] == "/" or ".." in name or "\0" in name:
        inside(folder, name, str(where))
    return os.path.isfile(os.path.join(folder, name))


def dangling(annotations: AnnotationEntries, image_rows: np.ndarray) -> list[str]:
    """image_rows: (A,), NOWHERE for images that are not listed."""
    lost = np.flatnonzero(image_rows == NOWHERE)
    which = [
        f"annotation {annotations.annotation_ids[row]} of image {annotations.image_ids[row]}"
        for row in lost[:MOST_NAMED]
    ]
    what = f"{len(lost)} annotations of images that are not listed are in no part: {some(which, len(lost))}"
    return [what] if len(lost) else []
