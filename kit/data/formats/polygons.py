"""Outlines of COCO annotations as single polygons, for formats that have one an object."""

import numpy as np

from kit.data.coco import ring_of
from kit.data.formats.raw import Entry, Losses, is_number
from kit.data.outlines import ring_area
from kit.data.run_lengths import outline_of_runs


def polygon_area(ring: np.ndarray) -> float:
    """(P, 2) -> px2."""
    return abs(ring_area(ring))


def rings_of(annotation: Entry, losses: Losses, example: str) -> list[np.ndarray]:
    """The rings (P, 2) of an annotation; of its box where it has none that can be read."""
    parts = annotation.get("segmentation")
    if isinstance(parts, dict):
        if outline := outline_of_runs(parts):
            losses.add("mask of runs: as polygons along its pixels, holes filled", example)
            return outline
        losses.add("broken mask of runs: its box as a polygon", example, is_problem=True)
    elif isinstance(parts, list) and parts:
        rings = [ring_of(part) for part in parts if isinstance(part, list) and all(map(is_number, part))]
        whole = [ring for ring in rings if ring is not None]
        if len(whole) < len(parts):
            losses.add("part of a polygon that is no list of three points or more: left out", example, is_problem=True)
        if whole:
            return whole
    losses.add("object without a polygon: its box as a polygon of four points", example)
    x, y, width, height = (float(value) for value in annotation["bbox"])
    return [np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])]


def joined(rings: list[np.ndarray]) -> np.ndarray:
    """One ring through all, from each to the next and back along the same line: its area is the sum of theirs.

    All go around in the same sense then, or their areas would be taken from one another.
    """
    result = rings[0]
    for ring in rings[1:]:
        same = ring if (ring_area(ring) >= 0) == (ring_area(result) >= 0) else ring[::-1]
        result = bridged(result, same)
    return result


def bridged(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P, 2) and (Q, 2) -> (P + Q + 2, 2), joined where their points are nearest."""
    gaps = np.square(first[:, None] - second[None]).sum(axis=-1)  # (P, Q)
    leave, enter = np.unravel_index(gaps.argmin(), gaps.shape)
    around = np.roll(second, -enter, axis=0)
    return np.concatenate([first[: leave + 1], around, around[:1], first[leave:]])
