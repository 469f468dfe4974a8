"""What a data set holds: classes, sizes, shapes, places, cameras."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from kit.data.coco import CocoFile
from kit.data.dataset import targets_of
from kit.plots.canvas import (
    HEAT,
    INK,
    MOST_CLASSES,
    PALETTE,
    QUIET,
    class_colour,
    legend,
    note,
    number_table,
    panels,
    sides_px,
    tidy,
    title,
)

LIMITS_PX = {"COCO": (32, 96, ":"), "Track 4": (64, 192, "--")}  # small | medium | large, square root of the area
SIDE_EDGES_PX, SIDE_TICKS_PX = np.geomspace(2, 2048, 51), (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
GROUP_COLOURS = (PALETTE[6], INK, PALETTE[7])  # not those of the first classes


def stack(coco: CocoFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All objects that a detector can learn -> boxes_xyxy_px (M, 4), labels (M,), size_hw of its image (M, 2)."""
    objects = [targets_of(record) for record in coco.records]
    counts = [len(labels) for _, labels in objects]
    sizes_hw = [np.tile(record.size_hw, (count, 1)) for record, count in zip(coco.records, counts, strict=True)]
    return (
        np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in objects)]),
        np.concatenate([np.zeros(0, np.int64), *(labels for _, labels in objects)]),
        np.concatenate([np.zeros((0, 2)), *sizes_hw]),
    )


def frequent(labels: np.ndarray, num_classes: int, most: int = MOST_CLASSES) -> list[int]:
    """The labels with the most objects, in order of label; those without any are left out."""
    counts = np.bincount(labels, minlength=num_classes)
    return sorted(int(label) for label in np.argsort(-counts, kind="stable")[:most] if counts[label])


def plot_class_counts(files: Mapping[str, CocoFile], most: int = 40) -> Figure:
    """Boxes of each class, and the images that hold it, in each file."""
    names = next(iter(files.values())).names
    counts = {split: class_counts(coco) for split, coco in files.items()}  # (K, 2) each
    shown = np.argsort(-np.sum([count[:, 0] for count in counts.values()], axis=0), kind="stable")[:most]
    height = 1.6 + 0.3 * max(len(shown), 3)
    figure, axes = panels(1, len(files), (11, height), sharey=True)
    for panel, (split, count) in zip(axes[0], counts.items(), strict=True):
        total = max(int(count[:, 0].sum()), 1)
        bars = panel.barh(range(len(shown)), count[shown, 0], color=[class_colour(int(label)) for label in shown])
        texts = [f"{boxes:,} ({boxes / total:.0%}) in {images:,} images" for boxes, images in count[shown]]
        panel.bar_label(bars, texts, fontsize=8, padding=3, color=INK)
        panel.set_xlim(0, 1.65 * max(count[shown, 0].max(initial=0), 1))
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        tidy(panel, f"{split}: {total:,} boxes in {len(files[split].records):,} images", x="boxes")
        panel.grid(visible=False, axis="y")
    axes[0, 0].set_yticks(range(len(shown)), [names[label] for label in shown])
    axes[0, 0].set_ylim(len(shown) - 0.5, -0.5)
    more = f", the {most} most frequent of {len(names)}" if len(names) > most else ""
    title(figure, f"Boxes of each class{more}")
    return figure


def class_counts(coco: CocoFile) -> np.ndarray:
    """-> (K, 2) int: boxes, images with at least one."""
    labels = stack(coco)[1]
    present = [np.unique(targets_of(record)[1]) for record in coco.records]
    images = np.concatenate([np.zeros(0, np.int64), *present])
    return np.stack([np.bincount(some, minlength=len(coco.names)) for some in (labels, images)], axis=1)


def plot_box_sizes(coco: CocoFile) -> Figure:
    """Box size and shape by class, with the limits of COCO and of Track 4."""
    boxes, labels, _ = stack(coco)
    figure, axes = panels(1, 2, (11, 3.8))
    sides, ratios = sides_px(boxes), (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    curves(axes[0, 0], sides, labels, [""] * len(coco.names), SIDE_EDGES_PX)  # the names stand in the other panel
    curves(axes[0, 1], ratios, labels, coco.names, np.geomspace(1 / 6, 6, 41))
    for name, (medium, large, style) in LIMITS_PX.items():
        axes[0, 0].axvline(medium, color=INK, linestyle=style, linewidth=1, label=f"limits of {name}")
        axes[0, 0].axvline(large, color=INK, linestyle=style, linewidth=1)
    axes[0, 1].axvline(1, color=INK, linestyle=":", linewidth=1)
    scale(axes[0, 0], SIDE_TICKS_PX)
    scale(axes[0, 1], [0.25, 0.5, 1, 2, 4])
    median = f", half of all below {np.median(sides):.0f} px" if len(sides) else ""
    tidy(axes[0, 0], f"Size{median}", x="square root of the box area (px, log scale)", y="share of the class")
    tidy(axes[0, 1], "Shape", x="width / height (log scale)", y="share of the class")
    legend(axes[0, 0], loc="upper right")
    legend(axes[0, 1], loc="upper right")
    title(figure, "Box size and shape of each class")
    return figure


def curves(axes: Axes, values: np.ndarray, labels: np.ndarray, names: Sequence[str], edges: np.ndarray) -> None:
    """One outlined histogram a class, as shares of the class."""
    for label in frequent(labels, len(names)):
        own = values[labels == label]
        shares = np.histogram(own, edges)[0] / len(own)
        axes.stairs(shares, edges, color=class_colour(label), linewidth=1.6, label=names[label])


def scale(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()


def plot_positions(coco: CocoFile, most_bins: int = 40) -> Figure:
    """Where box centres lie in the image: all classes, then the most frequent ones."""
    boxes, labels, sizes_hw = stack(coco)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes_hw[:, ::-1]  # (M, 2) x, y in [0, 1]
    shown = frequent(labels, len(coco.names), most=7)
    bins = int(np.clip(np.sqrt(len(labels)), 8, most_bins))
    columns = min(4, len(shown) + 1)
    rows = -(-(len(shown) + 1) // columns)
    figure, axes = panels(rows, columns, (11, 0.7 + rows * (11 / columns + 0.1)))
    for axis in axes.flat:
        axis.set_axis_off()
    heat(axes.flat[0], centres, f"all: {len(labels):,} boxes", bins)
    for axis, label in zip(axes.flat[1:], shown, strict=False):
        own = centres[labels == label]
        heat(axis, own, f"{coco.names[label]}: {len(own):,}", bins)
    title(figure, "Where the boxes are: density of their centres over the image (bright = many)")
    return figure


def heat(axes: Axes, centres: np.ndarray, heading: str, bins: int) -> None:
    """centres: (N, 2) x, y in [0, 1]."""
    counts, _, _ = np.histogram2d(centres[:, 1], centres[:, 0], bins=bins, range=[[0, 1], [0, 1]])
    axes.set_axis_on()
    axes.imshow(np.sqrt(counts), cmap=HEAT, extent=(0, 1, 1, 0))
    axes.add_patch(Circle((0.5, 0.5), 0.5, fill=False, edgecolor="white", linewidth=0.7, linestyle=":"))
    axes.set_title(heading, fontsize=9, loc="left", color=INK)
    axes.set_xticks([])
    axes.set_yticks([])


def plot_radius(coco: CocoFile, bins: int = 20) -> Figure:
    """How many boxes there are, and how large, by their distance from the image centre; 1 = the nearest edge."""
    boxes, labels, sizes_hw = stack(coco)
    figure, axes = panels(1, 2, (11, 3.6))
    if not len(labels):
        note(axes[0, 0], "no boxes")
        note(axes[0, 1], "no boxes")
        return figure
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - sizes_hw[:, ::-1] / 2  # (M, 2) from the centre
    radii = np.linalg.norm(centres, axis=1) / (sizes_hw.min(axis=1) / 2)
    edges = np.linspace(0, max(float(np.quantile(radii, 0.999)), 0.1), bins + 1)
    curves(axes[0, 0], radii, labels, coco.names, edges)
    middles, quartiles = quartiles_by(radii, sides_px(boxes), edges)
    axes[0, 1].fill_between(middles, quartiles[:, 0], quartiles[:, 2], color=PALETTE[6], alpha=0.2, label="middle half")
    axes[0, 1].plot(middles, quartiles[:, 1], color=PALETTE[6], label="median")
    axes[0, 1].set_ylim(bottom=0)
    for axis in axes.flat:
        axis.set_xlim(0, edges[-1])
        axis.axvline(1, color=QUIET, linewidth=1, linestyle=":")
        legend(axis)
    where = "distance from the image centre (1 = nearest edge)"
    tidy(axes[0, 0], "How many", x=where, y="share of the class")
    tidy(axes[0, 1], "How large", x=where, y="square root of the box area (px)")
    title(figure, "Boxes by distance from the image centre")
    return figure


def quartiles_by(keys: np.ndarray, values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quartiles of the values in each bin of keys, where there are at least 5 -> middles (n,), quartiles (n, 3)."""
    bins = np.digitize(keys, edges) - 1
    full = [index for index in range(len(edges) - 1) if (bins == index).sum() >= 5]
    quartiles = [np.quantile(values[bins == index], (0.25, 0.5, 0.75)) for index in full]
    return (edges[full] + edges[np.array(full, int) + 1]) / 2, np.array(quartiles).reshape(-1, 3)


def plot_objects_per_image(files: Mapping[str, CocoFile]) -> Figure:
    """How crowded the images are."""
    counts = {name: np.array([len(targets_of(record)[1]) for record in coco.records]) for name, coco in files.items()}
    most = max([int(count.max(initial=0)) for count in counts.values()], default=0)
    edges = np.arange(-0.5, most + 1.5, max(1, -(-most // 40)))
    figure, axes = panels(1, 1, (11, 3.2))
    for colour, (name, count) in zip(GROUP_COLOURS, counts.items(), strict=False):
        about = name
        if len(count):
            about += f": median {np.median(count):.0f}, most {count.max()}, {np.mean(count == 0):.0%} empty"
        shares = np.histogram(count, edges)[0] / max(len(count), 1)
        axes[0, 0].stairs(shares, edges, color=colour, linewidth=1.6, label=about, fill=False)
    tidy(axes[0, 0], x="boxes in one image", y="share of the images")
    legend(axes[0, 0])
    title(figure, "Boxes per image")
    return figure


def plot_comparison(groups: Mapping[str, CocoFile], heading: str) -> Figure:
    """Two or three groups of images (day and night, train and val): boxes of each class per image, and box size."""
    names = next(iter(groups.values())).names
    stacks = {group: stack(coco) for group, coco in groups.items()}
    shown = frequent(np.concatenate([labels for _, labels, _ in stacks.values()]), len(names), most=12)
    figure, axes = panels(1, 2, (11, 3.8))
    for index, (colour, (group, (boxes, labels, _))) in enumerate(zip(GROUP_COLOURS, stacks.items(), strict=False)):
        images = len(groups[group].records)
        rates = np.bincount(labels, minlength=len(names))[shown] / max(images, 1)
        width = 0.8 / len(groups)
        places, about = np.arange(len(shown)) + index * width, f"{group}: {images:,} images"
        bars = axes[0, 0].bar(places, rates, width, color=colour, label=about)
        texts = [f"{rate:.2g}" if len(shown) < 9 else "" for rate in rates]
        axes[0, 0].bar_label(bars, texts, fontsize=7)
        shares = np.histogram(sides_px(boxes), SIDE_EDGES_PX)[0] / max(len(boxes), 1)
        axes[0, 1].stairs(shares, SIDE_EDGES_PX, color=colour, linewidth=1.6, label=group)
    axes[0, 0].set_xticks(np.arange(len(shown)) + 0.4 - 0.4 / len(groups), [names[label] for label in shown])
    if sum(len(names[label]) for label in shown) > 60:
        axes[0, 0].tick_params(axis="x", rotation=90)
    scale(axes[0, 1], SIDE_TICKS_PX)
    tidy(axes[0, 0], "How many", y="boxes per image")
    tidy(axes[0, 1], "How large", x="square root of the box area (px, log scale)", y="share of the boxes")
    legend(axes[0, 0])
    legend(axes[0, 1])
    title(figure, heading)
    return figure


def plot_cameras(rows: Sequence[str], columns: Sequence[str], boxes: Sequence[int], heading: str) -> Figure:
    """Images and boxes by two properties of each image, for example its camera and its scene; one entry an image."""
    row_names, row_of = np.unique(np.asarray(rows, str), return_inverse=True)
    column_names, column_of = np.unique(np.asarray(columns, str), return_inverse=True)
    shape = (len(row_names), len(column_names))
    images_table, boxes_table = np.zeros(shape, int), np.zeros(shape, int)
    np.add.at(images_table, (row_of, column_of), 1)
    np.add.at(boxes_table, (row_of, column_of), np.asarray(boxes, int))
    order = sorted(range(len(row_names)), key=lambda index: (len(row_names[index]), row_names[index]))  # 2 before 10
    figure, axes = panels(1, 2, (11, 1.5 + 0.28 * len(row_names)))
    for axis, table, name in ((axes[0, 0], images_table, "images"), (axes[0, 1], boxes_table, "boxes")):
        number_table(axis, table[order], row_names[order].tolist(), column_names.tolist())
        axis.set_title(name, fontsize=10, loc="left", color=INK)
    title(figure, heading)
    return figure
