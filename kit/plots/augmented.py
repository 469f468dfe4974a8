"""What the offline augmentation does: single effects, pasted objects, and where they may stand."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit.data.copy_paste import GRID, PasteBook
from kit.data.dataset import CocoDataset
from kit.data.picture import Picture
from kit.plots.canvas import QUIET, class_colour, class_legend, draw_image, note, panels, title
from kit.plots.pictures import Shot, show_shots, visible

MOST_DOTS = 3000  # of a camera's donors


def show_pictures(pictures: Mapping[str, Picture], names: Sequence[str], heading: str, columns: int = 3) -> Figure:
    """Pictures on their way through the augmentation, with their boxes; the key says what was done."""
    shots = [Shot(visible(each.image), each.boxes_xyxy_px, each.labels, about) for about, each in pictures.items()]
    return show_shots(shots, names, heading, columns)


def show_pasted(pairs: Sequence[tuple[Picture, Picture]], names: Sequence[str]) -> Figure:
    """Pictures before and after copy-paste, side by side; after it only the new objects are marked."""
    shots = []
    for before, after in pairs:
        old, new = len(before.labels), len(after.labels) - len(before.labels)
        shots.append(Shot(visible(before.image), before.boxes_xyxy_px, before.labels, f"before: {old} boxes"))
        shots.append(
            Shot(visible(after.image), after.boxes_xyxy_px[old:], after.labels[old:], f"after: {new} more, marked")
        )
    return show_shots(shots, names, "Objects pasted: do they look as if they had been there?", columns=2)


def plot_road_regions(book: PasteBook, dataset: CocoDataset, most: int = 6) -> Figure:
    """Each camera with the region that copies may stand in, and its donors by class; cameras with most donors first."""
    homes = book.cameras[book.donors.indices]
    cameras = sorted(np.unique(book.cameras).tolist(), key=lambda camera: (-(homes == camera).sum(), camera))[:most]
    columns = min(3, len(cameras)) or 1
    rows = -(-len(cameras) // columns) or 1
    figure, axes = panels(rows, columns, (11, 0.9 + rows * (11 / columns + 0.1)))
    for panel in axes.flat[len(cameras) :]:
        panel.set_axis_off()
    if not cameras:
        note(axes.flat[0], "no images")
    for panel, camera in zip(axes.flat, cameras, strict=False):
        own = np.flatnonzero(book.cameras == camera)
        shown = own[np.argsort(book.is_night[own], kind="stable")[0]]  # by day, where there is one
        donors = np.flatnonzero(homes == camera)
        about = f"camera {camera}" if camera else "all images"
        draw_image(panel, dimmed(visible(dataset.load(int(shown)).image)), f"{about}: {len(donors):,} donors")
        panel.set_anchor("NW")
        draw_region(panel, book.regions[camera, None].is_road, dataset.coco.records[int(shown)].size_hw)
        draw_donors(panel, book, donors, dataset.coco.records[int(shown)].size_hw)
    title(figure, "Where copies may stand (inside the white line) and what can be copied (dots by class)")
    class_legend(figure, np.unique(book.donors.labels).tolist(), dataset.coco.names)
    return figure


def dimmed(image: np.ndarray) -> np.ndarray:
    """So that lines and dots are seen on it."""
    paled: np.ndarray = (0.55 * image).astype(np.uint8)
    return paled


def draw_region(axes: Axes, is_road: np.ndarray, size_hw: tuple[int, int]) -> None:
    """The outline of a region, dark under white. is_road: (GRID, GRID) bool."""
    height, width = size_hw
    field = np.pad(is_road.astype(float), 1)
    places = (np.arange(GRID + 2) - 0.5) / GRID  # centres of the cells
    if is_road.any():
        for colour, line in (("black", 3.0), ("white", 1.4)):
            axes.contour(places * width - 0.5, places * height - 0.5, field, [0.5], colors=colour, linewidths=line)


def draw_donors(axes: Axes, book: PasteBook, donors: np.ndarray, size_hw: tuple[int, int]) -> None:
    """Dots at the centres, in the colours of the classes; rare classes on top. donors: (n,) int64."""
    counts = np.bincount(book.donors.labels, minlength=1)
    donors = np.random.default_rng(0).permutation(donors)[:MOST_DOTS]
    donors = donors[np.argsort(-counts[book.donors.labels[donors]], kind="stable")]
    boxes, homes = book.donors.boxes_xyxy_px[donors], book.donors.indices[donors]
    shares = (boxes[:, :2] + boxes[:, 2:]) / 2 / book.sizes_hw[homes][:, ::-1]  # (n, 2)
    x, y = (shares * size_hw[::-1] - 0.5).T
    colours = [class_colour(int(label)) for label in book.donors.labels[donors]]
    size = float(np.clip(4000 / max(len(donors), 1), 3, 22))
    axes.scatter(x, y, s=size, c=colours, edgecolors=QUIET, linewidths=0.2)
    axes.set_xlim(-0.5, size_hw[1] - 0.5)
    axes.set_ylim(size_hw[0] - 0.5, -0.5)
