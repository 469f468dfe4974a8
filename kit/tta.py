"""Test-time augmentation: each image shown at several sizes, mirrored and in tiles.

Every view yields COCO results like those of predict_dataset, in pixels of the original image, so that views can be
judged one by one, and fused like the results of several models (`fuse_views`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kit.data.augment import resized
from kit.data.coco import CocoFile, Record
from kit.data.dataset import read_indexed, to_tensor
from kit.data.picture import Size
from kit.data.workers import settle_worker
from kit.dfine.decoder import Output
from kit.dfine.detector import STRIDE, Detector
from kit.ensemble import Method, fuse
from kit.predict import Detections, Progress, coco_results, to_unit, top_detections

Results = list[dict[str, Any]]  # COCO results: image_id, category_id, bbox (xywh px), score
WHOLE = "whole"  # the plain view: what predict_dataset shows
OVERLAP = 0.2  # of neighbouring tiles, in sides of a tile
CUT_MARGIN = 0.01  # in sides of a tile: a box that comes so near to an inner edge is taken for cut by it
SAME_OBJECT_IOU = 0.5  # of boxes of two tiles, or of a tile and the whole image


@dataclass(frozen=True)
class InputView:
    """One way to show an image to the detector. tiles: n x n overlapping windows, each at the full input size."""

    size_hw: Size
    flip: bool = False
    tiles: int = 1  # the whole image

    def __post_init__(self) -> None:
        if self.tiles < 1 or any(side < STRIDE or side % STRIDE for side in self.size_hw):
            raise ValueError(
                f"a view must have at least 1 tile and sides that are multiples of {STRIDE}, "
                f"got {self.tiles} and {self.size_hw}; let input_views round them"
            )

    @property
    def windows(self) -> tuple[Size, int]:
        """Views that are equal in this differ by the flip alone."""
        return self.size_hw, self.tiles


def input_views(
    size_hw: Size, *, flip: bool = False, scales: Sequence[float] = (), tiles: int = 0
) -> dict[str, InputView]:
    """The views of one model by name, the plain one first: whole, flip, x1.25, x1.25 flip, tiles 2x2.

    scales: further sizes, in sides of size_hw, rounded to multiples of 32; tiles: n adds n x n tiles, 0 and 1 none.
    """
    if min(scales, default=1.0) <= 0 or tiles < 0:
        raise ValueError(f"scales must be above 0 and tiles at least 0, got {list(scales)} and {tiles}")
    views = {}
    for scale in dict.fromkeys((1.0, *scales)):
        name, size = ("", size_hw) if scale == 1 else (f"x{scale:g}", scaled(size_hw, scale))
        views[name or WHOLE] = InputView(size)
        if flip:
            views[f"{name} flip".lstrip()] = InputView(size, flip=True)
    if tiles > 1:
        views[f"tiles {tiles}x{tiles}"] = InputView(size_hw, tiles=tiles)
    return views


def scaled(size_hw: Size, scale: float) -> Size:
    """The nearest multiples of the stride, at least one."""
    height, width = (max(round(side * scale / STRIDE), 1) * STRIDE for side in size_hw)
    return height, width


# --- prediction ---


def predict_with_views(
    detector: Detector,
    coco: CocoFile,
    images: Path | str,
    views: Mapping[str, InputView],
    *,
    batch_size: int = 8,
    top_k: int = 300,
    min_score: float = 0.01,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> dict[str, Results]:
    """By view: COCO results of every image (of every world-th, from `rank` on). Each image is read once.

    A plain view gives exactly what predict_dataset gives. A view of tiles speaks for the whole image: the plain view of
    the same size joins it, because tiles cut large objects; of boxes on one object the surest stays.
    """
    asked = dict(views)
    for view in views.values():
        if view.tiles > 1 and replace(view, tiles=1) not in asked.values():
            asked[f"beside {view}"] = replace(view, tiles=1)
    dataset = ShownImages(coco, Path(images), list(asked.values()), detector.channels)
    rows = list(range(rank, len(dataset), world))
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    results: dict[str, Results] = {name: [] for name in asked}
    was_training = detector.training
    detector.eval()
    for done, batch in enumerate(shown_loader(dataset, batches, workers), 1):
        for name, view in asked.items():
            for shown, found in zip(batch, detect(detector, batch, view, batch_size, top_k), strict=True):
                results[name] += coco_results(found, shown.image_id, shown.size_hw, coco.category_ids, min_score)
        if progress:
            progress(done, len(batches))
    detector.train(was_training)
    sizes_hw = {record.image_id: record.size_hw for record in coco.records}
    for name, view in asked.items():
        if view.tiles > 1:
            beside = next(other for other in asked if asked[other] == replace(view, tiles=1))
            results[name] = joined(results[name], results[beside], sizes_hw, top_k)
    return {name: results[name] for name in views}


def joined(tiles: Results, whole: Results, sizes_hw: Mapping[int, Size], top_k: int) -> Results:
    """Boxes of tiles and of the whole image as one view. No vote: small objects are often seen in a tile alone."""
    return fuse([whole, tiles], sizes_hw, method="nms", iou=SAME_OBJECT_IOU, skip=0.0, top_k=top_k)


def fuse_views(
    results: Mapping[str, Results],
    sizes_hw: Mapping[int, Size],
    *,
    method: Method = "wbf",
    iou: float = 0.55,
    skip: float = 0.01,
    top_k: int | None = None,
) -> Results:
    """The views of one model as one list, each with the same weight."""
    return fuse_lists(list(results.values()), sizes_hw, method=method, iou=iou, skip=skip, top_k=top_k)


def fuse_lists(
    lists: Sequence[Results],
    sizes_hw: Mapping[int, Size],
    *,
    method: Method = "wbf",
    iou: float = 0.55,
    skip: float = 0.01,
    weights: Sequence[float] | None = None,
    top_k: int | None = None,
) -> Results:
    """Several lists as one; a single list stays as it is."""
    if len(lists) == 1:
        return lists[0]
    lists = ready_for_a_mean(lists, sizes_hw, method, iou)
    return fuse(lists, sizes_hw, method=method, iou=iou, skip=skip, weights=weights, top_k=top_k)


def ready_for_a_mean(
    lists: Sequence[Results], sizes_hw: Mapping[int, Size], method: Method, iou: float
) -> Sequence[Results]:
    """The lists, each freed of its own weak doubles where the method takes a mean.

    A detector that is trained without NMS leaves doubles of its boxes. WBF would put them into the mean and so lower
    the score of the very objects it is sure of.
    """
    if method not in ("wbf", "nmw"):
        return lists
    return [without_doubles(each, sizes_hw, iou) for each in lists]


def without_doubles(results: Results, sizes_hw: Mapping[int, Size], iou: float) -> Results:
    """Plain NMS of one list; the scores stay."""
    return fuse([results], sizes_hw, method="nms", iou=iou, skip=0.0)


def seconds_per_image(
    detector: Detector, coco: CocoFile, images: Path | str, views: Mapping[str, InputView], sample: int = 5
) -> dict[str, float]:
    """By view: the median over a few images, one at a time, from pixels to boxes; the reading does not count."""
    rows = np.linspace(0, len(coco.records) - 1, min(sample, len(coco.records))).astype(int)
    seconds = {}
    was_training = detector.training
    detector.eval()
    for name, view in views.items():
        dataset = ShownImages(coco, Path(images), [view], detector.channels)
        pictures = [(dataset.read(row), coco.records[row]) for row in (rows[0], *rows)]  # the first only warms up
        times = [timed(detector, dataset, picture, record, view) for picture, record in pictures]
        seconds[name] = float(np.median(times[1:]))
    detector.train(was_training)
    return seconds


def timed(detector: Detector, dataset: "ShownImages", picture: np.ndarray, record: Record, view: InputView) -> float:
    started = time.perf_counter()
    (found,) = detect(detector, [dataset.show(picture, record)], view, batch_size=1, top_k=300)
    found.scores.cpu()  # waits for the device
    return time.perf_counter() - started


def detect(
    detector: Detector, batch: Sequence["Shown"], view: InputView, batch_size: int, top_k: int
) -> list[Detections]:
    """What one view of each image shows, in pixels of the image."""
    weight = next(detector.parameters())
    inputs = torch.cat([shown.inputs[view.windows] for shown in batch])  # (images * tiles, C, H, W) uint8
    sizes_hw = [(y2 - y1, x2 - x1) for shown in batch for x1, y1, x2, y2 in windows_of(shown.size_hw, view.tiles)]
    found: list[Detections] = []
    for start in range(0, len(inputs), batch_size):
        part = inputs[start : start + batch_size].to(weight.device)
        with torch.inference_mode():
            output = detector(to_unit(part.flip(-1) if view.flip else part, weight.dtype))
            output = mirrored(output) if view.flip else output
            found += top_detections(output, sizes_hw[start : start + batch_size], top_k)
    if view.tiles == 1:
        return found
    count = view.tiles**2
    per_image = [found[start : start + count] for start in range(0, len(found), count)]
    return [placed(tiles, shown.size_hw, view.tiles) for tiles, shown in zip(per_image, batch, strict=True)]


def mirrored(output: Output) -> Output:
    """Boxes of a mirrored image, back in the image."""
    centre_x, rest = output.boxes[..., :1], output.boxes[..., 1:]
    return Output(output.logits, torch.cat([1 - centre_x, rest], dim=-1))


def placed(found: Sequence[Detections], size_hw: Size, tiles: int) -> Detections:
    """Detections of the tiles of one image, in its pixels; those that an inner edge may have cut are left out."""
    boxes, scores, labels = [], [], []
    for each, window in zip(found, windows_of(size_hw, tiles), strict=True):
        corner = each.boxes_xyxy_px.new_tensor([*window[:2], *window[:2]])
        boxes_xyxy_px = each.boxes_xyxy_px.double() + corner  # (N, 4)
        kept = ~is_cut(boxes_xyxy_px, window, size_hw)
        boxes.append(boxes_xyxy_px[kept])
        scores.append(each.scores[kept])
        labels.append(each.labels[kept])
    return Detections(torch.cat(boxes), torch.cat(scores), torch.cat(labels))


def is_cut(boxes_xyxy_px: Tensor, window: tuple[int, int, int, int], size_hw: Size) -> Tensor:
    """Whether a box reaches an edge of its window that is no edge of the image: (N, 4) -> (N,) bool."""
    x1, y1, x2, y2 = window
    margin_x, margin_y = CUT_MARGIN * (x2 - x1), CUT_MARGIN * (y2 - y1)
    low = boxes_xyxy_px.new_tensor([x1 + margin_x if x1 > 0 else -np.inf, y1 + margin_y if y1 > 0 else -np.inf])
    high = boxes_xyxy_px.new_tensor(
        [x2 - margin_x if x2 < size_hw[1] else np.inf, y2 - margin_y if y2 < size_hw[0] else np.inf]
    )
    return (boxes_xyxy_px[:, :2] < low).any(dim=1) | (boxes_xyxy_px[:, 2:] > high).any(dim=1)


def windows_of(size_hw: Size, tiles: int) -> list[tuple[int, int, int, int]]:
    """n x n windows that cover the image, row by row, in its proportions, xyxy in whole pixels."""
    rows, columns = (spans(side, tiles) for side in size_hw)
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def spans(length: int, tiles: int) -> list[tuple[int, int]]:
    """Equal parts of a side that overlap by OVERLAP of a part."""
    part = min(int(np.ceil(length / (tiles - (tiles - 1) * OVERLAP))), length)
    return [(start, start + part) for start in np.linspace(0, length - part, tiles).round().astype(int).tolist()]


# --- images ---


@dataclass(frozen=True)
class Shown:
    """One image as the detector gets it."""

    image_id: int
    size_hw: Size  # of the image
    inputs: dict[tuple[Size, int], Tensor]  # by InputView.windows: (tiles, C, H, W) uint8


class ShownImages(Dataset[Shown]):
    """The images of a COCO file, each read once for all its views."""

    def __init__(self, coco: CocoFile, images: Path, views: Sequence[InputView], channels: int = 3):
        self.coco, self.images, self.channels = coco, images, channels
        self.windows = list(dict.fromkeys(view.windows for view in views))

    def __len__(self) -> int:
        return len(self.coco.records)

    def __getitem__(self, row: int) -> Shown:
        return self.show(self.read(row), self.coco.records[row])

    def read(self, row: int) -> np.ndarray:
        """(H, W, C) uint8."""
        return read_indexed(self.coco, self.images, row, self.channels)

    def show(self, picture: np.ndarray, record: Record) -> Shown:
        inputs = {}
        for size_hw, tiles in self.windows:
            crops = [picture[y1:y2, x1:x2] for x1, y1, x2, y2 in windows_of(record.size_hw, tiles)]
            inputs[size_hw, tiles] = torch.stack([to_tensor(resized(crop, size_hw)) for crop in crops])
        return Shown(record.image_id, record.size_hw, inputs)


def shown_loader(dataset: ShownImages, batches: list[list[int]], workers: int) -> DataLoader[Shown]:
    """Lists of images, in their order, the same with any number of workers."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=settle_worker,
        generator=torch.Generator(),  # its own: predicting must not move the random state of a training
    )
