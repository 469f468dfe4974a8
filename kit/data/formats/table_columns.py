"""Which column of a CSV file holds what, by its header."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.data.formats.raw import finite_number, part_named
from kit.data.image_files import IMAGE_ENDINGS
from kit.files import one_line, read_bytes

COLUMNS = (
    *("file_name", "image_width", "image_height", "image_id", "annotation_id", "category_id", "category"),
    *("x", "y", "w", "h", "area", "iscrowd", "segmentation"),
)
FILE = ("filename", "path", "imagepath", "filepath", "file", "image", "img", "imagename", "imageid", "id")
NAME = ("category", "class", "classname", "label", "labelname", "name", "categoryname")
NUMBER = ("categoryid", "classid", "labelid")
PART = ("split", "part", "subset")
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
SIDES = (
    *(("x", "y", "w", "h"), ("xpx", "ypx", "wpx", "hpx"), ("x", "y", "width", "height")),
    *(("left", "top", "width", "height"), ("bboxx", "bboxy", "bboxwidth", "bboxheight")),
)
SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))
RETINANET = ["path", "x1", "y1", "x2", "y2", "class"]
CLASSES = "classes.csv"
MOST_CHARACTERS = 2**30  # of one cell

Row = dict[str, str]


@dataclass(frozen=True)
class Layout:
    """Which column holds what; None or empty where there is none."""

    file: str
    box: Sequence[str]  # four columns, or one with all four numbers
    is_corners: bool
    name: str | None
    number: str | None
    part: str | None
    size: Sequence[str]
    is_ours: bool


def table_files(root: Path) -> list[Path]:
    """All CSV files of a folder and of the folders in it that have columns of boxes."""
    files = [path for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv")]) if path.name != CLASSES]
    return [path for path in files if is_table(path)]


def is_table(path: Path) -> bool:
    """By the first line alone: other tables may lie about."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        cells = re.split("[,;\t]", file.readline(10_000).strip())
    return is_without_header(cells) or box_columns({plain(name): name for name in cells}) is not None


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_rows(path: Path) -> tuple[list[str], list[tuple[Row, str]]]:
    """Header, and for each row its cells by column and where it stands."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}; convert it") from error
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(MOST_CHARACTERS)
    try:
        lines = [(cells, f"{path}:{reader.line_num}") for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{path}: expected CSV, found {error} near line {reader.line_num}; is it cut off?") from error
    finally:
        csv.field_size_limit(limit)
    if not lines:
        raise ValueError(f"{path}: expected a header and rows, found nothing; check the file")
    header = RETINANET if is_without_header(lines[0][0]) else [name.strip() for name in lines.pop(0)[0]]
    wrong = next(((cells, where) for cells, where in lines if len(cells) != len(header)), None)
    if wrong:
        raise ValueError(f"{wrong[1]}: expected {len(header)} cells, found {len(wrong[0])}; correct the row")
    return header, [(dict(zip(header, cells, strict=True)), where) for cells, where in lines]


def is_without_header(cells: Sequence[str]) -> bool:
    """path,x1,y1,x2,y2,class, as RetinaNet reads it."""
    is_image = Path(cells[0]).suffix.lower() in IMAGE_ENDINGS
    return len(cells) == 6 and is_image and all(re.fullmatch(r"[-.\d]*", cell.strip()) for cell in cells[1:5])


def box_columns(columns: Mapping[str, str]) -> tuple[list[str], bool] | None:
    """The columns of the box, and whether they are corners. columns: by their plain names."""
    for names, is_corners in [*((each, True) for each in CORNERS), *((each, False) for each in SIDES)]:
        if all(name in columns for name in names):
            return [columns[name] for name in names], is_corners
    return ([columns["bbox"]], False) if "bbox" in columns else None


def layout_of(header: list[str], path: Path) -> Layout:
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: expected columns of different names, found {header!r:.120}; rename some")
    columns = {plain(name): name for name in header}
    box, file = box_columns(columns), next((columns[name] for name in FILE if name in columns), None)
    if box is None or file is None:
        found = one_line(", ".join(header))
        raise ValueError(f"{path}: expected columns of a file name and a box, found {found:.120}; rename")
    sizes = ([columns[name] for name in names] for names in SIZES if all(name in columns for name in names))
    size = next((each for each in sizes if not set(each) & set(box[0])), [])
    pick = {kind: next((columns[name] for name in names if name in columns), None) for kind, names in KINDS.items()}
    return Layout(file, box[0], box[1], pick["name"], pick["number"], pick["part"], size, set(COLUMNS) <= set(header))


KINDS = {"name": NAME, "number": NUMBER, "part": PART}


def tell_columns(header: list[str], layout: Layout, path: Path, notes: list[str]) -> None:
    read = {layout.file, *layout.box, layout.name, layout.number, layout.part, *layout.size}
    read |= set(COLUMNS) if layout.is_ours else set()
    if not layout.is_ours:
        way = "corners" if layout.is_corners else "x, y, width, height"
        notes.append(f"{path.name}: boxes from {', '.join(layout.box)} as {way}, files from {layout.file}")
    if left := [name for name in header if name not in read]:
        notes.append(f"{path.name}: columns not read: {one_line(', '.join(left)):.200}")


def in_parts(rows: list[tuple[Row, str]], layout: Layout, path: Path) -> dict[str, list[tuple[Row, str]]]:
    """By a column of the table, or by the file's name or folder; else train."""
    if layout.part:
        found: dict[str, list[tuple[Row, str]]] = {}
        for row, where in rows:
            found.setdefault(part_named(row[layout.part].strip() or "train"), []).append((row, where))
        return found
    words = re.findall(r"train|validation|valid|val|test|unlabelled", f"{path.parent.name} {path.stem}".lower())
    ours = path.stem if layout.is_ours else part_named(words[-1]) if words else "train"
    return {ours: rows}


def whole_number(text: str, where: str) -> int:
    value = finite_number(text, where)
    if not value.is_integer():
        raise ValueError(f"{where}: expected a whole number, found {text!r:.40}; correct the row")
    return int(value)
