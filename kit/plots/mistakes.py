"""Where the detector errs: causes, confusions, the images with the most mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kit.data.dataset import CocoDataset
from kit.errors import FALSE_CAUSES, MISSED_CAUSES, Errors, false_negatives_by, false_positives_by, scores_by
from kit.plots.canvas import INK, PALETTE, number_table, panels, tidy, title
from kit.plots.pictures import Shot, show_mistakes, visible

CAUSES = {
    "localisation": ("box too far off", PALETTE[6]),
    "confusion": ("other class", PALETTE[3]),
    "duplicate": ("found twice", PALETTE[5]),
    "low_score": ("under the threshold", PALETTE[5]),
    "background": ("nothing there", PALETTE[7]),
    "unseen": ("not found at all", PALETTE[7]),
}
VIEWS = {"category": "by class", "size": "by size", "distance": "by distance from the centre (1 = nearest edge)"}
MOST_ROWS = 20


def plot_error_causes(errors: Errors) -> Figure:
    """False and missed boxes by cause, for each class, size and distance from the image centre."""
    tables = [(busiest(false_positives_by(errors, view)), busiest(false_negatives_by(errors, view))) for view in VIEWS]
    heights = [0.3 * len(pair[0]) + 0.7 for pair in tables]
    ratios = {"height_ratios": heights}
    figure, axes = panels(len(VIEWS), 2, (11, sum(heights) + 1.2), sharex="col", gridspec_kw=ratios)
    for (left, right), (false, missed), view in zip(axes, tables, VIEWS.values(), strict=True):
        stacked(left, false, f"False detections {view}")
        stacked(right, missed, f"Missed objects {view}")
    for axis, causes in ((axes[-1, 0], FALSE_CAUSES), (axes[-1, 1], MISSED_CAUSES)):
        axis.set_xlabel("boxes", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        handles = [Patch(color=CAUSES[cause][1], label=CAUSES[cause][0]) for cause in causes]
        axis.legend(
            handles=handles, fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.45, -0.35)
        )
    false_count, missed_count = (int(table.to_numpy().sum()) for table in tables[1])  # by size: few rows, none left out
    title(figure, f"{false_count:,} false detections and {missed_count:,} missed objects, by cause")
    return figure


def busiest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the most counts, in their order."""
    if len(table) <= MOST_ROWS:
        return table
    rows = np.sort(np.argsort(-table.sum(axis=1).to_numpy(), kind="stable")[:MOST_ROWS])
    return table.iloc[rows]


def stacked(axes: Axes, table: pd.DataFrame, heading: str) -> None:
    """A bar each row of the table, a part each cause; the sum stands at its end."""
    start = np.zeros(len(table))
    for cause in table.columns:
        counts = table[cause].to_numpy()
        axes.barh(range(len(table)), counts, left=start, color=CAUSES[cause][1], height=0.75)
        start = start + counts
    for row, total in enumerate(start):
        axes.text(total, row, f" {int(total):,}", va="center", fontsize=8, color=INK)
    tidy(axes, heading)
    axes.set_xlim(0, max(float(start.max(initial=0)) * 1.1, axes.get_xlim()[1], 1))
    axes.set_yticks(range(len(table)), [str(name) for name in table.index])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def plot_scores_by(errors: Errors) -> Figure:
    """Precision and recall above the thresholds, by class, size, distance from the centre, and group if several."""
    has_groups = "group" in errors.truths and errors.truths["group"].nunique() > 1
    views = VIEWS | ({"group": "by time of day"} if has_groups else {})
    figure, axes = panels(1, len(views), (13, 3.4), sharey=True)
    for axis, (view, heading) in zip(axes[0], views.items(), strict=True):
        heading, _, scale = heading.partition(" (")
        table = busiest(scores_by(errors, view))
        places = np.arange(len(table))
        axis.bar(places - 0.2, table["precision"], 0.38, color=PALETTE[6], label="precision")
        axis.bar(places + 0.2, table["recall"], 0.38, color=PALETTE[1], label="recall")
        axis.set_xticks(places, [str(name) for name in table.index], rotation=0 if len(table) < 7 else 90)
        tidy(axis, heading.capitalize(), x=scale.rstrip(")"))
        axis.tick_params(axis="x", labelsize=7)
        axis.set_ylim(0, 1)
        axis.grid(visible=False, axis="x")
    handles, words = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, fontsize=9, frameon=False, ncols=2, loc="outside lower left")
    title(figure, "Precision and recall of what is sent")
    return figure


def plot_confusion(matrix: pd.DataFrame) -> Figure:
    """Objects (rows) against what was detected in their place (columns); shaded by the share of the row."""
    counts = matrix.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.42 * len(matrix)
    figure, axes = panels(1, 1, (min(2.2 + 0.85 * len(matrix), 14), min(side, 14)))
    names = [str(name) for name in matrix.index]
    number_table(axes[0, 0], counts, names, names, shares)
    axes[0, 0].set_xlabel("detected as (background: missed)", fontsize=9)
    axes[0, 0].set_ylabel("object (background: none)", fontsize=9)
    axes[0, 0].tick_params(axis="x", rotation=0 if len(matrix) < 9 else 90)
    title(figure, "What is taken for what")
    return figure


def show_worst_images(errors: Errors, dataset: CocoDataset, image_ids: Sequence[int], heading: str) -> Figure:
    """Images with what was found, found falsely and missed."""
    return show_mistakes(
        [mistakes_of(errors, dataset, image_id) for image_id in image_ids], dataset.coco.names, heading, 2
    )


def mistakes_of(errors: Errors, dataset: CocoDataset, image_id: int) -> Shot:
    """One image: its detections as correct or false, and the objects that were missed."""
    index = next(i for i, record in enumerate(dataset.coco.records) if record.image_id == image_id)
    found = errors.detections[(errors.detections["image_id"] == image_id) & (errors.detections["outcome"] != "ignored")]
    missed = errors.truths[(errors.truths["image_id"] == image_id) & (errors.truths["outcome"] != "found")]
    rows = pd.concat([found, missed])
    corner, size = rows[["x_px", "y_px"]].to_numpy(), rows[["w_px", "h_px"]].to_numpy()
    outcomes = ["correct" if outcome == "true" else "false" for outcome in found["outcome"]] + ["missed"] * len(missed)
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in ("correct", "false", "missed"))
    return Shot(
        visible(dataset.load(index).image),
        np.concatenate([corner, corner + size], axis=1),
        np.array([dataset.coco.names.index(name) for name in rows["category"]], np.int64),
        f"{Path(dataset.coco.records[index].file_name).name}: {counts}",
        outcomes=outcomes,
    )
