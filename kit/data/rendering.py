"""Painting a scene: the backdrop of a camera, then shadows, things from far to near, light, glow and grain.

Outlines are painted twice as fine as the picture and averaged. All colours are RGB in 0..255 until the last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from kit.data.fisheye import Camera, Lens
from kit.data.road_users import house
from kit.data.roads import EXTENT_M, Site, paint_ground
from kit.data.solids import Mesh, outline
from kit.data.traffic import turned

FINE = 3  # things are painted this many times as fine as shown: hard edges that are then averaged stay exact,
# while OpenCV's soft edges (LINE_AA) make every polygon about a pixel wider
BACKDROP_FINE = 2
SHIFT = 4  # binary digits behind the point in OpenCV's drawing coordinates
GRAIN_OFFSETS = 97
GROUND_PX_PER_M = 20 / 640  # of the ground's texture, for each pixel of the picture's side
HAZE = np.array([205, 212, 220], dtype=np.float32)
WINDOW_LIGHT = np.array([255, 206, 128], dtype=np.float32)
WALLS = ((176, 158, 138), (154, 120, 100), (188, 182, 172), (134, 138, 146), (198, 176, 140))


@dataclass(frozen=True)
class Light:
    """What shines on one picture."""

    tint: np.ndarray  # (3,) factor for what is lit by the sky alone
    sun: np.ndarray  # (3,) towards the sun
    sun_strength: float  # 0 under clouds and after sunset
    lamp_strength: float  # street lamps and headlights, 0 by day
    grain: float  # spread of the noise, in grey levels


def make_light(letter: str, rng: np.random.Generator) -> Light:
    """M: a sun in the east, A: in the west, either may be overcast; E: dusk, lamps on; N: night."""
    azimuth = rng.uniform(-0.9, 0.9) + (0.0 if letter == "M" else np.pi)
    height = rng.uniform(0.65, 1.1)
    sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    if letter == "E":
        tint = np.array([0.50, 0.46, 0.52]) * rng.uniform(0.85, 1.2)
        return Light(tint, sun, 0.0, 0.45, rng.uniform(2.5, 5))
    if letter == "N":
        tint = np.array([0.23, 0.24, 0.29]) * rng.uniform(0.8, 1.25)
        return Light(tint, sun, 0.0, rng.uniform(0.8, 1.1), rng.uniform(4, 7.5))
    warm = np.array([1.03, 1.0, 0.95]) if letter == "M" else np.array([1.02, 1.0, 0.98])
    strength = 0.0 if rng.random() < 0.3 else rng.uniform(0.75, 1.0)
    return Light(warm * rng.uniform(0.88, 1.08), sun, strength, 0.0, rng.uniform(1.0, 2.2))


@dataclass(frozen=True)
class Thing:
    """A mesh that stands somewhere on the ground."""

    mesh: Mesh
    position_m: np.ndarray  # (2,)
    heading_rad: float

    @property
    def footprint_m(self) -> np.ndarray:
        """(4, 2)."""
        return turned(self.mesh.footprint_m, self.heading_rad) + self.position_m

    def world(self, points_m: np.ndarray) -> np.ndarray:
        """points_m: (..., 3) of the mesh -> where they are in the world (..., 3)."""
        ground = turned(points_m[..., :2], self.heading_rad) + self.position_m
        return np.concatenate([ground, points_m[..., 2:]], axis=-1)


@dataclass(frozen=True)
class Seen:
    """The faces of a thing that are turned to the camera, in painting order."""

    thing: Thing
    points_px: np.ndarray  # (P, 2) of all faces
    spans: list[tuple[int, int]]  # of the points of each face
    colours: np.ndarray  # (F, 3)
    glow: np.ndarray  # (F, 3), zero where a face does not glow
    is_decal: np.ndarray  # (F,)

    @property
    def body(self) -> list[tuple[int, int]]:
        """The spans of the faces that make up the silhouette."""
        return [span for span, painted in zip(self.spans, self.is_decal, strict=True) if not painted]


def look(thing: Thing, camera: Camera, light: Light) -> Seen:
    """Project a thing, drop the faces turned away, sort and shade the others."""
    mesh = thing.mesh
    eye = np.array([0.0, 0.0, camera.height_m])
    points_m = thing.world(mesh.points_m)
    normals = np.concatenate([turned(mesh.normals[:, :2], thing.heading_rad), mesh.normals[:, 2:]], axis=1)
    to_eye = eye - points_m[mesh.starts[:-1]]
    distance = np.linalg.norm(thing.world(mesh.anchors_m) - eye, axis=1)
    order = np.lexsort((np.arange(len(normals)), -np.round(distance, 6), mesh.layers))
    towards_eye = np.einsum("fc,fc->f", normals, to_eye)  # (F,)
    order = order[towards_eye[order] > 1e-6]
    points_px = camera.project(points_m)
    return Seen(
        thing=thing,
        points_px=points_px,
        spans=list(zip(mesh.starts[order].tolist(), mesh.starts[order + 1].tolist(), strict=True)),
        colours=_shaded(mesh.colours, normals, to_eye, light)[order],
        glow=(mesh.colours * mesh.glows[:, None])[order],
        is_decal=mesh.is_decal[order],
    )


def _shaded(colours: np.ndarray, normals: np.ndarray, to_eye: np.ndarray, light: Light) -> np.ndarray:
    """Sky from above, sun from its side, and a gleam where the sun is mirrored; all arrays (F, 3)."""
    sky = 0.74 + 0.26 * normals[:, 2]
    facing = np.maximum(normals @ light.sun, 0)
    sunny = 0.55 * sky + 0.62 * facing
    brightness = (1 - light.sun_strength) * sky + light.sun_strength * sunny
    half = light.sun + to_eye / np.linalg.norm(to_eye, axis=1, keepdims=True)
    half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-9)
    gleam = light.sun_strength * 70 * np.maximum((normals * half).sum(axis=1), 0) ** 40
    return np.clip(colours * brightness[:, None] + gleam[:, None], 0, 255)


def fixed(points_px: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """points_px: (P, 2) continuous -> OpenCV's fixed point, whose whole numbers are centres of pixels (P, 2) int32."""
    return np.round((points_px * scale - 0.5) * 2**SHIFT).astype(np.int32)


def fill(canvas: np.ndarray, points_px: np.ndarray, colour: Sequence[float], scale: float = 1.0) -> None:
    """Fill a polygon with soft edges; points_px: (P, 2)."""
    cv2.fillPoly(canvas, [fixed(points_px, scale)], colour, cv2.LINE_AA, SHIFT)


def paint(
    canvas: np.ndarray, points: np.ndarray, spans: Iterable[tuple[int, int]], colours: Iterable[Sequence[float]]
) -> None:
    """Fill the polygons points[start:end] in order, each in its colour; points: (P, 2) as `fixed` gives them."""
    for (start, end), colour in zip(spans, colours, strict=True):
        cv2.fillPoly(canvas, [points[start:end]], colour, cv2.LINE_8, SHIFT)


def spread(plane: np.ndarray) -> np.ndarray:
    """plane: (H, W) -> the same in three channels (H, W, 3); numpy multiplies that far faster than (H, W, 1)."""
    return cv2.merge([plane, plane, plane])


def pixel_centres(size_px: int, scale: int = 1) -> np.ndarray:
    """Centres of a picture `scale` times as fine, in the pixels of the picture (H, W, 2)."""
    axis = (np.arange(size_px * scale) + 0.5) / scale
    return np.stack(np.meshgrid(axis, axis), axis=-1)


@dataclass(frozen=True)
class Backdrop:
    """What a camera sees when the road is empty."""

    ground: np.ndarray  # (H, W, 3) uint8
    windows: np.ndarray  # (H, W, 3) uint8, the light of windows at night
    lamps: np.ndarray  # (H / 4, W / 4) float32, light of the street lamps
    vignette: np.ndarray  # (H, W) float32, 0 outside the image circle


def make_backdrop(site: Site, camera: Camera, size_px: int) -> Backdrop:
    """Ground, haze, sky and houses; the slow part, needed once per camera."""
    centres = pixel_centres(size_px, BACKDROP_FINE)
    ground_m = camera.ground(centres)  # (H, W, 2)
    picture = _warped_ground(site, ground_m, size_px)
    windows = np.zeros_like(picture)
    for seen in _houses(site, camera):
        points = fixed(seen.points_px, BACKDROP_FINE)
        paint(picture, points, seen.spans, (seen.colours * 0.85 + HAZE * 0.15).tolist())
        is_lit = seen.glow.max(axis=1, keepdims=True) > 0
        paint(windows, points, seen.spans, np.where(is_lit, WINDOW_LIGHT, 0.0).tolist())
    shown = (size_px, size_px)
    return Backdrop(
        ground=cv2.resize(picture, shown, interpolation=cv2.INTER_AREA),
        windows=cv2.resize(windows, shown, interpolation=cv2.INTER_AREA),
        lamps=_street_lamps(site, ground_m[:: 4 * BACKDROP_FINE, :: 4 * BACKDROP_FINE]),
        vignette=_vignette(camera.lens, size_px),
    )


def _street_lamps(site: Site, ground_m: np.ndarray) -> np.ndarray:
    """Pools of light under the lamps of a site; ground_m: (H, W, 2) -> (H, W) float32."""
    lit = np.zeros(ground_m.shape[:2])
    for x, y, _ in site.lamps:
        lit += 0.7 / (1 + ((ground_m - (x, y)) ** 2).sum(axis=-1) / 49) ** 2
    return (lit / (1 + 0.6 * lit)).astype(np.float32)


def _warped_ground(site: Site, ground_m: np.ndarray, size_px: int) -> np.ndarray:
    """ground_m: (H, W, 2) -> the painted ground with a coarser copy far away, haze and sky (H, W, 3) uint8."""
    px_per_m = GROUND_PX_PER_M * size_px
    texture = paint_ground(site, px_per_m)
    coarse = cv2.resize(texture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    reach = np.linalg.norm(np.where(np.isinf(ground_m), 1e4, ground_m), axis=-1).astype(np.float32)
    near, far = (_remap(image, ground_m) for image in (texture, coarse))
    coarseness = np.clip((reach - 14) / 12, 0, 1)[..., None]
    haze = np.clip((reach - 24) / 80, 0, 1)[..., None] ** 0.7
    picture = near + (far - near) * coarseness
    return np.clip(picture + (HAZE - picture) * haze, 0, 255).astype(np.uint8)


def _remap(texture: np.ndarray, ground_m: np.ndarray) -> np.ndarray:
    """Read a ground picture at places in metres (H, W, 2) -> (H, W, 3) float32."""
    px_per_m = len(texture) / (2 * EXTENT_M)
    places = np.clip((np.where(np.isinf(ground_m), 1e4, ground_m) + EXTENT_M) * px_per_m - 0.5, -2, len(texture) + 1)
    x, y = np.moveaxis(places.astype(np.float32), -1, 0)
    warped = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.float32)


def _houses(site: Site, camera: Camera) -> Iterable[Seen]:
    """From far to near, in soft light."""
    rng = np.random.default_rng(site.paint_seed)
    soft = Light(np.ones(3), np.array([0.5, 0.3, 0.81]), 0.45, 0.0, 0.0)
    things = []
    for x, y, direction, length, width, height in site.houses:
        mesh = house(length, width, height, WALLS[rng.integers(len(WALLS))], rng)
        things.append(Thing(mesh, np.array([x, y]), direction))
    things.sort(key=lambda thing: -float(np.hypot(*thing.position_m)))
    return (look(thing, camera, soft) for thing in things)


def _vignette(lens: Lens, size_px: int) -> np.ndarray:
    """Darker towards the rim, black beyond it with a soft edge (H, W) float32."""
    offset = np.linalg.norm(pixel_centres(size_px) - np.array(lens.centre_px), axis=-1)
    share = offset / lens.circle_px
    inside = np.clip(lens.circle_px - offset + 0.5, 0, 1)
    return ((1 - 0.32 * share**3) * inside).astype(np.float32)


def render(
    backdrop: Backdrop, camera: Camera, seen: Sequence[Seen], light: Light, rng: np.random.Generator
) -> np.ndarray:
    """seen: from far to near -> picture (H, W, 3) uint8, RGB."""
    size_px = len(backdrop.ground)
    things, opacity = paint_things(seen, size_px)
    picture = backdrop.ground.astype(np.float32) * spread(_shade(seen, camera, light, size_px))
    picture *= spread(1 - opacity)
    picture += things
    if light.lamp_strength > 0:
        picture *= _lamplight(backdrop, camera, seen, light)
        picture += _glow(backdrop, seen, light)
    return _developed(picture, backdrop.vignette, light, rng)


def paint_things(seen: Sequence[Seen], size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """All things on nothing: colours already times opacity (H, W, 3), and opacity (H, W) in 0..1, float32."""
    canvas = np.zeros((size_px * FINE, size_px * FINE, 4), dtype=np.uint8)
    for one in seen:
        opaque = np.column_stack([one.colours, np.full(len(one.colours), 255.0)])
        paint(canvas, fixed(one.points_px, FINE), one.spans, opaque.tolist())
    layer = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
    things = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB).astype(np.float32)
    return things, layer[..., 3].astype(np.float32) / np.float32(255)


def _ground_px(camera: Camera, corners_m: np.ndarray) -> np.ndarray:
    """corners_m: (P, 2) on the ground -> outline in the picture (Q, 2)."""
    return camera.project(outline(np.column_stack([corners_m, np.zeros(len(corners_m))])))


def _hull(points_m: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points_m.astype(np.float32))[:, 0].astype(np.float64)


def _shade(seen: Sequence[Seen], camera: Camera, light: Light, size_px: int) -> np.ndarray:
    """How much light is left on the ground: (H, W) float32 in 0..1."""
    scale = size_px / 640
    contact = np.zeros((size_px, size_px), dtype=np.uint8)
    for one in seen:
        foot = one.thing.footprint_m
        middle = foot.mean(axis=0)
        fill(contact, _ground_px(camera, middle + (foot - middle) * 1.08), (150,))
    left = 1 - cv2.GaussianBlur(contact, (0, 0), 3.0 * scale).astype(np.float32) / 255
    if light.sun_strength > 0:
        cast = np.zeros_like(contact)
        for one in seen:
            for hull_m in one.thing.mesh.hulls_m:
                points_m = one.thing.world(hull_m)
                on_ground = points_m[:, :2] - points_m[:, 2:] * light.sun[:2] / light.sun[2]
                fill(cast, _ground_px(camera, _hull(on_ground)), (255,))
        soft = cv2.GaussianBlur(cast, (0, 0), 1.1 * scale).astype(np.float32) / 255
        left = np.minimum(left, 1 - np.float32(0.56 * light.sun_strength) * soft)
    return left


def _lamplight(backdrop: Backdrop, camera: Camera, seen: Sequence[Seen], light: Light) -> np.ndarray:
    """Factor for each pixel by night: sky, street lamps, headlights (H, W, 3) float32."""
    size_px = len(backdrop.ground)
    coarse = len(backdrop.lamps)
    beams = np.zeros_like(backdrop.lamps)
    for one in seen:
        if one.thing.mesh.has_headlights:
            for reach, strength in ((4.0, 0.35), (7.5, 0.25), (11.0, 0.18)):
                patch = np.zeros_like(beams)
                fill(patch, _ground_px(camera, _beam(one.thing, reach)), (strength,), coarse / size_px)
                beams += patch
    beams = cv2.GaussianBlur(beams, (0, 0), coarse / 80)
    warm, white = np.array([1.0, 0.86, 0.62]), np.array([1.0, 0.96, 0.86])
    total = light.tint + light.lamp_strength * (backdrop.lamps[..., None] * warm + beams[..., None] * white)
    full = cv2.resize(total.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return np.minimum(full, np.float32(1.25))


def _beam(thing: Thing, reach_m: float) -> np.ndarray:
    """The patch of ground that headlights reach, (4, 2), in the world."""
    front = thing.mesh.footprint_m[1, 0]
    half = (thing.mesh.footprint_m[2, 1] - thing.mesh.footprint_m[1, 1]) / 2
    wide = half + 0.16 * reach_m
    corners = np.array([(front, -half), (front + reach_m, -wide), (front + reach_m, wide), (front, half)])
    return turned(corners, thing.heading_rad) + thing.position_m


def _glow(backdrop: Backdrop, seen: Sequence[Seen], light: Light) -> np.ndarray:
    """Lamps and lit windows with the halo the lens gives them, (H, W, 3) float32."""
    size_px = len(backdrop.windows)
    fine = cv2.resize(backdrop.windows, None, fx=BACKDROP_FINE, fy=BACKDROP_FINE, interpolation=cv2.INTER_NEAREST)
    for one in seen:
        shown = ~one.is_decal | one.glow.any(axis=1)
        spans = [span for span, flag in zip(one.spans, shown, strict=True) if flag]
        paint(fine, fixed(one.points_px, BACKDROP_FINE), spans, one.glow[shown].tolist())
    glow = cv2.resize(fine, (size_px, size_px), interpolation=cv2.INTER_AREA)
    small = cv2.resize(glow, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)
    halo = cv2.GaussianBlur(small, (0, 0), size_px / 320) * 1.6 + cv2.GaussianBlur(small, (0, 0), size_px / 90) * 2.2
    wide = cv2.resize(halo, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return (glow + wide) * np.float32(min(light.lamp_strength, 1.0) ** 0.5)


@lru_cache(maxsize=2)
def _grain(size_px: int) -> np.ndarray:
    """Noise that each picture takes another cut of, (H + GRAIN_OFFSETS, W + GRAIN_OFFSETS) float32."""
    side = size_px + GRAIN_OFFSETS
    return np.random.default_rng(5).standard_normal((side, side), dtype=np.float32)


def _developed(picture: np.ndarray, vignette: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, vignette and grain: (H, W, 3) float32 -> uint8."""
    balance = rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, 3)
    if light.lamp_strength == 0:
        balance = balance * light.tint
    exposed = picture * cv2.merge([vignette * np.float32(factor) for factor in balance])
    size_px, (top, left) = len(vignette), rng.integers(GRAIN_OFFSETS, size=2)
    grain = _grain(size_px)[top : top + size_px, left : left + size_px] * np.float32(light.grain)
    exposed += spread(grain * (vignette > 0))
    return cv2.convertScaleAbs(np.maximum(exposed, 0, out=exposed))
