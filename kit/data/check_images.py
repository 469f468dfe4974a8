"""What is wrong with the image files of a data set: missing, broken, of another size, not listed, and seen before."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kit.data.check_labels import size_text
from kit.data.check_report import Finding, Found, Problem
from kit.data.check_table import Table, again
from kit.data.image_files import (
    IMAGE_ENDINGS,
    MOST_NAME_BYTES,
    UNUSABLE_NAME,
    FileState,
    Progress,
    name_fault,
    read_named,
)
from kit.data.near_duplicates import BITS, NEAR_BITS, hash_file, nearest
from kit.data.same_files import same_content

FAULTS = {  # of kit.data.image_files: mend
    "missing image": "copy it to {images}, or correct file_name",
    "unreadable image": "replace the file; it is empty, no image, or of a kind that OpenCV cannot read: "
    "kit.data.intake turns many of them into plain ones",
    "truncated image": "copy or download it again; its end is missing or broken",
}


@dataclass(frozen=True)
class Files:
    """The image files of one part. J: the images of the table, each id once."""

    rows: np.ndarray  # (J,) int64, of the table
    states: list[FileState]  # J


def read_files(table: Table, images: Path, progress: Progress | None = None) -> Files:
    """Opens every image whose name lies in the folder."""
    rows = np.flatnonzero(~table.image_is_again)
    return Files(rows, read_named(images, [table.file_names[row] for row in rows.tolist()], progress))


def problems_of_images(table: Table, images: Path, files: Files) -> list[Problem]:
    problems = [problem_of_names(table)]
    for kind, mend in FAULTS.items():
        details = {row: state.detail for row, state in pairs(files) if state.fault == kind}
        mend = mend.format(images=images)
        problems.append(Problem(kind, of_images(table, kind, details), mend, bars_images=True))
    problems += [size_problem(table, files), twice_problem(table, files)]
    return [*problems, loose_problem(table, images)]


def pairs(files: Files) -> list[tuple[int, FileState]]:
    """Row of the table and state of each image."""
    return list(zip(files.rows.tolist(), files.states, strict=True))


def of_images(table: Table, kind: str, details: Mapping[int, str]) -> Sequence[Finding]:
    """details: what was found, by the row of the image."""

    def finding_of(row: int) -> Finding:
        return table.about_image(kind, row, f"image {table.image_ids[row]} {details[row]}".rstrip())

    return Found(np.array(list(details), np.int64), finding_of)


def size_problem(table: Table, files: Files) -> Problem:
    """A width or height that the file does not have."""
    sizes_hw = [tuple(size_hw) for size_hw in table.entries.images.sizes_hw.tolist()]
    wrong = {row: state for row, state in pairs(files) if not state.fault and state.size_hw != sizes_hw[row]}

    def finding_of(row: int) -> Finding:
        state, told = wrong[row], sizes_hw[row]
        turned = " (its EXIF turns it)" * (state.is_turned and state.size_hw == told[::-1])
        sizes = f"file {size_text(state.size_hw)}{turned}, annotations {size_text(told)}"
        return table.about_image("size mismatch", row, sizes)

    mend = "correct width and height if the boxes fit the file; EXIF orientation is not applied: store pixels upright"
    return Problem("size mismatch", Found(np.array(list(wrong), np.int64), finding_of), mend, bars_images=True)


def twice_problem(table: Table, files: Files) -> Problem:
    """Two images of one file."""
    rows = files.rows[again([table.file_names[row] for row in files.rows.tolist()])]
    found = of_images(table, "duplicate file name", dict.fromkeys(rows.tolist(), ""))
    return Problem("duplicate file name", found, "keep one entry for each file", bars_images=True)


def problem_of_names(table: Table) -> Problem:
    """Names that can be those of no file below the image folder: such a file is never opened."""
    names, is_again = table.file_names, table.image_is_again
    faults = {row: name_fault(name) for row, name in enumerate(names) if not is_again[row]}
    told = {row: f"has a name that {fault}" for row, fault in faults.items() if fault}
    mend = f"put the image into the image folder and give its path from there, up to {MOST_NAME_BYTES} bytes a name"
    return Problem(UNUSABLE_NAME, of_images(table, UNUSABLE_NAME, told), mend, bars_images=True)


def loose_problem(table: Table, images: Path) -> Problem:
    """Files without an entry."""
    known, kind = set(table.file_names), "file without an entry"
    loose = [Finding(kind, table.part, file_name=name) for name in files_in(images) if name not in known]
    return Problem(kind, loose, "not used", is_fatal=False)


def files_in(images: Path) -> list[str]:
    """Names of all image files below a folder."""
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)
    return [file.relative_to(images).as_posix() for file in files]


# --- pictures that are almost the same ---


@dataclass(frozen=True)
class Looks:
    """What the n images of one part look like: those that can be decoded, each file once."""

    table: Table
    rows: np.ndarray  # (n,) int64, of the table
    paths: list[Path]  # n
    hashes: np.ndarray  # (n, BITS) bool
    undecoded: list[int]  # rows of the table whose file looked whole and cannot be decoded


def read_looks(table: Table, images: Path, files: Files, progress: Progress | None = None) -> Looks:
    is_new = ~again([table.file_names[row] for row in files.rows.tolist()])
    rows = [row for (row, state), new in zip(pairs(files), is_new, strict=True) if new and not state.fault]
    paths = [images / table.file_names[row] for row in rows]
    hashes = list[np.ndarray | None]()
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        for done, own in enumerate(pool.map(look, paths), 1):
            hashes.append(own)
            if progress:
                progress(done, len(paths))
    seen = [place for place, own in enumerate(hashes) if own is not None]
    stacked = np.array([hashes[place] for place in seen], bool).reshape(-1, BITS)
    undecoded = [row for row, own in zip(rows, hashes, strict=True) if own is None]
    return Looks(table, np.array(rows, np.int64)[seen], [paths[place] for place in seen], stacked, undecoded)


def look(path: Path) -> np.ndarray | None:
    """(BITS,) bool; None where the picture cannot be decoded."""
    try:
        return hash_file(path)
    except (ValueError, cv2.error):
        return None


def undecodable(own: Looks, images: Path) -> Problem:
    """What only decoding has shown."""
    kind = "unreadable image"
    found = of_images(own.table, kind, dict.fromkeys(own.undecoded, "OpenCV cannot decode it"))
    return Problem(kind, found, FAULTS[kind].format(images=images), bars_images=True)


def near_within(own: Looks, most_bits: int = NEAR_BITS) -> Problem:
    """Images that are nearly another one of the same part; of two, the later is named."""
    kind, near = "near duplicate", nearest(own.hashes)
    hit = np.flatnonzero(near.bits <= most_bits)
    mutual = near.index[near.index[hit]] == hit
    hit = hit[~(mutual & (hit < near.index[hit]))]
    return Problem(kind, found_near(kind, own, hit, own, near.index, near.bits), "keep one of them", is_fatal=False)


def near_across(own: Looks, other: Looks, most_bits: int = NEAR_BITS) -> list[Problem]:
    """Images of a part that another part has too: the very file, or nearly the same picture."""
    first = same_content([*other.paths, *own.paths])[len(other.paths) :]
    place = np.where(first < len(other.paths), first, -1)  # of the same file among the others
    same, near = np.flatnonzero(place >= 0), nearest(own.hashes, other.hashes)
    alike = np.flatnonzero((near.bits <= most_bits) & (place < 0))
    kinds = ("same file in two parts", "near duplicate across parts")
    mend = "keep it in one of them, or split anew with kit.data.split, which keeps such images together"
    return [
        Problem(kinds[0], found_near(kinds[0], own, same, other, place, np.full(len(place), -1)), mend),
        Problem(kinds[1], found_near(kinds[1], own, alike, other, near.index, near.bits), mend, is_fatal=False),
    ]


def found_near(
    kind: str, own: Looks, hit: np.ndarray, other: Looks, partners: np.ndarray, bits: np.ndarray
) -> Sequence[Finding]:
    """hit: (h,) of the n images; partners: (n,) places among the others; bits: (n,) that differ, -1 of one file."""

    def finding_of(place: int) -> Finding:
        partner = other.table.file_names[int(other.rows[partners[place]])]
        where = "" if other is own else f"{other.table.part}: "
        how = f"{bits[place]} bits apart" if bits[place] >= 0 else "the very same file"
        found = own.table.about_image(kind, int(own.rows[place]), f"like {where}{partner}, {how}")
        return replace(found, partner=(other.table.part, partner))

    return Found(hit, finding_of)
