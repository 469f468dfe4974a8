"""Copy-paste of objects between pictures of fisheye cameras, with labels that stay true.

An object is taken from another picture of the same camera and the same time of day, where there is one, and set down
at nearly the same distance and direction from the image centre: there the lens bends it as it did at home. It may only
stand where the annotations show that objects of its class stand on this camera, and hides little of what is there.
The image centre is taken for the optical centre. Where file names tell no camera, all images count as of one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from kit.data.augment import Load
from kit.data.coco import CocoFile, Record
from kit.data.dataset import targets_of
from kit.data.outlines import Outline
from kit.data.picture import Picture, Size, joined
from kit.data.views import group_of, view_of

GRID = 64  # cells along each side of a region
ROAD_SHARE = 0.95  # of a camera's objects that its region holds
CLASS_LEAST = 30  # objects of a class on a camera for a region of its own
DONOR_SIDE_PX = 10.0  # smaller objects are not worth copying
DONOR_SHARE = 0.4  # of the image's shorter side, for the longer side of the largest
DONOR_HIDDEN = 0.1  # share of a donor that other boxes may cover: what is copied has to be whole
SOURCES = 2  # pictures that objects are taken from
TRIALS = 24  # places tried for one object
TURN_DEG, REACH = 12.0, 0.05  # how far a place may differ from the one at home: direction, and share of the distance
MARGIN = 0.12  # of the box, over which a copy without an outline fades into its surroundings
GAIN = (0.75, 1.33)  # how much darker or brighter a copy may be made


@dataclass(frozen=True)
class Region:
    """The part of an image where objects stand."""

    is_road: np.ndarray  # (GRID, GRID) bool, rows from the top

    def holds(self, places: np.ndarray) -> np.ndarray:
        """places: (..., 2) x, y in [0, 1] of the image -> (...) bool; False outside of it."""
        cells = np.floor(places * GRID).astype(np.int64)
        inside = ((cells >= 0) & (cells < GRID)).all(axis=-1)
        column, row = np.moveaxis(cells.clip(0, GRID - 1), -1, 0)
        held: np.ndarray = inside & self.is_road[row, column]
        return held


def road_region(places: np.ndarray, share: float = ROAD_SHARE) -> Region:
    """The smallest region that holds a share of the smoothed density of places: (N, 2) x, y in [0, 1]."""
    if not len(places):
        return Region(np.zeros((GRID, GRID), bool))
    counts, _, _ = np.histogram2d(places[:, 1], places[:, 0], bins=GRID, range=[[0, 1], [0, 1]])
    spread = places.std(axis=0).mean() * len(places) ** (-1 / 6)  # Scott's rule, for one heap; roads are narrower
    sigma = float(np.clip(0.35 * spread, 0.01, 0.06)) * GRID
    often = np.sqrt(counts)  # what is parked in one place in every frame counts less
    density = cv2.GaussianBlur(often, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    falling = np.sort(density, axis=None)[::-1]
    enough = int(np.searchsorted(np.cumsum(falling), share * falling.sum()))
    return Region(density >= max(falling[min(enough, falling.size - 1)], 1e-9))


@dataclass(frozen=True)
class Donors:
    """D objects that can be copied."""

    indices: np.ndarray  # (D,) int64, of the image in the data set
    rows: np.ndarray  # (D,) int64, of the object among the targets of its image
    labels: np.ndarray  # (D,) int64
    boxes_xyxy_px: np.ndarray  # (D, 4)


@dataclass(frozen=True)
class PasteBook:
    """What copy-paste knows of a training set. cameras, is_night, sizes_hw: one entry for each of its n images."""

    cameras: np.ndarray  # (n,) str; empty where the name tells none
    is_night: np.ndarray  # (n,) bool
    sizes_hw: np.ndarray  # (n, 2)
    donors: Donors
    regions: dict[tuple[str, int | None], Region]  # by camera and label; None: of all classes

    @cached_property
    def rarity(self) -> np.ndarray:
        """(D,): rare classes are copied more often than they are met, but not as often as the frequent ones."""
        counts = np.bincount(self.donors.labels, minlength=1)
        weights: np.ndarray = 1 / np.sqrt(np.maximum(counts, 1))[self.donors.labels]
        return weights

    def chances(self, index: int) -> np.ndarray:
        """How likely each donor is for this image: (D,) that add up to 1, or all 0 where there is none.

        Of the same camera; where it has none, of images of the same size, as cameras of one make have.
        """
        homes = self.donors.indices
        fits = (homes != index) & (self.is_night[homes] == self.is_night[index])
        same_camera = fits & (self.cameras[homes] == self.cameras[index])
        same_size = fits & (self.sizes_hw[homes] == self.sizes_hw[index]).all(axis=1)
        weights = self.rarity * (same_camera if same_camera.any() else same_size)
        return weights / max(weights.sum(), 1e-12)

    def region(self, index: int, label: int) -> Region:
        """Where an object of this class may stand on this image."""
        camera = str(self.cameras[index])
        return self.regions.get((camera, label), self.regions[camera, None])


def make_book(coco: CocoFile, view_pattern: str | None) -> PasteBook:
    """Donors and road regions of a training set; give it no image that is validated on."""
    views = [view_of(record.file_name, view_pattern) for record in coco.records]
    cameras = np.array([view.camera if view else "" for view in views], str)
    groups = np.array([group_of(record.file_name, view_pattern) for record in coco.records], str)
    sizes_hw = np.array([record.size_hw for record in coco.records], np.int64).reshape(-1, 2)
    return PasteBook(cameras, groups == "night", sizes_hw, find_donors(coco.records), find_regions(coco, cameras))


def find_donors(records: Sequence[Record]) -> Donors:
    """Objects that are large enough, whole, and hardly covered by others."""
    indices, rows, labels, boxes = [], [], [], []
    for index, record in enumerate(records):
        boxes_xyxy_px, own_labels = targets_of(record)
        good = np.flatnonzero(is_donor(boxes_xyxy_px, record.size_hw))
        indices.append(np.full(len(good), index, np.int64))
        rows.append(good)
        labels.append(own_labels[good])
        boxes.append(boxes_xyxy_px[good])
    none = np.zeros(0, np.int64)
    return Donors(
        np.concatenate([none, *indices]),
        np.concatenate([none, *rows]),
        np.concatenate([none, *labels]),
        np.concatenate([np.zeros((0, 4)), *boxes]),
    )


def is_donor(boxes_xyxy_px: np.ndarray, size_hw: Size) -> np.ndarray:
    """(N, 4) -> (N,) bool."""
    sides = boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]  # (N, 2)
    fits = (sides.min(axis=1) >= DONOR_SIDE_PX) & (sides.max(axis=1) <= DONOR_SHARE * min(size_hw))
    shared = intersections(boxes_xyxy_px, boxes_xyxy_px)  # (N, N)
    np.fill_diagonal(shared, 0)
    is_free = shared.max(axis=1, initial=0) <= DONOR_HIDDEN * sides.prod(axis=1)
    return fits & is_inside(boxes_xyxy_px, size_hw) & is_free


def find_regions(coco: CocoFile, cameras: np.ndarray) -> dict[tuple[str, int | None], Region]:
    """Of each camera, and of each class on it with enough objects."""
    regions: dict[tuple[str, int | None], Region] = {}
    for camera in np.unique(cameras).tolist():
        records = [coco.records[index] for index in np.flatnonzero(cameras == camera)]
        places = np.concatenate([np.zeros((0, 2)), *(centres(record) for record in records)])
        labels = np.concatenate([np.zeros(0, np.int64), *(targets_of(record)[1] for record in records)])
        regions[camera, None] = road_region(places)
        for label in np.flatnonzero(np.bincount(labels, minlength=1) >= CLASS_LEAST).tolist():
            regions[camera, label] = road_region(places[labels == label])
    return regions


def centres(record: Record) -> np.ndarray:
    """Of the boxes, in [0, 1] of the image: (N, 2) x, y."""
    boxes = targets_of(record)[0]
    middle: np.ndarray = (boxes[:, :2] + boxes[:, 2:]) / 2 / np.maximum(record.size_hw[::-1], 1)
    return middle


def intersections(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Areas: (A, 4), (B, 4) -> (A, B)."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    area: np.ndarray = (high - low).clip(min=0).prod(axis=2)
    return area


def is_inside(boxes_xyxy_px: np.ndarray, size_hw: Size) -> np.ndarray:
    """A pixel or more from the edge of the image: (N, 4) -> (N,) bool."""
    low, high = boxes_xyxy_px[:, :2] >= 1, boxes_xyxy_px[:, 2:] <= np.array(size_hw[::-1]) - 1
    return np.asarray((low & high).all(axis=1))


# --- setting down ---


@dataclass(frozen=True)
class Move:
    """From the picture an object was taken from to the one it is set down in: matrix @ point + shift."""

    matrix: np.ndarray  # (2, 2)
    shift: np.ndarray  # (2,)

    def __call__(self, points_px: np.ndarray) -> np.ndarray:
        """(..., 2) -> (..., 2)."""
        moved: np.ndarray = points_px @ self.matrix.T + self.shift
        return moved

    def outline(self, outline: Outline) -> Outline:
        return [self(part) for part in outline]

    def box(self, box_xyxy_px: np.ndarray, outline: Outline | None) -> np.ndarray:
        """Of the moved outline, or of the moved box, which is then never turned: (4,) -> (4,)."""
        points = self(np.concatenate(outline) if outline else box_xyxy_px.reshape(2, 2))
        return np.concatenate([points.min(axis=0), points.max(axis=0)])


def paste_objects(
    picture: Picture,
    index: int,
    book: PasteBook,
    load: Load,
    rng: np.random.Generator,
    most: int = 4,
    hidden: float = 0.1,
) -> Picture:
    """The picture with 1 to `most` further objects, or fewer where no place is free; the new ones come last.

    index: of the picture in the data set, of which `load` gives any image. hidden: share of the smaller of two boxes
    that the other may cover.
    """
    wanted = len(picture.labels) + int(rng.integers(1, most + 1))
    chances = book.chances(index)
    if not chances.any():
        return picture
    picture = picture.with_image(picture.image.copy())
    for _ in range(SOURCES):
        source = int(book.donors.indices[rng.choice(len(chances), p=chances)])
        donors = np.flatnonzero((book.donors.indices == source) & (chances > 0))
        order = rng.choice(donors, len(donors), replace=False, p=chances[donors] / chances[donors].sum())
        taken_from = load(source)
        for donor in order:
            if len(picture.labels) < wanted:
                row, region = int(book.donors.rows[donor]), book.region(index, int(book.donors.labels[donor]))
                picture = with_copy(picture, taken_from, row, region, hidden, rng)
    return picture


def with_copy(
    picture: Picture, source: Picture, row: int, region: Region, hidden: float, rng: np.random.Generator
) -> Picture:
    """With the object of this row of another picture, unless there is no place for it. Writes into picture.image."""
    box, outline = source.boxes_xyxy_px[row], outline_of(source, row)
    for move in moves(box, outline, source.size_hw, picture.size_hw, rng):
        placed = move.box(box, outline)
        middle = (placed[:2] + placed[2:]) / 2 / picture.size_hw[::-1]
        if region.holds(middle) and is_free(placed, picture, hidden):
            stamp(picture.image, source.image, move, placed, outline)
            outlines: list[Outline | None] | None = [move.outline(outline)] if outline else None
            return joined(
                [picture, Picture(picture.image, placed[None], source.labels[row, None], outlines)], picture.image
            )
    return picture


def outline_of(picture: Picture, row: int) -> Outline | None:
    return picture.outlines[row] if picture.outlines else None


def moves(
    box_xyxy_px: np.ndarray, outline: Outline | None, source_hw: Size, target_hw: Size, rng: np.random.Generator
) -> Iterator[Move]:
    """To places at about the same distance and direction from the centre, of the other image's resolution.

    With an outline the pixels turn with the direction; without one they keep theirs, so that the box stays exact.
    """
    zoom = min(target_hw) / min(source_hw)
    middle = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2
    home = middle - np.array(source_hw[::-1]) / 2  # from the centre
    turns = np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG, TRIALS))
    reaches = rng.uniform(1 - REACH, 1 + REACH, TRIALS)
    for turn, reach in zip(turns, reaches, strict=True):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = zoom * (rotation if outline else np.eye(2))
        place = np.array(target_hw[::-1]) / 2 + zoom * reach * rotation @ home
        yield Move(matrix, place - matrix @ middle)


def is_free(box_xyxy_px: np.ndarray, picture: Picture, hidden: float) -> bool:
    """Inside the image, and neither covered by the boxes there nor covering them."""
    if not is_inside(box_xyxy_px[None], picture.size_hw)[0]:
        return False
    boxes = np.concatenate([picture.boxes_xyxy_px, box_xyxy_px[None]])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    shared = intersections(box_xyxy_px[None], boxes[:-1])[0]
    return bool((shared <= hidden * np.minimum(areas[:-1], areas[-1])).all())


def stamp(canvas: np.ndarray, source: np.ndarray, move: Move, box_xyxy_px: np.ndarray, outline: Outline | None) -> None:
    """Paints the moved object over the canvas, with a soft edge and the brightness of its new surroundings.

    canvas, source: (H, W, C) uint8, of any two sizes; box: where the object comes to stand on the canvas.
    """
    margin = MARGIN * (box_xyxy_px[2:] - box_xyxy_px[:2]) + 2
    height, width = canvas.shape[:2]
    x0, y0 = np.floor(box_xyxy_px[:2] - margin).clip(0).astype(int)
    x1, y1 = np.ceil(box_xyxy_px[2:] + margin).astype(int).clip(0, [width, height])
    shift = move.matrix @ [0.5, 0.5] + move.shift - 0.5 - [x0, y0]  # OpenCV puts (0, 0) at the first pixel's centre
    matrix, size_wh = np.column_stack([move.matrix, shift]), (int(x1 - x0), int(y1 - y0))
    patch = cv2.warpAffine(source, matrix, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patch = patch.reshape(y1 - y0, x1 - x0, -1).astype(np.float32)

    corner = np.array([x0, y0])
    local = [part - corner for part in move.outline(outline)] if outline else None
    alpha = outline_alpha(local, size_wh) if local else box_alpha(box_xyxy_px - np.tile(corner, 2), size_wh)
    under = canvas[y0:y1, x0:x1]  # (h, w, C), a view
    gain = brightness_gain(patch, under, around=alpha < 0.5)
    painted = alpha[..., None] * (patch * gain).clip(0, 255) + (1 - alpha[..., None]) * under
    canvas[y0:y1, x0:x1] = np.round(painted).astype(np.uint8)


def outline_alpha(outline: Outline, size_wh: tuple[int, int]) -> np.ndarray:
    """1 inside the outline, 0 outside, soft over about two pixels -> (h, w) float32."""
    fine, steps = 4, 16  # finer pixels for a smooth edge; fillPoly takes whole numbers of a 16th of them
    mask = np.zeros((size_wh[1] * fine, size_wh[0] * fine), np.uint8)
    parts = [np.round((part * fine - 0.5) * steps).astype(np.int32) for part in outline]
    for part in parts:  # one by one: together, where two parts overlap there would be a hole
        cv2.fillPoly(mask, [part], 255, shift=4)
    small = cv2.resize(mask, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(small, (0, 0), 0.8)


def box_alpha(box_xyxy_px: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """1 in the box with its corners rounded, falling to 0 over MARGIN outside of it -> (h, w) float32."""
    middle, half = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2, (box_xyxy_px[2:] - box_xyxy_px[:2]) / 2
    x = (np.arange(size_wh[0]) + 0.5 - middle[0]) / half[0]
    y = (np.arange(size_wh[1]) + 0.5 - middle[1]) / half[1]
    outward = (x[None] ** 4 + y[:, None] ** 4) ** 0.25  # 1 on the rounded box
    ramp = ((1 + 2 * MARGIN - outward) / (2 * MARGIN)).clip(0, 1)
    alpha: np.ndarray = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
    return alpha


def brightness_gain(patch: np.ndarray, under: np.ndarray, around: np.ndarray) -> float:
    """Brings what is around the object to the brightness of what is around its place. around: (h, w) bool."""
    if not around.any():
        return 1.0
    brightness = [float(pixels[..., :3][around].mean()) + 8.0 for pixels in (patch, under)]  # 8: none from black
    return float(np.clip(brightness[1] / brightness[0], *GAIN))
