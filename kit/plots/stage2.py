"""The second stage: both curves, what pseudo labels gave, the soup, and the candidates beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kit.metrics.bootstrap import Difference
from kit.plots.canvas import INK, PALETTE, QUIET, legend, note, panels, tidy, title
from kit.plots.results import METRICS
from kit.soup import Soup
from kit.stage2 import Candidate, Gain, Labels, short_name

STAGE_2, CONTROL = PALETTE[0], PALETTE[6]
BETTER, WORSE = PALETTE[2], PALETTE[4]
LEAST_SPAN = 0.03  # of an axis of AP or F1


def plot_stage2(
    history: Sequence[Mapping[str, Any]],
    control: Sequence[Mapping[str, Any]] | None,
    stage_1: Mapping[str, float],
    select_by: str = "ap",
) -> Figure:
    """Quality on tune by epoch, from stage 1 (epoch 0) on, with pseudo labels and without; the best epochs marked."""
    figure, axes = panels(1, 3, (11, 3.8))
    runs = [(history, "stage 2" if control is None else "with pseudo labels", STAGE_2, "-")]
    runs += [] if control is None else [(control, "control: without", CONTROL, "--")]
    for panel, (key, (name, _)) in zip(axes[0], METRICS.items(), strict=True):
        panel.axhline(stage_1[key], color=QUIET, linestyle=":", linewidth=1.2, label="stage 1")
        for rows, label, colour, style in runs:
            draw_run(panel, rows, key, stage_1[key], label=label, colour=colour, style=style, starred=key == select_by)
        tidy(panel, name + (", which chooses" if key == select_by else ""), x="epoch of stage 2")
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panel.margins(y=0.25)
        panel.set_ylim(widened(*panel.get_ylim()))
    legend(axes[0, 0], loc="best")
    title(figure, "Quality on the images to choose on; epoch 0 is stage 1, stars are the best epochs")
    return figure


def widened(low: float, high: float) -> tuple[float, float]:
    """Limits of at least LEAST_SPAN: next to nothing must not look like much."""
    more = max(0.0, LEAST_SPAN - (high - low)) / 2
    return low - more, high + more


def draw_run(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    start: float,
    *,
    label: str,
    colour: str,
    style: str,
    starred: bool,
) -> None:
    points = [(0, start)] + [(row["epoch"] + 1, row[key]) for row in history if row.get(key) is not None]
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, style, color=colour, linewidth=1.6, marker=".", label=label)
    if starred and len(points) > 1:
        best = max(points[1:], key=lambda point: point[1])
        axes.plot(*best, marker="*", markersize=13, color=colour, markeredgecolor=INK, linestyle="none")


def plot_candidates(candidates: Sequence[Candidate], chosen: str, select_by: str = "ap") -> Figure:
    """Every candidate's figures on tune (filled) and on the report (hollow); the chosen one stands out."""
    figure, axes = panels(1, 3, (11, 1.7 + 0.42 * len(candidates)), sharey=True)
    for panel, (key, (name, _)) in zip(axes[0], METRICS.items(), strict=True):
        for row, candidate in enumerate(candidates):
            colour = STAGE_2 if candidate.name == chosen else CONTROL
            draw_candidate(panel, row, candidate.tune[key], (candidate.report or {}).get(key), colour)
        tidy(panel, name + (", which chooses" if key == select_by else ""))
        panel.grid(visible=False, axis="y")
        panel.margins(x=0.22, y=0.15)
        panel.set_xlim(widened(*panel.get_xlim()))
        panel.xaxis.set_major_locator(MaxNLocator(4))
    names = [f"{each.name}, chosen" if each.name == chosen else each.name for each in candidates]
    axes[0, 0].set_yticks(range(len(candidates)), names)
    axes[0, 0].invert_yaxis()
    hollow = "; hollow: on images no choice has seen" if any(each.report for each in candidates) else ""
    title(figure, f"Candidates; filled: on the images to choose on, which flatters{hollow}")
    return figure


def draw_candidate(axes: Axes, row: int, tune: float, report: float | None, colour: str) -> None:
    axes.plot(tune, row, marker="o", markersize=8, color=colour, linestyle="none")
    write_figure(axes, tune, row, 7, INK)
    if report is not None:
        axes.plot(report, row, marker="D", markersize=7, color=colour, fillstyle="none", linestyle="none")
        write_figure(axes, report, row, -14, QUIET)


def write_figure(axes: Axes, value: float, row: int, up_points: float, colour: str) -> None:
    spot, text = (value, row), f"{value:.3f}"
    axes.annotate(text, spot, (0, up_points), textcoords="offset points", ha="center", fontsize=8, color=colour)


def plot_soup(soup: Soup, select_by: str = "ap") -> Figure:
    """Each ingredient alone and in the soup, in the order they were tried."""
    figure, axes = panels(1, 1, (11, 1.7 + 0.34 * len(soup.tries)))
    panel, metric = axes[0, 0], METRICS[select_by][0]
    rows = np.arange(len(soup.tries))
    alone = [each.alone for each in soup.tries]
    panel.plot(alone, rows, marker="|", markersize=14, color=INK, linestyle="none", label="alone")
    for kept, colour, word in ((True, BETTER, "soup with it: kept"), (False, WORSE, "soup with it: left out")):
        own = [row for row in rows if soup.tries[row].kept == kept]
        values = [soup.tries[row].together for row in own]
        panel.plot(values, own, marker="o" if kept else "x", color=colour, linestyle="none", markersize=8, label=word)
    panel.axvline(soup.score, color=QUIET, linestyle=":", linewidth=1)
    panel.set_yticks(rows, [short_name(each.file) for each in soup.tries])
    panel.invert_yaxis()
    panel.margins(x=0.15, y=0.12)
    tidy(panel, x=f"{metric} on the images to choose on")
    legend(panel, loc="center left", bbox_to_anchor=(1.0, 0.5))
    title(figure, f"Greedy soup of {len(soup.files)} from {len(soup.tries)} checkpoints: {metric} {soup.score:.4f}")
    return figure


def plot_pseudo_gain(
    gain: Gain | None, labels: Labels, part: str = "tune", select_by: str = "ap", most: int = 20
) -> Figure:
    """What the pseudo labels added to each class, and what they changed in its AP against the control."""
    names = sorted(labels.truth, key=lambda name: -labels.truth[name] - labels.pseudo[name])[:most]
    figure, axes = panels(1, 2, (11, 1.9 + 0.36 * len(names)), sharey=True)
    draw_labels(axes[0, 0], names, labels)
    if gain is None:
        note(axes[0, 1], "no control: set control = True to see what they gave")
        title(figure, "Pseudo labels")
    else:
        draw_gain(axes[0, 1], names, gain, part)
        found = gain.f1 if select_by == "f1" else gain.ap
        title(figure, f"Pseudo labels {verdict(found)}: AP {gain.ap}, F1 {gain.f1} on {part}")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def verdict(difference: Difference) -> str:
    if not difference.is_sure:
        return "made no sure difference"
    return "helped" if difference.value > 0 else "did harm"


def draw_labels(axes: Axes, names: Sequence[str], labels: Labels) -> None:
    truth, pseudo = ([counts[name] for name in names] for counts in (labels.truth, labels.pseudo))
    axes.barh(range(len(names)), truth, color=CONTROL, label="ground truth")
    bars = axes.barh(range(len(names)), pseudo, left=truth, color=STAGE_2, label="pseudo")
    texts = [f"+{added:,} ({added / max(own, 1):.0%})" for own, added in zip(truth, pseudo, strict=True)]
    axes.bar_label(bars, texts, fontsize=8, padding=3, color=INK)
    axes.margins(x=0.25)
    tidy(axes, "Boxes to train on", x="boxes")
    axes.grid(visible=False, axis="y")
    legend(axes, loc="lower right")


def draw_gain(axes: Axes, names: Sequence[str], gain: Gain, part: str) -> None:
    """A class of which nothing is annotated in the part has no bar."""
    rows = [row for row, name in enumerate(names) if name in gain.ap_of_class]
    values = [round(gain.ap_of_class[names[row]], 3) + 0.0 for row in rows]  # + 0: no -0.000
    bars = axes.barh(rows, values, color=[BETTER if value >= 0 else WORSE for value in values])
    axes.bar_label(bars, [f"{value:+.3f}" for value in values], fontsize=8, padding=3, color=INK)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.margins(x=0.25)
    axes.set_xlim(widened(*axes.get_xlim()))
    tidy(axes, f"AP on {part}, above the control", x="AP with pseudo labels - AP without")
    axes.grid(visible=False, axis="y")
