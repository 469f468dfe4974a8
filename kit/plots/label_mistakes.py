"""Labels that may be wrong, close up, with what the detector says instead."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kit.data.dataset import CocoDataset
from kit.label_mistakes import KINDS, SIDES
from kit.plots.canvas import PALETTE, LineStyle, dark_rim, draw_image, note, outline, panels, title
from kit.plots.pictures import visible

LOOKS: dict[str, tuple[str, LineStyle]] = {"in the file": (PALETTE[1], "-"), "detected": (PALETTE[0], "--")}
QUESTIONS = {
    "missing": "not labelled?",
    "class": "another class?",
    "place": "badly placed?",
    "spurious": "nothing there?",
}
CONTEXT = 1.5  # sides of the box that are shown on each side of it
LEAST_PX = 24  # shown on each side of the box, at least


def show_label_mistakes(
    suspects: pd.DataFrame, datasets: Mapping[str, CocoDataset], heading: str, columns: int = 5
) -> Figure:
    """A row of close-ups each kind, the most suspicious first.

    suspects: of find_label_mistakes, with a column `part`; datasets: the images of each part.
    """
    figure, axes = panels(len(KINDS), columns, (2.3 * columns, 2.75 * len(KINDS) + 0.7))
    rows_of = {part: {record.image_id: row for row, record in enumerate(each.coco.records)}
               for part, each in datasets.items()}  # fmt: skip
    for line, kind in zip(axes, KINDS, strict=True):
        own = suspects[suspects["kind"] == kind]
        for axis, suspect in zip(line, own.head(columns).to_dict("records"), strict=False):
            dataset = datasets[suspect["part"]]
            image = visible(dataset.load(rows_of[suspect["part"]][suspect["image_id"]]).image)
            close_up(axis, image, suspect)
        for empty in line[len(own) :]:
            empty.set_axis_off()
        if not len(own):
            note(line[0], f"{QUESTIONS[kind]}\nno suspects")
    title(figure, heading)
    handles = [
        Line2D([], [], color=colour, linestyle=style, label=word, path_effects=dark_rim(1.5))
        for word, (colour, style) in LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9, frameon=False)
    return figure


def close_up(axes: Axes, image: np.ndarray, suspect: Mapping[Hashable, Any]) -> None:
    """The boxes of one suspect and what is around them."""
    detected, label = (np.array([suspect[prefix + side] for side in SIDES]) for prefix in ("", "label_"))
    shown = {"in the file": label, "detected": detected}
    if suspect["kind"] == "spurious":
        del shown["detected"]
    boxes_xyxy_px = {word: np.append(box[:2], box[:2] + box[2:]) for word, box in shown.items() if box[2] > 0}
    left, top, right, bottom = window(np.stack(list(boxes_xyxy_px.values())), (image.shape[0], image.shape[1]))
    draw_image(axes, image[top:bottom, left:right], wording(suspect))
    axes.title.set_fontsize(7.5)
    for word, box in boxes_xyxy_px.items():
        outline(axes, box - [left, top, left, top], *LOOKS[word], width=1.6)


def window(boxes_xyxy_px: np.ndarray, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square around the boxes, moved into the image and cut to it: (N, 4) -> left, top, right, bottom."""
    low, high = boxes_xyxy_px[:, :2].min(axis=0), boxes_xyxy_px[:, 2:].max(axis=0)
    longest = float((high - low).max())
    side = int(min(longest + 2 * max(CONTEXT * longest, LEAST_PX), max(size_hw)))
    corner = np.round((low + high - side) / 2).astype(int)
    left, top = (int(max(min(at, limit - side), 0)) for at, limit in zip(corner, size_hw[::-1], strict=True))
    return left, top, min(left + side, size_hw[1]), min(top + side, size_hw[0])


def wording(suspect: Mapping[Hashable, Any]) -> str:
    """What is asked, of which file, and how sure the detector is."""
    kind, label, found = suspect["kind"], suspect["category"], suspect["suggestion"]
    question = {
        "missing": f"{found} not labelled?",
        "class": f"{label}, or {found}?",
        "place": f"{label} badly placed?",
        "spurious": f"is there a {label}?",
    }[kind]
    return f"{suspect['suspicion']:.2f} {question}\n{suspect['part']}: {Path(suspect['file_name']).name}"
