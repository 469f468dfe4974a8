"""The places our cameras look at: a junction each, its trees, lamps and houses, and the ground painted from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

LANE_M = 3.2
PAVEMENT_M = 3.2  # width of the pavement, and radius of the kerbs at corners
EXTENT_M = 38.0  # the painted ground reaches this far from the camera on each side
SHIFT = 4  # binary digits behind the point in OpenCV's drawing coordinates
VERGES = ((96, 116, 62), (134, 126, 84), (146, 140, 130))  # grass, dry grass, paving
WHITE, YELLOW = (226, 226, 220), (222, 176, 52)


@dataclass(frozen=True)
class Arm:
    """One road leaving a junction; traffic keeps to the right."""

    angle_rad: float
    lanes: int  # in each direction
    start_m: float  # from the junction's centre to where the markings begin
    has_zebra: bool

    @property
    def direction(self) -> np.ndarray:
        """Unit vector away from the junction (2,)."""
        return np.array([np.cos(self.angle_rad), np.sin(self.angle_rad)])

    @property
    def right(self) -> np.ndarray:
        """Unit vector to the right of `direction` (2,)."""
        return np.array([np.sin(self.angle_rad), -np.cos(self.angle_rad)])

    @property
    def half_width_m(self) -> float:
        """From the centre line to the kerb."""
        return self.lanes * LANE_M + 0.5


@dataclass(frozen=True)
class Site:
    """What one camera number sees, apart from the lens: drawn once from (seed, camera)."""

    centre_m: np.ndarray  # (2,) of the junction; the camera stands at the origin
    arms: tuple[Arm, ...]
    trees_m: np.ndarray  # (P, 2)
    lamps: np.ndarray  # (P, 3) x, y, direction of the arm in radians
    houses: np.ndarray  # (P, 6) x, y, direction, length, width, height
    verge: int  # what lies beyond the pavement: 0 grass, 1 dry grass, 2 paving
    paint_seed: int


def kerb_distance(site: Site, points_m: np.ndarray) -> np.ndarray:
    """points_m: (..., 2) -> metres to the nearest road (...), negative on it; corners of kerbs are not rounded."""
    nearest = np.full(points_m.shape[:-1], np.inf)
    for arm in site.arms:
        offset = points_m - site.centre_m
        along, across = offset @ arm.direction, np.abs(offset @ arm.right)
        nearest = np.minimum(nearest, np.maximum(across - arm.half_width_m, -along - arm.half_width_m))
    return nearest


def make_site(seed: int, camera: int) -> Site:
    """A crossing, a T or a straight road near the camera, with what stands around it."""
    rng = np.random.default_rng([seed, camera, 1])
    turn, away = rng.uniform(0, 2 * np.pi, 2)
    centre = rng.uniform(5.0, 8.5) * np.array([np.cos(away), np.sin(away)])
    bare = Site(
        centre_m=centre,
        arms=_arms(rng, turn),
        trees_m=np.zeros((0, 2)),
        lamps=np.zeros((0, 3)),
        houses=np.zeros((0, 6)),
        verge=int(rng.choice(3, p=[0.6, 0.18, 0.22])),
        paint_seed=int(rng.integers(2**31)),
    )
    return replace(bare, trees_m=_trees(bare, rng), lamps=_lamps(bare), houses=_houses(bare, rng))


def _arms(rng: np.random.Generator, turn: float) -> tuple[Arm, ...]:
    main, side = int(rng.integers(1, 3)), 1
    kind = rng.choice(["crossing", "tee", "straight"], p=[0.55, 0.27, 0.18])
    skew = rng.uniform(-0.2, 0.2)
    angles = [(0.0, main), (np.pi, main)]
    if kind != "straight":
        angles.append((np.pi / 2 + skew, side))
    if kind == "crossing":
        angles.append((-np.pi / 2 + skew, side))
    start = {main: side * LANE_M + 2.5, side: main * LANE_M + 2.5} if kind != "straight" else {main: 0.0}
    if main == side:
        start = {1: LANE_M + 2.5} if kind != "straight" else {1: 0.0}
    zebra = rng.random(len(angles)) < 0.75
    if kind == "straight":
        zebra[1] = False
    return tuple(
        Arm(turn + angle, lanes, start[lanes], bool(flag)) for (angle, lanes), flag in zip(angles, zebra, strict=True)
    )


def _trees(site: Site, rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-28, 28, (60, 2))
    kerb, reach = kerb_distance(site, points), np.linalg.norm(points, axis=1)
    return points[(kerb > 1.6) & (kerb < 9) & (reach > 9)][:6]


def _lamps(site: Site) -> np.ndarray:
    """One on the right of each arm near the junction and one further out."""
    rows = []
    for arm in site.arms:
        for along in (arm.start_m + 3.0, arm.start_m + 21.0):
            x, y = site.centre_m + arm.direction * along + arm.right * (arm.half_width_m + 0.7)
            if np.hypot(x, y) > 3.5:
                rows.append((x, y, np.arctan2(-arm.right[1], -arm.right[0])))
    return np.array(rows).reshape(-1, 3)


def _houses(site: Site, rng: np.random.Generator) -> np.ndarray:
    """Houses far enough out that everything on the roads lies before them."""
    rows = []
    for angle in np.arange(26) / 26 * 2 * np.pi:
        length, width = rng.uniform(8, 15), rng.uniform(7, 11)
        height, reach = rng.uniform(4, 15), rng.uniform(31, 42)
        middle = reach * np.array([np.cos(angle), np.sin(angle)])
        along = site.arms[0].angle_rad
        spots = middle + np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2) * 0.6 * length
        if kerb_distance(site, spots).min() > 1.5 and rng.random() < 0.85:
            rows.append((*middle, along, length, width, height))
    return np.array(rows).reshape(-1, 6)


@dataclass(frozen=True)
class _Ground:
    """A picture of the ground from above: texture pixel = (metres + EXTENT_M) * px_per_m."""

    image: np.ndarray  # (T, T, 3) uint8, painted in place
    px_per_m: float

    def fill(self, corners_m: np.ndarray, colour: tuple[int, ...]) -> None:
        """corners_m: (P, 2)."""
        points = ((corners_m + EXTENT_M) * self.px_per_m - 0.5) * 2**SHIFT
        cv2.fillPoly(self.image, [np.round(points).astype(np.int32)], colour, cv2.LINE_AA, SHIFT)

    def strip(
        self, site: Site, arm: Arm, along: tuple[float, float], across: tuple[float, float], colour: tuple[int, ...]
    ) -> None:
        """A rectangle in the coordinates of an arm."""
        corners = [(along[0], across[0]), (along[1], across[0]), (along[1], across[1]), (along[0], across[1])]
        self.fill(np.array([site.centre_m + arm.direction * s + arm.right * t for s, t in corners]), colour)


def _cloud(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth noise (side, side) float32 with about `cells` bumps on each axis and unit spread."""
    small = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC) * np.float32(1.5)


def _noise(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Grain, and blotches of several sizes; both (side, side) float32 with about unit spread."""
    grain = rng.standard_normal((side, side), dtype=np.float32)
    return grain, _cloud(rng, side, 9) + 0.7 * _cloud(rng, side, 40) + 0.4 * _cloud(rng, side, 170)


def _signed_kerb(site: Site, side: int) -> np.ndarray:
    """Metres outside the road with rounded kerb corners, (side, side) float32; exact from -inf to `PAVEMENT_M`."""
    small, margin = 640, 80  # the distances are wrong near the border of the grid, which is cut off
    scale = small / (2 * EXTENT_M)
    axis = (np.arange(-margin, small + margin) + 0.5) / scale - EXTENT_M
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)  # (small, small, 2)
    wide = (kerb_distance(site, grid) >= PAVEMENT_M + 1.5).astype(np.uint8)
    inside = cv2.distanceTransform(1 - wide, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / np.float32(scale)
    rounded = PAVEMENT_M + 1.5 - inside
    smooth = np.ascontiguousarray(cv2.GaussianBlur(rounded, (0, 0), 1.2)[margin:-margin, margin:-margin])
    return cv2.resize(smooth, (side, side), interpolation=cv2.INTER_LINEAR)


def _step(distance_m: np.ndarray, edge_m: float, px_per_m: float) -> np.ndarray:
    """0 below the edge, 1 above, one texture pixel wide, float32."""
    return np.clip((distance_m - np.float32(edge_m)) * np.float32(px_per_m) + np.float32(0.5), 0, 1)


@dataclass(frozen=True)
class _Layer:
    """One surface: its colour, what is added to all three channels, and where it covers those below."""

    colour: np.ndarray  # (3,)
    texture: np.ndarray  # (T, T)
    cover: np.ndarray  # (T, T) in 0..1


def _stacked(layers: Sequence[_Layer]) -> np.ndarray:
    """Surfaces laid over one another -> (T, T, 3) uint8."""
    texture = layers[0].texture
    planes = [np.full_like(texture, value) for value in layers[0].colour]
    for layer in layers[1:]:
        texture = texture + (layer.texture - texture) * layer.cover
        planes = [plane + (value - plane) * layer.cover for plane, value in zip(planes, layer.colour, strict=True)]
    return cv2.merge([np.clip(plane + texture, 0, 255).astype(np.uint8) for plane in planes])


def _surfaces(site: Site, kerb: np.ndarray, px_per_m: float, rng: np.random.Generator) -> list[_Layer]:
    """Asphalt with a dirty gutter, slabs, verge, and the stones between them; kerb: (T, T) metres."""
    grain, cloud = _noise(rng, len(kerb))
    gutter = np.where(kerb < 0, np.exp(-((kerb + np.float32(0.25)) ** 2) / np.float32(0.08)), np.float32(0))
    asphalt = np.array([96, 97, 100], dtype=np.float32) * np.float32(rng.uniform(0.82, 1.2))
    paving = np.array([160, 154, 146], dtype=np.float32) * np.float32(rng.uniform(0.86, 1.08))
    verge = np.array(VERGES[site.verge], dtype=np.float32)
    rough, patchy = (9.0, 7.0) if site.verge < 2 else (3.5, 3.5)
    stone = np.array([188, 186, 180], dtype=np.float32)
    bands = [
        _step(kerb, low, px_per_m) * (1 - _step(kerb, high, px_per_m))
        for low, high in ((0.0, 0.24), (PAVEMENT_M - 0.28, PAVEMENT_M - 0.14))
    ]
    return [
        _Layer(asphalt, grain * 3 + cloud * 3.5 - gutter * 18, kerb),
        _Layer(paving, grain * 3 + cloud * 3 - _joints(site, len(kerb), px_per_m), _step(kerb, 0.22, px_per_m)),
        _Layer(verge, grain * rough + cloud * patchy, _step(kerb, PAVEMENT_M - 0.2, px_per_m)),
        *(_Layer(stone, grain * 2, band) for band in bands),
    ]


def paint_ground(site: Site, px_per_m: float) -> np.ndarray:
    """Asphalt, kerbs, pavements, verges and road markings as seen from straight above, (T, T, 3) uint8, RGB."""
    rng = np.random.default_rng(site.paint_seed)
    kerb = _signed_kerb(site, round(2 * EXTENT_M * px_per_m))
    plain = _stacked(_surfaces(site, kerb, px_per_m, rng))
    ground = _Ground(plain.copy(), px_per_m)
    _wear(site, ground, rng)
    _markings(site, ground, rng)
    return _faded(plain, ground.image, rng)


def _joints(site: Site, side: int, px_per_m: float) -> np.ndarray:
    """Dark lines between paving slabs laid along the main road, (side, side) float32."""
    axis = ((np.arange(side) + 0.5) / px_per_m).astype(np.float32)
    turn = site.arms[0].angle_rad
    u = axis[None] * np.float32(np.cos(turn)) + axis[:, None] * np.float32(np.sin(turn))
    v = axis[:, None] * np.float32(np.cos(turn)) - axis[None] * np.float32(np.sin(turn))
    return np.where((np.mod(u, 0.8) < 0.06) | (np.mod(v, 0.8) < 0.06), np.float32(22), np.float32(0))


def _faded(plain: np.ndarray, painted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint worn away in blotches: a mixture of the ground with and without it."""
    side = len(plain)
    worn = np.clip(0.78 + 0.13 * _cloud(rng, side, 60) + 0.1 * _cloud(rng, side, 300), 0.25, 0.97)
    mixed = (painted.astype(np.float32) - plain) * cv2.merge([worn, worn, worn]) + plain
    return cv2.convertScaleAbs(mixed)


def _wear(site: Site, ground: _Ground, rng: np.random.Generator) -> None:
    """Wheel tracks, repaired patches, manhole covers and oil in every lane."""
    for arm in site.arms:
        for lane in range(-arm.lanes, arm.lanes):
            middle = (lane + 0.5) * LANE_M
            for _ in range(2):
                along, across = rng.uniform(arm.start_m, 34), middle + rng.uniform(-0.8, 0.8)
                size = rng.uniform(0.8, 4.0), rng.uniform(0.3, 0.8)
                shade = int(rng.integers(64, 88))
                ground.strip(
                    site, arm, (along, along + size[0]), (across - size[1], across + size[1]), (shade, shade, shade)
                )
            spot = site.centre_m + arm.direction * rng.uniform(2, 30) + arm.right * middle
            _disc(ground, spot, 0.42, (70, 68, 66))
            _disc(ground, spot, 0.34, (88, 86, 84))


def _disc(ground: _Ground, centre_m: np.ndarray, radius_m: float, colour: tuple[int, ...]) -> None:
    turn = np.arange(24) / 24 * 2 * np.pi
    ground.fill(centre_m + radius_m * np.stack([np.cos(turn), np.sin(turn)], axis=1), colour)


def _markings(site: Site, ground: _Ground, rng: np.random.Generator) -> None:
    centre_colour = YELLOW if rng.random() < 0.5 else WHITE
    for arm in site.arms:
        begin = arm.start_m
        if arm.has_zebra:
            _zebra(site, ground, arm, begin)
            begin += 4.4
        if arm.start_m > 0:
            ground.strip(site, arm, (begin + 0.3, begin + 0.75), (-arm.half_width_m + 0.4, -0.2), WHITE)
        for offset in (-0.15, 0.15):
            ground.strip(site, arm, (begin, 70), (offset - 0.07, offset + 0.07), centre_colour)
        for lane in range(1, arm.lanes):
            for sign in (-1, 1):
                for along in np.arange(begin + 1, 60, 4.5):
                    line = sign * lane * LANE_M
                    ground.strip(site, arm, (along, along + 2.2), (line - 0.07, line + 0.07), WHITE)
        for sign in (-1, 1):
            edge = sign * (arm.half_width_m - 0.3)
            ground.strip(site, arm, (begin, 70), (edge - 0.06, edge + 0.06), WHITE)
        if arm.start_m > 0:
            for lane in range(arm.lanes):
                _arrow(site, ground, arm, begin + 3.5, -(lane + 0.5) * LANE_M)


def _zebra(site: Site, ground: _Ground, arm: Arm, begin: float) -> None:
    count = int((2 * arm.half_width_m - 0.6) / 0.95)
    for index in range(count):
        across = -arm.half_width_m + 0.5 + index * 0.95
        ground.strip(site, arm, (begin + 0.4, begin + 3.6), (across, across + 0.5), WHITE)


def _arrow(site: Site, ground: _Ground, arm: Arm, along: float, across: float) -> None:
    """A straight-on arrow that points to the junction."""
    ground.strip(site, arm, (along + 1.0, along + 3.0), (across - 0.08, across + 0.08), WHITE)
    corners = [(along, across), (along + 1.1, across - 0.32), (along + 1.1, across + 0.32)]
    ground.fill(np.array([site.centre_m + arm.direction * s + arm.right * t for s, t in corners]), WHITE)
