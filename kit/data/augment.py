"""Augmentation: which part of which pictures is seen, how large, and in which colours.

All geometry is chosen first and the pixels are resampled once, from the decoded picture straight to the place where
they end up: zoom-out and IoU crop only move a window, a mosaic is four windows. Pixels and boxes go through the same
whole-pixel rectangles, so boxes are exact, and they are never rounded. Everything drawn by chance comes from
(seed, epoch, index): workers, batches and a resumed run do not matter.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np
import torch
import torch.nn.functional as F

Size = tuple[int, int]  # height, width in pixels
Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of a picture; may reach outside of it

MIN_SIDE_PX = 1.0  # a box with a shorter side is no target
MIN_VISIBLE = 0.25  # share of a box's area that has to stay in the window; a box whose centre stays keeps at least that
LEAST_IOU = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the SSD crop: one is drawn, 1 = no crop
CROP_TRIALS = 40


@dataclass(frozen=True)
class Draw:
    """What is asked of a data set: the image, the epoch, and the size of the result."""

    index: int
    epoch: int
    size_hw: Size


@dataclass(frozen=True)
class Picture:
    """An image and its boxes on the way through the augmentation."""

    image: np.ndarray  # (H, W, C) uint8
    boxes_xyxy_px: np.ndarray  # (N, 4) float64
    labels: np.ndarray  # (N,) int64

    @property
    def size_hw(self) -> Size:
        return self.image.shape[0], self.image.shape[1]


Load = Callable[[int], Picture]  # index in the data set -> the picture as it lies on the disk


@dataclass(frozen=True)
class Recipe:
    """The augmentation of one phase; numbers are probabilities per picture unless they say otherwise."""

    distort: A.Compose | None = None  # colours only; has to leave the geometry alone
    zoom_out: float = 0.0
    zoom_out_max: float = 4.0  # the canvas is up to so many times as wide and high as the picture
    iou_crop: float = 0.0
    flip: float = 0.0
    vertical_flip: float = 0.0
    rot90: float = 0.0  # one of the three quarter turns; exact, and natural for a camera that looks straight down
    rotate: float = 0.0
    rotate_deg: float = 0.0  # up to so far to either side; 180 is every direction
    mosaic: float = 0.0
    mosaic_scale: tuple[float, float] = (0.5, 1.0)  # of a tile's objects, 1 = as large as without mosaic
    mixup: float = 0.0  # of the pictures that are no mosaic


@dataclass(frozen=True)
class Policy:
    """Recipes by epoch: plain at the start, strong in the middle, light at the end."""

    strong: Recipe
    light: Recipe
    plain_epochs: int = 0
    mosaic_until_epoch: int = 0
    strong_until_epoch: int = 0

    def recipe(self, epoch: int) -> Recipe:
        if not self.plain_epochs <= epoch < self.strong_until_epoch:
            return self.light
        return self.strong if epoch < self.mosaic_until_epoch else replace(self.strong, mosaic=0.0, mixup=0.0)

    def __call__(self, load: Load, length: int, draw: Draw, seed: int) -> Picture:
        """The picture to train on: of draw.size_hw, a pure function of the pictures, draw and seed."""
        rng = np.random.default_rng([seed, draw.epoch, draw.index])
        recipe = self.recipe(draw.epoch)
        if rng.random() < recipe.mosaic:
            indices = [draw.index, *rng.integers(length, size=3).tolist()]
            return mosaic((turned(load(index), recipe, rng) for index in indices), draw.size_hw, recipe, rng)
        picture = single(load(draw.index), draw.size_hw, recipe, rng)
        if rng.random() < recipe.mixup:
            other = single(load(int(rng.integers(length))), draw.size_hw, recipe, rng)
            return mixed(picture, other, share=rng.uniform(0.45, 0.55))
        return picture


def plain_policy() -> Policy:
    """Only the resize, for validation and prediction."""
    return Policy(Recipe(), Recipe())


def train_policy(
    strong_until_epoch: int,
    plain_epochs: int = 0,
    mosaic_until_epoch: int | None = None,
    *,
    photometric: float = 0.5,
    zoom_out: float = 0.5,
    zoom_out_max: float = 4.0,
    iou_crop: float = 0.8,
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    rot90: float = 0.0,
    rotate: float = 0.0,
    rotate_deg: float = 30.0,
    mosaic: float = 0.0,
    mosaic_scale: tuple[float, float] = (0.5, 1.0),
    mixup: float = 0.0,
) -> Policy:
    """D-FINE's recipe by default; mosaic and mixup of one half each and 4 plain epochs are DEIM's (arXiv 2412.04234).

    Flips and quarter turns stay through all epochs. Mosaic and mixup stop at mosaic_until_epoch, or with the rest.
    """
    light = Recipe(flip=flip, vertical_flip=vertical_flip, rot90=rot90)
    strong = replace(
        light,
        distort=photometric_distort(photometric) if photometric else None,
        zoom_out=zoom_out,
        zoom_out_max=zoom_out_max,
        iou_crop=iou_crop,
        rotate=rotate,
        rotate_deg=rotate_deg,
        mosaic=mosaic,
        mosaic_scale=mosaic_scale,
        mixup=mixup,
    )
    until = strong_until_epoch if mosaic_until_epoch is None else mosaic_until_epoch
    return Policy(strong, light, plain_epochs, until, strong_until_epoch)


def photometric_distort(probability: float) -> A.Compose:
    """Brightness, contrast, saturation, hue and the order of the channels, each with this probability (D-FINE, SSD)."""
    still: dict[str, tuple[float, float]] = {
        "brightness": (1, 1),
        "contrast": (1, 1),
        "saturation": (1, 1),
        "hue": (0, 0),
    }
    moving = {"brightness": (0.875, 1.125), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-0.05, 0.05)}
    one_each = [A.ColorJitter(**(still | {name: span}), p=probability) for name, span in moving.items()]
    return A.Compose([*one_each, A.ChannelShuffle(p=probability)])


def multi_scale_sizes(base_hw: Size, repeat: int, low: float = 0.75, high: float = 1.25) -> list[Size]:
    """Sizes from low to high of the base in steps of 32 px of its height, with the base `repeat` times among them."""
    height, width = base_hw
    if height % 32 or width % 32:
        raise ValueError(f"base_hw must be multiples of 32, got {base_hw}; round each side to a multiple of 32")
    heights = range(round(height * low) // 32 * 32, round(height * high) // 32 * 32 + 1, 32)
    scaled = [(each, max(32, round(width * each / height / 32) * 32)) for each in heights]
    return [size for size in scaled if size != base_hw] + [base_hw] * repeat


# --- one picture from one, two or four ---


def single(picture: Picture, size_hw: Size, recipe: Recipe, rng: np.random.Generator) -> Picture:
    """One picture through turns, zoom-out, crop, resize, colours and flips."""
    picture = turned(picture, recipe, rng)
    window = whole(picture)
    if rng.random() < recipe.zoom_out:
        window = zoomed_out(window, recipe.zoom_out_max, rng)
    if rng.random() < recipe.iou_crop:
        window = iou_crop(window, picture.boxes_xyxy_px, rng)
    return mirrored(render(picture, window, size_hw, recipe.distort, rng), recipe, rng)


def mosaic(pictures: Iterable[Picture], size_hw: Size, recipe: Recipe, rng: np.random.Generator) -> Picture:
    """Four pictures, taken one by one, around a point near the middle, each cut to fill its quarter."""
    height, width = size_hw
    row, column = int(height * rng.uniform(0.3, 0.7)), int(width * rng.uniform(0.3, 0.7))
    quarters = [(0, 0, column, row), (column, 0, width, row), (0, row, column, height), (column, row, width, height)]
    tiles, boxes = [], []
    for picture, (x0, y0, x1, y1) in zip(pictures, quarters, strict=True):
        window = tile_window(picture.size_hw, (y1 - y0, x1 - x0), size_hw, recipe.mosaic_scale, rng)
        tiles.append(mirrored(render(picture, window, (y1 - y0, x1 - x0)), recipe, rng))
        boxes.append(tiles[-1].boxes_xyxy_px + np.array([x0, y0, x0, y0]))
    upper, lower = (np.concatenate([tiles[k].image, tiles[k + 1].image], axis=1) for k in (0, 2))
    image = distorted(np.concatenate([upper, lower]), recipe.distort, rng)
    return Picture(image, np.concatenate(boxes), np.concatenate([tile.labels for tile in tiles]))


def tile_window(
    picture_hw: Size, tile_hw: Size, canvas_hw: Size, scale: tuple[float, float], rng: np.random.Generator
) -> Window:
    """A random part of the picture that fills the tile, at `scale` of the size that the plain resize would give it."""
    shares = [tile / canvas for tile, canvas in zip(tile_hw, canvas_hw, strict=True)]
    zoom = max(rng.uniform(*scale), *shares)
    height, width = (max(1, round(side * share / zoom)) for side, share in zip(picture_hw, shares, strict=True))
    y0, x0 = int(rng.integers(picture_hw[0] - height + 1)), int(rng.integers(picture_hw[1] - width + 1))
    return x0, y0, x0 + width, y0 + height


def mixed(one: Picture, other: Picture, share: float) -> Picture:
    """Both pictures shine through, and the objects of both count; share: of the first."""
    image = cv2.addWeighted(one.image, share, other.image, 1 - share, 0).reshape(one.image.shape)
    boxes = np.concatenate([one.boxes_xyxy_px, other.boxes_xyxy_px])
    return Picture(image, boxes, np.concatenate([one.labels, other.labels]))


# --- windows ---


def whole(picture: Picture) -> Window:
    height, width = picture.size_hw
    return 0, 0, width, height


def zoomed_out(window: Window, largest: float, rng: np.random.Generator) -> Window:
    """A window up to `largest` times as wide and high, with the old one somewhere inside."""
    x0, y0, x1, y1 = window
    ratio = rng.uniform(1, largest)
    width, height = int((x1 - x0) * ratio), int((y1 - y0) * ratio)
    left, top = x0 - int(rng.integers(width - (x1 - x0) + 1)), y0 - int(rng.integers(height - (y1 - y0) + 1))
    return left, top, left + width, top + height


def iou_crop(window: Window, boxes_xyxy_px: np.ndarray, rng: np.random.Generator) -> Window:
    """A part of the window in which the centre of a box lies that overlaps it enough (SSD, arXiv 1512.02325).

    boxes_xyxy_px: (N, 4). How much is enough is drawn from LEAST_IOU; where no trial succeeds, another is drawn.
    """
    for least in rng.permutation(LEAST_IOU):
        if least >= 1 or not len(boxes_xyxy_px):
            break
        crops = candidate_crops(window, rng)  # (T, 4)
        fits = (iou_where_centred(crops, boxes_xyxy_px) >= max(least, 1e-9)).any(axis=1)  # (T,)
        if fits.any():
            x0, y0, x1, y1 = crops[fits.argmax()].tolist()
            return x0, y0, x1, y1
    return window


def candidate_crops(window: Window, rng: np.random.Generator) -> np.ndarray:
    """Parts of 0.3 to 1 of each side whose aspect lies between 1:2 and 2:1 -> (T, 4) int64 xyxy."""
    corner, size = np.array(window[:2]), np.array(window[2:]) - window[:2]
    sides = np.maximum((size * rng.uniform(0.3, 1, (CROP_TRIALS, 2))).astype(np.int64), 1)  # (T, 2)
    start = corner + ((size - sides) * rng.random((CROP_TRIALS, 2))).astype(np.int64)  # (T, 2)
    aspect = sides[:, 0] / sides[:, 1]
    crops: np.ndarray = np.concatenate([start, start + sides], axis=1)[(aspect > 0.5) & (aspect < 2)]
    return crops


def iou_where_centred(crops_xyxy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """crops_xyxy: (T, 4), boxes_xyxy: (N, 4) -> (T, N) IoU, 0 where the box's centre lies outside the crop."""
    crops, boxes = crops_xyxy[:, None], boxes_xyxy[None]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2  # (1, N, 2)
    is_inside = ((centre > crops[..., :2]) & (centre < crops[..., 2:])).all(axis=-1)  # (T, N)
    overlap = np.minimum(crops[..., 2:], boxes[..., 2:]) - np.maximum(crops[..., :2], boxes[..., :2])
    intersection = overlap.clip(min=0).prod(axis=-1)  # (T, N)
    union = areas(crops) + areas(boxes) - intersection
    return np.where(is_inside, intersection / union, 0.0)


def areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(..., 4) -> (...)."""
    sides: np.ndarray = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]  # (..., 2)
    product: np.ndarray = sides[..., 0] * sides[..., 1]
    return product


# --- pixels and boxes together ---


def render(
    picture: Picture,
    window: Window,
    size_hw: Size,
    distort: A.Compose | None = None,
    rng: np.random.Generator | None = None,
) -> Picture:
    """What the window shows, stretched to size_hw; outside of the picture it is black, whatever the colours do."""
    source = overlap_of(window, whole(picture))
    target = place_on_canvas(source, window, size_hw)
    tile = picture.image[source[1] : source[3], source[0] : source[2]]
    tile = resized(tile, (target[3] - target[1], target[2] - target[0]))
    if rng is not None:
        tile = distorted(tile, distort, rng)

    scale = np.array(
        [(target[2] - target[0]) / (source[2] - source[0]), (target[3] - target[1]) / (source[3] - source[1])]
    )
    boxes = (picture.boxes_xyxy_px - np.tile(source[:2], 2)) * np.tile(scale, 2) + np.tile(target[:2], 2)
    return visible(Picture(pasted(tile, target, size_hw), boxes, picture.labels), target)


def overlap_of(a: Window, b: Window) -> Window:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def place_on_canvas(source: Window, window: Window, size_hw: Size) -> Window:
    """Where on a canvas of size_hw that shows the window the source comes to lie: whole pixels, at least one."""
    places = []
    for axis, side in ((0, size_hw[1]), (1, size_hw[0])):
        scale = side / (window[axis + 2] - window[axis])
        start = min(round((source[axis] - window[axis]) * scale), side - 1)
        places.append((start, max(start + 1, round((source[axis + 2] - window[axis]) * scale))))
    (x0, x1), (y0, y1) = places
    return x0, y0, x1, y1


def resized(image: np.ndarray, size_hw: Size) -> np.ndarray:
    """Bilinear, and anti-aliased where it shrinks: what PIL gives and the published weights were trained on.

    image: (H, W, C) uint8 -> (H', W', C) uint8.
    """
    if image.shape[:2] == size_hw:
        return image
    height, width = size_hw
    if height >= image.shape[0] and width >= image.shape[1]:  # nothing to average: the quicker of two equals
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)
    rows = np.ascontiguousarray(image).reshape(1, *image.shape)  # [None] would give a stride that hides the layout
    batch = torch.from_numpy(rows).permute(0, 3, 1, 2)  # (1, C, H, W) channels last, and so is the result
    small = F.interpolate(batch, size=size_hw, mode="bilinear", antialias=True)  # (1, C, H', W')
    return small[0].permute(1, 2, 0).numpy()


def distorted(image: np.ndarray, distort: A.Compose | None, rng: np.random.Generator) -> np.ndarray:
    """Colours of the first three channels changed; a fourth is no colour and stays. (H, W, C) -> (H, W, C)."""
    if distort is None:
        return image
    distort.set_random_state(rng, random.Random(int(rng.integers(2**62))))
    colours = distort(image=np.ascontiguousarray(image[..., :3]))["image"]
    return np.concatenate([colours, image[..., 3:]], axis=2) if image.shape[2] > 3 else colours


def pasted(tile: np.ndarray, target: Window, size_hw: Size) -> np.ndarray:
    if tile.shape[:2] == size_hw:
        return tile
    canvas = np.zeros((*size_hw, tile.shape[2]), np.uint8)
    canvas[target[1] : target[3], target[0] : target[2]] = tile
    return canvas


def visible(picture: Picture, window: Window) -> Picture:
    """Boxes cut at the window; those of which too little is left are dropped."""
    boxes = picture.boxes_xyxy_px
    cut = boxes.clip(np.tile(window[:2], 2), np.tile(window[2:], 2))  # (N, 4)
    stays = ((cut[:, 2:] - cut[:, :2]) >= MIN_SIDE_PX).all(axis=1) & (areas(cut) >= MIN_VISIBLE * areas(boxes))
    return Picture(picture.image, cut[stays], picture.labels[stays])


# --- turns and flips ---


def turned(picture: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    if rng.random() < recipe.rot90:
        picture = quarter_turned(picture, int(rng.integers(1, 4)))
    if rng.random() < recipe.rotate:
        picture = rotated(picture, rng.uniform(-recipe.rotate_deg, recipe.rotate_deg))
    return picture


def mirrored(picture: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    """Last of all, where the picture is small and a flip cheap."""
    if rng.random() < recipe.flip:
        picture = flipped(picture)
    if rng.random() < recipe.vertical_flip:
        picture = vertically_flipped(picture)
    return picture


def flipped(picture: Picture) -> Picture:
    """Left becomes right."""
    image = cv2.flip(picture.image, 1).reshape(picture.image.shape)
    x0, y0, x1, y1 = picture.boxes_xyxy_px.T
    width = picture.size_hw[1]
    return Picture(image, np.stack([width - x1, y0, width - x0, y1], axis=1), picture.labels)


def vertically_flipped(picture: Picture) -> Picture:
    """Top becomes bottom."""
    image = cv2.flip(picture.image, 0).reshape(picture.image.shape)
    x0, y0, x1, y1 = picture.boxes_xyxy_px.T
    height = picture.size_hw[0]
    return Picture(image, np.stack([x0, height - y1, x1, height - y0], axis=1), picture.labels)


def quarter_turned(picture: Picture, turns: int) -> Picture:
    """Counter-clockwise, so many times; height and width change places at each turn."""
    image, boxes = np.ascontiguousarray(np.rot90(picture.image, turns)), picture.boxes_xyxy_px
    height, width = picture.size_hw
    for _ in range(turns % 4):
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([y0, width - x1, y1, width - x0], axis=1)
        height, width = width, height
    return Picture(image, boxes, picture.labels)


def rotated(picture: Picture, angle_deg: float) -> Picture:
    """Counter-clockwise around the centre; the size stays and the corners that come in are black.

    An object is taken for the ellipse in its box: the box around the rotated ellipse fits vehicles and people better
    than the box around the rotated box, which grows by up to 1.41.
    """
    height, width = picture.size_hw
    centre = np.array([width / 2, height / 2])
    radians = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])  # y points down
    shift = centre - 0.5 - turn @ (centre - 0.5)  # OpenCV puts (0, 0) at the centre of the first pixel
    image = cv2.warpAffine(picture.image, np.column_stack([turn, shift]), (width, height), flags=cv2.INTER_LINEAR)

    boxes = picture.boxes_xyxy_px
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 - centre) @ turn.T + centre  # (N, 2)
    half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (turn.T**2))  # (N, 2)
    moved = Picture(
        image.reshape(picture.image.shape), np.concatenate([middle - half, middle + half], axis=1), picture.labels
    )
    return visible(moved, whole(moved))
