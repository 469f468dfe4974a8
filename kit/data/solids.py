"""Things as shaded faces in three dimensions: metres, x forward, y left, z up.

A `Mesh` is drawn by painting its faces in order. Solids of one layer are ordered by distance, so a lorry's cab
hides its load or is hidden by it; layers go from the ground up, which is right for whatever looks down on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Colour = tuple[float, float, float]

HEADLIGHT: Colour = (255, 244, 214)
EDGE_M = 0.45  # a straight edge is bent by the lens: it is sampled at least this often
RIGHT, FRONT, LEFT, REAR, TOP = 0, 2, 4, 6, 8  # faces of a solid made by `rounded`


@dataclass(frozen=True)
class Decal:
    """A rectangle painted on one face: u along the face's lower edge (on the top: x), v upwards (on the top: y)."""

    face: int
    u: tuple[float, float]
    v: tuple[float, float]
    colour: Colour
    glows: bool = False


@dataclass(frozen=True)
class Solid:
    """A body between a lower and an upper outline with the same number of corners, counterclockwise from above."""

    lower: np.ndarray  # (P, 2)
    upper: np.ndarray  # (P, 2)
    z: tuple[float, float]
    colour: Colour
    top_colour: Colour | None = None
    decals: tuple[Decal, ...] = ()
    layer: int = 0
    bands: int = 1  # the top is painted as this many strips whose normals fan out, as if it were curved
    anchor: tuple[float, float] | None = None  # stands for the solid when those of one layer are ordered


@dataclass(frozen=True)
class Mesh:
    """All faces of a thing, outlines densely sampled; `starts[i]:starts[i + 1]` are the points of face i."""

    points_m: np.ndarray  # (P, 3)
    starts: np.ndarray  # (F + 1,)
    normals: np.ndarray  # (F, 3)
    colours: np.ndarray  # (F, 3) in 0..255
    glows: np.ndarray  # (F,) bool
    is_decal: np.ndarray  # (F,) bool, lies within another face and adds nothing to the silhouette
    layers: np.ndarray  # (F,)
    anchors_m: np.ndarray  # (F, 3), equal for all faces of a solid
    hulls_m: tuple[np.ndarray, ...]  # (P, 3) each, corners of each solid: what throws the shadow
    footprint_m: np.ndarray  # (4, 2), counterclockwise

    @property
    def has_headlights(self) -> bool:
        """Whether it throws light ahead by night."""
        return bool((self.colours[self.glows] == HEADLIGHT).all(axis=1).any())


def rounded(length: float, width: float, corner: float = 0.04, shift: float = 0.0) -> np.ndarray:
    """A rectangle with cut corners, (8, 2); sides in the order right, front, left, rear with the cuts between."""
    x, y = length / 2, width / 2
    inner_x, inner_y = x - corner, y - corner
    ring = [(-inner_x, -y), (inner_x, -y), (x, -inner_y), (x, inner_y)]
    ring += [(inner_x, y), (-inner_x, y), (-x, inner_y), (-x, -inner_y)]
    return np.array(ring) + np.array([shift, 0.0])


def box(
    length: float,
    width: float,
    z: tuple[float, float],
    colour: Colour,
    *,
    corner: float = 0.04,
    shift: float = 0.0,
    taper: float = 1.0,
    **details: Any,
) -> Solid:
    """A `Solid` on `rounded` outlines, the upper one `taper` times as large."""
    lower = rounded(length, width, corner, shift)
    upper = rounded(length * taper, width * taper, corner * taper, shift)
    return Solid(lower, upper, z, colour, **details)


def outline(corners_m: np.ndarray) -> np.ndarray:
    """corners_m: (P, 3) of a closed polygon -> the same with its edges sampled every `EDGE_M` (Q, 3)."""
    edges = np.concatenate([corners_m[1:], corners_m[:1]]) - corners_m  # (P, 3)
    counts = np.maximum(np.ceil(np.sqrt((edges**2).sum(axis=1)) / EDGE_M).astype(int), 1)  # (P,)
    corner = np.repeat(np.arange(len(counts)), counts)  # (Q,)
    step = np.arange(len(corner)) - np.repeat(np.cumsum(counts) - counts, counts)  # (Q,)
    return corners_m[corner] + edges[corner] * (step / counts[corner])[:, None]


@dataclass(frozen=True)
class _Face:
    corners_m: np.ndarray  # (P, 3)
    normal: np.ndarray  # (3,)
    colour: Colour
    glows: bool
    is_decal: bool


def _normal(corners_m: np.ndarray) -> np.ndarray:
    """Newell's normal of a polygon that need not be quite flat: corners_m (P, 3) -> (3,)."""
    x, y, z = corners_m.T
    u, v, w = np.concatenate([corners_m[1:], corners_m[:1]]).T
    total = np.array([(y * w - z * v).sum(), (z * u - x * w).sum(), (x * v - y * u).sum()])
    return total / max(float(np.sqrt((total**2).sum())), 1e-9)


def _with_height(ring: np.ndarray, z: float) -> np.ndarray:
    return np.column_stack([ring, np.full(len(ring), z)])


def _decal_corners(corners_m: np.ndarray, decal: Decal, is_top: bool) -> np.ndarray:
    """corners_m: of a side (4, 3) lower start, lower end, upper end, upper start, or of a top (P, 3) -> (Q, 3).

    On a top the rectangle is cut off where the top's outline ends.
    """
    (left, right), (low, high) = decal.u, decal.v
    uv = np.array([(left, low), (right, low), (right, high), (left, high)])
    if is_top:
        start, size = corners_m[:, :2].min(axis=0), np.ptp(corners_m[:, :2], axis=0)
        rectangle, ring = (start + uv * size).astype(np.float32), corners_m[:, :2].astype(np.float32)
        _, inside = cv2.intersectConvexConvex(rectangle, ring)  # (Q, 1, 2)
        return _with_height(inside[:, 0].astype(np.float64), corners_m[0, 2])
    a, b, c, d = corners_m
    u, v = uv[:, :1], uv[:, 1:]
    return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)


def _bands(top_m: np.ndarray, count: int, colour: Colour) -> list[_Face]:
    """Strips along x across the top whose normals lean outwards up to 30 degrees."""
    faces = []
    for index in range(count):
        strip = Decal(TOP, (0.02, 0.98), (index / count + 0.02, (index + 1) / count), colour)
        lean = np.deg2rad(30) * (2 * (index + 0.5) / count - 1)
        normal = np.array([0.0, np.sin(lean), np.cos(lean)])
        faces.append(_Face(_decal_corners(top_m, strip, True), normal, colour, False, True))
    return faces


def _faces(solid: Solid) -> list[_Face]:
    """Sides, then top, each followed by what is painted on it."""
    low, high = _with_height(solid.lower, solid.z[0]), _with_height(solid.upper, solid.z[1])
    count = len(low)
    faces = []
    for index in range(count + 1):
        following = (index + 1) % count
        is_top = index == count
        corners = high if is_top else np.stack([low[index], low[following], high[following], high[index]])
        colour = solid.top_colour or solid.colour if is_top else solid.colour
        normal = _normal(corners)
        faces.append(_Face(corners, normal, colour, False, False))
        if is_top and solid.bands > 1:
            faces += _bands(high, solid.bands, colour)
        for decal in solid.decals:
            if decal.face == index:
                painted = _decal_corners(corners, decal, is_top)
                faces.append(_Face(painted, normal, decal.colour, decal.glows, True))
    return faces


def build_mesh(solids: Sequence[Solid]) -> Mesh:
    """All faces of some solids, ready to be placed and projected."""
    faces = [_faces(solid) for solid in solids]
    flat = [face for group in faces for face in group]
    points = [outline(face.corners_m) for face in flat]
    corners = np.concatenate([np.concatenate([solid.lower, solid.upper]) for solid in solids])
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    anchors = [np.append(solid.lower.mean(axis=0) if solid.anchor is None else solid.anchor, 0.0) for solid in solids]
    sizes = [len(group) for group in faces]
    hulls = [
        np.concatenate([_with_height(solid.lower, solid.z[0]), _with_height(solid.upper, solid.z[1])])
        for solid in solids
    ]
    return Mesh(
        points_m=np.concatenate(points),
        starts=np.cumsum([0] + [len(group) for group in points]),
        normals=np.stack([face.normal for face in flat]),
        colours=np.array([face.colour for face in flat], dtype=np.float64),
        glows=np.array([face.glows for face in flat]),
        is_decal=np.array([face.is_decal for face in flat]),
        layers=np.repeat([solid.layer for solid in solids], sizes),
        anchors_m=np.repeat(np.array(anchors), sizes, axis=0),
        hulls_m=tuple(hulls),
        footprint_m=np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),
    )


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    a, b, c = (one * (1 - share) + two * share for one, two in zip(colour, other, strict=True))
    return (a, b, c)


def darker(colour: Colour, share: float) -> Colour:
    """`colour` with `share` of it taken away."""
    return _mixed(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float) -> Colour:
    """`colour` moved towards white by `share`."""
    return _mixed(colour, (255, 255, 255), share)
