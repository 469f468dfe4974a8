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

from kit.data.formats.coco import coco_files, raw_part, read_content
from kit.data.formats.images import inside, link_or_copy
from kit.data.formats.raw import Entry, RawPart
from kit.data.image_files import Progress
from kit.data.near_duplicates import NEAR_BITS, cluster, hash_files
from kit.data.partition import (
    Contents,
    Partition,
    Recipe,
    Stratify,
    contents_of,
    folds,
    groups_by_pattern,
    joined_groups,
    partition_of_list,
    refuse_leaks,
    some,
    split,
)
from kit.data.same_files import same_content
from kit.files import atomic, sha256, whole_folder, write_json
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
    files: dict[int, Path],
    pattern: str | None = None,
    near_bits: int | None = None,
    progress: Progress | None = None,
) -> Grouped:
    """Images of one file name, of the same file content, and as asked for: of one key of the pattern, or near
    duplicates by their pixels. files: image id -> file."""
    keys: list[Any] = [list(contents.file_names)]
    grouped_by: dict[str, Any] = {}
    problems = []
    paths = [files.get(image_id) for image_id in contents.image_ids.tolist()]
    if files:
        keys.append(same_content(paths))
        grouped_by["same_content"] = True
    if pattern is not None:
        found, unfit = groups_by_pattern(contents.file_names, pattern)
        keys.append(found)
        grouped_by["pattern"] = pattern
        problems += [f"{len(unfit)} names do not fit {pattern!r} and stay alone: {some(unfit)}"] if unfit else []
    if near_bits is not None:
        rows = [row for row, path in enumerate(paths) if path is not None]
        if len(rows) < len(paths):
            missing = len(paths) - len(rows)
            raise ValueError(f"near duplicates need all image files, {missing} of {len(paths)} are missing; add them")
        keys.append(cluster(hash_files([path for path in paths if path is not None], progress), near_bits))
        grouped_by["near_duplicate_bits"] = near_bits
    return Grouped(joined_groups(*keys), grouped_by, problems)


# --- what is written ---


def write_split(
    content: Entry,
    partition: Partition,
    recipe: Entry,
    out: Path | str,
    files: dict[int, Path] | None = None,
    copy: bool = False,
    progress: Progress | None = None,
) -> Path:
    """A data set folder of all parts. files: image id -> file, to be linked or copied; none: without images."""
    refuse_leaks(partition)
    with whole_folder(Path(out)) as made:
        for number, name in enumerate(partition.names):
            write_part(made, name, content, partition, partition.part == number, recipe)
            place_part(made / "images" / name, content, partition.part == number, files or {}, copy, progress)
        write_list(made / "split.csv", partition)
    return Path(out)


def write_folds(
    content: Entry,
    partition: Partition,
    recipe: Entry,
    out: Path | str,
    files: dict[int, Path] | None = None,
    copy: bool = False,
    progress: Progress | None = None,
) -> Path:
    """A data set folder fold{k} for each part: val is the part, train all others."""
    refuse_leaks(partition)
    with whole_folder(Path(out)) as made:
        for fold, name in enumerate(partition.names):
            for part, own in (("train", partition.part != fold), ("val", partition.part == fold)):
                folder = made / f"fold{name}"
                write_part(folder, part, content, partition, own, recipe | {"fold": fold})
                place_part(folder / "images" / part, content, own, files or {}, copy, progress)
        write_list(made / "split.csv", partition)
    return Path(out)


def write_part(folder: Path, name: str, content: Entry, partition: Partition, stays: np.ndarray, recipe: Entry) -> Path:
    """annotations/instances_{name}.json; stays: (I,) bool, in order of the images of the file."""
    images = [image for image, own in zip(content["images"], stays.tolist(), strict=True) if own]
    ids = {image["id"] for image in images}
    annotations = [each for each in content.get("annotations") or [] if each["image_id"] in ids]
    shares = {each: float(share) for each, share in zip(partition.names, partition.reached(), strict=True)}
    about = recipe | {"part": name, "shares_reached": shares, "groups": int(partition.group.max()) + 1}
    info = content.get("info") or {}
    info = info if isinstance(info, dict) else {"info_of_source": info}
    before = {"split_of_source": info["split"]} if "split" in info else {}
    lists = {"images": images, "annotations": annotations}
    return write_json(
        folder / "annotations" / f"instances_{name}.json", content | lists | {"info": info | before | {"split": about}}
    )


def place_part(
    folder: Path,
    content: Entry,
    stays: np.ndarray,
    files: dict[int, Path],
    copy: bool,
    progress: Progress | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    own = [
        image for image, stay in zip(content["images"], stays.tolist(), strict=True) if stay and image["id"] in files
    ]
    for done, image in enumerate(own, 1):
        target = inside(folder, str(image["file_name"]), f"image {image['id']}")
        link_or_copy(files[image["id"]], target, copy)
        if progress:
            progress(done, len(own))


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


def dangling(content: Entry) -> list[str]:
    """Annotations that no part can have."""
    known = {image["id"] for image in content["images"]}
    lost = [each for each in content.get("annotations") or [] if each["image_id"] not in known]
    which = some([f"annotation {each.get('id')} of image {each['image_id']}" for each in lost])
    return [f"{len(lost)} annotations of images that are not listed are in no part: {which}"] if lost else []


# --- the command ---


def read_source(source: Path, part: str | None, images: Path | None) -> tuple[Path, Entry, RawPart]:
    """The one annotation file to be split: its path, its content, its images."""
    files = coco_files(source) if source.exists() else {}
    if part is not None and part in files:
        files = {part: files[part]}
    if len(files) != 1 or (part is not None and part not in files):
        found = f"the parts {', '.join(files)}" if files else "none"
        mend = "choose one by --part, or join them first: python -m kit.data.merge OUT SOURCE --into all"
        raise ValueError(f"{source}: expected one COCO file{f' of {part}' if part else ''}, found {found}; {mend}")
    ((name, path),) = files.items()
    content = read_content(path)
    return path, content, raw_part(name, content, path, images)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 1: written, but something is wrong with the source; 2: not written."""
    options = parser().parse_args(arguments)
    try:
        path, content, source = read_source(options.source, options.part, options.images)
        contents = contents_of(content)
        bar = Bar("hashing images") if options.near_duplicates is not None else None
        own = grouped(contents, source.files, options.group_by, options.near_duplicates, bar)
        partition, recipe = partition_for(options, contents, own)
        recipe = {"source": path.name, "source_sha256": sha256(path)} | recipe
        files = {} if options.place == "none" else source.files
        write = write_folds if options.folds else write_split
        bar = Bar(f"images by {options.place}") if files else None
        write(content, partition, recipe, options.out, files, options.place == "copy", bar)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    problems = [*own.problems, *dangling(content)]
    missing = [str(image["file_name"]) for image in content["images"] if image["id"] not in source.files]
    if missing and options.place != "none":
        problems.append(f"{len(missing)} image files are missing: {some(missing)}")
    print(partition.table().to_string(index=False))
    for text in [f"! {each}" for each in problems] + [f"  {each}" for each in partition.notes()]:
        print(text)
    print(f"{options.out}: {len(partition.names)} parts of {int(partition.group.max()) + 1} groups, split.csv")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
