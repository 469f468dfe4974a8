"""COCO detection files: reading, writing, and the folders they lie in.

Sizes, ids and boxes are taken as they stand in the file; nothing is rounded and nothing is left out. Reading is
tolerant of what `kit.data.check` reports, so that one report can name everything at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.outlines import Outline
from kit.data.run_lengths import outline_of_runs
from kit.files import read_json, write_json

UNKNOWN = -1  # label of an annotation whose category the file does not list


@dataclass(frozen=True)
class Record:
    """One image of a COCO file and its N annotations, in the order of the file."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]  # (0, 0) where the file gives none
    boxes_xywh_px: np.ndarray  # (N, 4) float64; NaN where the file has no four numbers
    labels: np.ndarray  # (N,) int64, index into CocoFile.category_ids, or UNKNOWN
    is_crowd: np.ndarray  # (N,) bool
    annotation_ids: np.ndarray  # (N,) int64; 0 where the file gives none
    areas_px2: np.ndarray  # (N,) float64, by which the evaluation tells small from large: of the mask, or of the box
    outlines: list[Outline | None] | None = (
        None  # N, as polygons or masks of the file tell; None: none, of one or of all
    )

    def __post_init__(self) -> None:
        if self.outlines is not None and len(self.outlines) != len(self.labels):
            counts = f"{len(self.labels)} annotations and {len(self.outlines)} outlines"
            raise ValueError(f"{self.file_name}: expected as many outlines as annotations, got {counts}; use only()")

    def only(self, rows: np.ndarray) -> "Record":
        """The image with these annotations alone; rows: (N,) bool, or indices."""
        return replace(
            self,
            boxes_xywh_px=self.boxes_xywh_px[rows],
            labels=self.labels[rows],
            is_crowd=self.is_crowd[rows],
            annotation_ids=self.annotation_ids[rows],
            areas_px2=self.areas_px2[rows],
            outlines=self.outlines and [self.outlines[row] for row in np.arange(len(self.labels))[rows]],
        )


@dataclass(frozen=True)
class CocoFile:
    """A COCO file in memory: records in order of image_id; label k stands for category_ids[k] and names[k]."""

    path: Path
    records: list[Record]
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


def read_coco(path: Path | str) -> CocoFile:
    """Every image of the file once, with all its annotations."""
    path = Path(path)
    return parse_coco(read_json(path), path)


def parse_coco(content: Any, path: Path) -> CocoFile:
    """The content of a COCO file; path only names it in errors."""
    refuse_other_formats(content, path)
    categories = sorted(content.get("categories") or [], key=lambda category: category["id"])
    category_ids = list(dict.fromkeys(int(category["id"]) for category in categories))
    names = {int(category["id"]): str(category.get("name", category["id"])) for category in categories}

    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    annotations_of = defaultdict(list)
    for annotation in content.get("annotations") or []:
        annotations_of[annotation["image_id"]].append(annotation)
    images = {image["id"]: image for image in reversed(content["images"])}  # the first of two with one id stays
    records = [read_record(images[image_id], annotations_of[image_id], label_of) for image_id in sorted(images)]
    return CocoFile(path, records, category_ids, [names[category_id] for category_id in category_ids])


def refuse_other_formats(content: Any, path: Path) -> None:
    """Stops at what is no COCO file at all; smaller faults are for the check."""
    mend = "give the annotation file of a COCO data set"
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        found = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path}: expected a COCO file with the lists images, annotations, categories, got {found}; {mend}"
        )
    wanted = {"images": ("id", "file_name"), "annotations": ("image_id",), "categories": ("id",)}
    for part, keys in wanted.items():
        for position, entry in enumerate(content.get(part) or []):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise ValueError(
                    f"{path}: {part}[{position}]: expected {', '.join(missing)}, got {entry!r:.80}; {mend}"
                )
            identity = entry[keys[0]]
            if not isinstance(identity, int):
                raise ValueError(
                    f"{path}: {part}[{position}]: {keys[0]} must be an integer, got {identity!r}; renumber"
                )


def read_record(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]
) -> Record:
    labels = [label_of.get(annotation.get("category_id", UNKNOWN), UNKNOWN) for annotation in annotations]
    boxes = np.array([four_numbers(each.get("bbox")) for each in annotations], np.float64).reshape(-1, 4)
    return Record(
        image_id=image["id"],
        file_name=str(image["file_name"]),
        size_hw=(int(image.get("height") or 0), int(image.get("width") or 0)),
        boxes_xywh_px=boxes,
        labels=np.array(labels, np.int64),
        is_crowd=np.array([bool(each.get("iscrowd", 0)) for each in annotations], bool),
        annotation_ids=np.array([integer(each.get("id")) for each in annotations], np.int64),
        areas_px2=np.array(
            [number(each.get("area"), box[2] * box[3]) for each, box in zip(annotations, boxes, strict=True)]
        ),
        outlines=outlines if any(outlines := [outline_of(each) for each in annotations]) else None,
    )


def outline_of(annotation: Mapping[str, Any]) -> Outline | None:
    """The polygons of an annotation, or those around its mask; None where it has none that enclose anything."""
    parts = annotation.get("segmentation")
    if isinstance(parts, dict) and not annotation.get("iscrowd"):
        return outline_of_runs(parts)
    if not isinstance(parts, list) or annotation.get("iscrowd"):
        return None
    rings = [ring for part in parts if (ring := ring_of(part)) is not None]
    return rings or None


def ring_of(numbers: object) -> np.ndarray | None:
    """x, y, x, y, ... of at least three points -> (P, 2); None where it is anything else."""
    if not isinstance(numbers, list) or len(numbers) < 6 or len(numbers) % 2:
        return None
    if not all(isinstance(value, int | float) for value in numbers):
        return None
    ring = np.array(numbers, np.float64).reshape(-1, 2)
    return ring if np.isfinite(ring).all() else None


def four_numbers(box: object) -> list[float]:
    """A bbox entry as it stands, or four NaN where it is no list of four numbers."""
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        return [float(value) for value in box]
    return [float("nan")] * 4


def integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else float(otherwise)


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
    return {"segmentation": [ring.reshape(-1).tolist() for ring in outline]} if outline else {}


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
