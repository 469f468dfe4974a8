"""The outlines of things in the picture, traced from what is painted, and how much of each is left to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kit.data.fisheye import Lens
from kit.data.rendering import SHIFT, Seen, fixed

TRACE = 4  # silhouettes are traced this many times as fine as the picture
OWNER = 2  # who hides whom is found this many times as fine as the picture


@dataclass(frozen=True)
class Silhouette:
    """One thing as if nothing stood before it, cut off where the picture or its circle ends."""

    polygon_px: np.ndarray  # (P, 2)
    whole_area_px: float  # before it was cut off

    @property
    def box_xywh_px(self) -> np.ndarray:
        """The hull of the polygon (4,)."""
        low, high = self.polygon_px.min(axis=0), self.polygon_px.max(axis=0)
        return np.concatenate([low, high - low])


def trace(seen: Seen, lens: Lens, size_px: int) -> Silhouette | None:
    """The outline of the union of a thing's faces; None if nothing of it lies inside."""
    origin = np.floor(seen.points_px.min(axis=0)) - 1
    width, height = (np.ceil(seen.points_px.max(axis=0)) + 1 - origin).astype(int) * TRACE
    mask = np.zeros((height, width), dtype=np.uint8)
    _fill_body(mask, seen, TRACE, origin, 1)
    whole = cv2.countNonZero(mask)
    _cut(mask, origin, lens, size_px)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    largest = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 0.75, True)[:, 0]
    return Silhouette((largest + 0.5) / TRACE + origin, whole / TRACE**2) if len(largest) > 2 else None


def _fill_body(mask: np.ndarray, seen: Seen, scale: int, origin: np.ndarray, value: int) -> None:
    """Fill the faces of a thing, without soft edges, in a mask `scale` times as fine that starts at `origin`."""
    points = fixed(seen.points_px - origin, scale)
    for start, end in seen.body:
        cv2.fillPoly(mask, [points[start:end]], (value,), cv2.LINE_8, SHIFT)


def _cut(mask: np.ndarray, origin: np.ndarray, lens: Lens, size_px: int) -> None:
    """Clear what lies outside the picture or the image circle; mask: (H, W), `TRACE` times as fine, from `origin`."""
    height, width = mask.shape
    x, y = ((np.arange(count) + 0.5) / TRACE + start for count, start in zip((width, height), origin, strict=True))
    mask[:, (x < 0) | (x > size_px)] = 0
    mask[(y < 0) | (y > size_px)] = 0
    x, y = x - lens.centre_px[0], y - lens.centre_px[1]
    if np.hypot(np.abs(x).max(), np.abs(y).max()) > lens.circle_px:
        mask *= (x**2)[None] + (y**2)[:, None] < lens.circle_px**2


def visible_shares(seen: Sequence[Seen], traced: Sequence[Silhouette | None], size_px: int) -> list[float]:
    """Share of each whole silhouette that is neither hidden nor cut off; both lists from far to near.

    Where `traced` is None the thing only hides others, and its share is 0.
    """
    if len(seen) > 254:
        raise ValueError(f"visible_shares: expected at most 254 things, got {len(seen)}; split the scene")
    owner = np.zeros((size_px * OWNER, size_px * OWNER), dtype=np.uint8)
    for number, (one, outline) in enumerate(zip(seen, traced, strict=True), start=1):
        if outline is None:
            _fill_body(owner, one, OWNER, np.zeros(2), number)
        else:
            cv2.fillPoly(owner, [fixed(outline.polygon_px, OWNER)], (number,), cv2.LINE_8, SHIFT)
    return [_share(owner, number, outline) for number, outline in enumerate(traced, start=1)]


def _share(owner: np.ndarray, number: int, outline: Silhouette | None) -> float:
    if outline is None:
        return 0.0
    x, y, width, height = outline.box_xywh_px * OWNER
    crop = owner[max(int(y), 0) : int(y + height) + 2, max(int(x), 0) : int(x + width) + 2]
    return min(float(np.count_nonzero(crop == number)) / OWNER**2 / outline.whole_area_px, 1.0)
