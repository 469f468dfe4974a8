"""Cameras, times of day, crowding, folds: what decides how a data set is split and what its scores mean."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit.data.census import is_object, natural, scene_name
from kit.data.folds import Folds
from kit.data.views import group_of
from kit.plots.canvas import (
    INK,
    PALETTE,
    QUIET,
    class_colour,
    legend,
    note,
    panels,
    tidy,
    title,
)
from kit.plots.statistics import frequent, heat

SHOWN_CLASSES = 8
NMS_IOUS = (0.5, 0.7)  # usual thresholds of NMS and WBF


# --- tables ---


def plot_counts(table: pd.DataFrame, names: Sequence[str], heading: str) -> Figure:
    """A row a group of images (counts_by): images, sizes, and boxes of each class in an image, shaded by class."""
    shown = names_of_most(table, names)
    rows = [f"{row_word(table)}{' '.join(words_of(key))}" for key in table.index]
    figure, axes = panels(1, 2, (11, 1.5 + 0.27 * len(rows)), gridspec_kw={"width_ratios": [4, max(len(shown), 2)]})
    columns = ["images", "boxes per image", "median side px", "under 64 px"]
    values = table[columns].to_numpy(float)
    texts = [[f"{i:,.0f}", f"{b:.1f}", f"{side:.0f}", f"{small:.0%}"] for i, b, side, small in values]
    text_table(
        axes[0, 0],
        column_shades(values),
        texts,
        rows,
        ["images", "boxes\nper image", "median\nside px", "under\n64 px"],
    )
    rates = table[shown].to_numpy(float) / table[["images"]].to_numpy(float)
    cells = [[f"{rate:.2g}" if rate else "" for rate in row] for row in rates]
    text_table(axes[0, 1], column_shades(rates), cells, [""] * len(rows), shown)
    axes[0, 1].set_title(
        "boxes per image of each class (darkest: most of its class)", fontsize=10, loc="left", color=INK
    )
    title(figure, heading)
    return figure


def names_of_most(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The most frequent classes, in their order."""
    counts = table[list(names)].sum().to_numpy()
    return [names[label] for label in sorted(np.argsort(-counts, kind="stable")[:SHOWN_CLASSES])]


def row_word(table: pd.DataFrame) -> str:
    """A camera's number alone says too little."""
    return "camera " if list(table.index.names) == ["camera"] else ""


def words_of(key: object) -> list[str]:
    """The values of a group, for people: M is morning."""
    parts = key if isinstance(key, tuple) else (key,)
    return [scene_name(str(part)) if str(part) in "MAEN" else str(part) for part in parts]


def column_shades(values: np.ndarray) -> np.ndarray:
    """Each column by its largest value: (rows, columns) -> the same, in [0, 1]."""
    most = np.nanmax(values, axis=0, initial=0)
    result: np.ndarray = np.nan_to_num(values) / np.where(most > 0, most, 1)
    return result


def text_table(
    axes: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """Texts in cells shaded by numbers in [0, 1]: (rows, columns) each."""
    if not shades.size:
        note(axes, "nothing to count")
        return
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.7, aspect="auto")  # above 1: ink stays readable on the darkest
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=INK)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def plot_folds(folds: Folds, view_pattern: str | None) -> Figure:
    """What each fold holds: images, nights and boxes of each class, with their share of all."""
    table = fold_contents(folds, view_pattern)  # (k, columns)
    names = ["images", "by night", *folds.coco.names]
    classes = np.argsort(-table[:, 2:].sum(axis=0), kind="stable")[:SHOWN_CLASSES]
    shown = [column for column in (0, 1, *(2 + int(label) for label in sorted(classes))) if table[:, column].any()]
    table, names = table[:, shown], [names[column] for column in shown]
    shares = table / np.maximum(table.sum(axis=0), 1)
    texts = [
        [f"{count:,} ({share:.0%})" for count, share in zip(*row, strict=True)]
        for row in zip(table, shares, strict=True)
    ]
    rows = [f"fold {fold}: {shortened(folds.members(fold))}" for fold in range(folds.k)]
    figure, axes = panels(1, 1, (11, 1.4 + 0.4 * folds.k))
    off = np.where(table.sum(axis=0) > 0, shares * folds.k - 1, 0).clip(-1, 1)  # (k, columns): 0 = the fair share
    text_table(axes[0, 0], np.full(table.shape, np.nan), texts, rows, names)
    if off.size:
        axes[0, 0].imshow(off, cmap="PuOr_r", vmin=-2, vmax=2, aspect="auto")  # beyond 1: ink stays readable
    title(figure, f"Folds: a fair share is {1 / folds.k:.0%} (orange: more, violet: less)")
    return figure


def fold_contents(folds: Folds, view_pattern: str | None) -> np.ndarray:
    """-> (k, 2 + K) int64: images, images by night, boxes of each class."""
    table = np.zeros((folds.k, 2 + len(folds.coco.names)), np.int64)
    for record, fold in zip(folds.coco.records, folds.fold, strict=True):
        table[fold, 0] += 1
        table[fold, 1] += group_of(record.file_name, view_pattern) == "night"
        table[fold, 2:] += np.bincount(record.labels[is_object(record)], minlength=len(folds.coco.names))
    return table


def shortened(groups: Sequence[str], most: int = 34) -> str:
    """camera 3, camera 5 -> cameras 3, 5; images are counted."""
    cameras = [group.removeprefix("camera ") for group in groups if group.startswith("camera ")]
    if len(cameras) < len(groups):
        return f"{len(groups)} groups"
    text = ", ".join(cameras)
    return f"camera{'s' * (len(cameras) > 1)} " + (text if len(text) <= most else f"{text[:most]} ...")


# --- places and crowds ---


def plot_camera_positions(objects: pd.DataFrame, heading: str, most: int = 18, bins: int = 32) -> Figure:
    """Where the box centres of each camera lie: its roads, and the rim that was never labelled."""
    counts = objects["camera"].value_counts()
    cameras = sorted(counts.index[:most], key=natural)
    columns = min(6, max(len(cameras), 1))
    rows = max(-(-len(cameras) // columns), 1)
    figure, axes = panels(rows, columns, (11, 0.6 + rows * (11 / columns + 0.15)))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, camera in zip(axes.flat, cameras, strict=False):
        own = objects[objects["camera"] == camera]
        sizes_wh = own[["width", "height"]].to_numpy(float)
        centres = (own[["x1", "y1"]].to_numpy() + own[["x2", "y2"]].to_numpy()) / 2 / sizes_wh
        heat(axis, centres, f"camera {camera}: {len(own):,}", int(np.clip(np.sqrt(len(own)), 8, bins)))
    left_out = f" (the {most} with most boxes of {len(counts)})" if len(counts) > most else ""
    title(figure, f"{heading}{left_out}")
    return figure


def plot_crowding(objects: pd.DataFrame, images: pd.DataFrame, names: Sequence[str]) -> Figure:
    """How much objects of one class cover each other, which is what NMS and WBF take for one; boxes per image."""
    figure, axes = panels(1, 2, (11, 4))
    overlap, labels = objects["overlap"].to_numpy(), objects["label"].to_numpy()
    ious = np.linspace(0.05, 0.95, 91)
    for label in frequent(labels, len(names)):
        own = np.sort(overlap[labels == label])
        share = 1 - np.searchsorted(own, ious) / len(own)
        axes[0, 0].plot(ious, np.where(share > 0, share, np.nan), color=class_colour(label), label=names[label])
    for iou in NMS_IOUS:
        axes[0, 0].axvline(iou, color=QUIET, linewidth=1, linestyle=":")
    if (overlap >= ious[0]).any():
        axes[0, 0].set_yscale("log")
        axes[0, 0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    counts = ", ".join(f"{(overlap >= iou).sum():,} from IoU {iou:g} on" for iou in NMS_IOUS)
    tidy(axes[0, 0], f"Overlap with one of its class: {counts}", x="IoU", y="share of the class (log)")
    legend(axes[0, 0], loc="lower left")
    draw_crowds(axes[0, 1], images)
    title(figure, "Crowding: how many true objects a fusion from this IoU on would take for one")
    return figure


def draw_crowds(axes: Axes, images: pd.DataFrame, most: int = 20) -> None:
    """Boxes per image of each camera (without cameras, of each part): middle half, median, the tenths at both ends."""
    by = "camera" if images["camera"].nunique() > 1 else "part"
    groups = sorted(images[by].value_counts().index[:most], key=natural)
    if not groups:
        note(axes, "no images")
        return
    tenths = np.array(
        [np.quantile(images.loc[images[by] == group, "boxes"], (0.1, 0.25, 0.5, 0.75, 0.9)) for group in groups]
    )
    places = np.arange(len(groups))
    axes.vlines(places, tenths[:, 0], tenths[:, 4], color=QUIET, linewidth=1, label="middle 80% of the images")
    axes.vlines(places, tenths[:, 1], tenths[:, 3], color=PALETTE[6], linewidth=6, label="middle half")
    axes.plot(places, tenths[:, 2], "o", color="white", markeredgecolor=INK, markersize=4, label="median")
    axes.set_xticks(places, groups)
    axes.set_xlim(-0.7, max(len(groups) - 0.3, 4))
    axes.set_ylim(0, 1.25 * max(float(tenths.max()), 1))
    tidy(axes, "Boxes per image", x=by, y="boxes in one image")
    legend(axes, loc="upper left", ncols=3)
