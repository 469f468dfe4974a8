"""Masks against the boxes and areas of their annotations: where they disagree, and boxes made from masks.

Works on the content of a COCO file as it stands, with run lengths as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.data.coco import refuse_other_formats
from kit.data.mask_shapes import area_of_entry, box_of_entry, checked_rings, checked_runs
from kit.data.outlines import ring_area
from kit.files import read_json

Content = dict[str, Any]
Progress = Callable[[int, int], object]  # annotations done, in all

GAP_PX, LEAST_IOU = (
    2.0,
    0.95,
)  # a box is wrong whose side is further off, and which overlaps less; not by rounding alone
AREA_PX2, AREA_SHARE = 20.0, 0.2  # likewise an area that is off by more than both
EVERY = 200  # annotations between two states of a bar


@dataclass(frozen=True)
class Disagreement:
    """One annotation whose mask says another thing than the rest of it."""

    annotation_id: Any
    image_id: int
    kind: Literal["broken", "empty", "size", "box", "area"]
    found: str
    mask_box_xywh_px: list[float] | None = None
    iou: float | None = None  # of the two boxes


def read_content(path: Path) -> Content:
    """The file as it stands, once it is known to be COCO."""
    content = read_json(path)
    refuse_other_formats(content, path)
    return dict(content)


def sizes_of(content: Content) -> dict[int, tuple[int, int]]:
    """(height, width) by image id; (0, 0) where the file gives none."""
    sides = {image["id"]: (image.get("height"), image.get("width")) for image in reversed(content["images"])}
    return {key: (h, w) if type(h) is int and type(w) is int else (0, 0) for key, (h, w) in sides.items()}


def disagreements(content: Content, progress: Progress | None = None) -> list[Disagreement]:
    """Of all annotations with a mask, in their order; those without are none."""
    sizes, found = sizes_of(content), []
    annotations = content.get("annotations") or []
    for done, annotation in enumerate(annotations, 1):
        if has_mask(annotation):
            found += disagreements_of(annotation, sizes.get(annotation["image_id"], (0, 0)))
        if progress and (done % EVERY == 0 or done == len(annotations)):
            progress(done, len(annotations))
    return found


def has_mask(annotation: Mapping[str, Any]) -> bool:
    return annotation.get("segmentation") not in (None, [], {}, "")


def disagreements_of(annotation: Mapping[str, Any], size_hw: tuple[int, int]) -> list[Disagreement]:
    """size_hw: of the image; (0, 0) where it is not known."""
    segmentation, names = annotation["segmentation"], (annotation.get("id"), annotation["image_id"])
    try:
        box, area = box_of_entry(segmentation, size_hw), area_of(segmentation)
        own_hw = checked_runs(segmentation)[1] if isinstance(segmentation, Mapping) else size_hw
    except ValueError as error:
        return [Disagreement(*names, "broken", str(error))]
    if box is None or area == 0:
        return [Disagreement(*names, "empty", "the mask holds no pixel")]
    found = []
    if size_hw != (0, 0) and own_hw != size_hw:
        words = f"the mask is of {own_hw[0]} x {own_hw[1]}, the image of {size_hw[0]} x {size_hw[1]}"
        found.append(Disagreement(*names, "size", words))
    return found + against_box(annotation, names, box) + against_area(annotation, names, box, area)


def area_of(segmentation: Any) -> float:
    """Square pixels: of runs; of polygons as COCO counts them, the sum of their areas."""
    if isinstance(segmentation, Mapping):
        return area_of_entry(segmentation, (0, 0))
    return float(sum(abs(ring_area(ring)) for ring in checked_rings(segmentation)))


def against_box(annotation: Mapping[str, Any], names: tuple[Any, int], mask_box: np.ndarray) -> list[Disagreement]:
    """mask_box: (4,) xywh px."""
    text = f"the box is {annotation.get('bbox')!r:.80}, around the mask {mask_box.round(2).tolist()}"
    box = box_numbers(annotation.get("bbox"))
    if box is None:
        return [Disagreement(*names, "box", text, mask_box.tolist())]
    iou, gap_px = overlap(box, mask_box)
    if gap_px <= GAP_PX or iou >= LEAST_IOU:
        return []
    return [Disagreement(*names, "box", f"{text}, IoU {iou:.2f}", mask_box.tolist(), iou)]


def against_area(
    annotation: Mapping[str, Any], names: tuple[Any, int], mask_box: np.ndarray, mask_area: float
) -> list[Disagreement]:
    area = annotation.get("area")
    if not isinstance(area, int | float) or abs(area - mask_area) <= max(AREA_PX2, AREA_SHARE * max(area, mask_area)):
        return []
    return [Disagreement(*names, "area", f"area is {area:g}, of the mask {mask_area:g}", mask_box.tolist())]


def box_numbers(box: Any) -> np.ndarray | None:
    """(4,), or None where it is no list of four finite numbers."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        return None
    numbers = np.array([float(value) for value in box])
    return numbers if np.isfinite(numbers).all() else None


def overlap(a_xywh: np.ndarray, b_xywh: np.ndarray) -> tuple[float, float]:
    """(4,), (4,) -> IoU, and how far the sides are apart at most."""
    a, b = (np.concatenate([box[:2], box[:2] + box[2:]]) for box in (a_xywh, b_xywh))  # xyxy
    shared = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(min=0).prod()
    union = a_xywh[2:].clip(min=0).prod() + b_xywh[2:].prod() - shared
    return float(shared / union) if union > 0 else float((a == b).all()), float(np.abs(a - b).max())


@dataclass(frozen=True)
class Boxed:
    """A COCO file with its boxes around its masks."""

    content: Content
    changes: list[dict[str, Any]]  # annotation_id, before, after
    problems: list[str]  # masks around which there is no box


def with_boxes(content: Content) -> Boxed:
    """Each box tight around its mask. Annotations without a mask, or with a broken or empty one, keep their box."""
    sizes, result = sizes_of(content), Boxed({}, [], [])
    annotations = []
    for annotation in content.get("annotations") or []:
        box, problem = mask_box(annotation, sizes.get(annotation["image_id"], (0, 0)))
        if problem:
            result.problems.append(f"annotation {annotation.get('id')}: {problem}")
        if box is not None and annotation.get("bbox") != box:
            change = {"annotation_id": annotation.get("id"), "before": annotation.get("bbox"), "after": box}
            result.changes.append(change)
            annotation = annotation | {"bbox": box}
        annotations.append(annotation)
    result.content.update(content | {"annotations": annotations})
    return result


def mask_box(annotation: Mapping[str, Any], size_hw: tuple[int, int]) -> tuple[list[float] | None, str]:
    """(4,) xywh px around the mask, and what is wrong with it; neither where there is no mask."""
    if not has_mask(annotation):
        return None, ""
    try:
        box = box_of_entry(annotation["segmentation"], size_hw)
    except ValueError as error:
        return None, str(error)
    return (None, "the mask holds no pixel") if box is None else (box.tolist(), "")
