"""Pictures of a check: examples of each problem, the classes, the sizes: `python -m kit.plots.check REPORTS FOLDER`.

REPORTS is what `python -m kit.data.check SOURCE --json REPORTS` has written; `--pictures FOLDER` of that does both.
"""

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator

from kit.data.check_masks import MASKS
from kit.data.coco_entries import read_entries
from kit.data.image_files import name_fault
from kit.data.mask_shapes import checked_rings, mask_of_entry, parts_of
from kit.data.pixels import read_image
from kit.files import one_line, read_json, whole_folder
from kit.plots.canvas import (
    INK,
    PALETTE,
    QUIET,
    dark_rim,
    draw_image,
    legend,
    note,
    outline,
    panels,
    plain,
    save_figure,
    short_name,
    tidy,
    title,
)
from kit.plots.suspects import SUSPECT, window

MOST = 8  # examples of a problem
COLUMNS = 4
MOST_CLASSES = 40
BESIDE = 0.5  # how far beside an image a box is still shown, in sides of the image
LINE, WIDTH = 34, 110  # letters above a picture, and above all of them
MASK = PALETTE[1]  # of the outline of a mask, beside the box of SUSPECT
OF_MASKS = {kind for kind, _ in MASKS.values()}

Report = Mapping[str, Any]  # of kit.data.check_report.Report.to_json
Finding = Mapping[str, Any]
Texts = Mapping[tuple[Any, ...], bytes]  # segmentations in JSON, by what `key_of` tells of their findings


def show_problem(
    problem: Mapping[str, Any], folders: Mapping[str, Path | None], masks: Texts | None = None
) -> Figure | None:
    """Examples of one problem; None where no image shows it. folders: of the images, by part; masks: drawn too."""
    findings = [each for each in problem["findings"] if is_there(each, folders)][:MOST]
    if not findings:
        return None
    in_pairs = findings[0]["partner"] is not None
    findings = findings[: MOST // 2] if in_pairs else findings
    count = len(findings) * (1 + in_pairs)
    rows = -(-count // COLUMNS)
    figure, axes = panels(rows, COLUMNS, (11, 0.5 + 3.1 * rows))
    for axis in axes.flat:
        axis.set_axis_off()
    places = iter(axes.flat)
    for finding in findings:
        draw_finding(next(places), finding, folders, rings_of((masks or {}).get(key_of(finding))))
        if in_pairs:
            part, name = finding["partner"]
            draw_file(next(places), folders.get(part), name, f"{part}: {short_name(name)}")
    more = f", {len(findings)} of {problem['count']:,}" if problem["count"] > len(findings) else ""
    heading = f"{problem['kind'].capitalize()}{more}: {plain(problem['mend'])}"
    title(figure, "\n".join(textwrap.wrap(heading, WIDTH, max_lines=2)))
    if masks:
        box = Line2D([], [], color=SUSPECT, linestyle="--", label="box")
        handles = [box, Line2D([], [], color=MASK, label="mask")]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9, frameon=False)
    return figure


def is_there(finding: Finding, folders: Mapping[str, Path | None]) -> bool:
    folder, name = folders.get(finding["part"]), finding["file_name"]
    return folder is not None and not name_fault(name) and os.path.isfile(folder / name)


def draw_finding(
    axes: Axes, finding: Finding, folders: Mapping[str, Path | None], rings: Sequence[np.ndarray] = ()
) -> None:
    """The image, close up where there is a box or a mask; rings: (P, 2) px each, around the mask and its holes."""
    ids = ", ".join(map(str, finding["annotation_ids"]))
    heading = f"{short_name(finding['file_name'])}\n{f'annotation {ids}: ' * bool(ids)}{finding['detail']}"
    image = draw_file(axes, folders[finding["part"]], finding["file_name"], heading)
    box = finding["box_xywh_px"]
    is_box = box is not None and None not in box
    if image is None or not (is_box or rings):
        return
    points = [*rings]
    for ring in rings:
        line = Polygon(ring - 0.5, fill=False, edgecolor=MASK, linewidth=1.5, path_effects=dark_rim(1.5))
        axes.add_patch(line)
    if is_box:
        x, y, width, height = box
        points.append(np.array([[x, y], [x + width, y + height]], float))
        outline(axes, points[-1].reshape(-1), SUSPECT, "--", 2.0)
    corners = np.concatenate(points)
    whole = points[-1].reshape(-1) if len(points) == 1 and is_box else [*corners.min(axis=0), *corners.max(axis=0)]
    low, high = view(np.array(whole), (image.shape[0], image.shape[1]))
    axes.set_xlim(low[0] - 0.5, high[0] - 0.5)
    axes.set_ylim(high[1] - 0.5, low[1] - 0.5)


def masks_of(report: Report) -> Texts:
    """The segmentations that findings of a report are about, as they stand in its annotation file."""
    own = [each for problem in report["problems"] if problem["kind"] in OF_MASKS for each in problem["findings"]]
    if not own:
        return {}
    entries, wanted = read_entries(Path(report["path"])).annotations, {key_of(each) for each in own}
    rows = np.flatnonzero(np.isin(entries.image_ids, [each["image_id"] for each in own]))
    found = {}
    for row in rows.tolist():
        box = [value if np.isfinite(value) else None for value in entries.boxes_xywh_px[row].tolist()]
        key = (int(entries.image_ids[row]), int(entries.annotation_ids[row]), *box)
        if key in wanted:
            found[key] = entries.segmentations[row]
    return found


def key_of(finding: Finding) -> tuple[Any, ...]:
    """Of the annotation: an id may be there twice, or be none."""
    return (finding["image_id"], *finding["annotation_ids"], *(finding["box_xywh_px"] or ()))


def rings_of(text: bytes | None) -> list[np.ndarray]:
    """Outlines (P, 2) px of a segmentation in JSON, holes too; none where it is broken or empty."""
    try:
        segmentation = json.loads(text or b"[]")
        if isinstance(segmentation, list):
            return checked_rings(segmentation)
        return [ring for part in parts_of(mask_of_entry(segmentation, (0, 0))) for ring in (part.outer, *part.holes)]
    except (ValueError, RecursionError):
        return []


def view(box_xyxy_px: np.ndarray, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What is shown: around a box that lies in the image, or else all of the image and some of what is beside it."""
    limits = np.array(size_hw[::-1], float)
    if (box_xyxy_px[:2] >= -1).all() and (box_xyxy_px[2:] <= limits + 1).all():
        return window(np.concatenate([box_xyxy_px[:2], np.maximum(box_xyxy_px[:2], box_xyxy_px[2:])]), size_hw)
    low = np.minimum(box_xyxy_px[:2], 0).clip(-BESIDE * limits)
    return low, np.maximum(box_xyxy_px[2:], limits).clip(max=(1 + BESIDE) * limits)


def draw_file(axes: Axes, folder: Path | None, name: str, heading: str) -> np.ndarray | None:
    """The whole image, or a word where it cannot be read."""
    lines = [part for line in heading.splitlines() for part in textwrap.wrap(plain(line), LINE, max_lines=3)]
    try:
        image = read_image(Path(folder or "") / name)
    except ValueError:
        note(axes, "no image to be read")
        axes.set_title("\n".join(lines), fontsize=7, loc="left", color=INK)
        return None
    axes.set_axis_on()
    draw_image(axes, image, "\n".join(lines))
    axes.title.set_fontsize(7)
    return image


def shortened(text: str) -> str:
    return plain(textwrap.shorten(text, LINE, placeholder=" ..."))


# --- classes and sizes ---


def plot_classes(reports: Sequence[Report]) -> Figure:
    """Boxes of each class in each part, from few to many on a scale of logarithms: an imbalance is seen at once."""
    parts = [report for report in reports if report["part"]]
    totals: dict[str, int] = {}
    for report in parts:
        for each in report["classes"]:
            totals[each["name"]] = totals.get(each["name"], 0) + each["boxes"]
    names = sorted((name for name in totals if totals[name]), key=lambda name: -totals[name])
    shown = names if len(names) <= MOST_CLASSES else [*names[: MOST_CLASSES // 2], *names[-MOST_CLASSES // 2 :]]
    figure, axes = panels(1, 1, (11, 1.5 + 0.32 * max(len(shown), 3)))
    if not shown:
        note(axes[0, 0], "no classes")
    height = 0.8 / max(len(parts), 1)
    for row, report in enumerate(parts):
        own = {each["name"]: each for each in report["classes"]}
        counts = [own[name]["boxes"] if name in own else 0 for name in shown]
        places = np.arange(len(shown)) + (row - (len(parts) - 1) / 2) * height
        bars = axes[0, 0].barh(places, counts, height, color=part_colour(row), label=shortened(report["part"]))
        axes[0, 0].bar_label(bars, [f"{count:,}" for count in counts], fontsize=7, padding=3, color=INK)
    if shown:
        axes[0, 0].set_xscale("symlog", linthresh=10)
        axes[0, 0].set_xlim(0, 2.5 * max(*totals.values(), 10))
        axes[0, 0].set_yticks(range(len(shown)), [shortened(name) for name in shown])
        axes[0, 0].set_ylim(len(shown) - 0.4, -0.6)
        tidy(axes[0, 0], x="boxes (even up to 10, then by logarithm)")
        axes[0, 0].grid(visible=False, axis="y")
        legend(axes[0, 0], loc="lower right")
    left_out = f", the {len(shown)} most and least frequent of {len(names)}" if len(shown) < len(names) else ""
    empty = f"; {len(totals) - len(names)} more have none" if len(totals) > len(names) else ""
    title(figure, f"Boxes of each class{left_out}{empty}")
    return figure


def plot_sizes(reports: Sequence[Report]) -> Figure:
    """Sizes of all boxes in each part, as shares of the part."""
    parts = [report for report in reports if report["part"]]
    figure, axes = panels(1, 1, (11, 3.6))
    for row, report in enumerate(parts):
        counts = np.sum([each["sides"] for each in report["classes"]], axis=0)
        if np.sum(counts):
            label = f"{shortened(report['part'])}: {np.sum(counts):,} boxes"
            edges = report["side_edges_px"]
            axes[0, 0].stairs(counts / np.sum(counts), edges, color=part_colour(row), linewidth=2, label=label)
    if axes[0, 0].patches:
        axes[0, 0].set_xscale("log", base=2)
        edges = parts[0]["side_edges_px"]
        axes[0, 0].set_xticks(edges, [f"{edge:g}" for edge in edges])
        axes[0, 0].set_xlim(edges[0], edges[-1])
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(5))
        axes[0, 0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        tidy(axes[0, 0], x="square root of the box area (px; smaller and larger ones in the end bars)")
        axes[0, 0].set_ylabel("share of the boxes", fontsize=9)
        legend(axes[0, 0])
    else:
        note(axes[0, 0], "no boxes")
    title(figure, "How large the boxes are")
    return figure


def part_colour(row: int) -> str:
    return (PALETTE[6], PALETTE[0], PALETTE[2], QUIET)[row % 4]


# --- all pictures ---


def draw_reports(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Makes the folder: classes, sizes, and examples of each problem that images show."""
    folders = {each["part"]: Path(each["folder"]) if each["folder"] else None for each in reports if each["part"]}
    names = ["classes.png", "sizes.png"]
    with whole_folder(folder) as made:
        for name, plot in zip(names, (plot_classes, plot_sizes), strict=True):
            save_figure(plot(reports), made / name)
        for report in reports:
            masks = masks_of(report)
            for problem in report["problems"]:
                figure = show_problem(problem, folders, masks if problem["kind"] in OF_MASKS else None)
                if figure is not None:
                    name = f"{file_word(report['part'] or 'all')}_{file_word(problem['kind'])}.png"
                    while name in names:  # parts whose names differ in odd letters alone
                        name = f"_{name}"
                    names.append(name)
                    save_figure(figure, made / name)
    return [folder / name for name in names]


def file_word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: drawn; 2: it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m kit.plots.check", description=str(__doc__).partition("\n")[0])
    parser.add_argument("reports", type=Path, help="JSON of kit.data.check")
    parser.add_argument("folder", type=Path, help="a new folder")
    options = parser.parse_args(arguments)
    try:
        paths = draw_reports(read_json(options.reports), options.folder)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{options.folder}: {len(paths)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
