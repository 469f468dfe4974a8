"""Odd labels and near duplicates: what to look at before anything is trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kit.data.coco import CocoFile
from kit.data.near_duplicates import BITS, Nearest
from kit.data.pixels import read_image
from kit.plots.canvas import (
    HEAT,
    INK,
    PALETTE,
    QUIET,
    class_colour,
    class_legend,
    draw_image,
    legend,
    note,
    outline,
    panels,
    short_name,
    tidy,
    title,
)
from kit.plots.statistics import frequent

SUSPECT = "#e3000f"
MOST_POINTS = 20_000  # in a cloud; more hide each other
CROP = 3.0  # sides of the picture around a suspect, in sides of its box
LEAST_CROP_PX = 120


@dataclass(frozen=True)
class Twins:
    """Two image files that are alike."""

    one: Path
    other: Path
    bits: int


def plot_suspects(suspects: pd.DataFrame, objects: pd.DataFrame, names: Sequence[str]) -> Figure:
    """How many labels are odd, of which kind and class; and where they lie among all."""
    figure, axes = panels(1, 2, (11, 3.8))
    kinds = sorted(set(suspects["kind"]))
    starts = np.zeros(len(kinds))
    for label in frequent(suspects["label"].to_numpy(np.int64), len(names)):
        counts = np.array([((suspects["kind"] == kind) & (suspects["label"] == label)).sum() for kind in kinds])
        axes[0, 0].barh(range(len(kinds)), counts, left=starts, color=class_colour(label), label=names[label])
        starts += counts
    if kinds:
        for row, total in enumerate(starts):
            axes[0, 0].annotate(f" {total:,.0f}", (total, row), va="center", fontsize=8, color=INK)
        axes[0, 0].set_yticks(range(len(kinds)), kinds)
        axes[0, 0].set_ylim(max(len(kinds), 3) - 0.5, -0.5)
        axes[0, 0].set_xlim(0, 1.4 * starts.max())
        axes[0, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        tidy(axes[0, 0], f"{len(suspects):,} suspects in {len(objects):,} boxes", x="boxes")
        legend(axes[0, 0], loc="lower right")
    else:
        note(axes[0, 0], "no odd labels were found")
    draw_cloud(axes[0, 1], suspects, objects)
    title(figure, "Labels worth a second look")
    return figure


def draw_cloud(axes: Axes, suspects: pd.DataFrame, objects: pd.DataFrame) -> None:
    """All boxes by size and shape, the suspects on top of them."""
    if not len(objects):
        note(axes, "no boxes")
        return
    step = -(-len(objects) // MOST_POINTS)
    axes.scatter(
        objects["side_px"][::step], objects["aspect"][::step], s=2, color=QUIET, alpha=0.3, linewidths=0, label="all"
    )
    odd = suspects[~suspects["kind"].str.contains("place")]
    colours = [class_colour(label) for label in odd["label"]]
    axes.scatter(
        odd["side_px"], odd["aspect"], s=22, c=colours, edgecolors=INK, linewidths=0.6, label="odd size or shape"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, ticks in ((axes.xaxis, (4, 8, 16, 32, 64, 128, 256, 512, 1024)), (axes.yaxis, (0.25, 0.5, 1, 2, 4))):
        low, high = axis.get_view_interval()
        axis.set_ticks([tick for tick in ticks if low <= tick <= high])
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda _value, _: "")
    tidy(
        axes,
        "Odd for their place are those in the cloud",
        x="square root of the area (px, log)",
        y="width / height (log)",
    )
    legend(axes)


def show_suspects(
    suspects: pd.DataFrame, files: Mapping[str, CocoFile], folders: Mapping[str, Path], most: int, columns: int = 4
) -> Figure:
    """The strongest of each kind, in turn: cut out of their image, in red; the other boxes by class."""
    chosen = strongest(suspects, most)
    columns = max(min(columns, len(chosen)), 1)
    rows = max(-(-len(chosen) // columns), 1)
    inches = 11 / max(columns, 3)  # of one picture
    figure, axes = panels(rows, columns, (inches * columns, 0.9 + rows * (inches + 0.35)) if len(chosen) else (11, 1))
    for axis in axes.flat:
        axis.set_axis_off()
    if not len(chosen):
        note(axes[0, 0], "no odd labels were found")
    labels: set[int] = set()
    records = {(part, record.image_id): record for part, coco in files.items() for record in coco.records}
    for axis, (_, row) in zip(axes.flat, chosen.iterrows(), strict=False):
        axis.set_axis_on()
        record = records[row["part"], row["image_id"]]
        box = row[["x1", "y1", "x2", "y2"]].to_numpy(float)
        low, high = window(box, record.size_hw)
        image = read_image(folders[row["part"]] / record.file_name)[low[1] : high[1], low[0] : high[0]]
        draw_image(axis, image, f"{row['kind']}: {row['name']}\n{row['why']}\n{short_name(record.file_name)}")
        axis.title.set_fontsize(7)
        corner = np.concatenate([low, low])
        corners = np.concatenate(
            [record.boxes_xywh_px[:, :2], record.boxes_xywh_px[:, :2] + record.boxes_xywh_px[:, 2:]], 1
        )
        limits = np.array([*(high - low), *(high - low)])
        for other, label in zip(corners - corner, record.labels, strict=True):
            if (other[:2] < limits[:2]).all() and (other[2:] > 0).all():
                outline(axis, other.clip(0, limits), class_colour(int(label)), width=1.0)
                labels.add(int(label))
        outline(axis, box - corner, SUSPECT, "--", 2.0)
    title(figure, "Labels worth a second look (red, dashed), the strongest of each kind")
    class_legend(figure, sorted(labels), next(iter(files.values())).names)
    return figure


def strongest(suspects: pd.DataFrame, most: int) -> pd.DataFrame:
    """The first of each kind, then the second of each, and so on; they stand by falling strength within a kind."""
    turn = suspects.groupby("kind").cumcount()
    return suspects.iloc[np.argsort(turn.to_numpy(), kind="stable")[:most]]


def window(box_xyxy_px: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The square around a box, pushed into the image -> (2,) low, (2,) high, whole pixels x, y."""
    sides = box_xyxy_px[2:] - box_xyxy_px[:2]
    side = max(CROP * float(sides.max()), LEAST_CROP_PX)
    limits = np.array(size_hw[::-1])
    low = ((box_xyxy_px[:2] + box_xyxy_px[2:] - side) / 2).clip(0, np.maximum(limits - side, 0)).astype(int)
    return low, np.minimum(low + int(np.ceil(side)), limits)


# --- near duplicates ---


def plot_nearest(found: Mapping[str, Nearest], most_bits: int) -> Figure:
    """How many bits each picture is from the one most like it."""
    figure, axes = panels(1, 1, (11, 3.2))
    edges = np.arange(-0.5, BITS / 2 + 1.5, 2)
    for colour, (name, near) in zip((PALETTE[6], PALETTE[4], PALETTE[2]), found.items(), strict=False):
        alike = int((near.bits <= most_bits).sum())
        about = f"{name}: {alike:,} of {len(near.bits):,} within {most_bits} bits"
        axes[0, 0].stairs(np.histogram(near.bits, edges)[0], edges, color=colour, linewidth=1.6, label=about)
    axes[0, 0].axvline(most_bits + 0.5, color=INK, linewidth=1, linestyle="--")
    tidy(axes[0, 0], x=f"bits of {BITS} that differ from the most similar picture", y="pictures")
    legend(axes[0, 0])
    title(
        figure, "Near duplicates: left of the line a picture is the same as another, or its fixed camera saw no change"
    )
    return figure


def closest(near: Nearest, paths: Sequence[Path], others: Sequence[Path], most: int) -> list[Twins]:
    """The pairs with the fewest bits between them, each pair once."""
    pairs: dict[frozenset[Path], Twins] = {}
    for row in np.argsort(near.bits, kind="stable"):
        if near.index[row] < 0 or len(pairs) == most:
            break
        one, other = paths[row], others[near.index[row]]
        pairs.setdefault(frozenset((one, other)), Twins(one, other, int(near.bits[row])))
    return list(pairs.values())


def show_twins(pairs: Sequence[Twins], heading: str) -> Figure:
    """A pair a row, and what differs between them (bright = more)."""
    rows = max(len(pairs), 1)
    figure, axes = panels(rows, 3, (11, 0.6 + 2.9 * rows))
    for axis in axes.flat:
        axis.set_axis_off()
    if not pairs:
        note(axes[0, 1], "no pairs")
    for line, pair in zip(axes, pairs, strict=False):
        one, other = read_image(pair.one), read_image(pair.other)
        draw_image(line[0], one, short_name(pair.one))
        draw_image(line[1], other, f"{short_name(pair.other)}, {pair.bits} bits away")
        if one.shape == other.shape:
            difference = np.abs(one.astype(np.int16) - other).max(axis=2)  # (H, W)
            line[2].imshow(difference, cmap=HEAT, vmin=0, vmax=96)
            line[2].set_title(
                f"{(difference > 32).mean():.1%} of the pixels differ clearly", fontsize=9, loc="left", color=INK
            )
        else:
            note(line[2], "of different sizes")
    title(figure, heading)
    return figure
