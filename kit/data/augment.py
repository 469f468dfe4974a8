"""Augmentation: which part of which pictures is seen, how large, and in which colours.

Along the axes all geometry is chosen first and the pixels are resampled once, from the decoded picture straight to the
place where they end up: zoom-out and IoU crop only move a window, a mosaic is four windows. Pixels and boxes go through
the same whole-pixel rectangles, so boxes are exact, and they are never rounded. What bends lines (kit.data.warps) comes
before, all warps in one resampling. Everything drawn by chance comes from (seed, epoch, index): workers, batches and a
resumed run do not matter.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, TypeAlias

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np
import torch
import torch.nn.functional as F

from kit.data.colours import Colours
from kit.data.optics import chromatic, vignetted
from kit.data.outlines import Window
from kit.data.picture import (
    Picture,
    Size,
    areas,
    flipped,
    joined,
    overlap_of,
    quarter_turned,
    scaled,
    shifted,
    vertically_flipped,
    visible,
    whole,
)
from kit.data.warps import Shape, Warp, random_fisheye, random_lens, random_radial, random_rotation, warp_picture

LEAST_IOU = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the SSD crop: one is drawn, 1 = no crop
CROP_TRIALS = 40
LEAST_POOL = 8  # of fewer images a batch's mosaics would all show the same
VIGNETTE = (0.2, 0.7)  # share of the light that is lost in the corners
CHROMATIC = 0.003  # of the distance from the centre, to either side: 2 px in the corner of 1000 x 1000


@dataclass(frozen=True)
class Draw:
    """What is asked of a data set: the image, the epoch, and the size of the result."""

    index: int
    epoch: int
    size_hw: Size
    pool: tuple[int, ...] = ()  # images that lie ready with this one, such as those of its batch
    repeat: int = 0  # how often the image has come in this epoch before; each time it looks another way


Distort: TypeAlias = Colours | A.Compose
Source = Literal["batch", "all"]  # where mosaic and mixup find their other pictures
Load = Callable[[int], Picture]  # index in the data set -> the picture as it lies on the disk


@dataclass(frozen=True)
class Recipe:
    """The augmentation of one phase; numbers are probabilities per picture unless they say otherwise."""

    distort: Distort | None = None  # colours only; has to leave the geometry alone
    zoom_out: float = 0.0
    zoom_out_max: float = 4.0  # the canvas is up to so many times as wide and high as the picture
    iou_crop: float = 0.0
    flip: float = 0.0
    vertical_flip: float = 0.0
    rot90: float = 0.0  # one of the three quarter turns; exact, and natural for a camera that looks straight down
    rotate: float = 0.0  # around the optical centre
    rotate_deg: float = 0.0  # up to so far to either side; 180 is every direction
    fisheye: float = 0.0  # a perspective picture as a fisheye would have seen it
    lens: float = 0.0  # a fisheye picture as another fisheye lens would have drawn it
    radial: float = 0.0  # barrel and pincushion distortion
    vignette: float = 0.0
    chromatic: float = 0.0  # aberration: red and blue a little larger or smaller than green
    box_outline: Shape = "rectangle"  # what a box without an outline is taken for where it is bent
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
    mosaic_from: Source = "batch"

    def recipe(self, epoch: int) -> Recipe:
        if not self.plain_epochs <= epoch < self.strong_until_epoch:
            return self.light
        return self.strong if epoch < self.mosaic_until_epoch else replace(self.strong, mosaic=0.0, mixup=0.0)

    def __call__(self, load: Load, length: int, draw: Draw, seed: int) -> Picture:
        """The picture to train on: of draw.size_hw, a pure function of the pictures, draw and seed."""
        rng = np.random.default_rng([seed, draw.epoch, draw.index, *([draw.repeat] if draw.repeat else [])])
        recipe = self.recipe(draw.epoch)
        if rng.random() < recipe.mosaic:
            indices = [draw.index, *self.others(draw, length, 3, rng)]
            return mosaic((turned(load(index), recipe, rng) for index in indices), draw.size_hw, recipe, rng)
        picture = single(load(draw.index), draw.size_hw, recipe, rng)
        if rng.random() < recipe.mixup:
            other = single(load(self.others(draw, length, 1, rng)[0]), draw.size_hw, recipe, rng)
            return mixed(picture, other, share=rng.uniform(0.45, 0.55))
        return picture

    def takes_from_pool(self, draw: Draw) -> bool:
        recipe = self.recipe(draw.epoch)
        return self.mosaic_from == "batch" and len(draw.pool) >= LEAST_POOL and recipe.mosaic + recipe.mixup > 0

    def others(self, draw: Draw, length: int, count: int, rng: np.random.Generator) -> list[int]:
        """Images beside draw.index: of its pool, or of the whole set."""
        if not self.takes_from_pool(draw):
            return rng.integers(length, size=count).tolist()
        pool = [index for index in draw.pool if index != draw.index]
        if not pool:  # an image that is repeated may fill its batch
            return [draw.index] * count
        return [pool[place] for place in rng.choice(len(pool), count, replace=len(pool) < count)]


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
    fisheye: float = 0.0,
    lens: float = 0.0,
    radial: float = 0.0,
    vignette: float = 0.0,
    chromatic: float = 0.0,
    box_outline: Shape = "rectangle",
    mosaic: float = 0.0,
    mosaic_scale: tuple[float, float] = (0.5, 1.0),
    mosaic_from: Source = "batch",
    mixup: float = 0.0,
) -> Policy:
    """D-FINE's recipe by default; mosaic and mixup of one half each and 4 plain epochs are DEIM's (arXiv 2412.04234).

    mosaic_from: batch takes the other pictures of a mosaic or mixup from those of the same batch, if it has LEAST_POOL
    or more, so that each image is decoded once a batch; all takes them from the whole set, at 2.5 times the decodes.
    Flips and quarter turns stay through all epochs. Mosaic and mixup stop at mosaic_until_epoch, or with the rest.
    """
    light = Recipe(flip=flip, vertical_flip=vertical_flip, rot90=rot90)
    strong = replace(
        light,
        distort=Colours(photometric) if photometric else None,
        zoom_out=zoom_out,
        zoom_out_max=zoom_out_max,
        iou_crop=iou_crop,
        rotate=rotate,
        rotate_deg=rotate_deg,
        fisheye=fisheye,
        lens=lens,
        radial=radial,
        vignette=vignette,
        chromatic=chromatic,
        box_outline=box_outline,
        mosaic=mosaic,
        mosaic_scale=mosaic_scale,
        mixup=mixup,
    )
    until = strong_until_epoch if mosaic_until_epoch is None else mosaic_until_epoch
    return Policy(strong, light, plain_epochs, until, strong_until_epoch, mosaic_from)


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
    tiles = []
    for picture, (x0, y0, x1, y1) in zip(pictures, quarters, strict=True):
        window = tile_window(picture.size_hw, (y1 - y0, x1 - x0), size_hw, recipe.mosaic_scale, rng)
        tiles.append(shifted(mirrored(render(picture, window, (y1 - y0, x1 - x0)), recipe, rng), x0, y0))
    upper, lower = (np.concatenate([tiles[k].image, tiles[k + 1].image], axis=1) for k in (0, 2))
    image = distorted(np.concatenate([upper, lower]), recipe.distort, rng)
    return joined(tiles, image)


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
    return joined([one, other], image)


# --- windows ---


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


# --- pixels and boxes together ---


def render(
    picture: Picture,
    window: Window,
    size_hw: Size,
    distort: Distort | None = None,
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
    outlines = scaled(picture.outlines, scale, np.array(target[:2]) - scale * source[:2])
    return visible(Picture(pasted(tile, target, size_hw), boxes, picture.labels, outlines), target)


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


def distorted(image: np.ndarray, distort: Distort | None, rng: np.random.Generator) -> np.ndarray:
    """Colours of the first three channels changed; a fourth is no colour and stays. (H, W, C) -> (H, W, C)."""
    if distort is None:
        return image
    if isinstance(distort, Colours):
        return distort(image, rng)
    distort.set_random_state(rng, random.Random(int(rng.integers(2**62))))
    colours = distort(image=np.ascontiguousarray(image[..., :3]))["image"]
    return np.concatenate([colours, image[..., 3:]], axis=2) if image.shape[2] > 3 else colours


def pasted(tile: np.ndarray, target: Window, size_hw: Size) -> np.ndarray:
    if tile.shape[:2] == size_hw:
        return tile
    canvas = np.zeros((*size_hw, tile.shape[2]), np.uint8)
    canvas[target[1] : target[3], target[0] : target[2]] = tile
    return canvas


# --- turns and flips ---


def turned(picture: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    if rng.random() < recipe.rot90:
        picture = quarter_turned(picture, int(rng.integers(1, 4)))
    return bent(picture, recipe, rng, keep_shapes=True)


def bent(picture: Picture, recipe: Recipe, rng: np.random.Generator, keep_shapes: bool = False) -> Picture:
    """Through other lenses and around their axis, all in one resampling; then with the faults of a lens.

    keep_shapes: see `warp_picture`; what comes out is then for training, its outlines are not all known ones.
    """
    warp = drawn_warp(picture.size_hw, recipe, rng)
    if warp is not None:
        picture = warp_picture(picture, warp, recipe.box_outline, keep_shapes)
    if happens(recipe.chromatic, rng):
        picture = picture.with_image(chromatic(picture.image, rng.uniform(-CHROMATIC, CHROMATIC)))
    if happens(recipe.vignette, rng):
        picture = picture.with_image(vignetted(picture.image, rng.uniform(*VIGNETTE)))
    return picture


def drawn_warp(size_hw: Size, recipe: Recipe, rng: np.random.Generator) -> Warp | None:
    """The warps that chance has chosen, as one; None: none."""
    kinds = ((recipe.fisheye, random_fisheye), (recipe.lens, random_lens), (recipe.radial, random_radial))
    warps = [draw(size_hw, rng) for probability, draw in kinds if happens(probability, rng)]
    if rng.random() < recipe.rotate:
        warps.append(random_rotation(size_hw, rng, recipe.rotate_deg))
    return reduce(Warp.then, warps) if warps else None


def happens(probability: float, rng: np.random.Generator) -> bool:
    """What is off draws nothing, so that the rest stays as it was without it."""
    return probability > 0 and rng.random() < probability


def mirrored(picture: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    """Last of all, where the picture is small and a flip cheap."""
    if rng.random() < recipe.flip:
        picture = flipped(picture)
    if rng.random() < recipe.vertical_flip:
        picture = vertically_flipped(picture)
    return picture
