"""A CSV in the manner of Kaggle: one row an image, its detections in one cell.

    ImageId,PredictionString
    street_0001,2 0.91 10.5 20 30.25 40 0 0.4 100 8 16 16
    street_0002,

ImageId: the file's name without folder and ending. PredictionString: six numbers a detection, with blanks between:
category id, score, then x, y, width, height in pixels of the original image (corner first, as in COCO); best first;
empty where nothing was found. Every image has its row. Numbers are written in full: they read back to the last bit.
Competitions differ in such details: change the columns below, and the two small functions under them.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from kit.files import read_bytes, write_text
from kit.metrics import COCO_AREAS
from kit.submission import Competition, Images, Rules, refuse_invalid, rules_of

COLUMNS = ["ImageId", "PredictionString"]
NUMBERS = 6  # of each detection


def numbers_of(entry: Mapping[str, Any]) -> list[Any]:
    """One detection, as it stands in the cell."""
    return [entry["category_id"], float(entry["score"]), *map(float, entry["bbox"])]


def entry_of(image_id: int, words: Sequence[str]) -> dict[str, Any]:
    """And back. words: those of one detection."""
    category_id, score, x, y, w, h = words
    box_xywh_px = [float(x), float(y), float(w), float(h)]
    return {"image_id": image_id, "category_id": int(category_id), "bbox": box_xywh_px, "score": float(score)}


def write(path: Path | str, predictions: list[dict[str, Any]], images: Images, rules: Rules) -> Path:
    """The CSV, or a ValueError with every reason and no file."""
    if Path(path).suffix != ".csv":
        raise ValueError(f"expected a path ending in .csv, got {path}")
    names = image_names(images)
    refuse_invalid(path, predictions, rules)
    cells: dict[int, list[Any]] = {image["id"]: [] for image in images}
    for entry in sorted(predictions, key=lambda entry: -entry["score"]):
        cells[entry["image_id"]] += numbers_of(entry)
    lines = io.StringIO()
    rows = [[names[image_id], " ".join(map(str, cell))] for image_id, cell in cells.items()]
    csv.writer(lines, lineterminator="\n").writerows([COLUMNS, *rows])
    return write_text(path, lines.getvalue())


def read(path: Path | str, images: Images) -> list[dict[str, Any]]:
    """COCO results again. ValueError names the line; every image must have its row."""
    id_of = {name: image_id for image_id, name in image_names(images).items()}
    try:
        lines = csv.reader(io.StringIO(read_bytes(path).decode(), newline=""), strict=True)
        header, rows = next(lines, []), [(lines.line_num, row) for row in lines]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a CSV, {error}; is it cut off, or another format?") from error
    if header != COLUMNS:
        raise ValueError(f"{path}: the first line must be {','.join(COLUMNS)}, got {','.join(header)!r}")
    entries, unread = [], dict(id_of)
    for line, row in rows:
        if len(row) != len(COLUMNS) or row[0] not in unread:
            raise ValueError(f"{path}: line {line}: expected {','.join(COLUMNS)} of an image not named yet, got {row}")
        entries += entries_of(unread.pop(row[0]), row[1].split(), f"{path}: line {line}")
    if unread:
        raise ValueError(f"{path}: {len(unread)} images have no row, such as {next(iter(unread))}; give each one")
    return entries


def entries_of(image_id: int, words: Sequence[str], where: str) -> list[dict[str, Any]]:
    """The detections of one cell. where: names the line in errors."""
    cuts = range(0, len(words), NUMBERS)
    try:
        return [entry_of(image_id, words[cut : cut + NUMBERS]) for cut in cuts]
    except ValueError as error:
        raise ValueError(f"{where}: expected {NUMBERS} numbers a detection, {error}") from error


def image_names(images: Images) -> dict[int, str]:
    """ImageId of each image id."""
    names = {image["id"]: PurePath(image["file_name"]).stem for image in images}
    name, count = max(Counter(names.values()).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ValueError(f"ImageId must be unique, but {count} images are named {name}; rename them")
    return names


KAGGLE_CSV = Competition(
    name="kaggle_csv",
    areas=COCO_AREAS,
    view_pattern=None,
    select_by="ap",
    file_ending=".csv",
    rules=rules_of,
    write=write,
    read=read,
)
