"""YOLO text: one file of rows an image, numbers in shares of its size; classes in data.yaml or classes.txt.

A row is `class cx cy w h` (a sixth number is a score), or `class x1 y1 x2 y2 x3 y3 ...` for a polygon. Written with all
digits of a float, so that pixels come back: whole numbers exactly, and decimals of up to nine digits too.
"""

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kit.data.formats.images import (
    Progress,
    image_entry,
    image_files,
    inside,
    output_names,
    place_images,
    size_wh,
)
from kit.data.formats.polygons import joined, polygon_area, rings_of
from kit.data.formats.raw import (
    Entry,
    Loss,
    Losses,
    RawDataset,
    RawPart,
    category_entries,
    finite_number,
    neat,
    new_annotation,
    numbered,
    objects_by_file,
    objects_of,
    part_named,
    tell_fields,
)
from kit.files import read_bytes, read_yaml, whole_folder, write_text

PARTS = ("train", "val", "valid", "test")
CLASSES = "classes.txt"
MOST_UNNAMED = 10_000  # classes


# --- reading ---


def read_yolo(source: Path, progress: Progress | None = None) -> RawDataset:
    """source: a folder, or its data.yaml."""
    root = source.parent if source.is_file() else source
    notes: list[str] = []
    file = source if source.is_file() else yaml_file(root)
    content = read_data_yaml(file) if file else {}
    found = listed_images(root, content, file, notes) if file else folders_of_images(root)
    rows = {name: part_rows(root, images) for name, images in found.items()}
    categories = read_categories(root, content, file, rows, notes)
    parts = [read_part(name, images, root, rows[name], categories, progress) for name, images in found.items()]
    problems = [f"label file without an image: {path}" for path in orphans(root, found)]
    without = sum(path is None for each in rows.values() for path, _ in each)
    if without:
        notes.append(f"{without} images without a label file: taken as empty")
    return RawDataset(categories, parts, notes, problems)


def yaml_file(root: Path) -> Path | None:
    usual = [root / "data.yaml", root / "dataset.yaml", root / "data.yml"]
    others = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    found = [file for file in usual if file.is_file()] or [file for file in others if is_data_yaml(file)]
    return found[0] if found else None


def is_data_yaml(path: Path) -> bool:
    content = read_yaml(path)
    return isinstance(content, dict) and "names" in content


def read_data_yaml(path: Path) -> Entry:
    content = read_yaml(path)
    if not isinstance(content, dict) or "names" not in content:
        raise ValueError(f"{path}: expected a mapping with names and train, found {shown(content)}; correct it")
    return content


def plain_text(value: Any, file: Path) -> str:
    """A text or a number of a YAML file as text; lists in lists could be of any size written out."""
    if not isinstance(value, str | int | float):
        raise ValueError(f"{file}: expected a text, found {shown(value)}; correct it")
    return str(value)


def shown(value: Any) -> str:
    """What an error shows of a value, however deep."""
    return reprlib.repr(value)[:80]


def listed_images(root: Path, content: Entry, file: Path, notes: list[str]) -> dict[str, dict[str, Path]]:
    """Part: file name: image, of the folders and lists that data.yaml names."""
    base = base_folder(root, content, file, notes)
    found: dict[str, dict[str, Path]] = {}
    for key in PARTS:
        value = content.get(key)
        for name in value if isinstance(value, list) else [] if value is None else [value]:
            path = listed_path(base, plain_text(name, file), file)
            images = found.setdefault(part_named(key), {})
            for label, image in images_under(path, root):
                images.setdefault(label, image)
    if not any(found.values()):
        raise ValueError(f"{file}: expected images under train, val or test, found none; correct its paths")
    return found


def base_folder(root: Path, content: Entry, file: Path, notes: list[str]) -> Path:
    """The folder of `path` in data.yaml if it is inside; many name one of the computer where they were made."""
    name = content.get("path")
    if not name:
        return root
    path = (root / plain_text(name, file)).absolute()
    if path.is_dir() and path.is_relative_to(root.absolute()):
        return path
    notes.append(f"{file}: path {name!r:.80} is not a folder in here: its own folder is taken")
    return root


def listed_path(base: Path, name: str, file: Path) -> Path:
    """An entry of data.yaml; `../train` is read as `train` where that exists, as its makers mean it."""
    name = name.removeprefix("../") if name.startswith("../") and (base / name[3:]).exists() else name
    path = inside(base, name, str(file))
    if not path.exists():
        raise ValueError(f"{file}: expected {path}, found nothing; correct the path in it")
    return path


def images_under(path: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """File name and image: of a folder, named from there, or of a list, named by what follows its folder `images`."""
    if path.is_dir():
        top = path / "images" if (path / "images").is_dir() else path
        yield from ((image.relative_to(top).as_posix(), image) for image in image_files(top))
        return
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            image = inside(root, line.strip(), f"{path}:{number}")
            if not image.is_file():
                raise ValueError(f"{path}:{number}: expected the image {image}, found nothing; correct the list")
            parts = image.relative_to(root.absolute()).parts
            yield "/".join(parts[parts.index("images") + 1 :] if "images" in parts[:-1] else parts), image


def folders_of_images(root: Path) -> dict[str, dict[str, Path]]:
    """Without data.yaml: images/{train,val}, {train,val}/images, or all of images/ or of the folder."""
    tops = {}
    for name in PARTS:
        usual = [root / "images" / name, root / name / "images", root / name]
        folder = next((each for each in usual if each.is_dir()), None)
        if folder:
            tops[part_named(name)] = folder
    if not tops:
        tops = {"train": root / "images" if (root / "images").is_dir() else root}
    found = {name: dict(images_under(folder, root)) for name, folder in tops.items()}
    if not any(found.values()):
        raise ValueError(f"{root}: expected images beside the labels, found none; check the path")
    return found


def label_file(image: Path, root: Path) -> Path:
    """The text file of an image: the last folder `images` on its way is `labels` then; else beside it."""
    parts = list(image.absolute().relative_to(root.absolute()).parts)
    if "images" in parts[:-1]:
        place = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[place] = "labels"
        swapped = (root / Path(*parts)).with_suffix(".txt")
        return swapped if swapped.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


Rows = list[tuple[Path | None, list[list[float]]]]


def part_rows(root: Path, images: dict[str, Path]) -> Rows:
    """For each image, in order of the names, its label file and the rows in it."""
    files = [label_file(images[name], root) for name in sorted(images)]
    return [(file, read_rows(file)) if file.is_file() else (None, []) for file in files]


def read_rows(path: Path) -> list[list[float]]:
    """The numbers of each line; class first."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}:{number}"
        row = [finite_number(text, where) for text in line.split()]
        if not row:
            continue
        if len(row) < 5 or (len(row) > 6 and len(row) % 2 == 0):
            wanted = "a class and 4 numbers, or a class and x, y of 3 points or more"
            raise ValueError(f"{where}: expected {wanted}, found {len(row)} numbers; correct the line")
        if not row[0].is_integer() or row[0] < 0:
            raise ValueError(f"{where}: expected the number of a class, found {line.split()[0]!r}; correct the line")
        rows.append(row)
    return rows


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}; convert it") from error


def read_categories(
    root: Path, content: Entry, file: Path | None, rows: dict[str, Rows], notes: list[str]
) -> list[Entry]:
    """Classes in order; ids 1, 2, ... unless data.yaml tells others."""
    texts = [root / CLASSES, root / "labels" / CLASSES, *(root / part / CLASSES for part in PARTS)]
    text = next((each for each in texts if each.is_file()), None)
    most = max((int(row[0]) for part in rows.values() for _, own in part for row in own), default=-1)
    if file:
        names = names_of(content["names"], file)
    elif text:
        names = [line.strip() for line in read_text(text).splitlines() if line.strip()]
    elif most >= MOST_UNNAMED:
        raise ValueError(
            f"{root}: expected data.yaml or {CLASSES} with names of {most + 1} classes, found none; add it"
        )
    else:
        names = [f"class {number}" for number in range(most + 1)]
        notes.append(f"{root}: no data.yaml and no {CLASSES}: classes are named by their numbers")
    if most >= len(names):
        path = next(path for part in rows.values() for path, own in part if any(int(row[0]) == most for row in own))
        raise ValueError(f"{path}: expected classes 0 to {len(names) - 1}, found {most}; name it in data.yaml")
    ids = content.get("category_ids")
    if ids is not None and (not is_integers(ids) or len(set(ids)) < len(names) or len(ids) != len(names)):
        raise ValueError(f"{file}: expected category_ids of {len(names)} names, found {shown(ids)}; correct or drop it")
    return category_entries(names, ids)


def is_integers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


def names_of(names: Any, file: Path) -> list[str]:
    """A list, or a mapping from 0, 1, ... to names."""
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise ValueError(f"{file}: expected names numbered 0 to {len(names) - 1}, found {shown(names)}; fill up")
        names = [names.get(number, names.get(str(number))) for number in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f"{file}: expected names as a list or a mapping, found {shown(names)}; correct it")
    return [plain_text(name, file) for name in names]


def read_part(
    name: str, images: dict[str, Path], root: Path, rows: Rows, categories: list[Entry], progress: Progress | None
) -> RawPart:
    entries, annotations, files = [], [], {}
    for number, (file_name, (_, own)) in enumerate(zip(sorted(images), rows, strict=True), 1):
        entry = image_entry(number, file_name, images[file_name])
        entries.append(entry)
        files[number] = images[file_name]
        annotations += [annotation_of(row, entry, categories) for row in own]
        if progress:
            progress(number, len(images))
    return RawPart(name, entries, numbered(annotations), files)


def annotation_of(row: list[float], image: Entry, categories: list[Entry]) -> Entry:
    category_id, size = categories[int(row[0])]["id"], np.array([image["width"], image["height"]])
    if len(row) <= 6:
        center, sides = np.array(row[1:3]), np.array(row[3:5])
        box = [*((center - sides / 2) * size), *(sides * size)]
        score = {"score": row[5]} if len(row) == 6 else {}
        return new_annotation(image["id"], category_id, [neat(value) for value in box], **score)
    ring = np.array(row[1:]).reshape(-1, 2) * size
    points = [neat(value) for value in ring.reshape(-1)]
    low, high = ring.min(axis=0), ring.max(axis=0)
    box = [neat(value) for value in (*low, *(high - low))]
    return new_annotation(image["id"], category_id, box, segmentation=[points], area=neat(polygon_area(ring)))


def orphans(root: Path, found: dict[str, dict[str, Path]]) -> list[Path]:
    """Label files that belong to no image, in the folders that hold labels."""
    used = {label_file(image, root).absolute() for images in found.values() for image in images.values()}
    folders = {path.parent for path in used if path.is_file()} | {
        each for each in root.rglob("labels") if each.is_dir()
    }
    files = {path.absolute() for folder in folders for path in folder.rglob("*.txt")}
    return sorted(path for path in files - used if is_rows(path))


def is_rows(path: Path) -> bool:
    """Whether a text's first line is five numbers or more: lists of images and of classes are not."""
    words = path.read_bytes()[:200].split(b"\n")[0].split()
    return len(words) >= 5 and all(word[:1] in b"-.0123456789" for word in words[:5])


# --- writing ---


def write_yolo(
    dataset: RawDataset, out: Path, polygons: bool = False, copy: bool = False, progress: Progress | None = None
) -> list[Loss]:
    """images/{part}/, labels/{part}/, data.yaml and classes.txt. polygons: outlines in place of boxes."""
    losses = Losses()
    tell_fields(dataset, losses, {"iscrowd", "segmentation", *(["area"] if polygons else [])}, set())
    label_of = {category["id"]: label for label, category in enumerate(dataset.categories)}
    with whole_folder(out) as made:
        for part in dataset.parts:
            inside(made, f"{part.name}.txt", "part")
            names = output_names(part, {}, losses, flat=False, by_stem=True)
            place_images(part, names, made / "images" / part.name, losses, copy, progress)
            for image, name, objects in objects_by_file(part, names, objects_of(dataset, part, losses), losses):
                rows = rows_of(part, image, objects, label_of, polygons, losses)
                path = (made / "labels" / part.name / name).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(f"{row}\n" for row in rows))
        write_classes(dataset, made)
    return losses.all()


def write_classes(dataset: RawDataset, folder: Path) -> None:
    names = [str(category.get("name", category["id"])) for category in dataset.categories]
    if any(len(name.splitlines()) != 1 or name != name.strip() for name in names):
        raise ValueError(f"YOLO: expected names of one line each, found {names!r:.80}; rename the classes")
    ids = [category["id"] for category in dataset.categories]
    content: Entry = {part.name: f"images/{part.name}" for part in dataset.parts}
    content |= {"nc": len(names), "names": dict(enumerate(names))}
    content |= {} if ids == list(range(1, len(ids) + 1)) else {"category_ids": ids}
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_text(folder / CLASSES, "".join(f"{name}\n" for name in names))


def rows_of(
    part: RawPart, image: Entry, objects: list[Entry], label_of: dict[int, int], polygons: bool, losses: Losses
) -> Iterator[str]:
    """The lines of one image."""
    size = np.array(size_wh(part, image), np.float64)
    for each in objects:
        example = f"{part.name}: annotation {each.get('id')}"
        if each.get("iscrowd"):
            losses.add("crowd: left out, or it would be one object", example)
            continue
        shares = polygon_shares(each, size, losses, example) if polygons else box_shares(each, size, losses, example)
        if shares.min() < 0 or shares.max() > 1:
            losses.add("numbers outside 0 to 1: kept; some trainers then leave out the image", example)
        yield " ".join([str(label_of[each["category_id"]]), *(repr(float(value)) for value in shares)])


def box_shares(each: Entry, size: np.ndarray, losses: Losses, example: str) -> np.ndarray:
    """(4,) cx, cy, w, h in shares of the image."""
    if each.get("segmentation"):
        losses.add("masks and polygons", example)
    box = np.array(each["bbox"], np.float64)
    return np.concatenate([(box[:2] + box[2:] / 2) / size, box[2:] / size])


def polygon_shares(each: Entry, size: np.ndarray, losses: Losses, example: str) -> np.ndarray:
    """(2 P,) x, y, ... in shares of the image."""
    rings = rings_of(each, losses, example)
    ring = joined(rings)
    if len(rings) > 1:
        losses.add("parts of an object: joined by lines of no width", example)
    low, high = ring.min(axis=0), ring.max(axis=0)
    if np.abs(np.concatenate([low, high - low]) - np.array(each["bbox"], np.float64)).max() > 1e-6:
        losses.add("box that is not the one around the polygon", example)
    area = each.get("area")
    if isinstance(area, int | float) and abs(area - polygon_area(ring)) > 1e-6 * max(1.0, abs(area)):
        losses.add("area that is not the polygon's", example)
    shares: np.ndarray = (ring / size).reshape(-1)
    return shares
