"""Do the boxes sit on the objects? An object ends where the image changes, so its box lies on edges of the picture.

The strength of the image's change across the four sides of all boxes is summed, with the boxes as they are and moved by
some share of the image. Where the boxes are right the sum is highest in the middle. Where it is highest elsewhere they
are shifted; where no place is better than another, they are boxes of other images, or of things without a rim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kit.data.dataset import CocoDataset
from kit.doctor.loader import UNREADABLE
from kit.doctor.report import Verdict, judged
from kit.predict import Progress

PART = "place"
GRID = 160  # px to which each image is brought, so that a share is a number of cells
REACH = 12  # cells that boxes are moved to either side: 7.5 % of the image
LEAST_SIDE = 4  # cells of a box that is looked at
LEAST_IMAGES = 8
SURE, LIKELY = 3.0, 2.0  # standard errors
NEAR = 3  # cells that a right box may be off: 2 % of the image, as loosely drawn boxes are


@dataclass(frozen=True)
class Placed:
    """scores: (2 REACH + 1, 2 REACH + 1) mean strength by shift y, x, against the mean over all shifts; best_xy: the
    shift in cells that is best; sure: by how many standard errors it beats the middle; peak: and the middle all others.
    """

    scores: np.ndarray
    best_xy: tuple[int, int]
    sure: float
    peak: float
    images: int


def check_place(
    train_set: CocoDataset, most: int, seed: int, progress: Progress | None
) -> tuple[list[Verdict], np.ndarray | None]:
    """The verdict, and the map of all shifts where there were images enough."""
    placed = place(train_set, most, seed, progress)
    question = "Do the boxes sit on the objects?"
    if placed is None:
        found = f"fewer than {LEAST_IMAGES} images with boxes to be looked at"
        mend = "look at the pictures of the batches yourself"
        return [judged(PART, question, False, True, f"{LEAST_IMAGES} images or more", found, mend)], None
    x, y = placed.best_xy
    is_off = placed.sure > LIKELY and max(abs(x), abs(y)) > NEAR
    no_peak = placed.peak < LIKELY
    found = f"they fit the edges of {placed.images} images best "
    found += (
        f"moved by {x / GRID:+.1%} of the width and {y / GRID:+.1%} of the height"
        if is_off
        else f"within {NEAR / GRID:.1%} of where they are"
    )
    if no_peak and not is_off:
        found = f"of {placed.images} images, edges that fit them nowhere better than elsewhere"
    mend = "the boxes are shifted: is an offset, a crop or a border missing, or are they of another size of image?"
    if no_peak and not is_off:
        mend = "look at the pictures of the batches: are these the boxes of these images?"
    return [
        judged(
            PART,
            question,
            is_off and placed.sure > SURE,
            is_off or no_peak,
            "edges of the images under their sides",
            found,
            mend,
        )
    ], placed.scores


def place(train_set: CocoDataset, most: int, seed: int, progress: Progress | None) -> Placed | None:
    maps = []
    order = np.random.default_rng([seed, 4]).permutation(len(train_set))
    for done, index in enumerate(order.tolist(), 1):
        try:
            found = shift_scores(*in_cells(train_set, index))
        except UNREADABLE:
            continue  # named by the check of the files
        if found is not None:
            maps.append(found)
        if progress:
            progress(min(len(maps), most - 1), most)
        if len(maps) >= most or done >= 3 * most:
            break
    if progress:
        progress(most, most)
    return placed_of(maps) if len(maps) >= LEAST_IMAGES else None


def placed_of(maps: Sequence[np.ndarray]) -> Placed:
    """maps: (2 REACH + 1, 2 REACH + 1) each, one an image."""
    each = np.stack(maps)  # (I, Y, X)
    mean = each.mean(axis=0)
    row, column = divmod(int(mean.argmax()), mean.shape[1])
    middle = each[:, REACH, REACH]
    far = np.ones(mean.shape, bool)
    far[REACH - 4 : REACH + 5, REACH - 4 : REACH + 5] = False
    gain, peak = each[:, row, column] - middle, middle - each[:, far].mean(axis=1)
    return Placed(mean, (column - REACH, row - REACH), errors(gain), errors(peak), len(maps))


def errors(values: np.ndarray) -> float:
    """Their mean in standard errors."""
    spread = values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() / spread) if spread > 0 else 0.0


def in_cells(train_set: CocoDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey image of GRID x GRID cells, and its boxes (N, 4) xyxy in cells."""
    picture = train_set.load(index)
    height, width = picture.size_hw
    grey = picture.image[..., :3].mean(axis=2).astype(np.float32)
    small = cv2.resize(grey, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return small, picture.boxes_xyxy_px * GRID / np.array([width, height, width, height])


def shift_scores(image: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray | None:
    """The change across the sides of all boxes, by shift y, x, in units of the image's mean; None without boxes.

    image: (GRID, GRID); boxes_xyxy: (N, 4) in its cells. Sides at the rim of the image tell nothing and are left out.
    """
    large = ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) >= LEAST_SIDE).all(axis=1)
    if not large.any():
        return None
    across_x, across_y = np.abs(np.diff(image, axis=1)), np.abs(np.diff(image, axis=0))
    sides = [*sides_of(boxes_xyxy[large], 0), *sides_of(boxes_xyxy[large], 1)]
    total, weight = np.zeros((2 * REACH + 1, 2 * REACH + 1)), 0
    for axis, at, low, high in sides:
        along = across_x if axis == 0 else across_y.T  # (GRID, GRID - 1): place along the side, place across it
        if not REACH + 1 <= at < GRID - REACH - 1:
            continue
        values = side_scores(along, at, low, high)  # (2 REACH + 1 along, 2 REACH + 1 across)
        total += values if axis == 0 else values.T
        weight += 1
    mean = (across_x.mean() + across_y.mean()) / 2
    return total / weight / mean if weight and mean > 0 else None


def sides_of(boxes_xyxy: np.ndarray, axis: int) -> list[tuple[int, int, int, int]]:
    """axis 0: the left and right sides, 1: upper and lower -> axis, place of the side, its ends."""
    other = 1 - axis
    cells = np.round(boxes_xyxy).astype(int)
    return [(axis, box[axis + end], box[other], box[other + 2]) for box in cells.tolist() for end in (0, 2)]


def side_scores(across: np.ndarray, at: int, low: int, high: int) -> np.ndarray:
    """Mean change along the side at each shift along (rows) and across (columns): (2 REACH + 1, 2 REACH + 1).

    The change between cells c and c + 1 counts for a side at c + 1, a little also for its neighbours.
    """
    columns = at - 1 + np.arange(-REACH, REACH + 1)
    strips = across[:, columns]
    sums = np.concatenate([np.zeros((1, len(columns))), strips.cumsum(axis=0)])  # (GRID + 1, shifts)
    shifts = np.arange(-REACH, REACH + 1)
    first, last = np.clip(low + shifts, 0, len(across)), np.clip(high + shifts, 0, len(across))
    scores: np.ndarray = (sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]
    return scores
