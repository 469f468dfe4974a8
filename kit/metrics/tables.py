"""Detections and annotations as arrays, read once, with errors that name the entry."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.files import read_json

Entries = Path | str | list[dict[str, Any]] | dict[str, Any]


@dataclass(frozen=True)
class Truths:
    """The annotations, in the order of the file."""

    image: np.ndarray  # (annotations,) row in Tables.image_ids
    label: np.ndarray  # (annotations,) row in Tables.category_ids
    boxes_xywh_px: np.ndarray  # (annotations, 4)
    area_px2: np.ndarray  # (annotations,) of the file, where it may be that of the mask
    is_crowd: np.ndarray  # (annotations,) bool
    annotation_ids: list[Any]


@dataclass(frozen=True)
class Detections:
    """The detections, in the order of the file."""

    image: np.ndarray  # (detections,) row in Tables.image_ids
    label: np.ndarray  # (detections,) row in Tables.category_ids
    boxes_xywh_px: np.ndarray  # (detections, 4)
    score: np.ndarray  # (detections,)


@dataclass(frozen=True)
class Tables:
    """Annotations and detections of the same images."""

    image_ids: list[int]  # ascending
    images: list[dict[str, Any]]  # the file's entries, in that order
    category_ids: list[int]  # ascending
    names: tuple[str, ...]  # of the categories
    truths: Truths
    detections: Detections


def read_tables(predictions: Entries, annotations: Entries) -> Tables:
    """Both files as arrays. Annotations of unlisted images or categories count nowhere, as in pycocotools."""
    coco = read_json(annotations) if isinstance(annotations, Path | str) else annotations
    if not isinstance(coco, dict) or not coco.get("images") or not coco.get("categories"):
        raise ValueError(f"annotations must be a COCO dict with images and categories, got {shorten(coco)}")
    images = {image["id"]: image for image in coco["images"]}
    categories = {category["id"]: str(category.get("name", category["id"])) for category in coco["categories"]}
    image_ids, category_ids = sorted(images), sorted(categories)
    return Tables(
        image_ids,
        [images[image_id] for image_id in image_ids],
        category_ids,
        _unique_names(categories),
        _read_truths(coco.get("annotations", []), image_ids, category_ids),
        _read_detections(read_predictions(predictions), image_ids, category_ids),
    )


def read_predictions(predictions: Entries) -> list[dict[str, Any]]:
    """COCO results: a list of entries, a file of one, or a COCO dict whose annotations carry scores."""
    entries = read_json(predictions) if isinstance(predictions, Path | str) else predictions
    entries = entries.get("annotations") if isinstance(entries, dict) else entries
    if not isinstance(entries, list):
        raise ValueError(f"predictions must be a list of COCO results, got {shorten(predictions)}")
    return entries


def _read_truths(entries: list[dict[str, Any]], image_ids: list[int], category_ids: list[int]) -> Truths:
    image = rows_of(column(entries, "image_id", "annotations"), image_ids)
    label = rows_of(column(entries, "category_id", "annotations"), category_ids)
    listed = np.flatnonzero((image >= 0) & (label >= 0))
    entries = [entries[row] for row in listed]
    boxes_xywh_px = _read_boxes(entries, "annotations")
    box_area = (boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3]).tolist()
    area = [entry.get("area", product) for entry, product in zip(entries, box_area, strict=True)]
    return Truths(
        image[listed],
        label[listed],
        boxes_xywh_px,
        np.array(area, dtype=np.float64),
        np.array([bool(entry.get("iscrowd", 0)) for entry in entries], dtype=bool),
        [entry.get("id") for entry in entries],
    )


def _read_detections(entries: list[dict[str, Any]], image_ids: list[int], category_ids: list[int]) -> Detections:
    image = _known_rows(entries, "image_id", image_ids)
    label = _known_rows(entries, "category_id", category_ids)
    score = np.array(column(entries, "score", "predictions"), dtype=np.float64)
    boxes_xywh_px = _read_boxes(entries, "predictions")
    bad = np.flatnonzero(~(np.isfinite(score) & np.isfinite(boxes_xywh_px).all(axis=1)))
    if bad.size:
        raise ValueError(f"predictions: entry {bad[0]}: box and score must be finite, got {entries[bad[0]]}")
    return Detections(image, label, boxes_xywh_px, score)


def _known_rows(entries: list[dict[str, Any]], key: str, known: list[int]) -> np.ndarray:
    values = column(entries, key, "predictions")
    rows = rows_of(values, known)
    unknown = sorted({repr(values[row]) for row in np.flatnonzero(rows < 0)})
    if unknown:
        raise ValueError(
            f"predictions: {key} not in the annotations: {listed(unknown)}; expected such as {listed(known)}; "
            "leave these out, or give the annotations of the same images"
        )
    return rows


def _read_boxes(entries: list[dict[str, Any]], what: str) -> np.ndarray:
    boxes = column(entries, "bbox", what)
    wrong = next((row for row, box in enumerate(boxes) if len(box) != 4), None)
    if wrong is not None:
        raise ValueError(f"{what}: entry {wrong}: bbox must be [x, y, w, h], got {boxes[wrong]}")
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _unique_names(categories: Mapping[int, str]) -> tuple[str, ...]:
    """In order of id; a name that stands twice gets its id."""
    names = list(categories.values())
    return tuple(f"{name} ({i})" if names.count(name) > 1 else name for i, name in sorted(categories.items()))


def column(entries: list[dict[str, Any]], key: str, what: str) -> list[Any]:
    """One value of each entry; `what` names the list in the error."""
    try:
        return [entry[key] for entry in entries]
    except (KeyError, TypeError) as error:
        row = next(i for i, entry in enumerate(entries) if not isinstance(entry, dict) or key not in entry)
        raise ValueError(f"{what}: entry {row} must have {key!r}, got {shorten(entries[row])}") from error


def rows_of(values: Sequence[Hashable], known: Sequence[Hashable]) -> np.ndarray:
    """The place of each value among the known ones, -1 for another -> (values,) int64."""
    row_of = {value: row for row, value in enumerate(known)}
    return np.array([row_of.get(value, -1) for value in values], dtype=np.int64)


def listed(values: Sequence[Any], limit: int = 5) -> str:
    """The first few, for a message."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def shorten(value: Any, limit: int = 100) -> str:
    """A repr that fits into a message."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
