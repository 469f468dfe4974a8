"""What is merged: parts of data sets, and one list of categories for all of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.data.category_table import CategoryTable
from kit.data.formats.coco import coco_files, raw_part, read_content
from kit.data.formats.raw import Entry, Losses, RawPart


@dataclass(frozen=True)
class Source:
    """One part of one data set."""

    data_set: str
    path: Path  # of its annotations
    part: RawPart
    categories: list[Entry]

    @property
    def name(self) -> str:
        return f"{self.data_set}/{self.part.name}"


def named_sources(texts: Sequence[str]) -> list[Source]:
    """Paths, or NAME=PATH; a folder's own name is the name of its data set."""
    sources: list[Source] = []
    taken: set[str] = set()
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "", text
        own = Path(path).resolve()
        name = name or own.name.removesuffix(".gz").removesuffix(".json")
        number, plain = 2, name
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        sources += read_sources(Path(path), name)
    return sources


def read_sources(folder: Path, data_set: str, images: Path | None = None) -> list[Source]:
    """All parts of a data set folder, or one COCO file."""
    files = coco_files(folder) if folder.exists() else {}
    if not files:
        raise ValueError(f"{folder}: expected a COCO file or annotations/instances_*.json, found none; check the path")
    sources = []
    for name, path in sorted(files.items(), key=lambda item: (item[0] != "train", item[0])):
        content = read_content(path)
        categories = content.get("categories") or []
        twice = [each for each, count in Counter(entry["id"] for entry in categories).items() if count > 1]
        if twice:
            raise ValueError(f"{path}: expected category ids given once, found {twice[0]} twice; give each its own id")
        sources.append(Source(data_set, path, raw_part(name, content, path, images), categories))
    return sources


def joined_categories(
    sources: Sequence[Source], table: CategoryTable, losses: Losses
) -> tuple[dict[tuple[str, int], int | None], list[Entry]]:
    """(source, category id) -> new id, None to drop, and the new list. A new category takes the id of the first that
    becomes it where that is free, so that one data set's ids stay."""
    names: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        names[source.data_set] += [name_of(category) for category in source.categories]
    table.refuse_unknown(names)

    found: dict[str, Entry] = {}
    category_of: dict[tuple[str, int], int | None] = {}
    for source in sources:
        for category in source.categories:
            target = table.target(source.data_set, name_of(category))
            if target is None:
                category_of[source.name, category["id"]] = None
                continue
            if target not in found:
                found[target] = category | {"name": target, "id": free_id(category["id"], found.values())}
            category_of[source.name, category["id"]] = found[target]["id"]
            tell_category(source, category, found[target], losses)
    tell_alike(found, losses)
    return category_of, sorted(found.values(), key=lambda category: int(category["id"]))


def name_of(category: Entry) -> str:
    return str(category.get("name", category["id"]))


def free_id(wanted: int, taken: Iterable[Entry]) -> int:
    ids = {category["id"] for category in taken}
    return max(ids) + 1 if wanted in ids else wanted


def tell_category(source: Source, category: Entry, target: Entry, losses: Losses) -> None:
    if name_of(category) != target["name"]:
        losses.add("category under another name", f"{source.name}: {name_of(category)} is now {target['name']}")
    if category["id"] != target["id"]:
        losses.add("category id changed", f"{source.name}: {target['name']} {category['id']} is now {target['id']}")
    for key in category.keys() - {"id", "name"}:
        if category[key] != target.get(key):
            losses.add(f"{key} of a category: the first is kept", f"{source.name}: {target['name']}: {category[key]!r}")


def tell_alike(names: Iterable[str], losses: Losses) -> None:
    """Names that differ in their spelling alone may be meant to be one."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings["".join(each for each in name.casefold() if each.isalnum())].append(name)
    for own in spellings.values():
        if len(own) > 1:
            losses.add("categories of nearly one name, kept apart: join them by a table", " and ".join(own))
