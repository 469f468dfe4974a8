"""Joins data sets into one, or the parts of one: `python -m kit.data.merge OUT SOURCE [SOURCE ...]`.

Categories are joined by name, or as a table says. Entries stay as they stand, masks and unknown fields too; ids are
shifted where they clash, names of files changed where they clash, and every image says where it comes from in
`merged_from`. What is dropped or changed is told.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import pandas as pd

from kit.data.category_table import CategoryTable, read_category_table
from kit.data.formats.images import inside, link_or_copy
from kit.data.formats.raw import Entry, Loss, Losses
from kit.data.image_files import Progress
from kit.data.merge_sources import Source, free_id, joined_categories, name_of, named_sources
from kit.data.same_files import same_content
from kit.data.split import Placing
from kit.files import one_line, sha256, whole_folder, write_json
from kit.progress import Bar


@dataclass(frozen=True)
class Placed:
    """An image file and where it goes."""

    source: str  # data set and part
    file: Path
    target: str  # part and name, such as train/0001.jpg


@dataclass(frozen=True)
class Twins:
    """Image files of the same content, as part/name of the merged data set."""

    targets: list[str]

    @property
    def is_leak(self) -> bool:
        """In more than one part."""
        return len({target.partition("/")[0] for target in self.targets}) > 1


@dataclass(frozen=True)
class Merged:
    """The joined data set before it is written."""

    contents: dict[str, Entry]  # part -> content of its COCO file
    files: list[Placed]
    losses: list[Loss]  # what was dropped or changed
    twins: list[Twins] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What should be mended: faults of the sources, and the same picture in two parts."""
        found = [f"{loss.what}: {loss.count}, such as {loss.example}" for loss in self.losses if loss.is_problem]
        leaks = [each for each in self.twins if each.is_leak]
        return found + counted("same file in two parts", leaks)

    @property
    def notes(self) -> list[str]:
        """What was changed or dropped, and files of the same content."""
        found = [f"{loss.what}: {loss.count}, such as {loss.example}" for loss in self.losses if not loss.is_problem]
        return found + counted("same file in one part", [each for each in self.twins if not each.is_leak])


def counted(what: str, twins: Sequence[Twins]) -> list[str]:
    return [f"{what}: {len(twins)}, such as {' = '.join(twins[0].targets[:4])}"] if twins else []


def merge(
    sources: Sequence[Source],
    table: CategoryTable | None = None,
    into: str | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Parts of one name are joined; into: all into this one part. The sources are not changed."""
    twice = [name for name, count in Counter(source.name for source in sources).items() if count > 1]
    if twice or not sources:
        raise ValueError(f"expected data sets of different names, got {', '.join(twice) or 'none'}; name them apart")
    table, losses = table or CategoryTable(), Losses()
    category_of, categories = joined_categories(sources, table, losses)
    parts: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        inside(Path("annotations"), f"instances_{into or source.part.name}.json", "part")
        parts[into or source.part.name].append(source)

    contents, files = {}, []
    for name, own in parts.items():
        contents[name], placed = joined_part(name, own, category_of, categories, losses)
        files += placed
    return Merged(contents, files, losses.all(), twins_of(files, progress))


# --- one part ---


def joined_part(
    name: str,
    sources: Sequence[Source],
    category_of: dict[tuple[str, int], int | None],
    categories: list[Entry],
    losses: Losses,
) -> tuple[Entry, list[Placed]]:
    content: Entry = {"images": [], "annotations": [], "categories": categories}
    licenses: list[Entry] = []
    about, files, taken = [], [], set[str]()
    image_ids, annotation_ids = set[int](), set[int]()
    for source in sources:
        images, annotations = source.part.images, kept_annotations(source, category_of, losses)
        image_shift = shift_of([image["id"] for image in images], image_ids)
        own_ids = annotation_ids_of(source, annotations, annotation_ids, losses)
        license_of = joined_licenses(source, licenses, losses)
        if image_shift:
            losses.add("image ids shifted, old ones in merged_from", f"{source.name}: by {image_shift}")

        for image in images:
            target = free_name(source, str(image["file_name"]), image["id"], taken, losses)
            content["images"].append(merged_image(source, image, image_shift, target, license_of))
            if image["id"] in source.part.files:
                files.append(Placed(source.name, source.part.files[image["id"]], f"{name}/{target}"))
            else:
                losses.add("image file missing", f"{source.name}: {image['file_name']}", is_problem=True)
        for annotation, own_id in zip(annotations, own_ids, strict=True):
            category = category_of[source.name, annotation["category_id"]]
            changed = {"id": own_id, "image_id": annotation["image_id"] + image_shift, "category_id": category}
            content["annotations"].append(annotation | changed)
        image_ids |= {image["id"] + image_shift for image in images}
        annotation_ids |= set(own_ids)
        about.append(about_source(source, image_shift, annotations, own_ids) | {"license_ids": license_of})
        for key in source.part.extras.keys() - {"info", "licenses"}:
            losses.add(f"{key} of the file: now in info.merge", source.name)
    extra = {"licenses": licenses} if licenses else {}
    return {"info": {"merge": {"part": name, "sources": about}}} | extra | content, files


def kept_annotations(source: Source, category_of: dict[tuple[str, int], int | None], losses: Losses) -> list[Entry]:
    """Those of a listed image and of a category that stays."""
    known, kept = {image["id"] for image in source.part.images}, []
    names: dict[Any, str] = {category["id"]: name_of(category) for category in source.categories}
    for each in source.part.annotations:
        category_id, example = each.get("category_id"), f"{source.name}: annotation {each.get('id')}"
        if each["image_id"] not in known:
            losses.add("annotation of an image that is not listed: left out", example, is_problem=True)
        elif not isinstance(category_id, int) or category_id not in names:
            losses.add("annotation of an unknown category: left out", example, is_problem=True)
        elif category_of[source.name, category_id] is None:
            losses.add(f"annotation of the dropped category {names[category_id]}", example)
        else:
            kept.append(each)
    return kept


def shift_of(ids: Sequence[int], taken: set[int]) -> int:
    """What is to be added to the ids of one source so that none is taken; 0 if none is."""
    return 0 if taken.isdisjoint(ids) else max(taken) + 1 - min(ids)


def annotation_ids_of(source: Source, annotations: Sequence[Entry], taken: set[int], losses: Losses) -> list[int]:
    """Their ids, shifted where they clash; numbered anew where the source has no ids, an id of 0, or one twice."""
    ids = [each.get("id") for each in annotations]
    whole = [value for value in ids if type(value) is int and value > 0]
    first = max(taken, default=0) + 1
    if len(whole) < len(ids) or len(set(whole)) < len(whole):
        losses.add("annotation ids missing, 0 or given twice: numbered anew", source.name)
        return list(range(first, first + len(ids)))
    shift = shift_of(whole, taken)
    if shift:
        losses.add("annotation ids shifted", f"{source.name}: by {shift}")
    return [value + shift for value in whole]


def joined_licenses(source: Source, licenses: list[Entry], losses: Losses) -> dict[Any, Any]:
    """Adds the licenses of a source to the list -> its license ids to those of the list."""
    found = {}
    own = source.part.extras.get("licenses")
    for entry in own if isinstance(own, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            continue
        same = next((each for each in licenses if each | {"id": 0} == entry | {"id": 0}), None)
        if same is None:
            same = entry | {"id": free_id(entry["id"], licenses)}
            licenses.append(same)
        if same["id"] != entry["id"]:
            losses.add("license ids changed", f"{source.name}: {entry['id']} is now {same['id']}")
        found[entry["id"]] = same["id"]
    return found


def free_name(source: Source, file_name: str, image_id: int, taken: set[str], losses: Losses) -> str:
    """The name in the merged folder. Names that differ in their case alone clash too: some disks do not tell them."""
    inside(Path("images"), file_name, f"{source.name}: image {image_id}")
    path = PurePosixPath(file_name)
    heads = ["", f"{source.data_set}_", f"{source.data_set}_{source.part.name}_"]
    heads += [f"{source.data_set}_{source.part.name}_{image_id}_"]
    names = [path.with_name(head + path.name).as_posix() for head in heads]
    free = next((name for name in names if name.casefold() not in taken), None)
    if free is None:
        raise ValueError(f"{source.path}: {file_name}: expected a file once, found it again; run kit.data.check --fix")
    taken.add(free.casefold())
    if free != file_name:
        losses.add("file under another name, old one in merged_from", f"{source.name}: {file_name} is now {free}")
    return free


def merged_image(source: Source, image: Entry, shift: int, target: str, license_of: dict[Any, Any]) -> Entry:
    """With its provenance; that of an earlier merge stays inside it."""
    before = {"merged_from": image["merged_from"]} if "merged_from" in image else {}
    origin = {"data_set": source.data_set, "part": source.part.name, "file_name": image["file_name"], "id": image["id"]}
    own = {"license": license_of[image["license"]]} if image.get("license") in license_of else {}
    return image | own | {"id": image["id"] + shift, "file_name": target, "merged_from": origin | before}


def about_source(source: Source, image_shift: int, annotations: Sequence[Entry], own_ids: Sequence[int]) -> Entry:
    """For `info`: where it came from, how ids go back, and what else its file held."""
    shifts = {
        own - each["id"] if isinstance(each.get("id"), int) else None
        for each, own in zip(annotations, own_ids, strict=True)
    }
    return {
        "data_set": source.data_set,
        "part": source.part.name,
        "file": source.path.name,
        "sha256": sha256(source.path),
        "categories": {name_of(category): category["id"] for category in source.categories},
        "image_id_shift": image_shift,
        "annotation_id_shift": (shifts or {0}).pop() if len(shifts) < 2 else None,
        "more": source.part.extras,
    }


# --- files ---


def twins_of(files: Sequence[Placed], progress: Progress | None) -> list[Twins]:
    """Files of the same content, those of one entry path once."""
    first = same_content([each.file for each in files], progress).tolist()
    counts, groups = Counter(first), defaultdict(list)
    for row, each in zip(first, files, strict=True):
        if counts[row] > 1:
            groups[row].append(each.target)
    return [Twins(targets) for targets in groups.values()]


def write_merged(
    merged: Merged, out: Path | str, copy: bool = False, with_images: bool = True, progress: Progress | None = None
) -> Path:
    """A data set folder, whole or not at all."""
    with whole_folder(Path(out)) as made:
        for name, content in merged.contents.items():
            write_json(made / "annotations" / f"instances_{name}.json", content)
            (made / "images" / name).mkdir(parents=True)
        for done, each in enumerate(merged.files if with_images else [], 1):
            link_or_copy(each.file, inside(made / "images", each.target, each.source), copy)
            if progress:
                progress(done, len(merged.files))
    return Path(out)


# --- the command ---


def counts_table(merged: Merged) -> pd.DataFrame:
    """Annotations of each category and the images, by part."""
    categories = next(iter(merged.contents.values()))["categories"]
    names = [one_line(each["name"]) for each in categories]
    table = pd.DataFrame({"id": ["", *(each["id"] for each in categories)], "": ["images", *names]})
    for name, content in merged.contents.items():
        counts = Counter(each["category_id"] for each in content["annotations"])
        table[name] = [len(content["images"]), *(counts[each["id"]] for each in categories)]
    return table


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m kit.data.merge", description=(__doc__ or "").partition("\n")[0])
    result.add_argument("out", type=Path, help="a new folder")
    result.add_argument("sources", nargs="+", metavar="SOURCE", help="data set folders or COCO files, or NAME=PATH")
    result.add_argument("--categories", type=Path, metavar="TABLE", help="YAML (Van: Car) or CSV (category, target)")
    result.add_argument("--drop-unlisted", action="store_true", help="categories that are not in the table")
    result.add_argument("--into", metavar="PART", help="all parts become this one: train and val of a set in one call")
    result.add_argument("--place", choices=get_args(Placing), default="link", help="how images are written")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 1: written, but something should be mended; 2: not written."""
    options = parser().parse_args(arguments)
    try:
        if options.drop_unlisted and not options.categories:
            raise ValueError("--drop-unlisted: expected --categories TABLE with it, got none; name what stays")
        table = read_category_table(options.categories, options.drop_unlisted) if options.categories else None
        merged = merge(named_sources(options.sources), table, options.into, Bar("reading files of one size"))
        bar = Bar(f"images by {options.place}")
        write_merged(merged, options.out, options.place == "copy", options.place != "none", bar)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(counts_table(merged).to_string(index=False))
    for text in [f"! {each}" for each in merged.problems] + [f"  {each}" for each in merged.notes]:
        print(one_line(text))
    parts = one_line(", ".join(merged.contents))
    print(f"{one_line(options.out)}: {parts}; where each image comes from is in merged_from")
    return int(bool(merged.problems))


if __name__ == "__main__":
    sys.exit(main())
