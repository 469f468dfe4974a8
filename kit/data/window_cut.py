"""Outlines cut at the straight sides of a window, exactly: what mosaic, crops and zooms do to every object they cut."""

import numpy as np
from numba import njit

from kit.data.outlines import Outline, Passage, Window, bend, is_inside, simplified


def cut_outline(outline: Outline, window: Window) -> tuple[np.ndarray, Outline]:
    """What lies in the window: the tightest box around it (4,) xyxy, NaN where nothing does, and its outline."""
    corners, parts = [], []
    for ring in outline:
        points, rings = _cut_ring(ring, window)
        corners.append(points)
        parts += [small for part in rings if len(small := simplified(part)) >= 3]
    points = np.concatenate(corners)
    if not len(points):
        return np.full(4, np.nan), []
    return np.concatenate([points.min(axis=0), points.max(axis=0)]), parts


def _cut_ring(ring: np.ndarray, window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
    """The corners of what is left (V, 2), and its rings: several where one would join pieces along a side."""
    cut = _clipped(np.ascontiguousarray(ring, np.float64), np.array(window, np.float64))
    following = np.roll(cut, -1, axis=0)
    runs_along = ((cut == following) & ((cut == window[:2]) | (cut == window[2:]))).any(axis=1)
    if is_inside((cut + following)[runs_along] / 2, ring).all():
        return cut, [cut] if len(cut) else []
    points = cut[is_inside(cut, ring)]  # where a joint along one side meets the next side, nothing of the object is
    return points, bend([[ring]], Passage(_stay, _stay, window, window)).outlines[0]


def _stay(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points, np.ones(points.shape[:-1], bool)


@njit(cache=True, nogil=True)
def _clipped(ring, sides):  # type: ignore[no-untyped-def]  # Numba finds the types
    """ring: (P, 2), sides: (4,) xyxy -> (P', 2), cut at one side after the other (Sutherland and Hodgman)."""
    for number in range(4):
        axis, side, sign = number % 2, sides[number], 1.0 if number < 2 else -1.0
        cut = np.empty((2 * len(ring), 2))
        count = 0
        for place in range(len(ring)):
            following = place + 1 if place + 1 < len(ring) else 0
            before, after = sign * (ring[place, axis] - side), sign * (ring[following, axis] - side)
            if before >= 0:
                cut[count, 0], cut[count, 1] = ring[place, 0], ring[place, 1]
                count += 1
            if before * after < 0:
                share = before / (before - after)
                for each in range(2):
                    cut[count, each] = ring[place, each] + share * (ring[following, each] - ring[place, each])
                cut[count, axis] = side
                count += 1
        ring = cut[:count]
    return ring
