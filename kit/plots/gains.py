"""What each step of the ensemble gives and costs, and the images on which the whole method changed most."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kit.data.dataset import CocoDataset
from kit.errors import Errors, worst_images
from kit.gains import Metric, Step
from kit.plots.canvas import INK, PALETTE, QUIET, note, panels, tidy, title
from kit.plots.mistakes import mistakes_of
from kit.plots.pictures import show_mistakes

NAMES = {"ap": "AP", "f1": "F1"}
KEPT, DROPPED = PALETTE[2], PALETTE[4]  # the latter hatched too, for a grey print


def plot_gains(steps: Sequence[Step], metric: Metric = "f1") -> Figure:
    """By step: its gain, where the score stands with it, and what an image takes. Steps that were dropped are orange;
    each was judged on top of what was kept above it."""
    figure, axes = panels(1, 3, (13, 1.9 + 0.32 * len(steps)), sharey=True, width_ratios=(4, 4, 3))
    gain, level, cost = axes[0]
    draw_gains(gain, steps)
    draw_levels(level, steps, metric)
    draw_seconds(cost, steps)
    tidy(
        gain,
        f"What it gives: gain in {NAMES[metric]}",
        x=f"{NAMES[metric]} points (hundredths), and their 95 % interval",
    )
    tidy(level, "Where that leads", x="score")
    tidy(cost, "What it costs", x="seconds an image, one at a time")
    gain.set_yticks(range(len(steps)), [step.name for step in steps], fontsize=9)
    gain.set_ylim(len(steps) - 0.5, -0.5)
    for panel in axes.flat:
        panel.grid(visible=False, axis="y")
    handles, words = level.get_legend_handles_labels()
    bars = [Patch(color=KEPT, label="kept"), Patch(facecolor=DROPPED, edgecolor="white", hatch="///", label="dropped")]
    words = [bar.get_label() for bar in bars] + words
    figure.legend([*bars, *handles], words, loc="outside lower left", ncols=5, fontsize=9, frameon=False)
    title(figure, f"Step by step: {NAMES[metric]} {from_to(steps, metric)}")
    return figure


def from_to(steps: Sequence[Step], metric: Metric) -> str:
    """The score of the first step and of the last that was kept, in words."""
    first, last = steps[0].score, [step.score for step in steps if step.kept][-1]
    text = f"from {first.of(metric):.3f} to {last.of(metric):.3f}"
    if first.report and last.report:
        text += f"; on images kept for the report from {first.report.of(metric):.3f} to {last.report.of(metric):.3f}"
    return text


def draw_gains(axes: Axes, steps: Sequence[Step]) -> None:
    """A bar each step after the first; a whisker spans 95 % of what other images of this kind would have given."""
    tried = [(row, step, 100 * step.gain) for row, step in enumerate(steps) if step.gain is not None]
    if not tried:
        note(axes, "nothing else was tried")
    for row, step, points in tried:
        low, high = (100 * step.spread.low, 100 * step.spread.high) if step.spread else (points, points)
        axes.barh(row, points, height=0.6, **look_of(step))
        if step.spread:
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2, marker="|", markersize=6)
        end = max(points, high, 0.0)
        axes.annotate(f"{points:+.2f}", (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.margins(x=0.16)


def look_of(step: Step) -> dict[str, Any]:
    return {"color": KEPT} if step.kept else {"facecolor": DROPPED, "edgecolor": "white", "hatch": "///"}


def draw_levels(axes: Axes, steps: Sequence[Step], metric: Metric) -> None:
    """The metric on tune and on the report, and the other metric in grey; the line goes through what was kept."""
    other: Metric = "ap" if metric == "f1" else "f1"
    rows = np.arange(len(steps))
    kept = [row for row, step in enumerate(steps) if step.kept]
    colours = [KEPT if step.kept else DROPPED for step in steps]
    values = np.array([step.score.of(metric) for step in steps])
    axes.plot(values[kept], kept, color=KEPT, linewidth=1.2)
    axes.scatter(values, rows, c=colours, s=34, zorder=3, label=f"{NAMES[metric]}, on which choices are made")
    reported = [step.score.report.of(metric) for step in steps if step.score.report]
    if reported:
        axes.plot([reported[row] for row in kept], kept, color=KEPT, linewidth=0.8, linestyle=":")
        look: dict[str, Any] = {"facecolor": "white", "edgecolor": colours, "marker": "D", "zorder": 3}
        axes.scatter(reported, rows, s=34, label=f"{NAMES[metric]}, kept for the report", **look)
    axes.scatter([step.score.of(other) for step in steps], rows, color=QUIET, s=16, marker="s", label=NAMES[other])
    for row in (kept[0], kept[-1]):
        axes.annotate(f"{values[row]:.3f}", (values[row], row), (5, 5), textcoords="offset points", fontsize=8)
    axes.margins(x=0.14)


def draw_seconds(axes: Axes, steps: Sequence[Step]) -> None:
    """Of the whole method with the step."""
    known = [(row, step, step.seconds) for row, step in enumerate(steps) if step.seconds is not None]
    if not known:
        axes.text(0.5, 0.5, "not known", ha="center", fontsize=9, color=QUIET, transform=axes.transAxes)
    for row, step, seconds in known:
        axes.barh(row, seconds, height=0.6, **look_of(step))
        axes.annotate(f"{seconds:.2g}", (seconds, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.16)


def show_changes(before: Errors, after: Errors, dataset: CocoDataset, count: int, heading: str) -> Figure:
    """Images whose number of errors changed most, before (left) and after (right)."""
    shots = []
    for image_id, change in most_changed(before, after, count):
        left, right = (mistakes_of(errors, dataset, image_id) for errors in (before, after))
        counts = right.heading.partition(": ")[2]
        shots += [
            replace(left, heading=f"before: {left.heading}"),
            replace(right, heading=f"after: {counts} ({change:+d} errors)"),
        ]
    return show_mistakes(shots, dataset.coco.names, heading, columns=2)


def most_changed(before: Errors, after: Errors, count: int) -> list[tuple[int, int]]:
    """Image ids and by how much their false and missed boxes grew in number: the most harmed and the most helped in
    turn, as long as there are both."""
    change = (worst_images(after)["badness"] - worst_images(before)["badness"]).astype(int).sort_values(kind="stable")
    pairs = list(zip(change.index.tolist(), change.tolist(), strict=True))
    helped, harmed = [pair for pair in pairs if pair[1] < 0], [pair for pair in reversed(pairs) if pair[1] > 0]
    in_turn = [pair for both in zip_longest(harmed, helped) for pair in both if pair]
    return in_turn[:count]
