"""How an exported file agrees with its checkpoint, a row each file: scores, overlaps, accuracy before and after."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit.plots.canvas import INK, PALETTE, QUIET, legend, note, panels, tidy, title

BEFORE, AFTER, BAD = PALETTE[6], PALETTE[2], PALETTE[4]
WIDEST = 30  # letters over the narrow first panel


@dataclass(frozen=True)
class Parity:
    """One comparison. reference, candidate: scores of matched boxes (M,); iou: of the same (M,)."""

    heading: str
    passed: bool
    reference: np.ndarray
    candidate: np.ndarray
    iou: np.ndarray
    missing: int  # boxes that only the reference has
    added: int  # boxes that only the candidate has
    before: Mapping[str, float]  # name of a figure -> value; empty without annotations
    after: Mapping[str, float]


def plot_parity(rows: Sequence[Parity], heading: str = "Does the file find what the checkpoint finds?") -> Figure:
    """A row each comparison; what was refused is orange."""
    if not rows:
        raise ValueError("expected at least one comparison, got none")
    figure, axes = panels(len(rows), 3, (13, 0.6 + 3.1 * len(rows)), width_ratios=(3, 4, 3))
    for (scores, overlaps, accuracy), row in zip(axes, rows, strict=True):
        draw_scores(scores, row)
        draw_overlaps(overlaps, row)
        draw_accuracy(accuracy, row)
        scores.set_title(
            textwrap.fill(row.heading, WIDEST),
            fontsize=10,
            loc="left",
            color=INK if row.passed else BAD,
            fontweight="bold",
        )
    title(figure, heading)
    return figure


def draw_scores(axes: Axes, row: Parity) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8)
    colour = AFTER if row.passed else BAD
    axes.scatter(row.reference, row.candidate, s=9, color=colour, alpha=0.5, linewidths=0)
    tidy(axes, x="score of the checkpoint", y="score of the file")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")


def draw_overlaps(axes: Axes, row: Parity) -> None:
    """1 - IoU on a logarithmic scale, where rounding and damage lie far apart; unmatched boxes at the far right."""
    loss = np.clip(1 - row.iou, 1e-8, 1)
    bins = np.logspace(-8, 0, 33).tolist()
    axes.hist(loss, bins, color=AFTER if row.passed else BAD)
    heading = f"{len(loss):,} boxes matched"
    if row.missing + row.added:
        axes.bar([2.4], [row.missing + row.added], width=[2.2], color=INK)
        heading += f"; at the right, dark: {row.missing:,} missing, {row.added:,} added"
    axes.set_xscale("log")
    axes.set_xlim(1e-8, 6)
    tidy(axes, heading, x="1 - IoU with the checkpoint's box", y="boxes")


def draw_accuracy(axes: Axes, row: Parity) -> None:
    if not row.before:
        note(axes, "no annotations were given")
        return
    places = np.arange(len(row.before))
    for shift, figures, colour, label in (
        (-0.2, row.before, BEFORE, "checkpoint"),
        (0.2, row.after, AFTER if row.passed else BAD, "file"),
    ):
        bars = axes.bar(places + shift, list(figures.values()), width=0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    axes.set_xticks(places, list(row.before))
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.3 * max([0.1, *row.before.values(), *row.after.values()]))
    legend(axes, loc="upper left", ncols=2)
