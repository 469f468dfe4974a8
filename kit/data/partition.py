"""Which image goes to which part: parts that share no camera, video or picture, each with its share of every class.

Decided on arrays, without an object for a box. The same recipe gives the same parts, in whatever order the images come.
"""

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kit.data.coco import CocoFile
from kit.data.dealing import Traits, deal
from kit.data.formats.raw import Entry
from kit.files import read_bytes

Stratify = Literal["both", "classes", "boxes", "none"]

IMAGES_WEIGHT = 4.0  # of the number of images among the shares to be met; a class has 1
FAR_SHARE = 0.2  # a part that misses its share by more than so much of it is told
MOST_NAMED = 8  # of classes or groups in a message


@dataclass(frozen=True)
class Contents:
    """What a split is decided on, as arrays: no object for a box. I images, A boxes, K classes."""

    file_names: Sequence[str]  # I
    image_ids: np.ndarray  # (I,) int64
    image_rows: np.ndarray  # (A,) int64, the image of each box
    labels: np.ndarray  # (A,) int64, 0..K-1; crowds and unknown categories are not among them
    names: list[str]  # K

    def boxes_per_class(self, part: np.ndarray, parts: int) -> np.ndarray:
        """part: (I,) -> (parts, K) int64."""
        count = len(self.names)
        keys = part[self.image_rows] * count + self.labels
        return np.bincount(keys, minlength=parts * count).reshape(parts, count)


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


def some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:MOST_NAMED])) + f", ... ({len(names)})" * (len(names) > MOST_NAMED)


# --- what there is ---


def contents_of(content: Entry) -> Contents:
    """Of the content of a COCO file."""
    images, annotations = content["images"], content.get("annotations") or []
    row_of = {image["id"]: row for row, image in enumerate(images)}
    categories = {each["id"]: str(each.get("name", each["id"])) for each in content.get("categories") or []}
    label_of = {category_id: label for label, category_id in enumerate(sorted(categories))}
    pairs = [
        (row_of[each["image_id"]], label_of[each["category_id"]])
        for each in annotations
        if each["image_id"] in row_of and is_known(each.get("category_id"), label_of) and not each.get("iscrowd")
    ]
    rows, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    names = [str(image["file_name"]) for image in images]
    ids = np.fromiter(row_of, np.int64, len(row_of))
    return Contents(names, ids, rows, labels, [categories[each] for each in sorted(categories)])


def is_known(category_id: object, known: Collection[int]) -> bool:
    return isinstance(category_id, int) and category_id in known


def contents_of_coco(coco: CocoFile) -> Contents:
    """Of a file that has been read, for parts of `coco.records` by Partition.part."""
    own = [record.labels[~record.is_crowd & (record.labels >= 0)] for record in coco.records]
    rows = np.repeat(np.arange(len(own)), [len(labels) for labels in own])
    labels = np.concatenate([np.zeros(0, np.int64), *own])
    ids = np.array([record.image_id for record in coco.records], np.int64)
    return Contents([record.file_name for record in coco.records], ids, rows, labels, list(coco.names))


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
    groups, classes = int(group.max()) + 1, max(len(contents.names), 1)
    images = np.bincount(group, minlength=groups)
    cells = contents.image_rows * classes + contents.labels  # image and class
    pairs, boxes = np.unique(cells if stratify != "none" else cells[:0], return_counts=True)
    keys, where = np.unique(group[pairs // classes] * classes + pairs % classes, return_inverse=True)  # group and class
    kind = keys % classes
    with_class, of_class = np.bincount(where, minlength=len(keys)), np.bincount(where, boxes, minlength=len(keys))
    counted = (with_class * (stratify in ("both", "classes")), of_class * (stratify in ("both", "boxes")))

    rows = keys // classes
    found = np.bincount(rows, minlength=groups)  # classes of each group
    starts = np.concatenate([[0], np.cumsum(2 * found + 1)])
    first = starts[rows] + np.arange(len(keys)) - (np.cumsum(found) - found)[rows]
    traits, values = np.empty(starts[-1], np.int64), np.empty(starts[-1])
    for place, offset, counts in ((first, 0, counted[0]), (first + found[rows], classes, counted[1])):
        traits[place] = kind + offset
        values[place] = counts / np.maximum(np.bincount(kind, counts, minlength=classes), 1)[kind]
    traits[starts[1:] - 1] = 2 * classes
    values[starts[1:] - 1] = np.sqrt(IMAGES_WEIGHT) * images / images.sum()
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
