"""Splits a COCO file into parts or folds: `python -m kit.data.split SOURCE OUT --parts train=0.8 val=0.2`.

Each part is a COCO file with the entries as they stand, masks and unknown fields too, and its recipe in `info`; a list
of all images and their parts is in split.csv. Which image goes where: see `kit.data.partition`.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kit.data.coco_entries import SMALL_BYTES
from kit.data.formats.coco import coco_files
from kit.data.formats.images import inside, link_or_copy
from kit.data.formats.raw import Entry
from kit.data.image_files import Progress
from kit.data.near_duplicates import NEAR_BITS, cluster, hash_files
from kit.data.partition import (
    Contents,
    Partition,
    Recipe,
    Stratify,
    folds,
    groups_by_pattern,
    joined_groups,
    partition_of_list,
    refuse_leaks,
    some,
    split,
)
from kit.data.routed import Target, write_routed
from kit.data.same_files import same_content
from kit.data.split_source import Source, read_source
from kit.files import atomic, sha256, whole_folder
from kit.progress import Bar

Placing = Literal["link", "copy", "none"]


@dataclass(frozen=True)
class Grouped:
    """What is kept together: a key for each image, how it was found, and what was odd."""

    groups: np.ndarray  # (I,) int64
    grouped_by: dict[str, Any] = field(default_factory=dict)  # for the recipe
    problems: list[str] = field(default_factory=list)


def grouped(
    contents: Contents,
    paths: Sequence[Path | None],
    pattern: str | None = None,
    near_bits: int | None = None,
    progress: Progress | None = None,
) -> Grouped:
    """Images of one file name, of the same file content, and as asked for: of one key of the pattern, or near
    duplicates by their pixels. paths: the file of each image, None where it is missing."""
    keys: list[Any] = [list(contents.file_names)]
    grouped_by: dict[str, Any] = {}
    problems = []
    if any(path is not None for path in paths):
        keys.append(same_content(paths))
        grouped_by["same_content"] = True
    if pattern is not None:
        by_name, unfit = groups_by_pattern(contents.file_names, pattern)
        keys.append(by_name)
        grouped_by["pattern"] = pattern
        problems += [f"{len(unfit)} names do not fit {pattern!r} and stay alone: {some(unfit)}"] if unfit else []
    if near_bits is not None:
        found = [path for path in paths if path is not None]
        if len(found) < len(paths):
            missing = len(paths) - len(found)
            raise ValueError(f"near duplicates need all image files, {missing} of {len(paths)} are missing; add them")
        keys.append(cluster(hash_files(found, progress), near_bits))
        grouped_by["near_duplicate_bits"] = near_bits
    return Grouped(joined_groups(*keys), grouped_by, problems)


# --- what is written ---


@dataclass(frozen=True)
class Writing:
    """How parts are written."""

    placing: Placing = "none"  # of the images that are there
    of_images: Progress | None = None
    of_bytes: Progress | None = None  # of the source


def write_split(
    source: Source, partition: Partition, recipe: Entry, out: Path | str, writing: Writing | None = None
) -> Path:
    """A data set folder of all parts."""
    refuse_leaks(partition)
    with whole_folder(Path(out)) as made:
        targets = [target(made, name, partition, number, recipe) for number, name in enumerate(partition.names)]
        write_targets(source, partition, targets, writing or Writing())
        write_list(made / "split.csv", partition)
    return Path(out)


def write_folds(
    source: Source, partition: Partition, recipe: Entry, out: Path | str, writing: Writing | None = None
) -> Path:
    """A data set folder fold{k} for each part: val is the part, train all others."""
    refuse_leaks(partition)
    with whole_folder(Path(out)) as made:
        targets = [
            target(made / f"fold{name}", part, partition, fold, recipe | {"fold": fold}, is_rest=part == "train")
            for fold, name in enumerate(partition.names)
            for part in ("train", "val")
        ]
        write_targets(source, partition, targets, writing or Writing())
        write_list(made / "split.csv", partition)
    return Path(out)


def target(folder: Path, name: str, partition: Partition, number: int, recipe: Entry, is_rest: bool = False) -> Target:
    """annotations/instances_{name}.json with the images of part `number`, or of all others."""
    shares = {each: float(share) for each, share in zip(partition.names, partition.reached(), strict=True)}
    about = recipe | {"part": name, "shares_reached": shares, "groups": int(partition.group.max()) + 1}
    return Target(folder / "annotations" / f"instances_{name}.json", number, is_rest, about)


def write_targets(source: Source, partition: Partition, targets: Sequence[Target], writing: Writing) -> None:
    """The annotations, and the images beside them."""
    write_routed(source.path, partition.part, source.image_rows, targets, writing.of_bytes)
    for each in targets:
        folder = each.path.parent.parent / "images" / each.path.stem.removeprefix("instances_")
        folder.mkdir(parents=True, exist_ok=True)
        if writing.placing != "none":
            place_images(folder, source, each.takes(partition.part), writing)


def place_images(folder: Path, source: Source, stays: np.ndarray, writing: Writing) -> None:
    """stays: (I,) bool, in the order of the file."""
    rows = np.flatnonzero(stays & source.files.is_there)
    for done, row in enumerate(rows.tolist(), 1):
        name, path = source.contents.file_names[row], source.files[row]
        assert path is not None
        link_or_copy(path, inside(folder, name, f"image {source.contents.image_ids[row]}"), writing.placing == "copy")
        if writing.of_images:
            writing.of_images(done, len(rows))


def write_list(path: Path, partition: Partition) -> Path:
    """file_name, image_id, part and group of every image, in order of the file; `--list` reads it again."""
    rows = zip(
        partition.contents.file_names, partition.contents.image_ids, partition.part, partition.group, strict=True
    )
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "image_id", "part", "group"])
        writer.writerows(
            [name, int(image_id), partition.names[part], int(group)] for name, image_id, part, group in rows
        )
    return path


# --- the command ---


def shares_of(texts: Sequence[str]) -> dict[str, float]:
    """train=0.8 val=0.2."""
    shares: dict[str, float] = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if name in shares or not 0 < value < float("inf"):
            raise ValueError(
                f"--parts: expected names with shares, such as train=0.8 val=0.2, got {text!r}; correct it"
            )
        shares[name] = value
    return shares


def partition_for(options: argparse.Namespace, contents: Contents, own: Grouped) -> tuple[Partition, Entry]:
    """What the command asks for, and its recipe."""
    if options.list:
        recipe: Entry = {"list": options.list.name, "list_sha256": sha256(options.list)}
        return partition_of_list(contents, options.list, own.groups), recipe | {"grouped_by": own.grouped_by}
    recipe = {"seed": options.seed, "stratify": options.stratify, "grouped_by": own.grouped_by}
    if options.folds:
        found = folds(contents, options.folds, options.seed, options.stratify, own.groups)
        return found, recipe | {"folds": options.folds}
    found = split(contents, Recipe(shares_of(options.parts), options.seed, options.stratify), own.groups)
    return found, recipe | {"shares": dict(found.shares)}


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m kit.data.split", description=(__doc__ or "").partition("\n")[0])
    result.add_argument("source", type=Path, help="a COCO file, or a data set folder")
    result.add_argument("out", type=Path, help="a new folder")
    result.add_argument("--part", help="of the folder, if it has several")
    how = result.add_mutually_exclusive_group()
    default = ["train=0.8", "val=0.2"]
    how.add_argument("--parts", nargs="+", default=default, metavar="NAME=SHARE", help=" ".join(default))
    how.add_argument("--folds", type=int, help="so many folders fold0, fold1, ... with train and val")
    how.add_argument("--list", type=Path, help="CSV with file_name and part, such as a split.csv")
    result.add_argument("--stratify", choices=get_args(Stratify), default="both", help="what each part gets a share of")
    result.add_argument("--group-by", metavar="PATTERN", help=r"regular expression, such as 'camera(\d+)' or '^(.*)/'")
    result.add_argument("--near-duplicates", type=int, nargs="?", const=NEAR_BITS, metavar="BITS", help="kept together")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--images", type=Path, help="folder of the images, if it is not beside the annotations")
    result.add_argument("--place", choices=get_args(Placing), default="link", help="how images are written")
    return result


def large_bar(what: str, path: Path) -> Bar | None:
    """For annotations that take more than a moment."""
    is_large = any(each.stat().st_size > SMALL_BYTES for each in coco_files(path).values()) if path.exists() else False
    return Bar(f"{what} annotations") if is_large else None


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 1: written, but something is wrong with the source; 2: not written."""
    options = parser().parse_args(arguments)
    try:
        source = read_source(options.source, options.part, options.images, large_bar("reading", options.source))
        bar = Bar("hashing images") if options.near_duplicates is not None else None
        own = grouped(source.contents, source.files, options.group_by, options.near_duplicates, bar)
        partition, recipe = partition_for(options, source.contents, own)
        recipe = {"source": source.path.name, "source_sha256": sha256(source.path)} | recipe
        write = write_folds if options.folds else write_split
        bar = Bar(f"images by {options.place}") if options.place != "none" and source.files.is_there.any() else None
        writing = Writing(options.place, bar, large_bar("writing", source.path))
        write(source, partition, recipe, options.out, writing)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    problems = [*own.problems, *source.dangling, *(source.missing() if options.place != "none" else [])]
    print(partition.table().to_string(index=False))
    for text in [f"! {each}" for each in problems] + [f"  {each}" for each in partition.notes()]:
        print(text)
    print(f"{options.out}: {len(partition.names)} parts of {int(partition.group.max()) + 1} groups, split.csv")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
