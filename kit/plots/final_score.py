"""Which detector to submit: F1 over frames a second, with the lines of equal final score."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from kit.plots.canvas import INK, PALE, PALETTE, QUIET, note, panels, tidy, title

SENT, OTHER, TOO_SLOW = PALETTE[2], PALETTE[6], PALETTE[4]
MARKS = {"this machine": "o", "given": "D"}
LEVELS = np.arange(0.1, 1.0, 0.1)  # of the final score, where lines are drawn


def plot_final_scores(table: pd.DataFrame, score: Callable[[Any, Any], Any]) -> Figure:
    """table: name, fps, f1, score, where, verdict, best first; score: (f1, fps) -> final score, 0 if disqualified."""
    figure, axes = panels(1, 2, (13, max(4.8, 2.2 + 0.34 * len(table))), width_ratios=(6, 5))
    plane, bars = axes[0]
    if table.empty:
        note(plane, "nothing was measured and nothing given")
        bars.set_axis_off()
        return figure
    draw_plane(plane, table, score)
    draw_bars(bars, table)
    sent = table[table["verdict"] == "submit"]
    best = f"submit {sent.iloc[0]['name']}" if len(sent) else "none is fast enough"
    title(figure, f"Final score: {best}")
    figure.legend(handles=legend_handles(table), loc="outside lower left", ncols=5, fontsize=9, frameon=False)
    return figure


def legend_handles(table: pd.DataFrame) -> list[Line2D]:
    """Only what the picture has."""
    colours = {"submit": (SENT, "to be submitted"), "": (OTHER, "others"), "slow": (TOO_SLOW, "disqualified")}
    seen = {kind_of(verdict) for verdict in table["verdict"]}
    handles = [
        Line2D([], [], color=colour, marker="s", linestyle="", label=words)
        for kind, (colour, words) in colours.items()
        if kind in seen
    ]
    places = {"this machine": "FPS of this machine", "given": "FPS given"}
    return handles + [
        Line2D([], [], color=QUIET, marker=MARKS[where], linestyle="", label=places[where])
        for where in MARKS
        if where in set(table["where"])
    ]


def kind_of(verdict: str) -> str:
    return verdict if verdict in ("submit", "") else "slow"


def colour_of(verdict: str) -> str:
    return {"submit": SENT, "": OTHER, "slow": TOO_SLOW}[kind_of(verdict)]


def draw_plane(axes: Axes, table: pd.DataFrame, score: Callable[[Any, Any], Any]) -> None:
    """Where each stands, on a logarithmic axis of rates; what is disqualified lies on hatched ground."""
    low, high = min(5.0, table["fps"].min() * 0.7), max(60.0, table["fps"].max() * 1.6)
    top = min(1.0, max(0.75, table["f1"].max() * 1.2))
    fps, f1 = np.meshgrid(np.geomspace(low, high, 400), np.linspace(0.0, top, 200))
    values = score(f1, fps)
    allowed = np.where(values > 0, values, np.nan)
    lines = axes.contour(fps, f1, allowed, levels=LEVELS, colors=QUIET, linewidths=0.8)
    axes.clabel(lines, fmt="%.1f", fontsize=8)
    slow = fps[-1][values[-1] == 0]
    if len(slow):
        axes.axvspan(low, slow[-1], facecolor=PALE, edgecolor="white", hatch="//", linewidth=0, zorder=0)
        middle = float(np.sqrt(low * slow[-1]))
        axes.text(middle, 0.02 * top, "disqualified", ha="center", rotation=90, fontsize=9, color=INK)
    for row in rows_of(table):
        look: dict[str, Any] = {"color": colour_of(row["verdict"]), "marker": MARKS[row["where"]], "zorder": 3}
        size = 13 if row["verdict"] == "submit" else 9
        axes.plot([row["fps"]], [row["f1"]], markersize=size, markeredgecolor="white", **look)
    name_points(axes, table)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(0.0, top)
    ticks = [each for each in (1, 2, 5, 10, 15, 25, 50, 100, 200, 500, 1000) if low <= each <= high]
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.minorticks_off()
    tidy(axes, "F1 against rate; lines of equal final score", x="frames a second, one image at a time", y="F1")


def name_points(axes: Axes, table: pd.DataFrame) -> None:
    """The number of the row in the bars beside: names would lie on each other. Above and below the mark in turn."""
    numbered = enumerate(rows_of(table), 1)
    for turn, (number, row) in enumerate(sorted(numbered, key=lambda pair: pair[1]["fps"])):
        offset, weight = (0, -18 if turn % 2 else 9), "bold" if row["verdict"] == "submit" else "normal"
        look: dict[str, Any] = {"ha": "center", "fontsize": 9, "color": INK, "fontweight": weight}
        halo = [Stroke(linewidth=3, foreground="white"), Normal()]
        place = (row["fps"], row["f1"])
        axes.annotate(str(number), place, offset, textcoords="offset points", path_effects=halo, **look)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def draw_bars(axes: Axes, table: pd.DataFrame) -> None:
    """The final scores, best first; a disqualified one has no bar, and its text says why."""
    rows = range(len(table))
    colours = [colour_of(verdict) for verdict in table["verdict"]]
    axes.barh(rows, table["score"], color=colours, height=0.6)
    for row, each in enumerate(rows_of(table)):
        head = f"{each['score']:.3f}" if each["score"] > 0 else each["verdict"]
        text = f"{head}  ({each['fps']:.1f} FPS, F1 {each['f1']:.3f})"
        axes.annotate(text, (each["score"], row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(rows, [f"{number}  {name}" for number, name in enumerate(table["name"], 1)], fontsize=9)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, max(0.25, float(table["score"].max())) * 1.9)
    tidy(axes, "Final score", x="2 F1 N / (F1 + N), with N = min(FPS, 25) / 25")
    axes.grid(visible=False, axis="y")
