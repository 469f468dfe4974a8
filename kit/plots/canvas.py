"""What all pictures share: colours, figures, boxes with their labels, saving."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke

from kit.files import one_line, write_bytes

LineStyle = Literal["-", "--", ":"]
INK = "#222222"
QUIET = "#8a8a8a"
PALE = "#dddddd"
HEAT = "cividis"  # reads the same with every kind of colour vision, and in grey
# Okabe and Ito (2008): told apart with every kind of colour vision. Label 0 first.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#f0e442", "#0072b2", "#999999")
# Outcomes differ in line style too, so that they survive a grey print.
OUTCOMES: dict[str, tuple[str, LineStyle]] = {
    "correct": ("#009e73", "-"),
    "false": ("#d55e00", "--"),
    "missed": ("#f0e442", ":"),
}
MOST_CLASSES = len(PALETTE)  # more than this many curves in one panel cannot be told apart


class Picture(Figure):
    """A figure outside pyplot: no global state, and a notebook shows it by itself."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


@dataclass(frozen=True, repr=False)
class Saved:
    """A picture in a file, which a notebook shows without drawing it again."""

    path: Path
    data: bytes

    def __repr__(self) -> str:
        return self.path.name

    def _repr_png_(self) -> bytes:
        return self.data


def save_figure(figure: Figure, path: Path) -> Saved:
    """Writes a PNG that is whole or absent."""
    data = png(figure)
    return Saved(write_bytes(path, data), data)


def class_colour(label: int) -> str:
    """One colour a label, the same in every picture; beyond the palette the hues go round by the golden ratio."""
    if label < len(PALETTE):
        return PALETTE[label]
    red, green, blue = hsv_to_rgb((label * 0.618034 % 1.0, 0.55 + 0.35 * (label % 2), 0.85))
    return to_hex((red, green, blue))


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"


def panels(rows: int, columns: int, size_inches: tuple[float, float], **shared: Any) -> tuple[Picture, np.ndarray]:
    """A figure and its (rows, columns) axes."""
    figure = Picture(figsize=size_inches, dpi=100, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def title(figure: Figure, text: str) -> None:
    """Says what is seen, above all panels."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)


def tidy(axes: Axes, heading: str = "", x: str = "", y: str = "") -> None:
    """Labels, a quiet grid, no frame."""
    axes.set_title(heading, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8, color=QUIET)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, **where: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, **where)


def note(axes: Axes, text: str) -> None:
    """In place of a plot that has nothing to show."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color=QUIET, transform=axes.transAxes)


def number_table(
    axes: Axes, table: np.ndarray, rows: Sequence[str], columns: Sequence[str], shades: np.ndarray | None = None
) -> None:
    """table: (rows, columns) int, written into cells shaded by `shades` in [0, 1] (by the numbers when None)."""
    shades = table / max(int(table.max(initial=0)), 1) if shades is None else shades
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.7, aspect="auto")  # above 1: ink stays readable on the darkest
    for row, column in np.ndindex(*table.shape):
        if table[row, column]:
            axes.text(column, row, f"{table[row, column]:,}", ha="center", va="center", fontsize=8, color=INK)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def class_legend(figure: Figure, labels: Sequence[int], names: Sequence[str]) -> None:
    """Colour and name of each label, under the panels."""
    handles = [Patch(color=class_colour(label), label=names[label]) for label in labels[:24]]
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 8), fontsize=9, frameon=False)


def plain(text: str) -> str:
    """One line that can be drawn: dollar signs would be read as formulas."""
    return one_line(text).replace("$", r"\$")


def short(text: str, most: int) -> str:
    """Its middle left out where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 + 3 :]}"


def short_name(file_name: str | Path, most: int = 30) -> str:
    """The name without its folder."""
    return short(Path(file_name).name, most)


def draw_image(axes: Axes, image: np.ndarray, heading: str = "") -> None:
    """image: (H, W, 3) RGB or (H, W) grey, uint8."""
    axes.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255)
    axes.set_title(heading, fontsize=9, loc="left", color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def outline(axes: Axes, box_xyxy_px: np.ndarray, colour: str, style: str = "-", width: float = 1.2) -> None:
    """A thin box with a dark rim, so that it is seen on bright and on dark ground."""
    x1, y1, x2, y2 = (float(edge) for edge in box_xyxy_px)
    corner = (x1 - 0.5, y1 - 0.5)  # a pixel's centre is drawn at a whole number
    box = Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
    box.set_path_effects(dark_rim(width))
    axes.add_patch(box)


def dark_rim(width: float) -> list[AbstractPathEffect]:
    return [Stroke(linewidth=width + 1.0, foreground="black", alpha=0.55), Normal()]


def chips(
    axes: Axes,
    boxes_xyxy_px: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[str],
    size_hw: tuple[int, int],
    points: float,
    px_per_point: float,
) -> None:
    """Labels at the boxes of one image, largest box last. One that would cover another label or box is left out:
    the colour tells the class. boxes_xyxy_px: (N, 4)."""
    taken: list[np.ndarray] = []
    for index in np.argsort(sides_px(boxes_xyxy_px), kind="stable"):
        others = np.vstack([np.delete(boxes_xyxy_px, index, axis=0), *taken])
        width, height = 0.68 * points * px_per_point * len(texts[index]), 1.5 * points * px_per_point
        free = [spot for spot in spots_at(boxes_xyxy_px[index], width, height) if is_free(spot, others, size_hw)]
        if free:
            taken.append(free[0])
            write_chip(axes, free[0], texts[index], colours[index], points)


def spots_at(box_xyxy_px: np.ndarray, width: float, height: float) -> list[np.ndarray]:
    """Above, below, right and left of the box, and inside where it is large -> xyxy each."""
    x1, y1, x2, y2 = box_xyxy_px
    corners = [(x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2, y1), (x1 - width, y1)]
    if x2 - x1 > 2 * width and y2 - y1 > 4 * height:
        corners.append((x1, y1))
    return [np.array([x, y, x + width, y + height]) for x, y in corners]


def is_free(spot: np.ndarray, others: np.ndarray, size_hw: tuple[int, int]) -> bool:
    """Inside the image and clear of the others. spot: (4,), others: (N, 4), xyxy."""
    is_inside = spot[0] >= -1 and spot[1] >= -1 and spot[2] <= size_hw[1] and spot[3] <= size_hw[0]
    is_over = ((spot[:2] < others[:, 2:]) & (others[:, :2] < spot[2:])).all(axis=1)  # (N,)
    return bool(is_inside and not is_over.any())


def sides_px(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    """Square root of the area: (N, 4) -> (N,)."""
    sides: np.ndarray = np.sqrt(np.prod(boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2], axis=1))
    return sides


def write_chip(axes: Axes, spot: np.ndarray, text: str, colour: str, points: float) -> None:
    x, y = float(spot[0]), float(spot[1] + spot[3]) / 2
    chip = {"boxstyle": "square,pad=0.12", "facecolor": colour, "edgecolor": "none"}
    axes.text(x, y, text, fontsize=points, color=ink_on(colour), va="center", bbox=chip)
