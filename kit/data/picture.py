"""A picture and its objects: pixels, boxes and outlines that move together, and the moves that are exact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kit.data.outlines import Outline, Window, hull
from kit.data.window_cut import cut_outline

Size = tuple[int, int]  # height, width in pixels

MIN_SIDE_PX = 1.0  # a box with a shorter side is no target
MIN_VISIBLE = 0.25  # share of an object's area that has to stay; a box whose centre stays keeps at least that


@dataclass(frozen=True)
class Picture:
    """An image and its objects. Where an outline is known it tells the box whenever the object is turned or cut."""

    image: np.ndarray  # (H, W, C) uint8
    boxes_xyxy_px: np.ndarray  # (N, 4) float64
    labels: np.ndarray  # (N,) int64
    outlines: list[Outline | None] | None = None  # N, None of objects that have only a box; None: of all

    def __post_init__(self) -> None:
        counts = [len(self.boxes_xyxy_px), len(self.labels)] + ([] if self.outlines is None else [len(self.outlines)])
        if len(set(counts)) > 1:
            raise ValueError(f"Picture: expected as many boxes as labels and outlines, got {counts}; use only()")

    @property
    def size_hw(self) -> Size:
        return self.image.shape[0], self.image.shape[1]

    def only(self, rows: np.ndarray) -> "Picture":
        """These objects alone; rows: (N,) bool, or indices."""
        outlines = self.outlines and [self.outlines[row] for row in np.arange(len(self.labels))[rows]]
        return Picture(self.image, self.boxes_xyxy_px[rows], self.labels[rows], outlines)

    def with_image(self, image: np.ndarray) -> "Picture":
        """Other pixels in the same places."""
        if image.shape[:2] != self.size_hw:
            raise ValueError(f"with_image: expected height, width {self.size_hw}, got {image.shape[:2]}; warp instead")
        return replace(self, image=image)


def joined(pictures: Sequence[Picture], image: np.ndarray) -> Picture:
    """The objects of all, whose places are already those in the image."""
    boxes = np.concatenate([picture.boxes_xyxy_px for picture in pictures])
    labels = np.concatenate([picture.labels for picture in pictures])
    if all(picture.outlines is None for picture in pictures):
        return Picture(image, boxes, labels)
    outlines = [each for picture in pictures for each in picture.outlines or [None] * len(picture.labels)]
    return Picture(image, boxes, labels, outlines)


def whole(picture: Picture) -> Window:
    height, width = picture.size_hw
    return 0, 0, width, height


def overlap_of(a: Window, b: Window) -> Window:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def areas(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """(..., 4) -> (...)."""
    sides: np.ndarray = boxes_xyxy_px[..., 2:] - boxes_xyxy_px[..., :2]  # (..., 2)
    product: np.ndarray = sides[..., 0] * sides[..., 1]
    return product


# --- moves along the axes: straight edges stay straight, so boxes and outlines need no sampling ---


def scaled(
    outlines: list[Outline | None] | None, scale: np.ndarray, shift_px: np.ndarray
) -> list[Outline | None] | None:
    """scale, shift_px: (2,) x, y."""
    return outlines and [each and [ring * scale + shift_px for ring in each] for each in outlines]


def shifted(picture: Picture, x_px: int, y_px: int) -> Picture:
    """The objects so much further right and down; the pixels stay."""
    shift = np.array([x_px, y_px])
    boxes = picture.boxes_xyxy_px + np.tile(shift, 2)
    return Picture(picture.image, boxes, picture.labels, scaled(picture.outlines, np.ones(2), shift))


def visible(picture: Picture, window: Window) -> Picture:
    """Objects cut at the window; those of which too little is left are dropped."""
    boxes = picture.boxes_xyxy_px
    cut = boxes.clip(np.tile(window[:2], 2), np.tile(window[2:], 2))  # (N, 4)
    stays = areas(cut) >= MIN_VISIBLE * areas(boxes)
    result = Picture(picture.image, cut, picture.labels, picture.outlines).only(stays)
    if picture.outlines is not None:
        result = with_cut_outlines(result, window)
    return large_enough(result)


def large_enough(picture: Picture) -> Picture:
    """Without the boxes under MIN_SIDE_PX, and without those that are NaN because nothing is left."""
    boxes = picture.boxes_xyxy_px
    return picture.only(((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE_PX).all(axis=1))


def with_cut_outlines(picture: Picture, window: Window) -> Picture:
    """Outlines that leave the window are cut there, and their boxes drawn tight around what is left."""
    boxes, outlines = picture.boxes_xyxy_px.copy(), list(picture.outlines or [])
    for row, outline in enumerate(outlines):
        if outline and leaves(outline, window):
            boxes[row], parts = cut_outline(outline, window)
            outlines[row] = parts or None
    return Picture(picture.image, boxes, picture.labels, outlines)


def leaves(outline: Outline, window: Window) -> bool:
    x0, y0, x1, y1 = hull(outline)
    return bool(x0 < window[0] or y0 < window[1] or x1 > window[2] or y1 > window[3])


def flipped(picture: Picture) -> Picture:
    """Left becomes right."""
    image = cv2.flip(picture.image, 1).reshape(picture.image.shape)
    x0, y0, x1, y1 = picture.boxes_xyxy_px.T
    width = picture.size_hw[1]
    boxes = np.stack([width - x1, y0, width - x0, y1], axis=1)
    return Picture(image, boxes, picture.labels, scaled(picture.outlines, np.array([-1, 1]), np.array([width, 0])))


def vertically_flipped(picture: Picture) -> Picture:
    """Top becomes bottom."""
    image = cv2.flip(picture.image, 0).reshape(picture.image.shape)
    x0, y0, x1, y1 = picture.boxes_xyxy_px.T
    height = picture.size_hw[0]
    boxes = np.stack([x0, height - y1, x1, height - y0], axis=1)
    return Picture(image, boxes, picture.labels, scaled(picture.outlines, np.array([1, -1]), np.array([0, height])))


def quarter_turned(picture: Picture, turns: int) -> Picture:
    """Counter-clockwise, so many times; height and width change places at each turn."""
    image, boxes = np.ascontiguousarray(np.rot90(picture.image, turns)), picture.boxes_xyxy_px
    outlines = picture.outlines
    height, width = picture.size_hw
    for _ in range(turns % 4):
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([y0, width - x1, y1, width - x0], axis=1)
        swapped = outlines and [each and [ring[:, ::-1] for ring in each] for each in outlines]
        outlines = scaled(swapped, np.array([1, -1]), np.array([0, width]))
        height, width = width, height
    return Picture(image, boxes, picture.labels, outlines)
