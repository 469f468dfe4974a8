"""Outlines of objects: how they bend under any map, what of them is still seen, and the box around that.

A ring is a closed line of points (P, 2) in pixels; an outline is the rings of one object's parts. A map gives, for
points (..., 2), where they come to lie and whether anything is seen there. Points that are not seen must not be NaN:
they are pulled onto the rim of what is seen, along lines that do not cross it. A ring pulled so still goes as often
around each seen point as before, whatever its shape, so nothing is ever joined across what is not seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numba import njit

Outline = list[np.ndarray]  # the parts of one object, each a ring (P, 2) float64
Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of a picture; may reach outside of it
Map = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # points (..., 2) -> points (..., 2), is_seen (...)

STEP_PX = 16.0  # edges are looked at in pieces no longer than this, and those that bend in ever smaller ones
BEND_PX = 0.02  # how far a bent edge may lie off the straight pieces that stand for it
HALVINGS = 12
NEAR_PX = 1e-3  # points so near to a line count as on it
SAME_PX = 1e-6  # a point that is pulled by no more has not left
ELLIPSE = 64  # points of an ellipse
TRACE = 128  # an outline cut into several pieces is traced on at most so many points a side


@dataclass(frozen=True)
class Bent:
    """What has become of the outlines of N objects."""

    boxes_xyxy_px: np.ndarray  # (N, 4) the tightest around what is seen; NaN where nothing is
    shares: np.ndarray  # (N,) of the object's area before, that is still seen
    outlines: list[Outline]  # N, cut where they leave what is seen; empty lists unless asked for


def box_rings(boxes_xyxy_px: np.ndarray) -> list[np.ndarray]:
    """(N, 4) -> N rings (4, 2): the boxes themselves."""
    return list(boxes_xyxy_px[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])


def ellipse_rings(boxes_xyxy_px: np.ndarray) -> list[np.ndarray]:
    """(N, 4) -> N rings (ELLIPSE, 2): the ellipses that fill the boxes."""
    angle = np.arange(ELLIPSE) * (2 * np.pi / ELLIPSE)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (P, 2)
    low, high = boxes_xyxy_px[:, None, :2], boxes_xyxy_px[:, None, 2:]  # (N, 1, 2) each
    return list((low + high) / 2 + circle * (high - low) / 2)


def hull(outline: Outline) -> np.ndarray:
    """The box around all parts (4,) xyxy."""
    points = np.concatenate(outline)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def ring_area(ring: np.ndarray) -> float:
    """(P, 2) -> signed: turned around, it changes its sign."""
    x, y = (ring - ring[0]).T  # from a point nearby: far from the origin the products would eat the digits
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def simplified(ring: np.ndarray) -> np.ndarray:
    """The same line through fewer points, at most BEND_PX off; less than three where it has no width."""
    kept: np.ndarray = cv2.approxPolyDP(ring.astype(np.float32), BEND_PX, True)[:, 0].astype(np.float64)
    return kept


def is_inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """points: (V, 2), ring: (P, 2) -> (V,) bool: inside by the even-odd rule, or within NEAR_PX of the line."""
    found: np.ndarray = _is_inside(np.asarray(points, np.float64), np.asarray(ring, np.float64))
    return found


@njit(cache=True, nogil=True)
def _is_inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    found = np.zeros(len(points), np.bool_)
    for number in range(len(points)):
        odd, near = False, False
        for place in range(len(ring)):
            following = place + 1 if place + 1 < len(ring) else 0
            edge_x, edge_y = ring[following, 0] - ring[place, 0], ring[following, 1] - ring[place, 1]
            x, y = points[number, 0] - ring[place, 0], points[number, 1] - ring[place, 1]
            crosses = (y >= 0) != (y >= edge_y)
            odd ^= crosses and (edge_x * y - edge_y * x > 0) == (edge_y > 0)  # the crossing lies to the right
            along = min(max((x * edge_x + y * edge_y) / max(edge_x**2 + edge_y**2, 1e-18), 0.0), 1.0)
            near |= (x - along * edge_x) ** 2 + (y - along * edge_y) ** 2 <= NEAR_PX**2
        found[number] = odd or near
    return found


# --- what a map makes of them ---


@dataclass(frozen=True)
class Passage:
    """A map from one picture to another and its inverse; what leaves either picture is pulled onto its sides."""

    forward: Map
    backward: Map
    source: Window
    target: Window

    def there(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V, 2) -> (V, 2), (V,) bool: seen, and inside both pictures."""
        return _pulled(points, self.source, self.forward, self.target)

    def back(self, points: np.ndarray) -> np.ndarray:
        """(V, 2) -> (V, 2)."""
        return _pulled(points, self.target, self.backward, self.source)[0]

    def shows(self, points: np.ndarray, ring: np.ndarray) -> np.ndarray:
        """points: (V, 2) of the target, ring: (P, 2) of the source -> (V,) bool: the inside of the ring is seen there.

        On a rim rounding decides what is seen; there a point counts if the way back and there again ends on it.
        """
        origin = self.back(points)
        comes_back = np.abs(self.there(origin)[0] - points).max(axis=1, initial=0) <= BEND_PX
        return comes_back & is_inside(origin, ring)


def _pulled(points: np.ndarray, first: Window, move: Map, last: Window) -> tuple[np.ndarray, np.ndarray]:
    start = points.clip(first[:2], first[2:])
    moved, is_seen = move(start)
    end = moved.clip(last[:2], last[2:])
    pull_px = np.maximum(np.abs(start - points), np.abs(end - moved)).max(axis=-1)
    return end, is_seen & (pull_px <= SAME_PX)


def bend(outlines: Sequence[Outline], passage: Passage, with_outlines: bool = True) -> Bent:
    """Each outline as it is seen in the target: bent, and cut at the source picture, at all rims and at the target."""
    rings = [ring for outline in outlines for ring in outline]
    owner = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])  # (rings,)
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(outlines), 1))
    areas_px2 = np.zeros((2, len(outlines)))  # what is seen, all
    parts: list[Outline] = [[] for _ in outlines]
    for number, one in zip(owner, _seen(rings, passage, with_outlines), strict=True):
        boxes[number, :2] = np.minimum(boxes[number, :2], one.box_xyxy_px[:2])
        boxes[number, 2:] = np.maximum(boxes[number, 2:], one.box_xyxy_px[2:])
        areas_px2[:, number] += one.areas_px2
        parts[number] += [small for ring in one.rings if len(small := simplified(ring)) >= 3]
    boxes[np.isinf(boxes).any(axis=1)] = np.nan
    return Bent(boxes, areas_px2[0] / np.maximum(areas_px2[1], 1e-12), parts)


@dataclass(frozen=True)
class _Seen:
    """What is seen of one ring."""

    box_xyxy_px: np.ndarray  # (4,)
    areas_px2: tuple[float, float]  # in the source: what is seen, all
    rings: list[np.ndarray]


NOTHING = np.array([np.inf, np.inf, -np.inf, -np.inf])  # the box around no points


def _seen(rings: Sequence[np.ndarray], passage: Passage, with_rings: bool) -> Iterator[_Seen]:
    """Ring by ring; those that are seen as a whole, nearly all, at little cost."""
    if not rings:
        return
    line = _refined(rings, passage)
    starts = np.flatnonzero(np.diff(line.ring, prepend=-1))
    is_whole = np.logical_and.reduceat(line.is_kept, starts)  # (rings,)
    low, high = np.minimum.reduceat(line.moved, starts), np.maximum.reduceat(line.moved, starts)
    boxes = np.concatenate([low, high], axis=1)  # (rings, 4)
    for number, (first, last) in enumerate(pairwise([*starts.tolist(), len(line.ring)])):
        if is_whole[number]:
            area = abs(ring_area(rings[number]))
            yield _Seen(boxes[number], (area, area), [line.moved[first:last]] if with_rings else [])
        else:
            yield _cut(rings[number], line.between(first, last), passage, with_rings)


@dataclass(frozen=True)
class _Line:
    """The points of many rings, one ring after the other."""

    points: np.ndarray  # (V, 2) before the map
    moved: np.ndarray  # (V, 2) after it; what is not seen has been pulled onto a rim
    is_kept: np.ndarray  # (V,) seen, and inside both pictures
    ring: np.ndarray  # (V,) int64, ascending

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.points, self.moved, self.is_kept, self.ring

    def between(self, first: int, last: int) -> "_Line":
        return _Line(*(array[first:last] for array in self.arrays))


def _refined(rings: Sequence[np.ndarray], passage: Passage) -> _Line:
    """Points along the rings, so close that the straight pieces between them show where the bent edges run."""
    points, ring = _divided(rings)
    line = _Line(points, *passage.there(points), ring)
    is_open = np.ones(len(points), bool)  # of the piece that begins at a point: it may still bend
    for _ in range(HALVINGS):
        begin = np.flatnonzero(is_open)
        if not len(begin):
            break
        end = _following(line.ring)[begin]
        points = (line.points[begin] + line.points[end]) / 2
        middle = _Line(points, *passage.there(points), line.ring[begin])
        bends = np.abs(middle.moved - (line.moved[begin] + line.moved[end]) / 2).max(axis=1) > BEND_PX
        leaves = line.is_kept[begin] != line.is_kept[end]  # a steep edge bends too little at a rim to be found there
        is_open[begin] = bends | leaves & (np.abs(line.points[end] - line.points[begin]).max(axis=1) > BEND_PX)
        order = np.argsort(np.concatenate([np.arange(len(line.ring)), begin + 0.5]), kind="stable")
        line = _Line(*(np.concatenate(pair)[order] for pair in zip(line.arrays, middle.arrays, strict=True)))
        is_open = np.concatenate([is_open, is_open[begin]])[order]
    return line


def _divided(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The points of all rings, the edges in pieces of STEP_PX at most -> (V, 2), number of the ring (V,)."""
    corners = np.concatenate(rings)  # (P, 2)
    ring = np.repeat(np.arange(len(rings)), [len(each) for each in rings])  # (P,)
    edges = corners[_following(ring)] - corners  # (P, 2)
    counts = np.maximum(np.ceil(np.hypot(*edges.T) / STEP_PX).astype(np.int64), 1)  # (P,)
    begin = np.repeat(np.arange(len(corners)), counts)  # (V,)
    step = np.arange(len(begin)) - np.repeat(np.cumsum(counts) - counts, counts)  # (V,)
    return corners[begin] + edges[begin] * (step / counts[begin])[:, None], ring[begin]


def _following(ring: np.ndarray) -> np.ndarray:
    """ring: (V,) ascending -> (V,) the next point on the same ring; the first follows the last."""
    following: np.ndarray = np.arange(1, len(ring) + 1)
    is_last = np.diff(ring, append=-1) != 0
    following[is_last] = np.flatnonzero(np.diff(ring, prepend=-1) != 0)
    return following


def _cut(ring: np.ndarray, line: _Line, passage: Passage, with_rings: bool) -> _Seen:
    """A ring that is not seen as a whole. Points that were pulled to where nothing of it lies do not count."""
    pulled = np.flatnonzero(~line.is_kept)
    stays = line.is_kept.copy()
    stays[pulled] = passage.shows(line.moved[pulled], ring)
    all_px2 = abs(ring_area(ring))
    if not stays.any():
        return _Seen(NOTHING, (0.0, all_px2), [])
    points = line.moved[stays]
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    origin = line.points.copy()
    origin[pulled] = passage.back(line.moved[pulled])
    seen_px2 = min(abs(ring_area(origin)), all_px2)
    if not with_rings:
        return _Seen(box, (seen_px2, all_px2), [])
    kept = np.flatnonzero(stays)
    following = np.roll(kept, -1)
    is_gap = (kept + 1) % len(stays) != following
    middle = (line.moved[kept[is_gap]] + line.moved[following[is_gap]]) / 2
    is_one_piece = passage.shows(middle, ring).all()  # else the straight line from rim to rim would join what is apart
    return _Seen(box, (seen_px2, all_px2), [points] if is_one_piece else _traced(ring, box, passage))


def _traced(ring: np.ndarray, box_xyxy_px: np.ndarray, passage: Passage) -> list[np.ndarray]:
    """The pieces of what is seen of a ring, found on a fine grid over the box around them."""
    low, size = box_xyxy_px[:2], box_xyxy_px[2:] - box_xyxy_px[:2]
    step = max(1 / 8, float(size.max()) / TRACE)
    width, height = np.maximum(np.ceil(size / step), 1).astype(int)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    grid = low + (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * step  # (height * width, 2)
    mask = passage.shows(grid, ring).reshape(height, width).astype(np.uint8)
    nine = mask.repeat(3, axis=0).repeat(3, axis=1)  # contours run through the middles of the outermost: nearer so
    contours, _ = cv2.findContours(nine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [low + (cv2.approxPolyDP(contour, 1.5, True)[:, 0] + 0.5) * (step / 3) for contour in contours]
