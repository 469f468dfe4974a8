"""The form that all formats are read into and written from: the entries of COCO files as they stand.

Masks, ids and fields that nobody knows stay as they are, so that COCO to COCO loses nothing. What another format cannot
carry is told: each loss once, with its count and an example.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

LARGEST = 1e30  # of any number read: nothing overflows then
DIGITS = 9  # of a pixel: sums of floats come back to the decimal they were, and nothing moves by more than 5e-10 px


@dataclass(frozen=True)
class RawPart:
    """One part of a data set, such as train."""

    name: str
    images: list[Entry]
    annotations: list[Entry]
    files: dict[int, Path]  # image id: its file; missing files are not there
    extras: Entry = field(default_factory=dict)  # what else the annotation file holds: info, licenses
    resize_wh: dict[int, tuple[int, int]] = field(default_factory=dict)  # image id: size that its file is still to get


@dataclass(frozen=True)
class RawDataset:
    """A whole data set. notes: what the reader has decided; problems: what is wrong with the files it has read."""

    categories: list[Entry]  # in order of their ids
    parts: list[RawPart]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Loss:
    """Something that was not carried over, how often, and where for the first time. is_problem: mend the source."""

    what: str
    count: int
    example: str
    is_problem: bool = False


class Losses:
    """Gathers losses while a data set is written."""

    def __init__(self) -> None:
        self.found: dict[str, Loss] = {}

    def add(self, what: str, example: str, is_problem: bool = False) -> None:
        before = self.found.get(what)
        count, first = (before.count, before.example) if before else (0, example)
        self.found[what] = Loss(what, count + 1, first, is_problem)

    def all(self) -> list[Loss]:
        return sorted(self.found.values(), key=lambda loss: not loss.is_problem)


def neat(value: float) -> float | int:
    """A number of pixels without the noise of floats; whole numbers as integers."""
    value = round(float(value), DIGITS)
    return int(value) if value == int(value) else value


def is_number(value: Any) -> bool:
    """A finite number of a size that sums and products of pixels can have."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and -LARGEST <= value <= LARGEST


def number_text(value: float) -> str:
    """The shortest text that reads as the same number; whole numbers without a point."""
    if isinstance(value, int):
        return repr(int(value))
    return repr(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


def finite_number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_number(value):
        raise ValueError(f"{where}: expected a number, found {text!r:.40}; correct the file")
    return value


def box_of(entry: Mapping[str, Any]) -> list[float] | None:
    """The bbox of an annotation (4,) xywh px; None where it is anything but four finite numbers."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return None
    return box if all(map(is_number, box)) else None


def new_annotation(image_id: int, category_id: int, box_xywh_px: Sequence[float], **more: Any) -> Entry:
    """An annotation that gets its id when all are there."""
    area = neat(box_xywh_px[2] * box_xywh_px[3])
    about = {"image_id": image_id, "category_id": category_id, "bbox": list(box_xywh_px), "area": area, "iscrowd": 0}
    return about | more


def numbered(annotations: Iterable[Entry]) -> list[Entry]:
    """With ids 1, 2, ... where they have none."""
    return [{"id": number} | each for number, each in enumerate(annotations, 1)]


def category_entries(names: Sequence[str], category_ids: Sequence[int] | None = None) -> list[Entry]:
    ids = range(1, len(names) + 1) if category_ids is None else category_ids
    return [{"id": each, "name": name} for each, name in zip(ids, names, strict=True)]


def unique_names(dataset: RawDataset, format_name: str) -> dict[int, str]:
    """Category id: name, for formats that know classes by their names alone."""
    names = {category["id"]: str(category.get("name", category["id"])) for category in dataset.categories}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        raise ValueError(
            f"{format_name}: expected classes with names of their own, found {twice[0]!r} twice; rename one of them"
        )
    return names


def objects_of(dataset: RawDataset, part: RawPart, losses: Losses) -> dict[int, list[Entry]]:
    """Image id: its annotations that can be written elsewhere; the others are problems of the source."""
    found: dict[int, list[Entry]] = {image["id"]: [] for image in part.images}
    category_ids = {category["id"] for category in dataset.categories}
    for each in part.annotations:
        example = f"{part.name}: annotation {each.get('id')}"
        if each["image_id"] not in found:
            losses.add("annotation of an image that is not listed: left out", example, is_problem=True)
        elif type(each.get("category_id")) is not int or each["category_id"] not in category_ids:
            losses.add("annotation of an unknown category: left out", example, is_problem=True)
        elif box_of(each) is None:
            losses.add("annotation without a box of four numbers: left out", example, is_problem=True)
        else:
            found[each["image_id"]].append(each)
    return found


def objects_by_file(
    part: RawPart, names: Mapping[int, str], objects: Mapping[int, list[Entry]], losses: Losses
) -> list[tuple[Entry, str, list[Entry]]]:
    """Each file once, for formats with a text for each: its first entry, its name, the objects of all its entries."""
    found: dict[str, tuple[Entry, str, list[Entry]]] = {}
    for image in part.images:
        name = names[image["id"]]
        if name in found:
            losses.add("image listed twice: its objects are together", f"{part.name}: {name}")
        found.setdefault(name, (image, name, []))[2].extend(objects[image["id"]])
    return list(found.values())


def tell_fields(
    dataset: RawDataset, losses: Losses, of_annotations: Collection[str], of_images: Collection[str], ids: bool = False
) -> None:
    """Tells what a format does not carry. The collections name the fields that it does; ids: and ids and all digits."""
    for part in dataset.parts:
        for image in part.images:
            tell_entry(image, {"id", "file_name", "width", "height", *of_images}, "images", losses, part.name)
        for each in part.annotations:
            known = {"id", "image_id", "category_id", "bbox", *of_annotations}
            tell_entry(each, known, "annotations", losses, part.name)
            if not ids and (box := box_of(each)) is not None and any(neat(value) != value for value in box):
                losses.add("digits of pixels after the ninth", f"{part.name}: annotation {each.get('id')}")
        for key in (key for key, value in part.extras.items() if value):
            losses.add(f"{key} of the file", part.name)
        if not ids:
            tell_ids(part, losses)
    for category in dataset.categories:
        tell_entry(category, {"id", "name"}, "categories", losses, str(category.get("name")))


def tell_entry(entry: Entry, known: Collection[str], kind: str, losses: Losses, where: str) -> None:
    for key in sorted(entry.keys() - known):
        if not is_plain(entry, key):
            losses.add(f"{key} of {kind}", f"{where}: {entry.get('id')}")


def is_plain(entry: Entry, key: str) -> bool:
    """Whether a field tells nothing that would be missed."""
    value = entry[key]
    if key == "area" and (box := box_of(entry)) is not None and is_number(value):
        return abs(value - box[2] * box[3]) <= 1e-6 * max(1.0, abs(value))
    return value is None or value in ([], {}, "") or (key == "iscrowd" and not value)


def tell_ids(part: RawPart, losses: Losses) -> None:
    """Formats without ids are numbered anew, by file name."""
    in_order = sorted(part.images, key=lambda image: str(image["file_name"]))
    if [image["id"] for image in in_order] != list(range(1, len(in_order) + 1)):
        losses.add("ids of images: read again they are 1, 2, ... by file name", part.name)
    row_of = {image["id"]: row for row, image in enumerate(in_order)}
    rows = [row_of.get(each["image_id"], -1) for each in part.annotations]
    if rows != sorted(rows) or [each.get("id") for each in part.annotations] != list(range(1, len(rows) + 1)):
        losses.add("ids of annotations: read again they are 1, 2, ... by file name", part.name)


def part_named(name: str) -> str:
    """Names of parts as kit has them."""
    return {"valid": "val", "validation": "val", "training": "train", "testing": "test"}.get(name.lower(), name)


def joined_categories(lists: Mapping[str, list[Entry]]) -> list[Entry]:
    """One list out of those of several files, given by the file's name."""
    found: dict[int, Entry] = {}
    origin: dict[int, str] = defaultdict(str)
    for where, categories in lists.items():
        for category in categories:
            before = found.setdefault(category["id"], category)
            origin[category["id"]] = origin[category["id"]] or where
            if before.get("name") != category.get("name"):
                names = f"{before.get('name')!r} in {origin[category['id']]} and {category.get('name')!r} in {where}"
                raise ValueError(f"category {category['id']}: expected one name, found {names}; use kit.data.merge")
    return [found[category_id] for category_id in sorted(found)]
