"""Boxes with their labels drawn on a picture, quickly enough for videos; and the pictures of single boxes."""

import math
from functools import cache, lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from kit.data.picture import Size
from kit.media.frame import with_channels
from kit.plots.canvas import class_colour, ink_on, is_free, sides_px, spots_at
from kit.predict import Detections

RIM = (0, 0, 0)  # so that a box is seen on bright ground too


def draw(image: np.ndarray, detections: Detections, names: list[str]) -> np.ndarray:
    """A copy with boxes coloured by class; image: (H, W, C) uint8 -> (H, W, 3) uint8.

    A label that would cover another label or box is left out: the colour tells the class.
    """
    canvas = np.array(with_channels(image, 3))
    size_hw = (canvas.shape[0], canvas.shape[1])
    boxes_xyxy_px = detections.boxes_xyxy_px.double().numpy()
    labels = detections.labels.tolist()
    for box, label in reversed(list(zip(boxes_xyxy_px, labels, strict=True))):  # the best last, on top
        draw_box(canvas, box, class_colour(label), line_px(size_hw))
    taken: list[np.ndarray] = []
    for row in np.argsort(sides_px(boxes_xyxy_px), kind="stable"):
        text = f"{names[labels[row]]} {detections.scores[row]:.2f}"
        chip = label_chip(text, class_colour(labels[row]), font_px(size_hw))  # (h, w, 3)
        others = np.vstack([np.delete(boxes_xyxy_px, row, axis=0), *taken])
        free = [
            spot
            for spot in spots_at(boxes_xyxy_px[row], chip.shape[1], chip.shape[0])
            if is_free(spot, others, size_hw)
        ]
        if free:
            taken.append(free[0])
            paste(canvas, chip, free[0])
    return canvas


def line_px(size_hw: Size) -> int:
    return max(2, round(math.sqrt(size_hw[0] * size_hw[1]) / 320))


def font_px(size_hw: Size) -> int:
    return max(11, round(math.sqrt(size_hw[0] * size_hw[1]) / 48))


def draw_box(canvas: np.ndarray, box_xyxy_px: np.ndarray, colour: str, width_px: int) -> None:
    x1, y1, x2, y2 = (round(edge) for edge in box_xyxy_px.tolist())
    cv2.rectangle(canvas, (x1, y1), (x2, y2), RIM, width_px + 2)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), rgb(colour), width_px)


def rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue


@lru_cache(maxsize=4096)
def label_chip(text: str, colour: str, size_px: int) -> np.ndarray:
    """(h, w, 3) uint8; the same for the same arguments."""
    font = font_of(size_px)
    pad = max(1, size_px // 6)
    ascent, descent = font.getmetrics()
    chip = Image.new("RGB", (math.ceil(font.getlength(text)) + 2 * pad, ascent + descent), rgb(colour))
    ImageDraw.Draw(chip).text((pad, 0), text, fill=ink_on(colour), font=font)
    return np.asarray(chip)


@cache
def font_of(size_px: int) -> ImageFont.FreeTypeFont:
    """The one of all other pictures, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def paste(canvas: np.ndarray, chip: np.ndarray, spot_xyxy_px: np.ndarray) -> None:
    """Cut where it reaches over the rim."""
    x, y = max(0, round(float(spot_xyxy_px[0]))), max(0, round(float(spot_xyxy_px[1])))
    target = canvas[y : y + chip.shape[0], x : x + chip.shape[1]]
    target[:] = chip[: target.shape[0], : target.shape[1]]


def crop(image: np.ndarray, box_xyxy_px: np.ndarray, padding: float) -> np.ndarray:
    """The box and a share of its width and height on each side, as far as the picture reaches; at least a pixel."""
    x1, y1, x2, y2 = box_xyxy_px.tolist()
    across, along = padding * (x2 - x1), padding * (y2 - y1)
    height, width = image.shape[:2]
    left, top = min(max(0, math.floor(x1 - across)), width - 1), min(max(0, math.floor(y1 - along)), height - 1)
    right, bottom = min(width, math.ceil(x2 + across)), min(height, math.ceil(y2 + along))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]
