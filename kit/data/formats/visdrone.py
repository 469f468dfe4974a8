"""VisDrone-DET text: a row an object, `left,top,width,height,score,category,truncation,occlusion`, pixels.

Category 0 is an ignored region: nothing found in it counts, of whatever class. In COCO that is a crowd box of each of
the ten classes. A score of 0 is an object that is not judged: a crowd box of its class. Category 11, others, is none of
the ten classes that are judged: left out and told, or kept as an eleventh class. Written the same way back: pixels as
whole numbers, as the devkit has them. Classes are numbers with a fixed meaning: others than VisDrone's are refused.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

from kit.data.formats.images import Progress, image_entry, image_files, output_names, place_images
from kit.data.formats.raw import (
    Entry,
    Loss,
    Losses,
    RawDataset,
    RawPart,
    category_entries,
    finite_number,
    is_number,
    neat,
    new_annotation,
    number_text,
    numbered,
    objects_by_file,
    objects_of,
    tell_fields,
    tell_ids,
    unique_names,
)
from kit.files import read_bytes, whole_folder

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"),
    "others",
)
IGNORED, OTHERS = 0, 11
JUDGED = range(1, 11)
FLAGS = ("truncation", "occlusion")
PREFIX = "VisDrone2019-DET-"


# --- reading ---


def part_folders(root: Path) -> dict[str, Path]:
    """Part: folder with images/ and annotations/: VisDrone2019-DET-{train,val,test-dev} in it, or itself."""
    inner = {part_of(each.name): each for each in sorted(root.iterdir()) if each.is_dir() and is_part(each)}
    return inner or ({part_of(root.name): root} if is_part(root) else {})


def is_part(folder: Path) -> bool:
    """Told by the rows, or by the name of the folder where no text has any."""
    if not (folder / "images").is_dir() or not (folder / "annotations").is_dir():
        return False
    files = sorted((folder / "annotations").iterdir())
    texts = (path for path in files if path.suffix == ".txt" and path.is_file())
    if filled := list(islice((path for path in texts if path.stat().st_size), 20)):
        return any(is_visdrone(path) for path in filled)
    return "-DET-" in folder.name and all(path.suffix == ".txt" for path in files)


def is_visdrone(path: Path) -> bool:
    cells = path.read_bytes()[:200].split(b"\n")[0].strip().strip(b",").split(b",")
    return len(cells) == 8


def part_of(name: str) -> str:
    """`VisDrone2019-DET-test-dev` -> test-dev; the folder of a part alone is train if its name tells nothing."""
    tail = name.partition("-DET-")[2] or name
    return next((part for part in ("train", "val", "test-dev", "test") if part in tail), "train")


def read_visdrone(root: Path, others: bool = False, progress: Progress | None = None) -> RawDataset:
    """others: keep category 11 as a class."""
    folders = part_folders(root)
    if not folders:
        raise ValueError(f"{root}: expected images/ and annotations/*.txt of VisDrone-DET, found none; check the path")
    counts: Counter[str] = Counter()
    problems: list[str] = []
    parts = [read_part(name, folder, others, counts, problems, progress) for name, folder in folders.items()]
    notes = [f"{count} {what}" for what, count in counts.items()]
    return RawDataset(category_entries(NAMES if others else NAMES[:-1]), parts, notes, problems)


def read_part(
    name: str, folder: Path, others: bool, counts: Counter[str], problems: list[str], progress: Progress | None
) -> RawPart:
    images, annotations, files = [], [], {}
    paths = image_files(folder / "images")
    used = set()
    for number, path in enumerate(paths, 1):
        file_name = path.relative_to(folder / "images").as_posix()
        images.append(image_entry(number, file_name, path))
        files[number] = path
        text = (folder / "annotations" / file_name).with_suffix(".txt")
        used.add(text)
        if text.is_file():
            annotations += [each for row in read_rows(text) for each in entries_of(row, number, others, counts)]
        else:
            counts["images without a text file: taken as empty"] += 1
        if progress:
            progress(number, len(paths))
    left = [text for text in sorted((folder / "annotations").glob("*.txt")) if text not in used]
    problems += [f"text file without an image: {text}" for text in left]
    return RawPart(name, images, numbered(annotations), files)


def read_rows(path: Path) -> list[list[float]]:
    """Eight numbers each; many files end their lines with a comma."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}; convert it") from error
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        row = [finite_number(cell, where) for cell in line.strip().rstrip(",").split(",")]
        if len(row) != 8 or row[5] not in range(12):
            wanted = "8 numbers, of which the sixth is a category of 0 to 11"
            raise ValueError(f"{where}: expected {wanted}, found {line.strip()!r:.60}; correct the line")
        rows.append(row)
    return rows


def entries_of(row: list[float], image_id: int, others: bool, counts: Counter[str]) -> list[Entry]:
    """The annotations that a row becomes."""
    box, category = [neat(value) for value in row[:4]], int(row[5])
    about = {"truncation": neat(row[6]), "occlusion": neat(row[7])}
    if category == IGNORED:
        counts["ignored regions: a crowd box of each of the ten classes"] += 1
        return [new_annotation(image_id, each, box, iscrowd=1, ignored_region=1) for each in JUDGED]
    if category == OTHERS and not others:
        counts["objects of category 11, others: left out; keep them with --others"] += 1
        return []
    if row[4] == 0:
        counts["objects of score 0, not judged: crowd"] += 1
        return [new_annotation(image_id, category, box, iscrowd=1, **about)]
    score = {} if row[4] == 1 else {"score": row[4]}
    return [new_annotation(image_id, category, box, **about, **score)]


# --- writing ---


@dataclass
class Rounding:
    """What whole pixels have cost so far. largest_px: how far an edge of a box has moved."""

    count: int = 0
    largest_px: float = 0.0
    example: str = ""

    def add(self, moved_px: float, example: str) -> None:
        self.count, self.example = self.count + 1, self.example or example
        self.largest_px = max(self.largest_px, moved_px)

    def losses(self) -> list[Loss]:
        what = f"decimals of boxes: edges rounded to whole pixels, by {self.largest_px:.3g} px at most"
        return [Loss(what, self.count, self.example)] if self.count else []


def write_visdrone(dataset: RawDataset, out: Path, copy: bool = False, progress: Progress | None = None) -> list[Loss]:
    """VisDrone2019-DET-{part}/images and annotations. A crowd is of score 0; one of all ten classes is ignored."""
    losses, rounding = Losses(), Rounding()
    category_of = visdrone_categories(dataset, losses)
    tell_fields(dataset, losses, {"iscrowd", "ignored_region", "score", *FLAGS}, set(), ids=True)
    folders = folder_names(dataset, losses)
    with whole_folder(out) as made:
        for part, folder in zip(dataset.parts, folders, strict=True):
            write_part(dataset, part, made / folder, category_of, losses, rounding, copy, progress)
    return losses.all() + rounding.losses()


def visdrone_categories(dataset: RawDataset, losses: Losses) -> dict[int, int]:
    """Category id: VisDrone's number, by name. ValueError for a class that it has not and that has objects."""
    numbers = {name: number for number, name in enumerate(NAMES, 1)}
    names = unique_names(dataset, "VisDrone")
    ids = (each.get("category_id") for part in dataset.parts for each in part.annotations)
    used = {each for each in ids if type(each) is int}
    for key, name in names.items():
        if name not in numbers and key in used:
            expected = f"expected the classes {', '.join(NAMES)}"
            raise ValueError(
                f"VisDrone: {expected}, found {name!r:.80}; rename it or leave it out: kit.data.merge --categories"
            )
        if name not in numbers:
            losses.add("class that VisDrone has not, without objects: left out", name)
        elif numbers[name] == OTHERS:
            losses.add("class others: read again only with --others", name)
        elif numbers[name] != key:
            losses.add("ids of categories: VisDrone's own", f"{name}: {key} is now {numbers[name]}")
    missing = [name for name in NAMES[:-1] if name not in names.values()]
    if missing:
        losses.add("classes not listed: read again all ten are", missing[0])
    return {key: numbers[name] for key, name in names.items() if name in numbers}


def folder_names(dataset: RawDataset, losses: Losses) -> list[str]:
    """Of the parts. ValueError where one would not be found again, or two are the same when read."""
    read_as: dict[str, str] = {}
    for part in dataset.parts:
        name = part_of(PREFIX + part.name)
        if not part.name or Path(part.name).name != part.name or "\0" in part.name or name in read_as:
            found = f"{part.name!r:.80}" + (f" and {read_as[name]!r:.80}" if name in read_as else "")
            raise ValueError(f"VisDrone: expected parts such as train, val, test-dev and test, found {found}; rename")
        if name != part.name:
            losses.add("name of a part", f"{part.name}: read again it is {name}")
        read_as[name] = part.name
    return [PREFIX + part.name for part in dataset.parts]


def write_part(
    dataset: RawDataset,
    part: RawPart,
    folder: Path,
    category_of: dict[int, int],
    losses: Losses,
    rounding: Rounding,
    copy: bool,
    progress: Progress | None,
) -> None:
    names = output_names(part, {}, losses, flat=True, by_stem=True)
    tell_ids(replace(part, images=[image | {"file_name": names[image["id"]]} for image in part.images]), losses)
    place_images(part, names, folder / "images", losses, copy, progress)
    (folder / "annotations").mkdir()
    for _, name, objects in objects_by_file(part, names, objects_of(dataset, part, losses), losses):
        path = (folder / "annotations" / name).with_suffix(".txt")
        rows = rows_of(objects, category_of, losses, rounding, part.name)
        path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def rows_of(
    objects: list[Entry], category_of: dict[int, int], losses: Losses, rounding: Rounding, where: str
) -> Iterator[str]:
    """The lines of one image, in the order of its annotations."""
    start = 0
    while start < len(objects):
        each, run = objects[start], objects[start : start + len(JUDGED)]
        example = f"{where}: annotation {each.get('id')}"
        box = ",".join(map(number_text, whole_box(each["bbox"], rounding, example)))
        if is_region(run, category_of):
            if any(entry.get(key) for entry in run for key in ("score", *FLAGS)):
                losses.add("score, truncation and occlusion of an ignored region: written as 0", example)
            yield f"{box},0,{IGNORED},0,0"
            start += len(run)
            continue
        if each.get("ignored_region"):
            losses.add("ignored region that is not a crowd of the ten classes in a row: as any object", example)
        flags = ",".join(flag_text(each, key, losses, example) for key in FLAGS)
        yield f"{box},{score_text(each, losses, example)},{category_of[each['category_id']]},{flags}"
        start += 1


def is_region(run: list[Entry], category_of: dict[int, int]) -> bool:
    """Whether annotations are what the reader makes of one ignored region."""
    alike = all(each.get("ignored_region") == 1 and each.get("iscrowd") for each in run)
    return (
        alike
        and [category_of[each["category_id"]] for each in run] == list(JUDGED)
        and all(each["bbox"] == run[0]["bbox"] for each in run)
    )


def whole_box(box_xywh_px: list[float], rounding: Rounding, example: str) -> list[int]:
    """x, y, w, h in whole pixels: edges go to the nearest, and what was wider than nothing stays so."""
    if all(value == int(value) for value in box_xywh_px):
        return [int(value) for value in box_xywh_px]
    x, y, width, height = box_xywh_px
    edges = x, y, x + width, y + height
    left, top, right, bottom = (floor(edge + 0.5) for edge in edges)
    right, bottom = max(right, left + (width > 0)), max(bottom, top + (height > 0))
    moved_px = max(abs(old - new) for old, new in zip(edges, (left, top, right, bottom), strict=True))
    rounding.add(moved_px, example)
    return [left, top, right - left, bottom - top]


def score_text(each: Entry, losses: Losses, example: str) -> str:
    """0 for a crowd, 1 for an object without a score."""
    score: Any = each.get("score")
    if each.get("iscrowd"):
        if score:
            losses.add("score of a crowd: written as 0", example)
        return "0"
    if score is not None and (not is_number(score) or score == 0):
        losses.add("score that is 0 or no number: written as 1, for 0 is a crowd", example)
    return number_text(score) if is_number(score) and score != 0 else "1"


def flag_text(each: Entry, key: str, losses: Losses, example: str) -> str:
    value: Any = each.get(key)
    if not is_number(value):
        losses.add(f"{key} that is not told as a number: written as 0, none", example)
        return "0"
    if neat(value) != value:
        losses.add(f"digits of {key} after the ninth", example)
    return number_text(neat(value))
