"""Detections and annotations as arrays, read once, with errors that name the entry."""

from collections.abc import Hashable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.coco import CocoFile, columns_of
from kit.data.record import UNKNOWN
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
    annotation_ids: Sequence[Any] | np.ndarray


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


def read_tables(predictions: Entries, annotations: Entries | CocoFile) -> Tables:
    """Both files as arrays. Annotations of unlisted images or categories count nowhere, as in pycocotools."""
    if isinstance(annotations, CocoFile):
        return _tables_of(annotations, predictions)
    coco = read_json(annotations) if isinstance(annotations, Path | str) else annotations
    if not isinstance(coco, dict) or not coco.get("images") or not coco.get("categories"):
        name = name_of(annotations, "annotations")
        raise ValueError(f"{name} must be a COCO dict with images and categories, got {shorten(coco)}")
    images = _by_id(coco["images"], f"{name_of(annotations, 'annotations')}: images")
    listed = _by_id(coco["categories"], f"{name_of(annotations, 'annotations')}: categories")
    categories = {category_id: str(entry.get("name", category_id)) for category_id, entry in listed.items()}
    image_ids, category_ids = sorted(images), sorted(categories)
    return Tables(
        image_ids,
        [images[image_id] for image_id in image_ids],
        category_ids,
        _unique_names(categories),
        _read_truths(coco.get("annotations") or [], image_ids, category_ids, name_of(annotations, "annotations")),
        _read_detections(read_predictions(predictions), image_ids, category_ids, name_of(predictions, "predictions")),
    )


def _tables_of(coco: CocoFile, predictions: Entries) -> Tables:
    """As of its content in COCO's form, but no object is made for a box."""
    columns = columns_of(coco)
    if (columns.labels == UNKNOWN).any():
        raise ValueError(f"{coco.path}: expected known categories, found others; check and clean the file first")
    rows, labels = np.argsort(columns.image_ids, kind="stable"), np.argsort(coco.category_ids, kind="stable")
    image_ids, category_ids = columns.image_ids[rows].tolist(), [coco.category_ids[label] for label in labels]
    images = [
        {"id": image_id, "file_name": columns.file_name(row), "height": height, "width": width}
        for image_id, row, (height, width) in zip(image_ids, rows, columns.sizes_hw[rows].tolist(), strict=True)
    ]
    truths = Truths(
        np.argsort(rows)[columns.image_rows()],
        np.argsort(labels)[columns.labels],
        columns.boxes_xywh_px,
        columns.areas_px2,
        columns.is_crowd,
        columns.annotation_ids,
    )
    names = _unique_names(dict(zip(coco.category_ids, coco.names, strict=True)))
    what = name_of(predictions, "predictions")
    found = _read_detections(read_predictions(predictions), image_ids, category_ids, what)
    return Tables(image_ids, images, category_ids, names, truths, found)


def _by_id(entries: Any, what: str) -> dict[int, dict[str, Any]]:
    ids = column(entries if isinstance(entries, list) else [entries], "id", what)
    wrong = next((each for each in ids if not isinstance(each, int)), None)
    if wrong is not None:
        raise ValueError(f"{what}: id must be an integer, got {shorten(wrong)}; renumber")
    return dict(zip(ids, entries, strict=True))


def name_of(entries: Entries, what: str) -> str:
    """For errors: the file, where there is one."""
    return str(entries) if isinstance(entries, Path | str) else what


def read_predictions(predictions: Entries) -> list[dict[str, Any]]:
    """COCO results: a list of entries, a file of one, or a COCO dict whose annotations carry scores."""
    entries = read_json(predictions) if isinstance(predictions, Path | str) else predictions
    entries = entries.get("annotations") if isinstance(entries, dict) else entries
    if not isinstance(entries, list):
        found = shorten(entries if isinstance(predictions, Path | str) else predictions)
        name = name_of(predictions, "predictions")
        raise ValueError(f"{name} must be a list of COCO results, got {found}")
    return entries


def _read_truths(entries: list[dict[str, Any]], image_ids: list[int], category_ids: list[int], what: str) -> Truths:
    image = rows_of(column(entries, "image_id", what), image_ids)
    label = rows_of(column(entries, "category_id", what), category_ids)
    listed = np.flatnonzero((image >= 0) & (label >= 0))
    entries = [entries[row] for row in listed]
    boxes_xywh_px = _read_boxes(entries, what)
    box_area = (boxes_xywh_px[:, 2] * boxes_xywh_px[:, 3]).tolist()
    area = [entry.get("area", product) for entry, product in zip(entries, box_area, strict=True)]
    return Truths(
        image[listed],
        label[listed],
        boxes_xywh_px,
        _numbers(area, "area", what),
        np.array([bool(entry.get("iscrowd", 0)) for entry in entries], dtype=bool),
        [entry.get("id") for entry in entries],
    )


def _read_detections(
    entries: list[dict[str, Any]], image_ids: list[int], category_ids: list[int], what: str
) -> Detections:
    image = _known_rows(entries, "image_id", image_ids, what)
    label = _known_rows(entries, "category_id", category_ids, what)
    score = _numbers(column(entries, "score", what), "score", what)
    boxes_xywh_px = _read_boxes(entries, what)
    bad = np.flatnonzero(~(np.isfinite(score) & np.isfinite(boxes_xywh_px).all(axis=1)))
    if bad.size:
        raise ValueError(f"{what}: entry {bad[0]}: box and score must be finite, got {shorten(entries[bad[0]])}")
    return Detections(image, label, boxes_xywh_px, score)


def _known_rows(entries: list[dict[str, Any]], key: str, known: list[int], what: str) -> np.ndarray:
    values = column(entries, key, what)
    rows = rows_of(values, known)
    unknown = sorted({shorten(values[row]) for row in np.flatnonzero(rows < 0)})
    if unknown:
        raise ValueError(
            f"{what}: {key} not in the annotations: {listed(unknown)}; expected such as {listed(known)}; "
            "leave these out, or give the annotations of the same images"
        )
    return rows


def _read_boxes(entries: list[dict[str, Any]], what: str) -> np.ndarray:
    boxes = column(entries, "bbox", what)
    wrong = next((row for row, box in enumerate(boxes) if not isinstance(box, Sized) or len(box) != 4), None)
    if wrong is not None:
        raise ValueError(f"{what}: entry {wrong}: bbox must be [x, y, w, h], got {shorten(boxes[wrong])}")
    return _numbers(boxes, "bbox", what, (4,))


def _numbers(values: list[Any], key: str, what: str, each: tuple[int, ...] = ()) -> np.ndarray:
    """-> (N, *each) float64; ValueError where one entry is no number, or none that fits."""
    try:
        found = np.array(values)
    except ValueError:  # lists of several lengths
        found = np.array(None)
    if values and (found.dtype.kind not in "iuf" or found.shape[1:] != each):
        row = next((row for row, value in enumerate(values) if not _is_of_numbers(value)), 0)
        raise ValueError(f"{what}: entry {row}: {key} must be made of numbers, got {shorten(values[row])}")
    return found.astype(np.float64).reshape(-1, *each)


def _is_of_numbers(value: Any) -> bool:
    parts = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    return all(not isinstance(part, list | tuple) and np.asarray(part).dtype.kind in "iuf" for part in parts)


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
    found = [row_of.get(value, -1) if isinstance(value, Hashable) else -1 for value in values]
    return np.array(found, dtype=np.int64)


def listed(values: Sequence[Any], limit: int = 5) -> str:
    """The first few, for a message."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def shorten(value: Any, limit: int = 100) -> str:
    """A repr that fits into a message."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
