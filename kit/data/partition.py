"""Which image goes to which part: parts that share no camera, video or picture, each with its share of every class.

Decided on arrays, without an object for a box. The same recipe gives the same parts, in whatever order the images come.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kit.data.coco import UNKNOWN, CocoFile, columns_of
from kit.data.coco_columns import NOWHERE, categories_of, places_in
from kit.data.coco_entries import Entries, entries_of
from kit.data.dealing import Traits, deal
from kit.data.formats.raw import Entry
from kit.data.group_traits import fill_traits, held_by_groups
from kit.files import one_line, read_bytes

Stratify = Literal["both", "classes", "boxes", "none"]

IMAGES_WEIGHT = 4.0  # of the number of images among the shares to be met; a class has 1
FAR_SHARE = 0.2  # a part that misses its share by more than so much of it is told
MOST_NAMED = 8  # of classes or groups in a message
SLICE = 1 << 20  # boxes that are counted at a time


@dataclass(frozen=True)
class Contents:
    """What a split is decided on, as arrays: no object for a box. I images, A boxes, K classes."""

    file_names: Sequence[str]  # I
    image_ids: np.ndarray  # (I,) int64
    image_rows: np.ndarray  # (A,) whole numbers, the image of each box
    labels: np.ndarray  # (A,) whole numbers, 0..K-1; crowds and unknown categories are not among them
    names: list[str]  # K

    def boxes_per_class(self, part: np.ndarray, parts: int) -> np.ndarray:
        """part: (I,) -> (parts, K) int64."""
        count = len(self.names)
        result = np.zeros(parts * count, np.int64)
        for first in range(0, len(self.labels), SLICE):
            some = slice(first, first + SLICE)
            result += np.bincount(part[self.image_rows[some]] * count + self.labels[some], minlength=len(result))
        return result.reshape(parts, count)


@dataclass(frozen=True)
class Recipe:
    """How parts are drawn. shares: part -> its share of the images; they are scaled to the sum 1."""

    shares: Mapping[str, float]
    seed: int = 0
    stratify: Stratify = "both"  # by the images that have a class, by the boxes of it, by both or by images alone

    def __post_init__(self) -> None:
        bad = [name for name, share in self.shares.items() if not (np.isfinite(share) and share > 0)]
        if len(self.shares) < 2 or bad:
            raise ValueError(f"shares must be two or more above 0, got {dict(self.shares)}; such as train=0.8 val=0.2")
        unsafe = [name for name in self.shares if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)]
        if unsafe:
            raise ValueError(f"names of parts must be letters, digits, _ and -, got {unsafe[0]!r}; rename it")
        if self.stratify not in get_args(Stratify):
            raise ValueError(f"stratify must be one of {', '.join(get_args(Stratify))}, got {self.stratify!r}")


@dataclass(frozen=True)
class Partition:
    """The part of each image."""

    contents: Contents
    shares: Mapping[str, float]  # wanted, of the sum 1; the names of the parts in order
    part: np.ndarray  # (I,) int64, index into shares
    group: np.ndarray  # (I,) int64, images of one number belong together

    @property
    def names(self) -> list[str]:
        return list(self.shares)

    def reached(self) -> np.ndarray:
        """Share of the images in each part (k,)."""
        return np.bincount(self.part, minlength=len(self.shares)) / max(len(self.part), 1)

    def table(self) -> pd.DataFrame:
        """Shares reached: one row for the images and one for each class, one column for each part."""
        counts = self.contents.boxes_per_class(self.part, len(self.shares))  # (k, K)
        counts = np.concatenate([np.bincount(self.part, minlength=len(self.shares))[:, None], counts], axis=1)
        rows = pd.DataFrame({"": ["images", *self.contents.names], "all": counts.sum(axis=0)})
        for name, wanted, own in zip(self.names, self.shares.values(), counts, strict=True):
            rows[name] = own
            rows[f"{name} % of {100 * wanted:.4g}"] = np.round(100 * own / np.maximum(counts.sum(axis=0), 1), 1)
        return rows

    def notes(self) -> list[str]:
        """What the parts could not be given: shares that are missed, classes that a part lacks."""
        found = []
        for name, wanted, own in zip(self.names, self.shares.values(), self.reached(), strict=True):
            if abs(own - wanted) > FAR_SHARE * wanted:
                found.append(f"{name} has {own:.1%} of the images where {wanted:.1%} were wanted: groups stay whole")
        counts = self.contents.boxes_per_class(self.part, len(self.shares))
        for name, own in zip(self.names, counts, strict=True):
            lacking = [self.contents.names[label] for label in np.flatnonzero((own == 0) & (counts.sum(axis=0) > 0))]
            if lacking:
                found.append(f"{name} has no box of {some(lacking)}: too few images or groups have one, or it is small")
        return found


def some(names: Sequence[str], count: int | None = None) -> str:
    """The first of them. count: how many there are, where only the first are given."""
    count = len(names) if count is None else count
    return one_line(", ".join(f"{name!s:.80}" for name in names[:MOST_NAMED])) + f", ... ({count})" * (
        count > MOST_NAMED
    )


# --- what there is ---


def contents_of(content: Entry, path: Path = Path("the file")) -> Contents:
    """Of the content of a COCO file; path names it in errors."""
    return contents_of_entries(entries_of(content, path))[0]


def contents_of_entries(entries: Entries) -> tuple[Contents, np.ndarray]:
    """Of a file in its own order; and the image of each of its annotations, (A,) int32, or NOWHERE."""
    ids, annotations = entries.images.image_ids, entries.annotations
    order = np.argsort(ids, kind="stable").astype(np.int32)
    rows = np.append(order, np.int32(NOWHERE))[places_in(ids[order], annotations.image_ids)]  # (A,)
    category_ids, names = categories_of(entries.categories)
    labels = places_in(np.array(category_ids, np.int64), annotations.category_ids)
    is_own = (rows != NOWHERE) & (labels != UNKNOWN) & ~annotations.is_crowd
    return Contents(entries.images.file_names, ids, rows[is_own], labels[is_own], names), rows


def contents_of_coco(coco: CocoFile) -> Contents:
    """Of a file that has been read, for parts of `coco.records` by Partition.part."""
    columns = columns_of(coco)
    is_own = ~columns.is_crowd & (columns.labels >= 0)
    rows = np.repeat(np.arange(len(columns), dtype=np.int32), np.diff(columns.offsets))
    return Contents(columns.file_names, columns.image_ids, rows[is_own], columns.labels[is_own], list(coco.names))


# --- what stays together: any keys, one for each image; equal keys belong together ---


def groups_by_pattern(file_names: Sequence[str], pattern: str) -> tuple[list[str], list[str]]:
    """A key for each name, and the names that the pattern does not fit, which stay alone.

    pattern: a regular expression searched in the whole name; its groups are the key, or without groups all it finds.
    `camera(\\d+)` keeps a camera together, `^(.*)/` a folder of frames, `^(.*)_\\d+\\.jpg` a video.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ValueError(f"group pattern must be a regular expression, got {pattern!r}: {error}") from error
    found = [search(name) for name in file_names]
    keys = [f"file {n}" if f is None else f"group {f.groups() or f[0]}" for n, f in zip(file_names, found, strict=True)]
    return keys, [name for name, each in zip(file_names, found, strict=True) if each is None]


def joined_groups(*keys: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Images that any chain of equal keys links -> (I,) int64, numbered by first appearance."""
    codes = [pd.factorize(np.asarray(each, object if isinstance(each, list) else None))[0] for each in keys]
    joined = codes[0].astype(np.int64)
    for other in codes[1:]:
        count = int(joined.max(initial=-1)) + 1
        size = count + int(other.max(initial=-1)) + 1
        links = coo_matrix((np.ones(len(other), bool), (joined, count + other)), shape=(size, size))
        joined = pd.factorize(connected_components(links, directed=False)[1][joined])[0].astype(np.int64)
    return joined


# --- the parts ---


def split(contents: Contents, recipe: Recipe, groups: Sequence[Any] | np.ndarray | None = None) -> Partition:
    """Parts by the recipe. groups: a key for each image; images of one key, or of one file name, stay together."""
    total = sum(recipe.shares.values())
    shares = {name: share / total for name, share in recipe.shares.items()}
    order = np.array(sorted(range(len(contents.image_ids)), key=contents.file_names.__getitem__), np.int64)
    names = [contents.file_names[row] for row in order]
    own = joined_groups(names, *([] if groups is None else [np.asarray(groups)[order]]))  # (I,) in order of the names
    group = np.empty_like(own)
    group[order] = own

    count = int(own.max(initial=-1)) + 1
    if count < len(shares):
        raise ValueError(
            f"expected {len(shares)} groups of images or more, one for each part, got {count}; ask for fewer parts or "
            "smaller groups"
        )
    part = deal(traits_of(contents, group, recipe.stratify), np.array(list(shares.values())), recipe.seed)
    return Partition(contents, shares, part[group], group)


def folds(contents: Contents, k: int, seed: int = 0, stratify: Stratify = "both", groups: Any = None) -> Partition:
    """k equal parts 0, 1, ...: each is held out once."""
    if k < 2:
        raise ValueError(f"folds must be 2 or more, got {k}")
    return split(contents, Recipe({str(fold): 1 / k for fold in range(k)}, seed, stratify), groups)


def traits_of(contents: Contents, group: np.ndarray, stratify: Stratify) -> Traits:
    """What the groups hold: images with a class (traits 0..K-1), boxes of it (K..2K-1), images (2K), as shares.

    group: (I,) 0..G-1.
    """
    classes = max(len(contents.names), 1)
    images = np.bincount(group, minlength=int(group.max()) + 1)
    used = slice(0 if stratify == "none" else None)
    held = held_by_groups(contents.image_rows[used], contents.labels[used], group, classes)
    weights = (held.images, held.boxes)
    for each, alone in zip(weights, ("classes", "boxes"), strict=True):
        each *= stratify in ("both", alone)
    starts = 2 * held.starts + np.arange(len(held.starts))
    traits, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    of_images = np.sqrt(IMAGES_WEIGHT) * images / images.sum()
    fill_traits(held.starts, held.kinds, weights, held.totals, of_images, starts, traits, values)
    is_kept = np.arange(2 * classes + 1) < (0 if stratify == "none" else classes)
    is_kept[-1] = True
    return Traits(starts, traits, values, is_kept, images)


def torn_groups(partition: Partition) -> list[list[int]]:
    """Rows of images that belong together and are not in one part, group by group."""
    by_group = np.argsort(partition.group, kind="stable")
    own, part = partition.group[by_group], partition.part[by_group]
    torn = np.unique(own[1:][(own[1:] == own[:-1]) & (part[1:] != part[:-1])])
    first, last = (np.searchsorted(own, torn, side) for side in ("left", "right"))
    return [by_group[start:end].tolist() for start, end in zip(first, last, strict=True)]


def refuse_leaks(partition: Partition) -> None:
    """ValueError for images that belong together in different parts: what is tested on has been trained on."""
    torn = torn_groups(partition)
    if torn:
        rows = [torn[0][0], next(row for row in torn[0] if partition.part[row] != partition.part[torn[0][0]])]
        found = " and ".join(
            f"{partition.contents.file_names[r]} in {partition.names[partition.part[r]]}" for r in rows
        )
        raise ValueError(
            f"expected images that belong together in one part, found {len(torn)} groups torn apart, such as {found}; "
            "put them into one part"
        )


def partition_of_list(contents: Contents, path: Path, groups: Sequence[Any] | np.ndarray | None = None) -> Partition:
    """The parts that a CSV file gives: its columns file_name and part, one row for each image."""
    text = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
    rows = list(csv.DictReader(text))
    columns = set(rows[0]) if rows else set()
    if not {"file_name", "part"} <= columns:
        raise ValueError(f"{path}: expected the columns file_name and part, found {some(sorted(map(str, columns)))}")
    part_of = {str(row["file_name"]): str(row["part"]) for row in rows}
    missing = [name for name in contents.file_names if not part_of.get(name)]
    unknown = sorted(part_of.keys() - set(contents.file_names))
    if missing or unknown or len(part_of) < len(rows):
        found = f"{len(missing)} without a row ({some(missing)}), {len(unknown)} rows of other images ({some(unknown)})"
        twice = f", {len(rows) - len(part_of)} images twice"
        raise ValueError(f"{path}: expected one row for each image, found {found}{twice}; correct the list")
    counts = Counter(part_of[name] for name in contents.file_names)
    shares = {name: counts[name] / len(contents.file_names) for name in sorted(counts)}
    Recipe(shares)  # refuses names that are no names of parts
    index = {name: number for number, name in enumerate(shares)}
    part = np.array([index[part_of[name]] for name in contents.file_names], np.int64)
    keys = [list(contents.file_names)] if groups is None else [list(contents.file_names), groups]
    return Partition(contents, shares, part, joined_groups(*keys))
