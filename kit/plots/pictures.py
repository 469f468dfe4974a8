"""Images with what is on them: annotations, augmented batches, detections, mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kit.boxes import cxcywh_to_xyxy
from kit.data.dataset import Batch, CocoDataset, Sample
from kit.files import one_line
from kit.plots.canvas import (
    OUTCOMES,
    LineStyle,
    Picture,
    chips,
    class_colour,
    class_legend,
    dark_rim,
    draw_image,
    outline,
    panels,
    plain,
    short,
    title,
)

WIDTH_INCHES = 11.0
LETTERS_AN_INCH = 12  # of a heading


@dataclass(frozen=True)
class Shot:
    """One image and the boxes to draw on it."""

    image: np.ndarray  # (H, W, 3) or (H, W) uint8
    boxes_xyxy_px: np.ndarray  # (N, 4)
    labels: np.ndarray  # (N,) int64
    heading: str = ""
    scores: np.ndarray | None = None  # (N,); None = ground truth
    outcomes: list[str] = field(default_factory=list)  # N keys of OUTCOMES; empty = coloured by class


def show_images(dataset: CocoDataset, indices: Sequence[int], heading: str, columns: int = 3) -> Figure:
    """Images as they are stored, with the boxes that can be targets."""
    shots = []
    for index in indices:
        picture, record = dataset.load(index), dataset.coco.records[index]
        about = f"{Path(record.file_name).name}: {len(picture.labels)} boxes"
        shots.append(Shot(visible(picture.image), picture.boxes_xyxy_px, picture.labels, about))
    return show_shots(shots, dataset.coco.names, heading, columns)


def show_sample(sample: Sample, names: Sequence[str]) -> Figure:
    """One sample of a data set, as the model sees it."""
    shot = sample_shot(sample)
    return show_shots([replace(shot, heading="")], names, shot.heading.capitalize())


def sample_shot(sample: Sample) -> Shot:
    image = visible(np.asarray(sample.image.permute(1, 2, 0)))
    height, width = image.shape[:2]
    boxes_xyxy_px = np.asarray(cxcywh_to_xyxy(sample.boxes)) * [width, height, width, height]  # (N, 4)
    about = f"image {sample.image_id}: {len(sample.labels)} boxes"
    return Shot(image, boxes_xyxy_px, np.asarray(sample.labels), about)


def show_batch(batch: Batch, names: Sequence[str], most: int = 8) -> Figure:
    """The first images of a batch as the model sees them: after augmentation and resizing."""
    images = list(zip(batch.images, batch.targets, batch.image_ids, batch.original_hw, strict=True))[:most]
    samples = [Sample(image, target.boxes, target.labels, image_id, hw) for image, target, image_id, hw in images]
    height, width = batch.images.shape[-2:]
    heading = f"A batch as the model sees it, {width} x {height} px"
    return show_shots([sample_shot(sample) for sample in samples], names, heading, columns=4)


def visible(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H, W, 3), or (H, W) of one channel; a fourth channel is not shown."""
    return image[..., 0] if image.shape[2] < 3 else image[..., :3]


def detection_shots(
    dataset: CocoDataset, indices: Sequence[int], predictions: Sequence[Mapping[str, Any]], least_score: float
) -> list[Shot]:
    """Images with the detections of COCO results that reach a score."""
    shots = []
    for index in indices:
        record = dataset.coco.records[index]
        own = [each for each in predictions if each["image_id"] == record.image_id and each["score"] >= least_score]
        boxes_xywh_px = np.array([each["bbox"] for each in own], np.float64).reshape(-1, 4)
        boxes_xyxy_px = np.concatenate([boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]], axis=1)
        labels = np.array([dataset.coco.category_ids.index(each["category_id"]) for each in own], np.int64)
        about = f"{Path(record.file_name).name}: {len(own)} detections"
        scores = np.array([each["score"] for each in own])
        shots.append(Shot(visible(dataset.load(index).image), boxes_xyxy_px, labels, about, scores))
    return shots


def show_detections(
    dataset: CocoDataset,
    indices: Sequence[int],
    predictions: Sequence[Mapping[str, Any]],
    heading: str,
    least_score: float = 0.3,
    columns: int = 3,
) -> Figure:
    """Images with what was found on them. predictions: COCO results, of any images."""
    shots = detection_shots(dataset, indices, predictions, least_score)
    return show_shots(shots, dataset.coco.names, heading, columns)


def show_shots(shots: Sequence[Shot], names: Sequence[str], heading: str, columns: int = 3) -> Figure:
    """Boxes coloured by class with a label each; detections carry their score."""
    figure, flat, inches = grid(shots, columns)
    for axes, shot in zip(flat, shots, strict=False):
        draw_shot(axes, shot, names, inches)
    title(figure, heading)
    class_legend(figure, sorted({int(label) for shot in shots for label in shot.labels}), names)
    return figure


def show_mistakes(shots: Sequence[Shot], names: Sequence[str], heading: str, columns: int = 3) -> Figure:
    """Boxes coloured by outcome: correct, false and missed."""
    figure, flat, inches = grid(shots, columns)
    for axes, shot in zip(flat, shots, strict=False):
        draw_shot(axes, shot, names, inches)
    title(figure, heading)
    words = {"correct": "correct detection", "false": "false detection", "missed": "object missed"}
    looks = [(words[key], colour, style) for key, (colour, style) in OUTCOMES.items()]
    handles = [
        Line2D([], [], color=colour, linestyle=style, label=word, path_effects=dark_rim(1.5))
        for word, colour, style in looks
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    return figure


def grid(shots: Sequence[Shot], columns: int) -> tuple[Picture, list[Axes], float]:
    """A figure as high as its images ask for -> figure, axes in reading order, inches of one panel."""
    columns = max(1, min(columns, len(shots)))
    inches = min(WIDTH_INCHES / columns, 7.5)
    shapes = [min(shot.image.shape[0] / shot.image.shape[1], 1.6) for shot in shots] or [0.5]
    heights = [max(shapes[first : first + columns]) * inches + 0.3 for first in range(0, len(shapes), columns)]
    size = (inches * columns, sum(heights) + 0.8)
    figure, axes = panels(len(heights), columns, size, gridspec_kw={"height_ratios": heights})
    for panel in axes.flat:
        panel.set_anchor("N")
    for empty in axes.flat[len(shots) :]:
        empty.set_axis_off()
    return figure, list(axes.flat), inches


def draw_shot(axes: Axes, shot: Shot, names: Sequence[str], inches: float) -> None:
    draw_image(axes, shot.image, plain(short(one_line(shot.heading), int(inches * LETTERS_AN_INCH))))
    scores = [""] * len(shot.labels) if shot.scores is None else [f" {score:.2f}" for score in shot.scores]
    texts = [names[label] + score for label, score in zip(shot.labels, scores, strict=True)]
    looks: list[tuple[str, LineStyle]]
    looks = [OUTCOMES[key] for key in shot.outcomes] or [(class_colour(int(label)), "-") for label in shot.labels]
    width = 1.4 if inches > 5 else 1.0
    for box, (colour, style) in zip(shot.boxes_xyxy_px, looks, strict=True):
        outline(axes, box, colour, style, width)
    size_hw = (shot.image.shape[0], shot.image.shape[1])
    points = 7.0 if inches > 5 else 5.5
    chips(axes, shot.boxes_xyxy_px, texts, [colour for colour, _ in looks], size_hw, points, size_hw[1] / (72 * inches))
