"""CSV: a row an object, and one without a box for an image that has none; columns by their header.

Ours carry all that COCO has of an object, digit by digit: file_name, image_width, image_height, image_id,
annotation_id, category_id, category, x, y, w, h (pixels), area, iscrowd, segmentation (as JSON); classes.csv has id and
name of the classes. Read are also the usual others: xmin, ymin, xmax, ymax or x1, y1, x2, y2 with filename and class
(TensorFlow, torchvision's tutorials), `bbox` as "[x, y, w, h]" with image_id (Kaggle), shares in ImageID, XMin, ...,
LabelName (Open Images), and rows `path,x1,y1,x2,y2,class` without a header (RetinaNet).
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit.data.formats.images import (
    Progress,
    inside,
    output_names,
    place_images,
    size_wh,
    size_wh_of,
)
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
    objects_of,
    tell_fields,
    unique_names,
)
from kit.data.formats.table_columns import (
    CLASSES,
    COLUMNS,
    Layout,
    Row,
    in_parts,
    layout_of,
    read_rows,
    table_files,
    tell_columns,
    whole_number,
)
from kit.data.image_files import IMAGE_ENDINGS
from kit.files import one_line, whole_folder, write_text

# --- reading ---


def read_table(source: Path, progress: Progress | None = None) -> RawDataset:
    """source: a CSV file, or a folder with some."""
    root = source.parent if source.is_file() else source
    paths = [source] if source.is_file() else table_files(root)
    if not paths:
        raise ValueError(f"{root}: expected CSV files with boxes, found none; check the path")
    notes: list[str] = []
    rows_of: dict[str, list[tuple[Row, str]]] = {}
    layouts: dict[str, Layout] = {}
    for path in paths:
        header, rows = read_rows(path)
        layout = layout_of(header, path)
        tell_columns(header, layout, path, notes)
        for name, own in in_parts(rows, layout, path).items():
            rows_of.setdefault(name, []).extend(own)
            if layouts.setdefault(name, layout) != layout:
                raise ValueError(f"{path}: expected the columns of the other files of {name}; convert it on its own")
    categories = categories_of(root, rows_of, layouts, notes)
    problems: list[str] = []
    parts = [
        read_part(name, rows, layouts[name], root, categories, notes, problems, progress)
        for name, rows in rows_of.items()
    ]
    return RawDataset(categories, parts, notes, problems)


def categories_of(
    root: Path, rows_of: dict[str, list[tuple[Row, str]]], layouts: dict[str, Layout], notes: list[str]
) -> list[Entry]:
    """Of classes.csv, and those that the rows name; ids 1, 2, ... by name where no numbers are given."""
    known = listed_classes(root / CLASSES)
    for part, rows in rows_of.items():
        layout = layouts[part]
        for row, where in rows:
            if layout.number and row[layout.number].strip():
                number = whole_number(row[layout.number], where)
                name = row[layout.name] if layout.name else known.get(number, str(number))
                if known.setdefault(number, name) != name:
                    raise ValueError(f"{where}: expected class {number} to be {known[number]!r}, found {name!r}; mend")
    if known:
        return category_entries([known[number] for number in sorted(known)], sorted(known))
    pairs = [(row, layouts[part]) for part, rows in rows_of.items() for row, _ in rows]
    names = {row[layout.name].strip() for row, layout in pairs if layout.name} - {""}
    if not names:
        notes.append("no column of classes: all boxes are of one class, object")
    return category_entries(sorted(names) or ["object"])


def listed_classes(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    header, rows = read_rows(path)
    if not {"id", "name"} <= set(header):
        raise ValueError(
            f"{path}: expected the columns id and name, found {one_line(', '.join(header)):.80}; rename them"
        )
    return {whole_number(row["id"], where): row["name"] for row, where in rows}


def read_part(
    name: str,
    rows: list[tuple[Row, str]],
    layout: Layout,
    root: Path,
    categories: list[Entry],
    notes: list[str],
    problems: list[str],
    progress: Progress | None,
) -> RawPart:
    find = finder(root, name)
    first: dict[str, tuple[Row, str]] = {}
    for row, where in rows:
        first.setdefault(file_cell(row, layout), (row, where))
    names = list(first) if layout.is_ours else sorted(first)
    images, files = {}, {}
    for number, file_name in enumerate(names, 1):
        row, where = first[file_name]
        path = find(file_name, where)
        image_id = whole_number(row["image_id"], where) if layout.is_ours else number
        if path is None:
            problems.append(f"{where}: no image {file_name} in the folder")
        else:
            files[image_id] = path
        images[file_name] = table_image(image_id, file_name, row, where, layout, path)
        if progress:
            progress(number, len(names))
    if len({image["id"] for image in images.values()}) < len(images):
        raise ValueError(f"{root}: {name}: expected an image_id for each file, found one for two; renumber")
    boxes = [box_cells(row, layout, where) for row, where in rows]
    scale = is_shares(boxes, rows, layout)
    if scale:
        notes.append(f"{name}: no number is over 1: boxes are read as shares of the image")
    ids = {category["name"]: category["id"] for category in categories}
    annotations = [
        table_object(row, where, box, images[file_cell(row, layout)], layout, ids, scale)
        for (row, where), box in zip(rows, boxes, strict=True)
        if box is not None
    ]
    return RawPart(name, list(images.values()), numbered(annotations), files)


def file_cell(row: Row, layout: Layout) -> str:
    """The name of the image; in our tables it stands as it is."""
    return row[layout.file] if layout.is_ours else row[layout.file].strip()


def finder(root: Path, part: str) -> Callable[[str, str], Path | None]:
    """Looks for an image in the usual folders; a name without an ending is tried with each."""
    folders = [root / "images" / part, root / part, root / "images", root, root / "train"]
    folders = [folder for folder in folders if folder.is_dir()]

    def find(name: str, where: str) -> Path | None:
        for folder in folders:
            path = inside(folder, name, where)
            endings = [] if path.suffix.lower() in IMAGE_ENDINGS else sorted(IMAGE_ENDINGS)
            tried = [path.with_name(path.name + ending) for ending in endings] if endings else [path]
            found = next((each for each in tried if each.is_file()), None)
            if found:
                return found
        return None

    return find


def table_image(image_id: int, name: str, row: Row, where: str, layout: Layout, path: Path | None) -> Entry:
    """Size as the row tells, or else as the file."""
    cells = [row[column].strip() for column in layout.size]
    if len(cells) == 2 and all(cells):
        size = whole_number(cells[0], where), whole_number(cells[1], where)
    elif path is not None:
        size = size_wh_of(path)
    else:
        raise ValueError(f"{where}: expected the size of {name!r:.80}, found neither columns nor the image; add one")
    ending = path.suffix if path is not None and Path(name).suffix.lower() not in IMAGE_ENDINGS else ""
    return {"id": image_id, "file_name": name + ending, "width": size[0], "height": size[1]}


def box_cells(row: Row, layout: Layout, where: str) -> list[float] | None:
    """The four numbers of a row as they stand; None where all are empty."""
    cells = [row[column].strip() for column in layout.box]
    if len(cells) == 1 and cells[0]:
        cells = [cell.strip() for cell in cells[0].strip("[]() ").split(",")]
    if not any(cells):
        return None
    if len(cells) != 4:
        raise ValueError(f"{where}: expected four numbers of a box, found {len(cells)}; correct the row")
    return [finite_number(cell, where) for cell in cells]


def is_shares(boxes: Sequence[list[float] | None], rows: list[tuple[Row, str]], layout: Layout) -> bool:
    """Whether corners are given in shares: none is over 1, and some lie between 0 and 1."""
    values = [value for box in boxes if box is not None for value in box]
    return (
        layout.is_corners and bool(values) and min(values) >= 0 and max(values) <= 1 and any(0 < v < 1 for v in values)
    )


def table_object(
    row: Row, where: str, box: list[float], image: Entry, layout: Layout, ids: dict[str, int], scale: bool
) -> Entry:
    if scale:
        box = [value * side for value, side in zip(box, [image["width"], image["height"]] * 2, strict=True)]
    if layout.is_corners:
        box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    numbers = [as_read(value) for value in box] if layout.is_ours else [neat(value) for value in box]
    name = row[layout.name].strip() if layout.name else "" if layout.number else "object"
    if layout.number and row[layout.number].strip():
        category_id = whole_number(row[layout.number], where)
    elif name in ids:
        category_id = ids[name]
    else:
        raise ValueError(f"{where}: expected a class, found {name!r:.40}; correct the row")
    own = own_fields(row, where) if layout.is_ours else {}
    return new_annotation(image["id"], category_id, numbers, **own)


def as_read(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def own_fields(row: Row, where: str) -> Entry:
    """What only our own tables have."""
    found: Entry = {}
    if row["annotation_id"]:
        found["id"] = whole_number(row["annotation_id"], where)
    if row["area"]:
        found["area"] = as_read(finite_number(row["area"], where))
    if row["iscrowd"]:
        found["iscrowd"] = whole_number(row["iscrowd"], where)
    if row["segmentation"]:
        try:
            found["segmentation"] = json.loads(row["segmentation"])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: expected a segmentation as JSON, found {error}; correct the row") from error
    return found


# --- writing ---


def write_table(dataset: RawDataset, out: Path, copy: bool = False, progress: Progress | None = None) -> list[Loss]:
    """images/{part}/, {part}.csv and classes.csv."""
    losses = Losses()
    names_of = unique_names(dataset, "CSV")
    tell_fields(dataset, losses, {"area", "iscrowd", "segmentation"}, set(), ids=True)
    with whole_folder(out) as made:
        for part in dataset.parts:
            if part.name == Path(CLASSES).stem:
                raise ValueError(f"{out}: expected another name of a part than {part.name}; rename it")
            names = output_names(part, {}, losses, flat=False, by_stem=False)
            place_images(part, names, made / "images" / part.name, losses, copy, progress)
            objects = objects_of(dataset, part, losses)
            rows: list[list[str]] = []
            for image in part.images:
                head = [names[image["id"]], *(str(side) for side in size_wh(part, image)), str(image["id"])]
                own = [[*head, *object_cells(each, names_of)] for each in objects[image["id"]]]
                rows += own or [head + [""] * (len(COLUMNS) - len(head))]
            write_text(inside(made, f"{part.name}.csv", "part"), csv_text([list(COLUMNS), *rows]))
        classes = [["id", "name"], *([str(key), name] for key, name in names_of.items())]
        write_text(made / CLASSES, csv_text(classes))
    return losses.all()


def object_cells(each: Entry, names_of: dict[int, str]) -> list[str]:
    segmentation = each.get("segmentation")
    mask = "" if segmentation is None else json.dumps(segmentation, allow_nan=False, separators=(",", ":"))
    ids = [cell(each.get("id")), str(each["category_id"]), names_of[each["category_id"]]]
    return [
        *ids,
        *(number_text(value) for value in each["bbox"]),
        cell(each.get("area")),
        cell(each.get("iscrowd")),
        mask,
    ]


def cell(value: Any) -> str:
    return number_text(value) if is_number(value) else ""


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    wrong = next((cell for row in rows for cell in row if "\r" in cell), None)
    if wrong is not None:
        raise ValueError(f"CSV: expected names without carriage returns, found {wrong!r:.80}; rename it")
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
