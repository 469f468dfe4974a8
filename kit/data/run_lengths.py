"""Run-length masks of COCO files, as outlines: decoded here, so that a broken one is refused and not run into."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from kit.data.outlines import Outline, simplified

MOST_PIXELS = 2**28  # of one mask
MOST_BITS = 45  # of one run: more than any needs, and a text that never ends a run costs no time


def outline_of_runs(segmentation: Mapping[str, Any]) -> Outline | None:
    """The parts of a mask, along the edges of its pixels; holes are filled. None where it is empty or broken."""
    mask = mask_of(segmentation)
    if mask is None or not mask.any():
        return None
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    corner = np.array([columns[0], rows[0]])
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fine = cut.repeat(2, axis=0).repeat(2, axis=1)  # its border pixels have their middles a quarter from an edge
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    edges = [np.round((contour[:, 0] + 0.5) / 2) for contour in contours]  # so the nearest whole number is that edge
    return [simplified(ring) + corner for ring in edges]


def mask_of(segmentation: Mapping[str, Any]) -> np.ndarray | None:
    """{"size": [H, W], "counts": list or compressed text} -> (H, W) uint8; None where the runs do not fill it."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    runs = runs_of(counts) if isinstance(counts, str) else counts
    if size[0] * size[1] > MOST_PIXELS or not isinstance(runs, list):
        return None
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        return None
    values = np.arange(len(runs), dtype=np.uint8) % 2  # zeros come first, and the columns one after the other
    filled: np.ndarray = np.repeat(values, runs).reshape(size[1], size[0]).T
    return np.ascontiguousarray(filled)


def runs_of(text: str) -> list[int] | None:
    """COCO's compressed text: five bits a character, the lowest first; from the third run on the step from the run
    before the last."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if shift > MOST_BITS:
            return None
        if code & 32:  # there is more of this run
            continue
        if code & 16:  # negative
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs
