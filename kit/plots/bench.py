"""Speed beside accuracy: latencies, throughput against batch size, and what the accuracy costs in time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit.plots.canvas import INK, QUIET, class_colour, legend, note, panels, tidy, title

KINDS = {"model": "without post-processing", "finished": "with it: boxes", "decoded": "from file to boxes"}
SHADES = {"model": 0.45, "finished": 1.0, "decoded": 0.7}
HATCHES = {"model": "", "finished": "", "decoded": "///"}


def plot_bench(table: pd.DataFrame) -> Figure:
    """table: a row for each model, runtime and batch, columns as kit.deploy.bench_table.Row has them."""
    table = table.assign(series=series_names(table))
    names = list(dict.fromkeys(table["series"]))
    colours = {name: class_colour(place) for place, name in enumerate(names)}
    smallest = table.loc[table.groupby("series")["batch"].idxmin()].set_index("series").loc[names]
    figure, axes = panels(1, 3, (15, 2.2 + 0.42 * max(len(names), 4)), width_ratios=(5, 4, 4))
    draw_latencies(axes[0, 0], smallest, colours)
    draw_throughput(axes[0, 1], table, colours)
    if smallest["ap"].notna().any():
        draw_accuracy(axes[0, 2], smallest, colours)
    else:
        draw_memory(axes[0, 2], smallest, colours)
    best = min(names, key=lambda name: float(smallest["finished_p50_ms"][name]))
    title(figure, f"Quickest: {best}, {smallest['finished_p50_ms'][best]:.1f} ms")
    return figure


def series_names(table: pd.DataFrame) -> list[str]:
    """Model, runtime and what is unusual; the model is left out where there is but one."""
    several = table["model"].nunique() > 1
    names = []
    for model, runtime, precision, device in table[["model", "runtime", "precision", "device"]].itertuples(index=False):
        words = [model if several else "", runtime, "" if precision == "fp32" else precision]
        names.append(" ".join(word for word in [*words, "GPU" if device == "cuda" else ""] if word))
    return names


def draw_latencies(axes: Axes, smallest: pd.DataFrame, colours: dict[str, str]) -> None:
    """Bars of the median, whiskers up to the 99th percentile."""
    height = 0.26
    for place, (name, row) in enumerate(smallest.iterrows()):
        for step, kind in enumerate(KINDS):
            median, late = row[f"{kind}_p50_ms"], row[f"{kind}_p99_ms"]
            if np.isnan(median):
                continue
            y = place + (step - 1) * height
            look: dict[str, Any] = {
                "color": colours[str(name)],
                "alpha": SHADES[kind],
                "hatch": HATCHES[kind],
                "edgecolor": "white",
            }
            axes.barh(y, median, height=height, linewidth=0, **look)
            axes.plot([median, late], [y, y], color=INK, linewidth=0.9, marker="|", markersize=4)
            axes.annotate(f"{median:.1f}", (late, y), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(smallest)), list(smallest.index), fontsize=9)
    axes.set_ylim(len(smallest) - 0.45, -0.55)
    axes.margins(x=0.12)
    batches = sorted(set(smallest["batch"]))
    of = f"batch {batches[0]}" if len(batches) == 1 else "the smallest batch"
    tidy(axes, f"Latency, {of}: median, and to the 99th percentile", x="ms")
    axes.grid(visible=False, axis="y")
    for kind, words in KINDS.items():
        axes.barh(np.nan, np.nan, color=QUIET, alpha=SHADES[kind], hatch=HATCHES[kind], edgecolor="white", label=words)
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def draw_throughput(axes: Axes, table: pd.DataFrame, colours: dict[str, str]) -> None:
    """Images a second against the batch; a ring marks the knee."""
    for name, rows in table.sort_values("batch").groupby("series", sort=False):
        axes.plot(rows["batch"], rows["images_per_s"], color=colours[str(name)], marker=".", linewidth=1.6, label=name)
        knee = rows[rows["is_knee"]]
        ring: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": INK}
        axes.plot(knee["batch"], knee["images_per_s"], linestyle="none", **ring)
    batches = sorted(set(table["batch"]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(each) for each in batches])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    tidy(axes, "Throughput; a ring marks the knee", x="images in a batch", y="images/s")
    legend(axes, loc="lower right")


def draw_accuracy(axes: Axes, smallest: pd.DataFrame, colours: dict[str, str]) -> None:
    """AP (dots) and F1 (diamonds) against the latency of finished boxes."""
    for name, row in smallest.iterrows():
        x = row["finished_p50_ms"]
        axes.scatter(x, row["ap"], color=colours[str(name)], s=46, zorder=3)
        axes.scatter(x, row["f1"], facecolor="white", edgecolor=colours[str(name)], marker="D", s=34, zorder=3)
    axes.scatter([], [], color=QUIET, s=46, label="AP")
    axes.scatter([], [], facecolor="white", edgecolor=QUIET, marker="D", s=34, label="F1 of Track 4")
    axes.set_xlim(left=0)
    axes.margins(y=0.2)
    tidy(axes, "What the accuracy costs", x="ms, median, finished", y="score")
    legend(axes, loc="lower left")


def draw_memory(axes: Axes, smallest: pd.DataFrame, colours: dict[str, str]) -> None:
    """Peak of a process that does nothing else, and what the libraries alone take of it."""
    if smallest["peak_mib"].isna().all():
        note(axes, "neither accuracy nor memory were measured")
        return
    for place, (name, row) in enumerate(smallest.iterrows()):
        axes.barh(place, row["peak_mib"], height=0.6, color=colours[str(name)], alpha=0.35)
        axes.barh(place, row["model_mib"], height=0.6, color=colours[str(name)])
        at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(f"{row['peak_mib']:.0f}", (row["peak_mib"], place), (4, 0), **at)
    axes.set_yticks(range(len(smallest)), [""] * len(smallest))
    axes.set_ylim(len(smallest) - 0.45, -0.55)
    axes.margins(x=0.14)
    tidy(axes, "Peak memory; pale: the libraries", x="MiB")
    axes.grid(visible=False, axis="y")
