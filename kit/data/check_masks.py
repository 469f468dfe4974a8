"""Masks that say another thing than their boxes, in a file of any size.

Nearly all polygons agree with their boxes: that is seen in arrays, thousands at once. Each of the others is compared by
itself, by `kit.data.mask_boxes`, which has the last word.
"""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from kit.data.check_report import Problem
from kit.data.check_table import Table
from kit.data.image_files import Progress
from kit.data.mask_boxes import (
    AREA_PX2,
    AREA_SHARE,
    GAP_PX,
    LEAST_IOU,
    Disagreement,
    disagreements_of,
    has_mask,
)
from kit.data.mask_shapes import LONGEST_PX, MOST_PX

BLOCK = 20_000  # masks looked at at once
SAFETY = 0.99  # of each limit: what is nearer to it than rounding is compared by itself
POLYGONS = msgspec.json.Decoder(list[list[float]])

MASKS = {  # kind of disagreement: kind of problem, its mend
    "broken": ("broken mask", "write it again; --fix takes the mask out and keeps the box"),
    "empty": ("empty mask", "write it again; --fix takes the mask out and keeps the box"),
    "size": ("mask of another size", "write it at the size of the image; --fix takes the mask out and keeps the box"),
    "box": ("mask unlike its box", "look which is right; --boxes-from-masks takes the mask's"),
    "area": ("area unlike its mask", "write the pixels of the mask; --fix does"),
}


def problems_of_masks(table: Table, progress: Progress | None = None) -> list[Problem]:
    found = list(disagreements(table, progress))
    problems = []
    for key, (kind, mend) in MASKS.items():
        own = [(row, each) for row, each in found if each.kind == key]
        findings = [table.about_annotation(kind, row, each.found) for row, each in own]
        problems.append(Problem(kind, findings, mend, is_fatal=False))
    return problems


def disagreements(table: Table, progress: Progress | None = None) -> list[tuple[int, Disagreement]]:
    """With the row of the annotation, in order."""
    texts, found = table.entries.annotations.segmentations, list[tuple[int, Disagreement]]()
    rows = np.flatnonzero(texts.lengths)
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        for row in block[~agrees(table, block)].tolist():
            annotation, size_hw = annotation_of(table, row), table.rows.sizes_hw[row].tolist()
            if has_mask(annotation):
                found += [(row, each) for each in disagreements_of(annotation, (size_hw[0], size_hw[1]))]
        if progress:
            progress(min(first + BLOCK, len(rows)), len(rows))
    return found


def annotation_of(table: Table, row: int) -> dict[str, Any]:
    """What a mask is compared with, as in the file."""
    own, box = table.entries.annotations, table.rows.boxes_xywh_px[row]
    about: dict[str, Any] = {
        "id": int(own.annotation_ids[row]),
        "image_id": int(own.image_ids[row]),
        "area": float(own.areas_px2[row]),
    }
    about["bbox"] = box.tolist() if np.isfinite(box).all() else None
    return about | {"segmentation": json.loads(own.segmentations[row])}


# --- polygons in arrays ---


def agrees(table: Table, rows: np.ndarray) -> np.ndarray:
    """Masks that are polygons and surely agree with box and area: (n,) -> (n,) bool. False: not sure."""
    texts = table.entries.annotations.segmentations
    polygons = [polygons_in(texts[row]) for row in rows.tolist()]
    is_plain = np.array([bool(each) for each in polygons])
    result, own = np.zeros(len(rows), bool), rows[is_plain]
    if len(own):
        boxes_xywh_px, areas_px2 = table.rows.boxes_xywh_px[own], table.entries.annotations.areas_px2[own]
        with np.errstate(all="ignore"):  # what is no number agrees with nothing
            result[is_plain] = agree([each for each in polygons if each], boxes_xywh_px, areas_px2)
    return result


def polygons_in(text: bytes) -> list[list[float]]:
    """Nothing where it is anything else."""
    try:
        rings = POLYGONS.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return rings if all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in rings) else []


def agree(polygons: Sequence[list[list[float]]], boxes_xywh_px: np.ndarray, areas_px2: np.ndarray) -> np.ndarray:
    """n masks of rings each, boxes (n, 4), areas (n,) -> (n,) bool."""
    rings = list(chain.from_iterable(polygons))
    lengths = np.array([len(ring) // 2 for ring in rings])  # (R,) of points
    points = np.fromiter(chain.from_iterable(rings), np.float64, 2 * int(lengths.sum())).reshape(-1, 2)
    starts = np.cumsum(lengths) - lengths
    counts = np.array([len(each) for each in polygons])
    first_rings = np.cumsum(counts) - counts  # (n,)

    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    near = points - np.repeat(points[starts], lengths, axis=0)
    crossed = near[:, 0] * near[following, 1] - near[:, 1] * near[following, 0]
    mask_areas = np.add.reduceat(np.abs(np.add.reduceat(crossed, starts)), first_rings) / 2
    lines_px = np.add.reduceat(np.abs(points[following] - points).max(axis=1), starts[first_rings])

    low, high = (extreme.reduceat(points, starts[first_rings]) for extreme in (np.minimum, np.maximum))  # (n, 2) each
    corner, opposite = boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]
    gaps_px = np.maximum(np.abs(corner - low), np.abs(opposite - high)).max(axis=1)
    shared = (np.minimum(opposite, high) - np.maximum(corner, low)).clip(min=0).prod(axis=1)
    union = boxes_xywh_px[:, 2:].clip(min=0).prod(axis=1) + (high - low).prod(axis=1) - shared
    is_box = (gaps_px <= SAFETY * GAP_PX) | (shared * SAFETY >= LEAST_IOU * union)

    allowed = np.maximum(AREA_PX2, AREA_SHARE * np.maximum(areas_px2, mask_areas))
    is_area = (mask_areas > 0) & (np.abs(areas_px2 - mask_areas) <= SAFETY * allowed)
    is_small = (np.maximum(np.abs(low), np.abs(high)).max(axis=1) <= MOST_PX) & (lines_px <= SAFETY * LONGEST_PX)
    result: np.ndarray = is_box & is_area & is_small & np.isfinite(boxes_xywh_px).all(axis=1)
    return result
