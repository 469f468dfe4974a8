"""One mask in its three forms: pixels, run lengths as COCO writes them, and polygons with their parts and holes.

Polygons are drawn along the edges of the pixels, so that pycocotools makes the very same mask of them again. A list of
COCO polygons stands for their union and cannot tell a hole. The field fills holes, keeps such masks as run lengths, or
cuts the part open ("keyhole"): one ring that runs along a slit of no width to the hole, around it, and back through the
slit. pycocotools, OpenCV and Pillow fill rings by the even-odd rule and so leave that hole open. Here holes are kept
so, or filled if asked for, and what is lost is told.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as pycocotools_mask

from kit.data.outlines import ring_area
from kit.data.run_lengths import MOST_PIXELS, runs_of

Holes = Literal["keyhole", "fill"]

MOST_PX = 2.0**20  # coordinates beyond are no polygon of a picture
LONGEST_PX = 2.0**22  # all lines of a mask together: drawing them takes 80 bytes a pixel
ENDLESS = re.compile("[P-o]{9}")  # characters of compressed runs that each say "there is more": no run has so many
COORDINATES = "polygons of 3 points or more, each coordinate a finite number"


@dataclass(frozen=True)
class Part:
    """One connected part of a mask (over corners too), along the edges of its pixels."""

    outer: np.ndarray  # (P, 2)
    holes: list[np.ndarray]  # each (P, 2)


@dataclass(frozen=True)
class Polygons:
    """A mask as polygons, and how far pycocotools' mask of them is from it."""

    rings: list[np.ndarray]  # each (P, 2), one for each part
    holes: int  # of the mask
    holes_filled: int
    area_px2: int  # of the mask
    area_error_px2: int  # area of the polygons' mask less that
    iou: float  # of the two masks; 1 where both are empty

    def entry(self) -> list[list[float]]:
        """As `segmentation` of a COCO annotation."""
        return [ring.reshape(-1).tolist() for ring in self.rings]


# --- from a COCO entry ---


def checked_runs(segmentation: Mapping[str, Any]) -> tuple[list[int], tuple[int, int]]:
    """Run lengths, compressed or not -> (runs, size_hw). ValueError where they are broken."""
    if not isinstance(segmentation, Mapping):
        raise ValueError(f"run lengths: expected size and counts, got {segmentation!r:.60}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise ValueError(f"run lengths: expected size [height, width], got {size!r:.60}")
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"run lengths: expected at most {MOST_PIXELS} pixels, got {size[0]} x {size[1]}")
    if isinstance(counts, str):
        counts = None if ENDLESS.search(counts) else runs_of(counts)
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise ValueError(f"run lengths: expected counts as a list or as compressed text, got {counts!r:.60}")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths: expected {size[0] * size[1]} pixels in all, got {sum(counts)}")
    return counts, (size[0], size[1])


def checked_rings(segmentation: Sequence[Any]) -> list[np.ndarray]:
    """COCO polygons -> rings (P, 2). ValueError where one of them is none."""
    rings = []
    for numbers in segmentation:
        if not isinstance(numbers, list) or len(numbers) < 6 or len(numbers) % 2:
            raise ValueError(f"polygon: expected {COORDINATES}, got {numbers!r:.60}")
        if not all(type(value) in (int, float) and abs(value) <= MOST_PX for value in numbers):  # NaN is not <=
            raise ValueError(f"polygon: expected {COORDINATES} within {MOST_PX:.0f} px, got {numbers!r:.60}")
        rings.append(np.array(numbers, np.float64).reshape(-1, 2))
    if not rings:
        raise ValueError(f"polygon: expected {COORDINATES}, got none")
    length_px = sum(np.abs(np.roll(ring, 1, axis=0) - ring).max(axis=1).sum() for ring in rings)
    if length_px > LONGEST_PX:
        raise ValueError(f"polygon: expected lines of at most {LONGEST_PX:.0f} px in all, got {length_px:.0f}")
    return rings


def compressed(segmentation: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Any form of a COCO `segmentation` -> pycocotools' runs {"size", "counts": bytes}, unchanged where it has runs.

    Run lengths have a size of their own, which may differ from that of the image, size_hw. ValueError where broken.
    """
    if isinstance(segmentation, Mapping):
        runs, (height, width) = checked_runs(segmentation)
        found = pycocotools_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return dict(found)
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation: expected polygons or run lengths, got {segmentation!r:.60}")
    height, width = size_hw
    if min(size_hw) < 1 or height * width > MOST_PIXELS:
        raise ValueError(f"polygon: expected an image of 1 to {MOST_PIXELS} pixels, got {height} x {width}")
    polygons = [ring.reshape(-1).tolist() for ring in checked_rings(segmentation)]
    return dict(pycocotools_mask.merge(pycocotools_mask.frPyObjects(polygons, height, width)))


def mask_of_entry(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """Any form of a COCO `segmentation` -> (H, W) uint8, as pycocotools draws it."""
    runs, (height, width) = checked_runs(as_text(compressed(segmentation, size_hw)))
    values = np.arange(len(runs), dtype=np.uint8) % 2  # zeros come first, and the columns one after the other
    filled: np.ndarray = np.repeat(values, runs).reshape(width, height).T
    return np.ascontiguousarray(filled)


def box_of_entry(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray | None:
    """The tightest box (4,) xywh: around the corners of polygons, or the pixels of runs; None around nothing."""
    if isinstance(segmentation, list):
        points = np.concatenate(checked_rings(segmentation))
        low, high = points.min(axis=0), points.max(axis=0)
        return np.concatenate([low, high - low])
    runs = compressed(segmentation, size_hw)
    return np.asarray(pycocotools_mask.toBbox(runs), np.float64) if pycocotools_mask.area(runs) else None


def area_of_entry(segmentation: Any, size_hw: tuple[int, int]) -> int:
    """Pixels."""
    return int(pycocotools_mask.area(compressed(segmentation, size_hw)))


# --- to a COCO entry ---


def compressed_entry(mask: np.ndarray) -> dict[str, Any]:
    """mask: (H, W) -> {"size", "counts": text}."""
    return as_text(pycocotools_mask.encode(np.asfortranarray(mask != 0).view(np.uint8)))


def as_text(runs: Mapping[str, Any]) -> dict[str, Any]:
    """pycocotools' runs as JSON can hold them."""
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def uncompressed_entry(mask: np.ndarray) -> dict[str, Any]:
    """mask: (H, W) -> {"size", "counts": list}, of columns, zeros first."""
    values = (mask.T != 0).reshape(-1)
    borders = np.flatnonzero(values[1:] != values[:-1]) + 1
    counts = np.diff(np.concatenate([[0], borders, [values.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if values[0] else counts}


def polygons_of(mask: np.ndarray, holes: Holes = "keyhole", tolerance_px: float = 0.0) -> Polygons:
    """mask: (H, W). tolerance_px: how far a line may leave the edges of the pixels, for fewer points; 0 is exact."""
    parts = [with_fewer_points(part, tolerance_px) for part in parts_of(mask)]
    rings = [part.outer if holes == "fill" else keyholed(part) for part in parts]
    count = sum(len(part.holes) for part in parts)
    true = compressed_bytes(mask)
    found = pycocotools_mask.frPyObjects([ring.reshape(-1).tolist() for ring in rings], *mask.shape) if rings else []
    drawn = pycocotools_mask.merge(found) if found else compressed_bytes(np.zeros_like(mask))
    area, drawn_area = int(pycocotools_mask.area(true)), int(pycocotools_mask.area(drawn))
    iou = float(pycocotools_mask.iou([drawn], [true], [0])[0, 0]) if area or drawn_area else 1.0
    return Polygons(rings, count, count if holes == "fill" else 0, area, drawn_area - area, iou)


def compressed_bytes(mask: np.ndarray) -> dict[str, Any]:
    return dict(pycocotools_mask.encode(np.asfortranarray(mask != 0).view(np.uint8)))


# --- parts, holes and keyholes ---


def parts_of(mask: np.ndarray) -> list[Part]:
    """mask: (H, W) -> its parts with their holes; what lies within a hole is a part again."""
    if not mask.any():
        return []
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    corner = np.array([columns[0], rows[0]])
    cut = (mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0).astype(np.uint8)
    fine = cut.repeat(2, axis=0).repeat(2, axis=1)  # its border pixels have their middles a quarter from an edge
    contours, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [corners(np.round((contour[:, 0] + 0.5) / 2) + corner) for contour in contours]  # that edge is the nearest
    parts = {row: Part(rings[row], []) for row, (_, _, _, parent) in enumerate(tree[0]) if parent < 0}
    for row, (_, _, _, parent) in enumerate(tree[0]):
        if parent >= 0:
            parts[parent].holes.append(rings[row])
    return list(parts.values())


def corners(ring: np.ndarray) -> np.ndarray:
    """(P, 2) -> without repeated points and those on the way straight on; turning back is a corner."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    kept: np.ndarray = ring[(turn != 0) | ((before * after).sum(axis=1) < 0)]
    return kept


def with_fewer_points(part: Part, tolerance_px: float) -> Part:
    """No ring is lost: one of which less than three points would stay keeps all."""
    if tolerance_px <= 0:
        return part
    return Part(fewer_points(part.outer, tolerance_px), [fewer_points(hole, tolerance_px) for hole in part.holes])


def fewer_points(ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    kept: np.ndarray = cv2.approxPolyDP(ring.astype(np.float32), tolerance_px, True)[:, 0].astype(np.float64)
    return kept if len(kept) >= 3 else ring


def keyholed(part: Part) -> np.ndarray:
    """One ring (P, 2) around the part, with a slit to each of its holes, from the left."""
    ring = turned(part.outer, clockwise=True)
    for hole in sorted(part.holes, key=lambda hole: (hole[:, 0].min(), hole[:, 1].min())):
        ring = with_slit(ring, turned(hole, clockwise=False))
    return ring


def turned(ring: np.ndarray, clockwise: bool) -> np.ndarray:
    """Opposite turns also keep a hole open where rings are filled by their winding number."""
    return ring if (ring_area(ring) > 0) == clockwise else ring[::-1]


def with_slit(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """ring: (P, 2), hole: (P, 2) -> (P, 2). The slit runs from the leftmost corner of the hole to the left."""
    hole = np.roll(hole, -np.lexsort((hole[:, 1], hole[:, 0]))[0], axis=0)
    (x, y), start, end = hole[0], ring, np.roll(ring, -1, axis=0)
    rise = np.where(start[:, 1] == end[:, 1], 1.0, end[:, 1] - start[:, 1])
    crossing_x = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    is_left = ((start[:, 1] > y) != (end[:, 1] > y)) & (crossing_x <= x)
    row = int(np.where(is_left, crossing_x, -np.inf).argmax())
    door = np.array([[crossing_x[row], y]]) if is_left[row] else ring[row : row + 1]  # with fewer points it may lie out
    whole = np.concatenate([ring[: row + 1], door, hole, hole[:1], door, ring[row + 1 :]])
    kept: np.ndarray = whole[(whole != np.roll(whole, 1, axis=0)).any(axis=1)]
    return kept
