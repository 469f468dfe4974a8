"""The check of the geometry: do labels go where the pixels go, under every transform that we offer?

    python -m kit.data.warp_check [--shapes 20] [--json FILE]

Random shapes are drawn as masks, the masks are warped as pixels and the labels as labels. Told are the IoU of the box
around the warped mask with the warped box, for polygons (whose outline is known) and for filled boxes, and how far the
middle of the warped mask lies from the middle of the warped polygon. Ours have to agree to an IoU of 0.98.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from kit.data.augment import Recipe, mixed, mosaic, single
from kit.data.fisheye import EQUIDISTANT, EQUISOLID, STEREOGRAPHIC, Lens, fisheye_lens, middle_px, pinhole, tilted
from kit.data.outlines import Bent, box_rings, hull
from kit.data.picture import MIN_VISIBLE, Picture, Size, areas
from kit.data.warps import (
    Warp,
    affine,
    between_lenses,
    mirror,
    quarter_turn,
    radial,
    random_fisheye,
    random_lens,
    random_radial,
    random_rotation,
    show_window,
    upside_down,
    warp_boxes,
    warp_image,
    warp_outlines,
    zoom,
)
from kit.files import write_json

LEAST_IOU = 0.98
SIZE_HW = (960, 1280)  # large, so that the tips of a polygon are not lost between pixels
DRAWN = 4  # masks are drawn so many times as fine
FINE = 2  # and looked at so many times as fine after the warp
LEAST_SIDE_PX = 40.0  # of what is left in the mask; of less, half a pixel is too large a share
TRIES = 100  # to draw a shape of which enough is seen
SHIFT = 4  # fraction bits of OpenCV's coordinates

Make = Callable[[Size, np.random.Generator], Warp]


@dataclass(frozen=True)
class Agreement:
    """How pixels and labels agree under one transform."""

    transform: str
    polygons: int
    polygon_min: float
    polygon_mean: float
    boxes: int
    box_min: float
    box_mean: float
    offset_px: float | None  # largest, of the middles of whole polygons; None where none is compared

    @property
    def is_good(self) -> bool:
        return min(self.polygon_min, self.box_min) >= LEAST_IOU


# --- every transform that we offer ---


def _circle(lens: Lens, field_deg: float) -> Lens:
    """The same lens with an image circle."""
    return Lens(lens.projection, lens.focal_px, lens.centre_px, np.deg2rad(field_deg))


def _to_fisheye(size_hw: Size, rng: np.random.Generator) -> Warp:
    target = _circle(fisheye_lens(EQUIDISTANT, size_hw, 160), 80)
    turn = tilted(np.deg2rad(rng.uniform(0, 60)), rng.uniform(0, 2 * np.pi))
    return between_lenses(pinhole(size_hw, rng.uniform(60, 120)), target, size_hw, turn)


def _to_perspective(size_hw: Size, rng: np.random.Generator) -> Warp:
    turn = tilted(np.deg2rad(rng.uniform(0, 70)), rng.uniform(0, 2 * np.pi))
    return between_lenses(fisheye_lens(EQUISOLID, size_hw, 180), pinhole(size_hw, rng.uniform(60, 120)), size_hw, turn)


def _circle_to_circle(size_hw: Size, rng: np.random.Generator) -> Warp:
    source, target = fisheye_lens(STEREOGRAPHIC, size_hw, 180), fisheye_lens(EQUISOLID, size_hw, 170)
    turn = tilted(np.deg2rad(rng.uniform(0, 40)), rng.uniform(0, 2 * np.pi))
    return between_lenses(_circle(source, 85), _circle(target, 80), size_hw, turn)


def _window(size_hw: Size, rng: np.random.Generator) -> Warp:
    height, width = size_hw
    (x0, y0), side = rng.uniform(-0.2, 0.4, 2) * [width, height], rng.uniform(0.4, 1)
    window = int(x0), int(y0), int(x0 + side * width), int(y0 + rng.uniform(0.8, 1.2) * side * height)
    return show_window(window, size_hw)


def _sheared(size_hw: Size, rng: np.random.Generator) -> Warp:
    matrix = np.eye(2) + rng.uniform(-0.3, 0.3, (2, 2))
    middle = np.array(middle_px(size_hw))
    return affine(np.column_stack([matrix, middle - matrix @ middle]), size_hw)


def _undistorted(size_hw: Size, rng: np.random.Generator) -> Warp:
    return radial([rng.uniform(-0.15, 0.25), rng.uniform(-0.02, 0.05)], size_hw).inverse(size_hw)


def _composed(size_hw: Size, rng: np.random.Generator) -> Warp:
    warp = random_fisheye(size_hw, rng).then(random_radial(size_hw, rng))
    return warp.then(random_rotation(size_hw, rng, 180)).then(_window(size_hw, rng))


WARPS: dict[str, Make] = {
    "rotation": lambda size, rng: random_rotation(size, rng, 180),
    "zoom": lambda size, rng: zoom(rng.uniform(0.4, 2), size),
    "shift, crop, resize": _window,
    "mirror": lambda size, rng: mirror(size),
    "upside down": lambda size, rng: upside_down(size),
    "quarter turns": lambda size, rng: quarter_turn(size, int(rng.integers(1, 4))),
    "any affine": _sheared,
    "perspective to fisheye": _to_fisheye,
    "fisheye to perspective": _to_perspective,
    "fisheye, tilted, circle to circle": _circle_to_circle,
    "radial distortion undone": _undistorted,
    "four as one": _composed,
    "random fisheye": random_fisheye,
    "random lens change": random_lens,
    "random radial distortion": random_radial,
}
Operate = Callable[[Sequence[Picture], Size, np.random.Generator], Picture]  # four pictures, size of the result


def _single(**recipe: float) -> Operate:
    whole_boxes = Recipe(**recipe, box_outline="rectangle")  # type: ignore[arg-type]
    return lambda pictures, size_hw, rng: single(pictures[0], size_hw, whole_boxes, rng)


OPERATIONS: dict[str, Operate] = {
    "training: resize": _single(),
    "training: zoom-out": _single(zoom_out=1.0, zoom_out_max=2.0),
    "training: IoU crop": _single(iou_crop=1.0),
    "training: flips, quarter turns": _single(flip=0.7, vertical_flip=0.5, rot90=0.7),
    "training: rotation": _single(rotate=1.0, rotate_deg=180.0),
    "training: fisheye": _single(fisheye=1.0),
    "training: lens change": _single(lens=1.0),
    "training: radial distortion": _single(radial=1.0),
    "training: all of these": _single(
        zoom_out=0.5,
        zoom_out_max=2.0,
        iou_crop=0.8,
        flip=0.5,
        rot90=0.5,
        rotate=0.5,
        rotate_deg=90.0,
        fisheye=0.5,
        radial=0.5,
    ),
    "training: mosaic": lambda pictures, size_hw, rng: mosaic(pictures, size_hw, Recipe(flip=0.5), rng),
    "training: mixup": lambda pictures, size_hw, rng: mixed(
        single(pictures[0], size_hw, Recipe(iou_crop=1.0), rng),
        single(pictures[1], size_hw, Recipe(flip=1.0), rng),
        0.5,
    ),
}


# --- shapes, and what is seen of them ---


def random_ring(size_hw: Size, rng: np.random.Generator) -> np.ndarray:
    """A polygon with dents, a tenth to two fifths of the picture's height in size, which may reach out of it.

    -> (P, 2). Its tips are no needles: these would be lost between the pixels of any mask.
    """
    count = int(rng.integers(5, 11))
    angle = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * (2 * np.pi / count)
    reach = rng.uniform(0.07, 0.25) * size_hw[0] * rng.uniform(0.55, 1, count)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None] * rng.uniform(0.7, 1.4, 2)
    return ring + rng.uniform(0, 1, 2) * size_hw[::-1]


def random_box(size_hw: Size, rng: np.random.Generator) -> np.ndarray:
    """Of similar size, but inside the picture, as boxes are (4,) xyxy."""
    limit = np.array(size_hw[::-1])
    size = rng.uniform(0.15, 0.5, 2) * size_hw[0]
    corner = rng.uniform(0, 1, 2) * (limit - size)
    return np.concatenate([corner, corner + size])


def drawn(ring: np.ndarray, size_hw: Size) -> np.ndarray:
    """The mask with soft edges: how much of each pixel it covers (H, W) uint8."""
    fine = np.zeros((size_hw[0] * DRAWN, size_hw[1] * DRAWN), np.uint8)
    corners = np.round((ring * DRAWN - 0.5) * 2**SHIFT).astype(np.int32)  # OpenCV's (0, 0) is the middle of a pixel
    cv2.fillPoly(fine, [corners], (255,), cv2.LINE_8, SHIFT)
    return cv2.resize(fine, size_hw[::-1], interpolation=cv2.INTER_AREA)


def box_of_bright(plane: np.ndarray) -> np.ndarray | None:
    """The box around what is at least half as bright as it gets (4,) xyxy; None where there is hardly anything."""
    bright = plane > max(int(plane.max()) // 2, 50)
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    if not len(rows) or min(np.ptp(rows), np.ptp(columns)) < LEAST_SIDE_PX * FINE:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes (4,); 0 where one of them is NaN."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if not (sides > 0).all():
        return 0.0
    return float(sides.prod() / (areas(a) + areas(b) - sides.prod()))


# --- the comparison ---


def of_warp(make: Make, rng: np.random.Generator, is_box: bool) -> Iterator[tuple[float, float]]:
    """One shape under one warp: IoU, and the distance of the middles (NaN of what is cut).

    Nothing where so little of it is seen that it would be dropped.
    """
    warp = make(SIZE_HW, rng)
    height, width = warp.size_hw
    box = random_box(SIZE_HW, rng)
    ring = box_rings(box[None])[0] if is_box else random_ring(SIZE_HW, rng)
    fine = warp.then(show_window((0, 0, width, height), (height * FINE, width * FINE)))
    plane = warp_image(drawn(ring, SIZE_HW)[..., None], fine)[..., 0]
    found = box_of_bright(plane)
    bent = warp_boxes(box[None], warp, SIZE_HW) if is_box else warp_outlines([[ring]], warp, SIZE_HW)
    if found is not None and bent.shares[0] >= MIN_VISIBLE:
        is_whole = not is_box and bent.shares[0] > 1 - 1e-9
        yield overlap(bent.boxes_xyxy_px[0], found / FINE), middles_apart(plane, bent) if is_whole else np.nan


def middles_apart(plane: np.ndarray, bent: Bent) -> float:
    """Distance of the centre of gravity of a mask from that of the warped polygon, in pixels of the target."""
    moments = cv2.moments(plane)
    of_mask = np.array([moments["m10"], moments["m01"]]) / moments["m00"] + 0.5
    moments = cv2.moments(bent.outlines[0][0].astype(np.float32))
    return float(np.hypot(*(of_mask / FINE - np.array([moments["m10"], moments["m01"]]) / moments["m00"])))


def of_operation(operate: Operate, rng: np.random.Generator, is_box: bool) -> Iterator[tuple[float, float]]:
    """One shape in each of four pictures through a step of the training; what it drops is not compared."""
    pictures = []
    for channel in range(4):
        box, image = random_box(SIZE_HW, rng), np.zeros((*SIZE_HW, 4), np.uint8)
        ring = box_rings(box[None])[0] if is_box else random_ring(SIZE_HW, rng)
        image[..., channel] = drawn(ring, SIZE_HW)
        around = hull([ring]).clip(0, [*SIZE_HW[::-1]] * 2)[None]
        pictures.append(Picture(image, around, np.array([channel]), None if is_box else [[ring]]))
    result = operate(pictures, (SIZE_HW[0] * FINE, SIZE_HW[1] * FINE), rng)
    for box, label in zip(result.boxes_xyxy_px, result.labels, strict=True):
        found = box_of_bright(result.image[..., label])
        if found is not None:
            yield overlap(box, found), np.nan


def compared(
    shapes: int, seed: int = 0, names: Iterable[str] | None = None, progress: Callable[[Agreement], None] | None = None
) -> list[Agreement]:
    """The agreement under each transform (names: under these), of at least so many polygons and boxes each."""
    rows: list[Agreement] = []
    for name in names or [*WARPS, *OPERATIONS]:
        polygons, boxes = (
            [pair for shape in range(shapes) for pair in seen_shape(name, is_box, [seed, shape, is_box, len(rows)])]
            for is_box in (False, True)
        )
        rows.append(agreement(name, np.array(polygons), np.array(boxes)))
        if progress:
            progress(rows[-1])
    return rows


def seen_shape(name: str, is_box: bool, seed: Sequence[int]) -> list[tuple[float, float]]:
    """Shapes are drawn until something of one is to be seen after the transform."""
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        if name in WARPS:
            found = list(of_warp(WARPS[name], rng, is_box))
        else:
            found = list(of_operation(OPERATIONS[name], rng, is_box))
        if found:
            return found
    raise RuntimeError(
        f"{name}: expected to see a shape after the transform, saw none in {TRIES} tries; mend random_ring"
    )


def agreement(name: str, polygons: np.ndarray, boxes: np.ndarray) -> Agreement:
    """polygons, boxes: (V, 2) IoU and distance of each."""
    ious, box_ious, offsets = polygons[:, 0], boxes[:, 0], polygons[~np.isnan(polygons[:, 1]), 1]
    return Agreement(
        transform=name,
        polygons=len(ious),
        polygon_min=float(ious.min()),
        polygon_mean=float(ious.mean()),
        boxes=len(box_ious),
        box_min=float(box_ious.min()),
        box_mean=float(box_ious.mean()),
        offset_px=float(offsets.max()) if len(offsets) else None,
    )


HEAD = f"{'':34}{'polygons':>9}{'least':>8}{'mean':>8}{'boxes':>8}{'least':>8}{'mean':>8}{'offset px':>11}"


def line(row: Agreement) -> str:
    polygons = f"{row.polygons:>9}{row.polygon_min:>8.4f}{row.polygon_mean:>8.4f}"
    boxes = f"{row.boxes:>8}{row.box_min:>8.4f}{row.box_mean:>8.4f}"
    offset = "" if row.offset_px is None else f"{row.offset_px:.3f}"
    return f"{row.transform:34}{polygons}{boxes}{offset:>11}{'' if row.is_good else '  under 0.98'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if pixels and labels disagree anywhere."""
    parser = argparse.ArgumentParser(prog="python -m kit.data.warp_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", type=int, default=20, help="polygons and boxes per transform")
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    print(HEAD)
    rows = compared(options.shapes, progress=lambda row: print(line(row), flush=True))
    if options.json:
        write_json(options.json, [asdict(row) for row in rows], indent=1)
    return int(not all(row.is_good for row in rows))


if __name__ == "__main__":
    sys.exit(main())
