"""Pseudo labels: how sure they are, whether the teachers agree, what they are worth, what they add."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from kit.data.coco import CocoFile
from kit.data.dataset import targets_of
from kit.data.pixels import read_image
from kit.data.views import view_of
from kit.metrics import pr_f1_curve
from kit.plots.canvas import (
    INK,
    PALE,
    PALETTE,
    QUIET,
    LineStyle,
    chips,
    class_colour,
    dark_rim,
    draw_image,
    legend,
    note,
    outline,
    panels,
    tidy,
    title,
)
from kit.plots.pictures import Shot, grid
from kit.pseudo import BINS, Joined, Sifted, Worth
from kit.pseudo_rules import Rule

BANDS = ((0.8, PALETTE[2]), (0.6, PALETTE[1]), (0.0, PALETTE[0]))  # score from, colour
DROPPED = PALETTE[5]
NEARLY = 0.5  # of its threshold: a box of that score was nearly a label
MOST_CAMERAS = 30
TRUTH, PSEUDO = INK, PALETTE[0]


def plot_label_scores(sifted: Sifted, names: Sequence[str], most: int = 8) -> Figure:
    """Boxes of each class by score: those the rules kept, and the others. Shows what another threshold would bring."""
    kept = sifted.counts[:, 1].sum(axis=1)
    shown = sorted(np.argsort(-kept, kind="stable")[:most].tolist())
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure, axes = panels(rows, columns, (11, 0.8 + 2.5 * rows))
    edges = np.linspace(0, 1, BINS + 1)
    for panel in axes.flat[len(shown) :]:
        panel.set_axis_off()
    for panel, label in zip(axes.flat, shown, strict=False):
        dropped, own = sifted.counts[label]
        panel.stairs(dropped + own, edges, color=PALE, fill=True, label="not kept")
        panel.stairs(own, edges, color=class_colour(label), fill=True, label="label")
        panel.set(yscale="symlog", ylim=(0, None), xlim=(0, 1))
        tidy(panel, f"{names[label]}: {own.sum():,} of {(dropped + own).sum():,}", x="fused score")
        panel.grid(visible=False, axis="x")
    for panel in axes[:, 0]:
        panel.set_ylabel("boxes (log scale)", fontsize=9)
    more = f", the {most} most frequent of {len(names)} classes" if len(names) > most else ""
    total = f"{kept.sum():,} of {sifted.counts.sum():,} boxes are labels"
    title(figure, f"{total}, by score: coloured what the rules keep, pale what they do not{more}")
    return figure


def plot_agreement(table: np.ndarray, classes: Sequence[int], voices: Sequence[str], names: Sequence[str]) -> Figure:
    """Which voices reach the threshold of a label by themselves. table: (labels, voices); classes: (labels,)."""
    height = 1.6 + 0.35 * max(len(names), len(voices), 3)
    figure, axes = panels(1, 2, (11, height))
    if len(voices) < 2 or not len(table):
        for panel in axes[0]:
            note(panel, "one model and one view: nothing to compare" if len(voices) < 2 else "no labels")
        title(figure, "Do the models and views agree?")
        return figure
    draw_support(axes[0, 0], table.sum(axis=1), np.asarray(classes), len(voices), names)
    draw_pairs(axes[0, 1], table, voices)
    whole = float(table.all(axis=1).mean())
    title(figure, f"Do the models and views agree? All {len(voices)} on {whole:.0%} of the labels")
    return figure


def draw_support(axes: Axes, support: np.ndarray, classes: np.ndarray, voices: int, names: Sequence[str]) -> None:
    """A bar a class: labels by the number of voices behind them."""
    start = np.zeros(len(names))
    for count in range(voices + 1):
        counts = np.bincount(classes[support == count], minlength=len(names))
        colour = PALETTE[4] if count == 0 else to_hex(colormaps["Blues"](0.2 + 0.8 * count / voices))
        shares = counts / np.maximum(np.bincount(classes, minlength=len(names)), 1)
        word = "none alone, only together" if count == 0 else f"{count}"
        if counts.any():
            axes.barh(range(len(names)), shares, left=start, color=colour, height=0.75, label=word)
        start = start + shares
    totals = np.bincount(classes, minlength=len(names))
    axes.set_yticks(range(len(names)), [f"{name}, {total:,}" for name, total in zip(names, totals, strict=True)])
    tidy(axes, "How many reach the threshold for a label", x="share of the class's labels")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=False, axis="y")
    below = (-0.1, -0.2 if len(names) < 6 else -0.12)
    legend(
        axes,
        ncols=min(voices + 1, 5),
        loc="upper left",
        bbox_to_anchor=below,
        title="models and views",
        title_fontsize=8,
    )


def draw_pairs(axes: Axes, table: np.ndarray, voices: Sequence[str]) -> None:
    """Of what the row is sure of, how much the column is sure of too."""
    both = table.T.astype(float) @ table  # (voices, voices)
    shares = both / np.maximum(np.diag(both), 1)[:, None]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
    for row, column in np.ndindex(*shares.shape):
        axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=8, color=INK)
    counts = [f"{name}, {count:,.0f}" for name, count in zip(voices, np.diag(both), strict=True)]
    axes.set_yticks(range(len(voices)), counts, fontsize=8)
    axes.set_xticks(range(len(voices)), voices, fontsize=8, rotation=0 if sum(map(len, voices)) < 60 else 30)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Of the labels the row finds, the column finds", fontsize=10, loc="left", color=INK)


def plot_worth(worth: Worth) -> Figure:
    """The same rules on images with labels: precision against recall, and the precision that each threshold would give.

    Dots: what the rules keep there.
    """
    figure, axes = panels(1, 2, (11, 4.4))
    for label, name in enumerate(worth.boxes.names):
        row = worth.table.loc[name]
        if not row["objects"]:
            continue
        curve = pr_f1_curve(worth.boxes, name)
        colour, about = class_colour(label), f"{name}: {row['labels']:.0f} labels, {row['objects']:.0f} objects"
        axes[0, 0].plot(curve.recall, curve.precision, color=colour, linewidth=1.4, label=about)
        axes[0, 1].plot(curve.threshold, curve.precision, color=colour, linewidth=1.4)
        if row["labels"]:
            axes[0, 0].plot(row["recall"], row["precision"], "o", color=colour, markersize=8, markeredgecolor=INK)
    tidy(axes[0, 0], "What the rules reach (dots)", x="recall", y="precision at IoU 0.5")
    tidy(axes[0, 1], "What a threshold would give", x="threshold of the class", y="precision at IoU 0.5")
    for panel in axes.flat:
        panel.set(xlim=(0, 1.02), ylim=(0, 1.04))
    handles, words = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, fontsize=8, frameon=False, ncols=4, loc="outside lower left")
    right, found = worth.precision, worth.recall
    said = "no labels there" if right is None else f"{right:.0%} of the labels would be right"
    title(figure, f"Judged on val: {said}" + ("" if not right else f", {found:.0%} of the objects labelled"))
    return figure


def plot_added(truth: CocoFile, joined: Joined, view_pattern: str | None) -> Figure:
    """What the pseudo labels add to the ground truth, by class and by camera, in boxes per image."""
    row_of = {category_id: row for row, category_id in enumerate(truth.category_ids)}
    files = {image["id"]: image["file_name"] for image in joined.images}
    true_ids = {record.image_id for record in truth.records}
    added_ids = {image_id for image_id in files if image_id not in true_ids} | {
        each["image_id"] for each in joined.labels
    }
    added = [(files[each["image_id"]], row_of[each["category_id"]]) for each in joined.labels]
    true = [(record.file_name, int(label)) for record in truth.records for label in targets_of(record)[1]]
    cameras = {"ground truth": [camera_of(record.file_name, view_pattern) for record in truth.records]}
    cameras["pseudo labels"] = [camera_of(files[image_id], view_pattern) for image_id in added_ids]
    busiest = sorted({each for some in cameras.values() for each in some}, key=lambda name: (len(name), name))
    shown = busiest[:MOST_CAMERAS]
    figure, axes = panels(1, 2, (11, 1.5 + 0.34 * max(len(truth.names), len(shown), 3)))
    for offset, (name, boxes, colour) in enumerate((("ground truth", true, TRUTH), ("pseudo labels", added, PSEUDO))):
        images = max(len(cameras[name]), 1)
        by_class = np.bincount([label for _, label in boxes], minlength=len(truth.names))
        about = f"{name}: {len(boxes):,} in {len(cameras[name]):,} images"
        bars(axes[0, 0], by_class / images, by_class, offset, about, colour)
        own = [camera_of(file_name, view_pattern) for file_name, _ in boxes]
        counts = np.array([own.count(each) for each in shown])
        of_camera = np.array([max(cameras[name].count(each), 1) for each in shown])
        bars(axes[0, 1], counts / of_camera, counts, offset, "", colour)
    finish_bars(axes[0, 0], truth.names, "By class")
    finish_bars(axes[0, 1], [f"camera {each}" if each else "all" for each in shown], "By camera")
    legend(axes[0, 0], loc="upper left", bbox_to_anchor=(-0.15, -0.16 if len(shown) > 6 else -0.22), ncols=2)
    more = f", {len(busiest) - len(shown)} cameras not shown" if len(busiest) > len(shown) else ""
    title(figure, f"{len(joined.labels):,} pseudo labels beside {len(true):,} true ones: boxes per image{more}")
    return figure


def camera_of(file_name: str, view_pattern: str | None) -> str:
    view = view_of(file_name, view_pattern)
    return view.camera if view else ""


def bars(axes: Axes, rates: np.ndarray, counts: np.ndarray, offset: int, name: str, colour: str) -> None:
    """Boxes per image; the number of boxes stands at the end of each bar."""
    places = np.arange(len(rates)) + 0.38 * offset - 0.19
    drawn = axes.barh(places, rates, 0.36, color=colour, label=name)
    axes.bar_label(drawn, [f"{rate:.2g} ({count:,})" for rate, count in zip(rates, counts, strict=True)],
                   fontsize=7, padding=3, color=INK)  # fmt: skip


def finish_bars(axes: Axes, names: Sequence[str], heading: str) -> None:
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.22)
    tidy(axes, heading, x="boxes per image (boxes)")
    axes.grid(visible=False, axis="y")


def show_pseudo_labels(
    images: Sequence[Mapping[str, Any]], sifted: Sifted, rules: Sequence[Rule], truth: CocoFile, root: Path
) -> Figure:
    """Images with their pseudo labels, coloured by rule, or by score where there is one rule; dotted: nearly a label.

    images: COCO entries with file names from the root.
    """
    shots = [shot_of(image, sifted, truth, root) for image in images]
    figure, flat, inches = grid([shot for shot, _, _ in shots], 3)
    by_rule = len(rules) > 1
    for axes, (shot, labels, near) in zip(flat, shots, strict=False):
        draw_image(axes, shot.image, shot.heading)
        for box in near:
            outline(axes, corners(box["bbox"]), DROPPED, ":", 1.0)
        colours = [rule_colour(each, rules) if by_rule else band_colour(each["score"]) for each in labels]
        for row, colour in enumerate(colours):
            outline(axes, shot.boxes_xyxy_px[row], colour, "-", 1.3)
        scores = [f"{truth.names[label]} {each['score']:.2f}" for label, each in zip(shot.labels, labels, strict=True)]
        size_hw = (shot.image.shape[0], shot.image.shape[1])
        chips(axes, shot.boxes_xyxy_px, scores, colours, size_hw, 5.5, size_hw[1] / (72 * inches))
    looks: list[tuple[str, str, LineStyle]]
    looks = [(f"rule {rule.text}", rule_colour({"pseudo": {"rule": rule.text}}, rules), "-") for rule in rules]
    bands: list[tuple[str, str, LineStyle]]
    bands = [(f"score from {low:g}" if low else f"below {BANDS[-2][0]:g}", colour, "-") for low, colour in BANDS]
    dropped: tuple[str, str, LineStyle] = (f"not kept, at least {NEARLY:.0%} of its threshold", DROPPED, ":")
    handles = [
        Line2D([], [], color=colour, linestyle=style, label=word, path_effects=dark_rim(1.5))
        for word, colour, style in [*(looks if by_rule else bands), dropped]
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    title(figure, "Pseudo labels: is what is kept right, and what is dropped wrong?")
    return figure


def shot_of(
    image: Mapping[str, Any], sifted: Sifted, truth: CocoFile, root: Path
) -> tuple[Shot, list[dict[str, Any]], list[dict[str, Any]]]:
    """-> the picture, its labels, what was nearly one."""
    labels = [each for each in sifted.labels if each["image_id"] == image["id"]]
    near = [
        each
        for each in sifted.watched
        if each["image_id"] == image["id"] and each["score"] >= NEARLY * each["threshold"]
    ]
    boxes_xyxy_px = np.array([corners(each["bbox"]) for each in labels]).reshape(-1, 4)
    classes = np.array([truth.category_ids.index(each["category_id"]) for each in labels], np.int64)
    about = f"{PurePath(image['file_name']).name}: {len(labels)} labels, {len(near)} nearly"
    return Shot(read_image(root / image["file_name"]), boxes_xyxy_px, classes, about), labels, near


def corners(box_xywh_px: Sequence[float]) -> np.ndarray:
    x, y, width, height = box_xywh_px
    return np.array([x, y, x + width, y + height])


def rule_colour(label: Mapping[str, Any], rules: Sequence[Rule]) -> str:
    row = next(row for row, rule in enumerate(rules) if rule.text == label["pseudo"]["rule"])
    return (PALETTE[2], PALETTE[1], PALETTE[0], PALETTE[3], PALETTE[4], PALETTE[6], QUIET)[row % 7]


def band_colour(score: float) -> str:
    return next(colour for low, colour in BANDS if score >= low)
