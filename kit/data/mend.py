"""A mended copy of a data set, with a log of every change: `python -m kit.data.check SOURCE --fix OUT`.

The source stays as it is; images are linked. Entries that nothing is wrong with stay as they stand, with fields that
nobody knows. What is deleted is in the log as a whole, what is changed with its value before and after.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.check_images import files_in
from kit.data.check_labels import (
    cut_boxes,
    is_malformed,
    is_outside,
    is_over_the_edge,
    is_repeated,
    is_unknown,
    is_without_area,
)
from kit.data.check_masks import MASKS
from kit.data.check_table import Rows, Source, again, table_of
from kit.data.coco import refuse_other_formats
from kit.data.coco_entries import entries_of
from kit.data.formats.images import inside, link_or_copy
from kit.data.formats.raw import box_of, neat
from kit.data.image_files import UNUSABLE_NAME, FileState, Progress, name_fault, read_named
from kit.data.mask_boxes import area_of, disagreements_of, has_mask, mask_box, sizes_of
from kit.files import one_line, read_json, whole_folder, write_json

Entry = dict[str, Any]
LISTS = ("images", "annotations", "categories")
DELETED = (  # kind of problem: the rule that finds it
    ("box without area", is_without_area),
    ("box outside the image", is_outside),
    ("unknown category", is_unknown),
    ("repeated box", is_repeated),
)


@dataclass(frozen=True)
class Change:
    """One thing that is another in the copy. before, after: the fields that change; all of an entry that is deleted."""

    kind: str  # of the problem
    part: str
    what: str  # is changed: image, annotation, category, file
    identity: Any  # its id or name
    before: Any
    after: Any = None  # None: deleted


@dataclass(frozen=True)
class Choices:
    """What cannot be known from the data."""

    boxes_from_masks: bool = False  # where a mask and its box disagree
    sizes_of_files: bool = False  # where a file has another size than its entry: the boxes are believed to fit the file


@dataclass
class Draft:
    """One annotation file while it is mended; the entries themselves are never changed in place."""

    part: str
    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    changes: list[Change] = field(default_factory=list)

    def delete(self, kind: str, what: str, entry: Entry, after: Any = None) -> None:
        self.changes.append(Change(kind, self.part, what, entry.get("id"), entry, after))

    def changed(self, kind: str, what: str, entry: Entry, fields: Entry) -> Entry:
        """The entry with new values; None takes a field out."""
        before = {name: entry.get(name) for name in fields}
        self.changes.append(Change(kind, self.part, what, entry.get("id"), before, fields))
        return {name: value for name, value in (entry | fields).items() if name not in fields or value is not None}


def mended(
    content: Entry, part: str, states: Mapping[str, FileState] | None = None, choices: Choices | None = None
) -> tuple[Entry, list[Change]]:
    """The content of a COCO file without what is wrong with it. states: by file name; None: files are not looked at."""
    refuse_other_formats(content, Path(part))
    draft, choices = Draft(part, *(list(content.get(name) or []) for name in LISTS)), choices or Choices()
    mend_numbers(draft)
    mend_categories(draft)
    mend_images(draft, states, choices)
    mend_masks(draft, choices)
    mend_boxes(draft)
    mend_ids(draft)
    lists = {name: getattr(draft, name) for name in LISTS}
    return content | lists, draft.changes


def mend_numbers(draft: Draft) -> None:
    """JSON knows no NaN and no infinity: a field that holds one goes, and a box with it is no box."""
    for what, name in (("image", "images"), ("annotation", "annotations"), ("category", "categories")):
        entries = getattr(draft, name)
        for place, entry in enumerate(entries):
            wrong = [key for key, value in entry.items() if not is_finite(value)]
            if wrong:
                entries[place] = draft.changed("number that is none", what, entry, dict.fromkeys(wrong))


def is_finite(value: Any) -> bool:
    """Of all numbers within."""
    if isinstance(value, dict | list):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def mend_categories(draft: Draft) -> None:
    """Of two with one id the first stays."""
    twice = again([each["id"] for each in draft.categories])
    for entry, is_twice in zip(draft.categories, twice, strict=True):
        if is_twice:
            draft.delete("duplicate category id", "category", entry)
    draft.categories = [entry for entry, is_twice in zip(draft.categories, twice, strict=True) if not is_twice]


# --- images ---


def mend_images(draft: Draft, states: Mapping[str, FileState] | None, choices: Choices) -> None:
    """Entries whose file cannot be used go with their annotations; those of a second entry go to the first."""
    images: dict[int, Entry] = {}
    first_of: dict[str, Entry] = {}  # file name: its entry
    moved: dict[int, int] = {}  # image id: that of the same file
    barred: dict[int, str] = {}  # image id: why
    for entry in draft.images:
        name = str(entry["file_name"])
        if entry["id"] in images or entry["id"] in moved or entry["id"] in barred:
            draft.delete("duplicate image id", "image", entry)
            continue
        entry, kind = sized(draft, entry, states[name] if states else None, choices)
        if kind:
            draft.delete(kind, "image", entry)
            barred[entry["id"]] = kind
        elif name in first_of:
            draft.delete("duplicate file name", "image", entry)
            moved[entry["id"]] = first_of[name]["id"]
        else:
            images[entry["id"]] = first_of[name] = entry
    draft.images = list(images.values())
    draft.annotations = list(settled(draft, set(images), moved, barred))


def sized(draft: Draft, entry: Entry, state: FileState | None, choices: Choices) -> tuple[Entry, str]:
    """The entry, with the size of its file where it has none; and why it cannot be used."""
    if name_fault(str(entry["file_name"])):
        return entry, UNUSABLE_NAME
    if state is None or state.fault:
        return entry, state.fault if state else ""
    told = entry.get("height"), entry.get("width")
    if told == state.size_hw:
        return entry, ""
    if choices.sizes_of_files or not all(told):
        size = {"height": state.size_hw[0], "width": state.size_hw[1]}
        return draft.changed("size mismatch", "image", entry, size), ""
    return entry, "size mismatch"


def settled(draft: Draft, known: set[int], moved: Mapping[int, int], barred: Mapping[int, str]) -> Iterable[Entry]:
    """The annotations of images that stay."""
    for entry in draft.annotations:
        image_id = entry["image_id"]
        if image_id in moved:
            yield draft.changed("duplicate file name", "annotation", entry, {"image_id": moved[image_id]})
        elif image_id in known:
            yield entry
        else:
            draft.delete(barred.get(image_id, "image missing from the list"), "annotation", entry)


# --- annotations ---


def mend_masks(draft: Draft, choices: Choices) -> None:
    """Masks that cannot be used go, and the box stays; areas become those of the mask; boxes that cannot be used become
    the mask's, and where that is chosen all that disagree with it."""
    sizes, rows = sizes_of({"images": draft.images}), rows_of(draft)
    is_broken = is_malformed(rows) | is_without_area(rows) | is_outside(rows)
    for place, entry in enumerate(draft.annotations):
        if has_mask(entry):
            takes_box = choices.boxes_from_masks or bool(is_broken[place])
            draft.annotations[place] = with_mended_mask(draft, entry, sizes[entry["image_id"]], takes_box)


def with_mended_mask(draft: Draft, entry: Entry, size_hw: tuple[int, int], takes_box: bool) -> Entry:
    box = box_of(entry)
    area = {} if box is None or "area" in entry else {"area": box[2] * box[3]}  # what the evaluation would take
    kinds = {each.kind for each in disagreements_of(area | entry, size_hw)}
    for kind in ("broken", "empty", "size"):
        if kind in kinds:
            return draft.changed(MASKS[kind][0], "annotation", entry, {"segmentation": None})
    if "area" in kinds:
        entry = draft.changed(MASKS["area"][0], "annotation", entry, {"area": neat(area_of(entry["segmentation"]))})
    if "box" in kinds and takes_box:
        entry = draft.changed(MASKS["box"][0], "annotation", entry, {"bbox": mask_box(entry, size_hw)[0]})
    return entry


def rows_of(draft: Draft) -> Rows:
    """The annotations as they are now."""
    lists = {name: getattr(draft, name) for name in LISTS}
    return table_of(entries_of(lists, Path(draft.part))).rows


def mend_boxes(draft: Draft) -> None:
    """What `clean` leaves out is deleted, what it cuts is cut."""
    rows = rows_of(draft)
    stays = np.ones(len(draft.annotations), bool)
    for kind, rule in (("malformed box", is_malformed), *DELETED):
        for row in np.flatnonzero(rule(rows) & stays):
            draft.delete(kind, "annotation", draft.annotations[row])
            stays[row] = False
    cut_px, is_over = cut_boxes(rows), is_over_the_edge(rows) & stays
    for row in np.flatnonzero(is_over):
        entry = draft.annotations[row]
        fields: Entry = {"bbox": [neat(value) for value in cut_px[row].tolist()]}
        if isinstance(entry.get("area"), int | float):
            fields["area"] = min(entry["area"], neat(cut_px[row, 2] * cut_px[row, 3]))
        draft.annotations[row] = draft.changed("box over the edge", "annotation", entry, fields)
    draft.annotations = [entry for entry, is_kept in zip(draft.annotations, stays, strict=True) if is_kept]


def mend_ids(draft: Draft) -> None:
    """Annotations without an id of their own get the next free ones."""
    ids = [each.get("id") for each in draft.annotations]
    is_own = [type(each) is int and each > 0 for each in ids]
    free: int = max([0, *(each for each in ids if type(each) is int)])
    for place, (entry, twice, own) in enumerate(zip(draft.annotations, again(ids), is_own, strict=True)):
        if own and not twice:
            continue
        free += 1
        kind = "duplicate annotation id" if own else "annotation id 0 or none"
        draft.annotations[place] = draft.changed(kind, "annotation", entry, {"id": free})


# --- the folder ---


def write_mended(
    sources: Sequence[Source],
    out: Path,
    choices: Choices | None = None,
    copy: bool = False,
    progress: Progress | None = None,
) -> list[Change]:
    """Makes the folder `out`, with the log as mended.json in it."""
    changes: list[Change] = []
    with whole_folder(out) as made:
        for source in sources:
            refuse_overlap(source, out)
            content, own = mended_source(source, choices, progress)
            changes += own
            place_images(content, source, made / "images" / source.name, copy)
            write_json(inside(made / "annotations", f"instances_{source.name}.json", "part"), content)
        write_json(made / "mended.json", {"changes": [readable(vars(each)) for each in changes]}, indent=1)
    return changes


def refuse_overlap(source: Source, out: Path) -> None:
    """A copy among the images would be taken for a part of them."""
    if out.resolve().is_relative_to(source.images.resolve()):
        raise ValueError(f"{out}: expected a folder outside of {source.images}, found one inside; name another")


def mended_source(source: Source, choices: Choices | None, progress: Progress | None) -> tuple[Entry, list[Change]]:
    """The content of the annotation file, mended, and what has changed; files without an entry are told too."""
    content = read_json(source.annotations)
    refuse_other_formats(content, source.annotations)
    names = [str(entry["file_name"]) for entry in content["images"]]
    known = list(dict.fromkeys(names))
    states = dict(zip(known, read_named(source.images, known, progress), strict=True))
    loose = [name for name in files_in(source.images) if name not in states]
    try:
        content, changes = mended(content, source.name, states, choices)
    except RecursionError as error:
        raise ValueError(
            f"{source.annotations}: expected entries of few levels, found very many; flatten it"
        ) from error
    return content, changes + [Change("file without an entry", source.name, "file", name, name) for name in loose]


def place_images(content: Entry, source: Source, folder: Path, copy: bool) -> None:
    folder.mkdir(parents=True)
    for entry in content["images"]:
        name = str(entry["file_name"])
        link_or_copy(inside(source.images, name, source.name), inside(folder, name, source.name), copy)


def readable(value: Any) -> Any:
    """As strict JSON: numbers that are none as text."""
    if isinstance(value, dict):
        return {key: readable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [readable(each) for each in value]
    return value if is_finite(value) else str(value)


def table_of_changes(changes: Sequence[Change]) -> list[str]:
    """How much of each kind was deleted or changed."""
    counts = Counter((each.part, each.kind, each.what, each.after is None) for each in changes)
    verbs = {True: "left out", False: "changed"}
    return [
        f"{count:>9}  {one_line(part)}: {kind}: {what}{'s' * (count > 1)} {verbs[is_gone]}".replace(
            "categorys", "categories"
        )
        for (part, kind, what, is_gone), count in counts.items()
    ]
