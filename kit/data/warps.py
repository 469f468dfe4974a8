"""Warps: maps from picture to picture, for pixels and labels alike.

Points are continuous: (0, 0) is the corner of the first pixel and (0.5, 0.5) its middle. A `Warp` knows both ways:
pixels are fetched from target to source, labels go from source to target, densely sampled along their outlines.
`python -m kit.data.warp_check` measures how well the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from kit.data.fisheye import FISHEYES, Lens, fisheye_lens, middle_px, pinhole, tilted
from kit.data.outlines import Bent, Map, Outline, Passage, Window, bend, box_rings, ellipse_rings
from kit.data.picture import MIN_VISIBLE, Picture, Size, large_enough

Shape = Literal["rectangle", "ellipse"]  # what a box without an outline is taken for

KNOTS_PX = 8  # where pixels are fetched from is worked out every so many pixels, and between them linearly
FETCH_PX = 0.1  # if that is no further off than this; else for each pixel
UNSEEN_PX = -1e4  # pixels fetched from here are black
SHRINKS = 1.5  # from so many pixels of the source to one of the target on, the source is made smaller first
NEWTON_STEPS = 60
LEAST_SLOPE = 0.01  # of a radial distortion: below, a hundred pixels would become one


@dataclass(frozen=True)
class Warp:
    """A pair of maps between a source picture and a target of size_hw. Make one by the functions below.

    forward and backward give points (..., 2) and whether they are seen (...); those that are not are pulled onto the
    rim of what is seen (see kit.data.outlines). matrix: (2, 3) of forward, where the warp is affine.
    """

    forward: Map
    backward: Map
    size_hw: Size
    matrix: np.ndarray | None = None

    def to_target(self, points_px: np.ndarray) -> np.ndarray:
        """Source to target: (..., 2) -> (..., 2), NaN where nothing is seen."""
        return _or_nan(*self.forward(np.asarray(points_px, np.float64)))

    def to_source(self, points_px: np.ndarray) -> np.ndarray:
        """Target to source: (..., 2) -> (..., 2), NaN where nothing is seen."""
        return _or_nan(*self.backward(np.asarray(points_px, np.float64)))

    def then(self, after: "Warp") -> "Warp":
        """Both as one, so that pixels are resampled once. What lies outside of the picture between is not lost."""
        if self.matrix is not None and after.matrix is not None:
            return affine((_square(after.matrix) @ _square(self.matrix))[:2], after.size_hw)
        return Warp(_chained(self.forward, after.forward), _chained(after.backward, self.backward), after.size_hw)

    def inverse(self, size_hw: Size) -> "Warp":
        """The way back, to a picture of size_hw."""
        matrix = None if self.matrix is None else np.linalg.inv(_square(self.matrix))[:2]
        return Warp(self.backward, self.forward, size_hw, matrix)


def _or_nan(points: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    return np.where(is_seen[..., None], points, np.nan)


def _chained(first: Map, second: Map) -> Map:
    def both(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        between, is_seen = first(points)
        end, is_seen_still = second(between)
        return end, is_seen & is_seen_still

    return both


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.concatenate([matrix, [[0.0, 0.0, 1.0]]])


# --- affine warps ---


def affine(matrix: np.ndarray, size_hw: Size) -> Warp:
    """matrix: (2, 3), target = matrix @ (x, y, 1) of the source."""
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (2, 3) or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        raise ValueError(f"affine: expected an invertible (2, 3) matrix, got {matrix.tolist()}")
    return Warp(_affine_map(matrix), _affine_map(np.linalg.inv(_square(matrix))[:2]), size_hw, matrix)


def _affine_map(matrix: np.ndarray) -> Map:
    return lambda points: (points @ matrix[:, :2].T + matrix[:, 2], np.ones(points.shape[:-1], bool))


def rotation(angle_deg: float, size_hw: Size, centre_px: tuple[float, float] | None = None) -> Warp:
    """Counter-clockwise around the optical centre (default: the middle); the size stays."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn = np.array([[cos, sin], [-sin, cos]])  # y points down
    centre = np.array(centre_px or middle_px(size_hw))
    return affine(np.column_stack([turn, centre - turn @ centre]), size_hw)


def zoom(ratio: float, size_hw: Size, centre_px: tuple[float, float] | None = None) -> Warp:
    """Larger by `ratio` around a centre (default: the middle); the size of the picture stays."""
    centre = np.array(centre_px or middle_px(size_hw))
    return affine(np.column_stack([np.eye(2) * ratio, centre * (1 - ratio)]), size_hw)


def show_window(window: Window, size_hw: Size) -> Warp:
    """What the window shows, stretched to size_hw: crop, shift, zoom and resize in one."""
    x0, y0, x1, y1 = window
    scale = np.array([size_hw[1] / (x1 - x0), size_hw[0] / (y1 - y0)])
    return affine(np.column_stack([np.diag(scale), -scale * [x0, y0]]), size_hw)


def mirror(size_hw: Size) -> Warp:
    """Left becomes right."""
    return affine(np.array([[-1.0, 0, size_hw[1]], [0, 1, 0]]), size_hw)


def upside_down(size_hw: Size) -> Warp:
    """Top becomes bottom."""
    return affine(np.array([[1.0, 0, 0], [0, -1, size_hw[0]]]), size_hw)


def quarter_turn(size_hw: Size, turns: int = 1) -> Warp:
    """Counter-clockwise, so many times; size_hw: of the source."""
    warp = affine(np.eye(2, 3), size_hw)
    for _ in range(turns % 4):
        height, width = warp.size_hw
        warp = warp.then(affine(np.array([[0.0, 1, 0], [-1, 0, width]]), (width, height)))
    return warp


# --- lenses ---


def between_lenses(source: Lens, target: Lens, size_hw: Size, rotation: np.ndarray | None = None) -> Warp:
    """What the target lens would have seen of what the source lens saw, from the same place.

    rotation: (3, 3), from rays of the source to rays of the target (`kit.data.fisheye.tilted`). Perspective to fisheye
    and back, a change of the lens and a turn of the camera are all this one.
    """
    turn = np.eye(3) if rotation is None else rotation

    def forward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _through(points, source, target, turn)

    def backward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _through(points, target, source, turn.T)

    return Warp(forward, backward, size_hw)


def _through(points: np.ndarray, first: Lens, last: Lens, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image points of one lens -> those of another; what one of them does not see is pulled onto its image circle."""
    offset = points - np.array(first.centre_px)  # (..., 2)
    radius = np.hypot(offset[..., 0], offset[..., 1])
    is_in_first = radius <= first.circle_px
    pull = first.circle_px / np.maximum(radius, first.circle_px)
    rays = first.rays(np.array(first.centre_px) + offset * pull[..., None]) @ turn.T  # (..., 3)

    planar = np.hypot(rays[..., 0], rays[..., 1])
    angle = np.arctan2(planar, rays[..., 2])
    is_in_last = angle <= last.field_rad
    radius = last.focal_px * last.projection.radius(np.minimum(angle, last.field_rad))
    moved = rays[..., :2] * (radius / np.maximum(planar, 1e-12))[..., None] + np.array(last.centre_px)
    return moved, is_in_first & is_in_last


def radial(
    coefficients: Sequence[float],
    size_hw: Size,
    centre_px: tuple[float, float] | None = None,
    focal_px: float | None = None,
) -> Warp:
    """Radial distortion: a point at radius r goes to r (1 + k1 r^2 + k2 r^4 + ...), r in focal_px; the size stays.

    focal_px: half the diagonal by default, so that k1 = -0.1 draws the corners in by a tenth. The way back is found
    by Newton's method. ValueError where the picture would fold over itself.
    """
    centre = np.array(centre_px or middle_px(size_hw))
    unit = focal_px or float(np.hypot(*size_hw)) / 2
    powers = np.array([1.0, *coefficients])  # of r^1, r^3, r^5, ...
    farthest = max(np.hypot(*(np.array([x, y]) - centre)) for x in (0, size_hw[1]) for y in (0, size_hw[0])) / unit
    limit = _monotone_until(powers, 2 * farthest)
    if limit < farthest:
        raise ValueError(
            f"radial: expected coefficients under which the radius grows up to the corners, r = {farthest:.3f}, got "
            f"{list(coefficients)}, which turn back at r = {limit:.3f}; take smaller ones"
        )

    def forward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius, offset = _polar(points, centre, unit)
        inside = np.minimum(radius, limit)
        ratio = _distorted(inside, powers) / np.maximum(radius, 1e-12)
        return centre + offset * np.where(radius > 0, ratio, 1.0)[..., None], radius <= limit

    def backward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius, offset = _polar(points, centre, unit)
        reach = float(_distorted(np.asarray(limit), powers))
        ratio = _undistorted(np.minimum(radius, reach), powers, limit) / np.maximum(radius, 1e-12)
        return centre + offset * np.where(radius > 0, ratio, 1.0)[..., None], radius <= reach

    return Warp(forward, backward, size_hw)


def _polar(points: np.ndarray, centre: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """(..., 2) -> radius (...) in units, offset (..., 2) in pixels."""
    offset = points - centre
    return np.hypot(offset[..., 0], offset[..., 1]) / unit, offset


def _distorted(radius: np.ndarray, powers: np.ndarray) -> np.ndarray:
    square, total = radius**2, np.zeros_like(radius)
    for power in powers[::-1]:
        total = total * square + power
    return total * radius


def _slope(radius: np.ndarray, powers: np.ndarray) -> np.ndarray:
    return _distorted(radius, powers * (2 * np.arange(len(powers)) + 1)) / np.maximum(radius, 1e-12)


def _monotone_until(powers: np.ndarray, farthest: float) -> float:
    """The radius, at most `farthest`, up to which the distorted one grows with it by LEAST_SLOPE or more."""
    radius = np.linspace(0, farthest, 4097)  # so close that the slope cannot dip to zero between two of them
    stops = _slope(radius[1:], powers) < LEAST_SLOPE
    return float(radius[stops.argmax()] if stops.any() else farthest)


def _undistorted(radius: np.ndarray, powers: np.ndarray, limit: float) -> np.ndarray:
    """The inverse of `_distorted` on [0, limit], where it grows: Newton's steps, halves where one leaves."""
    low, high = np.zeros_like(radius), np.full_like(radius, limit)
    guess = np.minimum(radius, limit)
    for _ in range(NEWTON_STEPS):
        error = _distorted(guess, powers) - radius
        if np.abs(error).max(initial=0) < 1e-13:
            break
        low, high = np.where(error < 0, guess, low), np.where(error > 0, guess, high)
        step = guess - error / np.maximum(_slope(guess, powers), 1e-9)
        guess = np.where((step > low) & (step < high), step, (low + high) / 2)
    return guess


# --- pixels ---


def warp_image(image: np.ndarray, warp: Warp) -> np.ndarray:
    """Bilinear, from the source once; black where nothing is seen. (H, W, C) uint8 -> (*warp.size_hw, C) uint8."""
    height, width = warp.size_hw
    if warp.matrix is not None:
        shrinks = 1 / np.sqrt(abs(np.linalg.det(warp.matrix[:, :2])))
        small, scale = _made_smaller(image, float(shrinks))
        to_middles = warp.matrix[:, :2] / scale  # OpenCV puts (0, 0) at the middle of the first pixel
        shift = warp.matrix[:, 2] + to_middles @ np.array([0.5, 0.5]) - 0.5
        moved = cv2.warpAffine(small, np.column_stack([to_middles, shift]), (width, height), flags=cv2.INTER_LINEAR)
    else:
        places, shrinks = fetch_places(warp, (image.shape[0], image.shape[1]))
        small, scale = _made_smaller(image, shrinks)
        places = places * scale.astype(np.float32) - np.float32(0.5)
        moved = cv2.remap(small, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[call-overload]
    return moved.reshape(height, width, image.shape[2])


def _made_smaller(image: np.ndarray, shrinks: float) -> tuple[np.ndarray, np.ndarray]:
    """The image averaged as far as the warp shrinks it everywhere, and by how much: (2,) x, y."""
    height, width = image.shape[:2]
    if shrinks < SHRINKS:
        return image, np.ones(2)
    size_wh = max(1, round(width / shrinks)), max(1, round(height / shrinks))
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA).reshape(size_wh[1], size_wh[0], -1)
    return small, np.array(size_wh) / [width, height]


def fetch_places(warp: Warp, source_hw: Size) -> tuple[np.ndarray, float]:
    """Where in the source the middle of each pixel is fetched from, and how many of its pixels lie along one, at least.

    -> (H, W, 2) float32, UNSEEN_PX where nothing is seen. Worked out on knots and linear between them; pixel by pixel
    along the rims and where that would be off by more than FETCH_PX.
    """
    x, y = (np.arange(max(2, -(-side // KNOTS_PX) + 1)) * KNOTS_PX + 0.5 for side in warp.size_hw[::-1])
    knots, is_seen = _fetched(warp, np.stack(np.meshgrid(x, y), axis=-1), source_hw)  # (h, w, 2), (h, w)
    four = [(slice(j, len(y) - 1 + j), slice(i, len(x) - 1 + i)) for i in (0, 1) for j in (0, 1)]
    counts = np.sum([is_seen[corner] for corner in four], axis=0)  # of the cells between (h - 1, w - 1)
    inner = np.nonzero(counts == 4)
    middles = np.stack([x[inner[1]], y[inner[0]]], axis=-1) + KNOTS_PX / 2  # (V, 2)
    means = np.mean([knots[corner][inner] for corner in four], axis=0)  # (V, 2)
    off_px = np.abs(_fetched(warp, middles, source_hw)[0] - means).max(axis=1)  # (V,)

    is_exact = (counts > 0) & (counts < 4)
    is_exact[inner] = off_px > FETCH_PX
    places = _between_knots(knots, warp.size_hw)
    places[~_of_pixels(counts == 4, warp.size_hw)] = UNSEEN_PX
    rows, columns = np.nonzero(_of_pixels(is_exact, warp.size_hw))
    found, is_seen = _fetched(warp, np.stack([columns, rows], axis=-1) + 0.5, source_hw)
    places[rows, columns] = np.where(is_seen[:, None], found, UNSEEN_PX)
    return places, _least_shrink(knots, inner)


def _between_knots(knots: np.ndarray, size_hw: Size) -> np.ndarray:
    """(h, w, 2) -> (H, W, 2) float32."""
    shares = np.array([[1 / KNOTS_PX, 0, 0], [0, 1 / KNOTS_PX, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(knots.astype(np.float32), shares, size_hw[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _fetched(warp: Warp, points: np.ndarray, source_hw: Size) -> tuple[np.ndarray, np.ndarray]:
    """(..., 2) -> (..., 2), and whether there is something of the source, with a pixel around it."""
    places, is_seen = warp.backward(points)
    return places, is_seen & ((places >= -1) & (places <= np.array(source_hw[::-1]) + 1)).all(axis=-1)


def _of_pixels(is_so: np.ndarray, size_hw: Size) -> np.ndarray:
    """Of cells between knots -> of their pixels (H, W)."""
    return is_so.repeat(KNOTS_PX, axis=0)[: size_hw[0]].repeat(KNOTS_PX, axis=1)[:, : size_hw[1]]


def _least_shrink(knots: np.ndarray, inner: tuple[np.ndarray, ...]) -> float:
    """Pixels of the source along one of the target, where these are fewest."""
    along_x, along_y = (knots[:-1, 1:] - knots[:-1, :-1])[inner], (knots[1:, :-1] - knots[:-1, :-1])[inner]  # (V, 2)
    areas_px2 = np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]) / KNOTS_PX**2
    return float(np.sqrt(np.quantile(areas_px2, 0.05))) if len(areas_px2) else 1.0


# --- labels ---


def passage(warp: Warp, source_hw: Size) -> Passage:
    (height, width), (to_height, to_width) = source_hw, warp.size_hw
    return Passage(warp.forward, warp.backward, (0, 0, width, height), (0, 0, to_width, to_height))


def warp_boxes(boxes_xyxy_px: np.ndarray, warp: Warp, source_hw: Size, shape: Shape = "rectangle") -> Bent:
    """The tightest boxes around the warped boxes, as far as these are seen: (N, 4) -> N of `Bent`, without outlines.

    shape: rectangle for the whole box; ellipse for the ellipse in it, which is nearer to what vehicles and people look
    like, so that a turned box grows less.
    """
    return bend([[ring] for ring in rings_of(boxes_xyxy_px, shape)], passage(warp, source_hw), with_outlines=False)


def warp_outlines(outlines: Sequence[Outline], warp: Warp, source_hw: Size) -> Bent:
    """Warped outlines, cut where they leave what is seen, and the tightest boxes around them."""
    return bend(outlines, passage(warp, source_hw))


def warp_picture(picture: Picture, warp: Warp, shape: Shape = "rectangle", keep_shapes: bool = False) -> Picture:
    """Pixels and objects. Boxes come from the outlines where these are known, else from `shape`.

    Objects with less than MIN_VISIBLE of their area left, or too small, are dropped. keep_shapes: what a box was taken
    for becomes the object's outline, so that a later cut through a turned box finds the tightest box too.
    """
    outlines = picture.outlines or [None] * len(picture.labels)
    shapes = [[ring] for ring in rings_of(picture.boxes_xyxy_px, shape)]
    bent = warp_outlines([known or guess for known, guess in zip(outlines, shapes, strict=True)], warp, picture.size_hw)
    moved = [
        part if part and (known or keep_shapes) else None for known, part in zip(outlines, bent.outlines, strict=True)
    ]
    kept = moved if keep_shapes or picture.outlines else None
    result = Picture(warp_image(picture.image, warp), bent.boxes_xyxy_px, picture.labels, kept)
    return large_enough(result.only(bent.shares >= MIN_VISIBLE))


def rings_of(boxes_xyxy_px: np.ndarray, shape: Shape) -> list[np.ndarray]:
    """(N, 4) -> N rings (P, 2)."""
    if shape not in get_args(Shape):
        raise ValueError(f"shape: expected rectangle or ellipse, got {shape!r}")
    return box_rings(boxes_xyxy_px) if shape == "rectangle" else ellipse_rings(boxes_xyxy_px)


# --- chance ---


def random_rotation(size_hw: Size, rng: np.random.Generator, largest_deg: float) -> Warp:
    """Up to largest_deg to either side; 180 is every direction."""
    return rotation(rng.uniform(-largest_deg, largest_deg), size_hw)


def random_fisheye(size_hw: Size, rng: np.random.Generator) -> Warp:
    """A perspective picture of 60 to 110 degrees across, seen by a fisheye that looks up to 20 degrees past its middle.

    The fisheye's focal length keeps the picture about as large as it was.
    """
    source = pinhole(size_hw, rng.uniform(60, 110))
    projection = FISHEYES[int(rng.integers(len(FISHEYES)))]
    edge_rad = np.arctan(min(size_hw) / 2 / source.focal_px)
    focal_px = min(size_hw) / 2 * rng.uniform(0.9, 1.2) / projection.radius(edge_rad)
    turn = tilted(np.deg2rad(rng.uniform(0, 20)), rng.uniform(0, 2 * np.pi))
    return between_lenses(
        source, Lens(projection, float(focal_px), source.centre_px, projection.widest_rad), size_hw, turn
    )


def random_lens(size_hw: Size, rng: np.random.Generator) -> Warp:
    """A fisheye picture of 130 to 180 degrees, as a fisheye of another projection would have drawn it."""
    first, last = rng.permutation(len(FISHEYES))[:2].tolist()
    field_deg = rng.uniform(130, 180)
    source = fisheye_lens(FISHEYES[first], size_hw, field_deg)
    target = fisheye_lens(FISHEYES[last], size_hw, field_deg * rng.uniform(0.9, 1.1))
    return between_lenses(source, target, size_hw)


def random_radial(size_hw: Size, rng: np.random.Generator) -> Warp:
    """Barrel or pincushion distortion, zoomed so that the middles of the longer sides stay where they are."""
    coefficients = [rng.uniform(-0.2, 0.25), rng.uniform(-0.04, 0.04)]
    warp = radial(coefficients, size_hw)
    half_px = min(size_hw) / 2
    side = np.array(middle_px(size_hw)) + (
        np.array([0, half_px]) if size_hw[0] <= size_hw[1] else np.array([half_px, 0])
    )
    reach_px = np.abs(warp.to_target(side) - middle_px(size_hw)).max()
    return warp.then(zoom(half_px / reach_px, size_hw))
