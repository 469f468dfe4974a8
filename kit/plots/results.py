"""What came out: the training, precision and recall, thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kit.metrics import Matches, Thresholds, official_f1_curve, pr_f1_curve
from kit.plots.canvas import INK, MOST_CLASSES, PALETTE, QUIET, class_colour, legend, note, panels, tidy, title

METRICS = {"ap": ("AP", PALETTE[6]), "ap50": ("AP50", PALETTE[1]), "f1": ("F1 of Track 4", PALETTE[4])}
LOSS_TERMS = {
    "loss": ("total", INK),
    "vfl": ("classes", PALETTE[0]),
    "l1": ("box, L1", PALETTE[1]),
    "giou": ("box, GIoU", PALETTE[2]),
    "fgl": ("edges, FGL", PALETTE[3]),
    "ddf": ("edges, DDF", PALETTE[4]),
}
GROUP_SHADES = (1.0, 0.55, 0.3)


def plot_history(history: Sequence[Mapping[str, Any]], select_by: str = "ap") -> Figure:
    """Loss terms, quality and learning rate by epoch, counted from 1; the best epoch is marked."""
    figure, axes = panels(1, 3, (11, 3.6))
    loss, quality, rate = axes[0]
    for key, (name, colour) in LOSS_TERMS.items():
        line(loss, history, key, name, colour)
    for key, (name, colour) in METRICS.items():
        line(quality, history, key, name, colour)
    line(rate, history, "lr", None, INK)
    best = mark_best(quality, history, select_by)
    for panel, heading in ((loss, "Loss"), (quality, f"Quality on val{best}"), (rate, "Learning rate")):
        tidy(panel, heading, x="epoch")
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend(panel)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    title(figure, f"Training: {len(history)} epochs")
    return figure


def line(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, name: str | None, colour: str) -> None:
    """One value by epoch, at the epochs that have it."""
    points = [(row["epoch"] + 1, row[key]) for row in history if row.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, color=colour, linewidth=1.6, marker="." if len(points) < 40 else None, label=name)


def mark_best(axes: Axes, history: Sequence[Mapping[str, Any]], key: str) -> str:
    """A star on the curve -> words for the heading."""
    rows = [row for row in history if row.get(key) is not None]
    if not rows:
        note(axes, "not evaluated")
        return ""
    best = max(rows, key=lambda row: float(row[key]))
    axes.axvline(best["epoch"] + 1, color=QUIET, linestyle=":", linewidth=1)
    spot = (best["epoch"] + 1, best[key])
    axes.plot(*spot, marker="*", markersize=13, color=METRICS[key][1], markeredgecolor=INK, linestyle="none")
    return f": best {METRICS[key][0]} {best[key]:.3f} in epoch {best['epoch'] + 1:.0f}"


def plot_precision_recall(matches: Matches, thresholds: Thresholds | None = None, iou: float = 0.5) -> Figure:
    """Precision against recall; F1, precision and recall against the threshold. Dots: the chosen one of each class.

    Thresholds by group have no single dot a class, so none are drawn.
    """
    figure, axes = panels(2, 2, (11, 7))
    one_each = None if thresholds is None or thresholds.groups else thresholds
    for label in counted_labels(matches):
        curve, look = pr_f1_curve(matches, matches.names[label], iou), (class_colour(label), matches.names[label])
        chosen = None if one_each is None else one_each.scores[label][0]
        draw_curve(axes[0, 0], curve.recall, curve.precision, curve.threshold, chosen, *look)
        for panel, values in zip(axes.flat[1:], (curve.f1, curve.precision, curve.recall), strict=True):
            draw_curve(panel, curve.threshold, values, curve.threshold, chosen, *look)
    tidy(axes[0, 0], x="recall", y="precision")
    for panel, name in zip(axes.flat[1:], ("F1", "precision", "recall"), strict=True):
        tidy(panel, x="score threshold", y=name)
    for panel in axes.flat:
        panel.set(xlim=(0, 1.02), ylim=(0, 1.02))
    legend(axes[1, 1], loc="upper right")
    dots = "" if one_each is None else "; dots: the chosen thresholds"
    title(figure, f"Precision, recall and F1 of each class at IoU {iou:g}{dots}")
    return figure


def plot_f1_curves(matches: Matches, overall: Thresholds, per_class: Thresholds) -> Figure:
    """The official F1 against one threshold for all classes, and that of each class; dots: the chosen ones."""
    figure, axes = panels(1, 2, (11, 3.8))
    scores, f1 = official_f1_curve(matches)
    chosen = overall.scores[0][0]
    draw_curve(axes[0, 0], scores, f1, scores, chosen, INK, "all classes")
    for label in counted_labels(matches):
        own = official_f1_curve(of_class(matches, label))
        draw_curve(axes[0, 1], *own, own[0], per_class.scores[label][0], class_colour(label), matches.names[label])
    for panel in axes.flat:
        panel.set(xlim=(0, 1.02), ylim=(0, None))
    tidy(axes[0, 0], f"One threshold for all classes: {chosen:.2f}", x="score threshold", y="official F1")
    tidy(axes[0, 1], "One threshold a class", x="score threshold", y="official F1 of the class")
    legend(axes[0, 1], loc="upper right")
    title(figure, "F1 against the score threshold; dots: the chosen ones")
    return figure


def draw_curve(
    axes: Axes, x: np.ndarray, y: np.ndarray, scores: np.ndarray, chosen: float | None, colour: str, name: str
) -> None:
    """x, y, scores: (n,), scores descending. The dot is at the last score that the chosen threshold keeps."""
    axes.plot(x, y, color=colour, linewidth=1.6, label=name)
    kept = 0 if chosen is None else int((scores >= chosen).sum())
    if kept:
        axes.plot(x[kept - 1], y[kept - 1], marker="o", color=colour, markeredgecolor=INK, linestyle="none", zorder=3)


def counted_labels(matches: Matches) -> list[int]:
    """The classes with the most ground truth, as many as can be told apart, in order of label."""
    totals = matches.ground_truths.sum(axis=0)  # (K,)
    return sorted(int(label) for label in np.argsort(-totals, kind="stable")[:MOST_CLASSES] if totals[label])


def of_class(matches: Matches, label: int) -> Matches:
    only = np.arange(len(matches.names)) == label
    return replace(matches.keep(matches.label == label), ground_truths=matches.ground_truths * only)


def plot_thresholds(thresholds: Thresholds, names: Sequence[str], most: int = 30) -> Figure:
    """The lowest score that is kept, for each class and group."""
    groups = thresholds.groups or ("all images",)
    shown = min(len(names), most)
    scores = np.array(thresholds.scores)[:shown].reshape(shown, len(groups))
    figure, axes = panels(1, 1, (11, 1.6 + 0.3 * shown * max(1, len(groups) * 0.7)))
    height = 0.8 / len(groups)
    for column, group in enumerate(groups):
        places = np.arange(shown) + (column - (len(groups) - 1) / 2) * height
        colours = [class_colour(label) for label in range(shown)]
        bars = axes[0, 0].barh(places, scores[:, column], height, color=colours, alpha=GROUP_SHADES[column % 3])
        texts = [f"{score:.2f}" + (f"  {group}" if thresholds.groups else "") for score in scores[:, column]]
        axes[0, 0].bar_label(bars, texts, fontsize=8, padding=3)
    axes[0, 0].set_yticks(range(shown), names[:shown])
    axes[0, 0].set_xlim(0, 1.05)
    axes[0, 0].invert_yaxis()
    tidy(axes[0, 0], x="lowest score that is kept")
    axes[0, 0].grid(visible=False, axis="y")
    title(figure, "Thresholds of each class" + (" and group" if thresholds.groups else ""))
    return figure
