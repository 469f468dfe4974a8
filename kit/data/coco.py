"""COCO detection files: reading, writing, and the folders they lie in.

Sizes, ids and boxes are taken as they stand in the file; nothing is rounded and nothing is left out. Reading is
tolerant of what `kit.data.check` reports, so that one report can name everything at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.data.coco_columns import columns_of_entries
from kit.data.coco_entries import Entries, entries_of, read_entries, refuse_other_formats
from kit.data.column_writer import write_columns
from kit.data.columns import Columns, Records, columns_of_records
from kit.data.json_stream import Progress
from kit.data.outlines import Outline
from kit.data.record import UNKNOWN, Record, outline_of, polygons, ring_of
from kit.files import write_json

__all__ = [  # what is of the file, and what one of its images is made of
    "UNKNOWN",
    "CocoFile",
    "Record",
    "Split",
    "Splits",
    "as_coco",
    "coco_of",
    "coco_of_entries",
    "columns_of",
    "find_dataset",
    "find_split",
    "name_of_part",
    "outline_of",
    "parse_coco",
    "read_coco",
    "refuse_other_formats",
    "ring_of",
    "write_coco",
    "write_coco_file",
]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file in memory: records in order of image_id; label k stands for category_ids[k] and names[k].

    Of a file that was read, the records are `Records`: arrays, of which each is made when it is asked for.
    """

    path: Path
    records: list[Record] | Records
    category_ids: list[int]
    names: list[str]


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Splits:
    """What a data set folder holds. `others` are further annotation files, such as test and unlabelled."""

    train: Split
    val: Split | None = None
    others: Mapping[str, Split] = field(default_factory=dict)


def read_coco(path: Path | str, progress: Progress | None = None) -> CocoFile:
    """Every image of the file once, with all its annotations. progress: gets the bytes read, and all."""
    return coco_of_entries(read_entries(path, progress))


def parse_coco(content: Any, path: Path) -> CocoFile:
    """The content of a COCO file; path only names it in errors."""
    return coco_of_entries(entries_of(content, path))


def coco_of_entries(entries: Entries) -> CocoFile:
    path = entries.path
    held = [entries]  # handed over, so that the entries can go while the columns come
    del entries
    return coco_of(path, *columns_of_entries(held))


def coco_of(path: Path, columns: Columns, category_ids: list[int], names: list[str]) -> CocoFile:
    return CocoFile(path, Records(columns), category_ids, names)


def columns_of(coco: CocoFile) -> Columns:
    """The arrays of a file, whether it was read or its records are a list."""
    return coco.records.columns if isinstance(coco.records, Records) else columns_of_records(coco.records)


def as_coco(coco: CocoFile) -> dict[str, Any]:
    """The COCO content again, with the file's own image and category ids, for writing and for evaluation."""
    images, annotations = [], []
    for record in coco.records:
        height, width = record.size_hw
        images.append({"id": record.image_id, "file_name": record.file_name, "height": height, "width": width})
        if (record.labels == UNKNOWN).any():
            raise ValueError(
                f"{coco.path}: image {record.image_id} has an unknown category; check and clean the file first"
            )
        annotations += [
            {
                "id": int(record.annotation_ids[row]),
                "image_id": record.image_id,
                "category_id": coco.category_ids[record.labels[row]],
                "bbox": record.boxes_xywh_px[row].tolist(),
                "area": float(record.areas_px2[row]),
                "iscrowd": int(record.is_crowd[row]),
            }
            | segmentation(record.outlines[row] if record.outlines else None)
            for row in range(len(record.labels))
        ]
    categories = [{"id": each, "name": name} for each, name in zip(coco.category_ids, coco.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def segmentation(outline: Outline | None) -> dict[str, list[list[float]]]:
    """The entry of an annotation; nothing where there is no outline."""
    return {"segmentation": polygons(outline)} if outline else {}


def write_coco(
    path: Path | str,
    images: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
    categories: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the file in one go. Annotations without an id get 1, 2, ...: an id of 0 breaks the official F1.

    Each annotation is completed by area (of its box) and iscrowd where they are missing.
    """
    annotations = list(annotations)
    if any("id" not in annotation for annotation in annotations):
        annotations = [
            {"id": number} | {k: v for k, v in each.items() if k != "id"} for number, each in enumerate(annotations, 1)
        ]
    complete = [{"area": box_area(each["bbox"]), "iscrowd": 0} | dict(each) for each in annotations]
    content = {"info": dict(info)} if info else {}
    lists = {"images": list(images), "annotations": complete, "categories": list(categories)}
    return write_json(path, content | lists)


def write_coco_file(path: Path | str, coco: CocoFile, info: Mapping[str, Any] | None = None) -> Path:
    """The file as `as_coco` tells it, of any size: no object for a box.

    Segmentations are written as they stood in the file that was read: run lengths and those of crowds too.
    """
    return write_columns(path, columns_of(coco), coco.category_ids, coco.names, info)


def box_area(box_xywh_px: Sequence[float]) -> float:
    return float(box_xywh_px[2]) * float(box_xywh_px[3])


def find_dataset(folder: Path | str) -> Splits:
    """The parts of a folder with images/{train,val} or train/ val/, and annotations/instances_{train,val}.json."""
    folder = Path(folder)
    names = sorted(name_of_part(file) for file in (folder / "annotations").glob("instances_*.json*"))
    others = {name: find_split(folder, name) for name in names if name not in ("train", "val")}
    val = find_split(folder, "val") if "val" in names else None
    return Splits(find_split(folder, "train"), val, others)


def name_of_part(annotations: Path) -> str:
    return annotations.name.removeprefix("instances_").removesuffix(".gz").removesuffix(".json")


def find_split(folder: Path | str, name: str, needs_images: bool = True) -> Split:
    """One part by its name; ValueError says what was looked for. Without need, the image folder may be missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected the folder of a COCO data set, found nothing; check the path")
    files = [folder / "annotations" / f"instances_{name}.json{ending}" for ending in ("", ".gz")]
    folders = [folder / "images" / name, folder / name]
    annotations = next((file for file in files if file.is_file()), None)
    images = next((each for each in folders if each.is_dir()), None if needs_images else folders[0])
    if annotations is None or images is None:
        looked_for = files[:1] if annotations is None else folders
        found = ", ".join(sorted(each.name for each in folder.iterdir())) or "an empty folder"
        raise ValueError(
            f"{folder}: expected {' or '.join(map(str, looked_for))}, found {found}; move or link it there"
        )
    return Split(annotations, images)
