"""Images without labels: found in folders, and told apart from those that training or validation know already."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.data.coco import CocoFile
from kit.data.image_files import IMAGE_ENDINGS, Progress, read_states
from kit.data.near_duplicates import hash_files, nearest
from kit.files import sha256


@dataclass(frozen=True)
class Listing:
    """Images in order of their paths. twins: image id of the labelled file with the same content, by id."""

    images: list[dict[str, Any]]  # id, file_name (from the root), height, width, bytes
    left_out: dict[str, list[str]]  # reason: file names
    twins: dict[int, int]

    @property
    def table(self) -> dict[str, int]:
        """For reading: how many images there are, and how many were left out why."""
        counts = {reason: len(names) for reason, names in self.left_out.items()}
        return {"found": len(self.images) + sum(counts.values()), **counts, "to be labelled": len(self.images)}


def unlabelled_folder(data: Path | str) -> Path:
    """The part `unlabelled` of a data set; its annotation file, if there is one, is not needed."""
    folders = [Path(data) / "images" / "unlabelled", Path(data) / "unlabelled"]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise ValueError(f"{data}: expected a folder images/unlabelled, found none; name folders in `unlabelled`")
    return found


def list_images(folders: Sequence[Path], root: Path, progress: Progress | None = None) -> Listing:
    """All images under some folders, each content once; files that cannot be read are left out and named."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: expected a folder of images, found none; check the path")
    files = {file for folder in folders for file in folder.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS}
    paths = sorted(files, key=lambda path: path.as_posix())
    states = read_states(paths, progress)
    left_out = defaultdict(list)
    for path, state in zip(paths, states, strict=True):
        if state.fault:
            left_out[state.fault].append(name_in(path, root))
    whole = [(path, state.size_hw) for path, state in zip(paths, states, strict=True) if not state.fault]
    images = [entry(number, path, size_hw, root) for number, (path, size_hw) in enumerate(whole, 1)]
    first = same_content([path for path, _ in whole], [path for path, _ in whole])
    repeated = {row + 1 for row, other in first.items() if other < row}
    return without(Listing(images, dict(left_out), {}), repeated, "the same file again")


def entry(image_id: int, path: Path, size_hw: tuple[int, int], root: Path) -> dict[str, Any]:
    height, width = size_hw
    about = {"id": image_id, "file_name": name_in(path, root), "height": height, "width": width}
    return about | {"bytes": path.stat().st_size}


def entries_of(coco: CocoFile, images: Path, root: Path) -> list[dict[str, Any]]:
    """The images of a COCO file, under its own ids."""
    return [entry(each.image_id, images / each.file_name, each.size_hw, root) for each in coco.records]


def name_in(path: Path, root: Path) -> str:
    """Path from the root; whole where it lies elsewhere."""
    path = Path(os.path.abspath(path))  # links stay as they are: that is how the data set is laid out
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def without(listing: Listing, image_ids: Iterable[int], reason: str) -> Listing:
    gone = set(image_ids)
    if not gone:
        return listing
    names = [image["file_name"] for image in listing.images if image["id"] in gone]
    images = [image for image in listing.images if image["id"] not in gone]
    twins = {image_id: twin for image_id, twin in listing.twins.items() if image_id not in gone}
    return replace(listing, images=images, left_out=listing.left_out | {reason: names}, twins=twins)


def apart_from_val(
    listing: Listing, val: Sequence[Path], root: Path, most_bits: int, progress: Progress | None = None
) -> Listing:
    """Without what is in val under any name, or differs from one of its images by so many bits of the hash or fewer:
    a model that has learnt from them would be judged on what it has seen."""
    paths = [root / image["file_name"] for image in listing.images]
    in_val = {listing.images[row]["id"] for row in same_content(paths, val)}
    if paths and val:
        bits = nearest(hash_files(paths, progress), hash_files(val)).bits
        near = {image["id"] for image, own in zip(listing.images, bits, strict=True) if own <= most_bits}
        listing = without(listing, near - in_val, "nearly the same as in val")
    return without(listing, in_val, "in val too")


def with_twins(listing: Listing, train: CocoFile, images: Path, root: Path, complete: bool) -> Listing:
    """Images that have labels under any name: found, and left out unless their labels are to be completed."""
    paths = [root / image["file_name"] for image in listing.images]
    found = same_content(paths, [images / record.file_name for record in train.records])
    twins = {listing.images[row]["id"]: train.records[other].image_id for row, other in found.items()}
    listing = replace(listing, twins=twins)
    return listing if complete else without(listing, twins, "labelled already")


def same_content(paths: Sequence[Path], others: Sequence[Path]) -> dict[int, int]:
    """Row of a path -> row of the first of the others that has the same bytes; those with none are not there.

    Only files of equal length are read.
    """
    rows_of = defaultdict(list)
    for row, path in enumerate(others):
        rows_of[path.stat().st_size].append(row)
    lengths = [path.stat().st_size for path in paths]
    is_itself = list(paths) == list(others)
    unsure = [row for row, size in enumerate(lengths) if len(rows_of.get(size, [])) > is_itself]
    first: dict[str, int] = {}
    for row in sorted({row for each in unsure for row in rows_of[lengths[each]]}, reverse=True):
        first[sha256(others[row])] = row
    found = {row: first.get(sha256(paths[row])) for row in unsure}
    return {row: other for row, other in found.items() if other is not None}
