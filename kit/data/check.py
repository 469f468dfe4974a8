"""The check of a data set: one report that names everything wrong or odd, with examples and what to do.

    python -m kit.data.check SOURCE [--json FILE] [--pictures FOLDER] [--fix OUT]

Problems stop the training. Told to go on, it goes on with what `clean` leaves. All else is odd or good to know. The
training looks at ids, boxes and files; the command also at masks, outliers, classes and pictures that are almost the
same, within a part and across parts. What is wrong with labels: `check_labels`, `check_oddities`; with images:
`check_images`; the mended copy: `mend`.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from kit.data.check_images import (
    Looks,
    near_across,
    near_within,
    problem_of_names,
    problems_of_images,
    read_files,
    read_looks,
    undecodable,
)
from kit.data.check_labels import class_counts, cut_boxes, is_left_out, problems_of_boxes, problems_of_ids
from kit.data.check_masks import problems_of_masks
from kit.data.check_oddities import problems_across, problems_of_classes, problems_of_outliers
from kit.data.check_report import Finding, Problem, Report
from kit.data.check_table import Rows, Source, Table, again, read_table, table_of
from kit.data.coco import CocoFile, Record, coco_of, coco_of_entries, columns_of
from kit.data.coco_entries import read_entries
from kit.data.columns import Columns, columns_of_records
from kit.data.formats.coco import coco_files, image_folder
from kit.data.image_files import Progress
from kit.data.mend import Choices, table_of_changes, write_mended
from kit.data.near_duplicates import NEAR_BITS
from kit.files import one_line, write_json
from kit.progress import Bar

__all__ = ["Finding", "Problem", "Report", "check_dataset", "check_folder", "clean", "read_checked"]

Bars = Callable[[str], Progress | None]  # of each step of a long check, by its name


# --- the door of the training ---


def read_checked(
    annotations: Path | str, images: Path | str | None, allow_problems: bool = False, progress: Progress | None = None
) -> tuple[CocoFile, Report]:
    """The door of the training: what is left without the problems, or ValueError with the report. None as images
    checks the annotations alone."""
    coco, report = inspected(Path(annotations), None if images is None else Path(images), progress)
    if report.fatal and not allow_problems:
        raise ValueError(f"{report.table()}\nmend these, or go on without them by allow_problems = True")
    return clean(coco, report), report


def check_dataset(annotations: Path | str, images: Path | str | None, progress: Progress | None = None) -> Report:
    """What the training looks at in one COCO file and its image folder; None checks the file alone."""
    return inspected(Path(annotations), None if images is None else Path(images), progress)[1]


def inspected(path: Path, images: Path | None, progress: Progress | None) -> tuple[CocoFile, Report]:
    entries = read_entries(path)
    table = table_of(entries)
    problems = [*problems_of_ids(table), *problems_of_boxes(table)]
    if images is not None:
        problems += problems_of_images(table, images, read_files(table, images, progress))
    return coco_of_entries(entries), report_of(table, images, problems)


def report_of(table: Table, images: Path | None, problems: Sequence[Problem]) -> Report:
    counts, found = (len(table.image_ids), len(table.image_rows)), [each for each in problems if each.count]
    return Report(table.entries.path, *counts, found, table.part, images, class_counts(table))


# --- what is left ---


def clean(coco: CocoFile, report: Report) -> CocoFile:
    """Without the images and annotations that the report names; boxes over the edge are cut. The very file where there
    is nothing to do."""
    dropped = np.array([image_id for problem in report.problems for image_id in problem.image_ids], np.int64)
    columns = columns_of(coco)
    left = columns.take(~np.isin(columns.image_ids, dropped)) if len(dropped) else columns
    left = numbered(clean_columns(left))
    return coco if left is columns else coco_of(coco.path, left, coco.category_ids, coco.names)


def clean_columns(columns: Columns) -> Columns:
    """Every image with the boxes that can be used, cut at its edges; the same columns where all can."""
    stays = ~is_left_out(rows_of(columns))
    if not stays.all():
        columns = columns.only(stays)
    boxes_xywh_px = cut_boxes(rows_of(columns))
    is_cut = (boxes_xywh_px != columns.boxes_xywh_px).any(axis=1)
    if is_cut.any():
        areas_px2 = np.minimum(columns.areas_px2, np.where(is_cut, boxes_xywh_px[:, 2:].prod(axis=1), np.inf))
        columns = replace(columns, boxes_xywh_px=boxes_xywh_px, areas_px2=areas_px2)
    return columns


def numbered(columns: Columns) -> Columns:
    """Annotation ids 1, 2, ... unless each has one of its own."""
    ids = columns.annotation_ids
    has_own = (ids != 0).all() and not again(ids).any()
    return columns if has_own else replace(columns, annotation_ids=np.arange(1, len(ids) + 1))


def rows_of(columns: Columns) -> Rows:
    images = columns.image_rows()
    return Rows(columns.boxes_xywh_px, columns.sizes_hw[images], columns.labels, columns.is_crowd, images)


def clean_record(record: Record) -> Record:
    """One image with the boxes that can be used."""
    return clean_columns(columns_of_records([record])).record(0)


# --- the whole of a data set ---


@dataclass(frozen=True)
class Depth:
    """How far a check goes."""

    opens_images: bool = True
    near_bits: int | None = NEAR_BITS  # of pictures that are taken for the same; None: they are not compared
    view_pattern: str | None = None  # what tells the camera of a file name


@dataclass(frozen=True)
class Checked:
    """One part when it has been checked. looks: None where pictures are not compared."""

    report: Report
    table: Table
    looks: Looks | None


def check_folder(
    source: Path | str, images: Path | str | None = None, depth: Depth | None = None, bars: Bars | None = None
) -> list[Report]:
    """Everything that is wrong or odd: one report a part, and a last one of what lies across the parts.

    source: a data set folder or one COCO file; images: the image folder, where it is not beside the file.
    """
    depth, bars = depth or Depth(), bars or no_bar
    sources = sources_of(Path(source), None if images is None else Path(images))
    parts = [check_part(each, depth, bars) for each in sources]
    problems = problems_across([part.table for part in parts])
    looks = [part.looks for part in parts if part.looks]
    for one, other in combinations(looks, 2):
        problems += near_across(other, one, depth.near_bits or 0)
    counts = (sum(part.report.images for part in parts), sum(part.report.annotations for part in parts))
    return [*(part.report for part in parts), Report(Path(source), *counts, joined(problems))]


def no_bar(what: str) -> Progress | None:
    return None


def sources_of(source: Path, images: Path | None) -> list[Source]:
    """The parts of a folder, train first, or the one file."""
    files = coco_files(source) if source.exists() else {}
    if not files:
        found = "neither in it" if source.is_dir() else "nothing"
        wanted = "the folder of a COCO data set with annotations/instances_*.json, or a COCO file"
        raise ValueError(f"{source}: expected {wanted}, found {found}; check the path")
    order = sorted(files, key=lambda name: (name != "train", name != "val", name))
    return [Source(name, files[name], images or image_folder(files[name], name)) for name in order]


def check_part(source: Source, depth: Depth, bars: Bars) -> Checked:
    table, looks = read_table(source.annotations, source.name), None
    classes = class_counts(table)
    problems = [*problems_of_ids(table), *problems_of_boxes(table)]
    shown = one_line(source.name)
    problems += problems_of_masks(table, bars(f"{shown}: masks"))
    problems += [*problems_of_outliers(table, depth.view_pattern), *problems_of_classes(source.name, classes)]
    if depth.opens_images:
        files = read_files(table, source.images, bars(f"{shown}: images"))
        problems += problems_of_images(table, source.images, files)
        if depth.near_bits is not None:
            looks = read_looks(table, source.images, files, bars(f"{shown}: looks"))
            problems = joined([*problems, undecodable(looks, source.images)])
            problems.append(near_within(looks, depth.near_bits))
    else:
        problems.append(problem_of_names(table))
    return Checked(report_of(table, source.images, problems), table, looks)


def joined(problems: Sequence[Problem]) -> list[Problem]:
    """One problem a kind, of those that were found."""
    kinds = dict.fromkeys(problem.kind for problem in problems if problem.count)
    own = {kind: [problem for problem in problems if problem.kind == kind] for kind in kinds}
    return [replace(each[0], findings=[found for one in each for found in one.findings]) for each in own.values()]


# --- the command ---


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m kit.data.check", description=str(__doc__).partition("\n")[0])
    result.add_argument("source", type=Path, help="a data set folder with annotations/instances_*.json, or one file")
    result.add_argument("--images", type=Path, help="folder of the images, if it is not beside the annotations")
    result.add_argument("--json", type=Path, help="also write the reports here, findings and all")
    result.add_argument("--pictures", type=Path, metavar="FOLDER", help="also draw examples, classes and sizes there")
    result.add_argument("--labels-only", action="store_true", help="open no image")
    result.add_argument("--near-bits", type=int, default=NEAR_BITS, help="of pictures taken for the same; -1: none")
    result.add_argument("--view-pattern", metavar="REGEX", help=r"tells the camera, such as 'camera(?P<camera>\d+)'")
    result.add_argument("--fix", type=Path, metavar="OUT", help="write a mended copy and its log to a new folder")
    result.add_argument("--boxes-from-masks", action="store_true", help="with --fix, where the two disagree")
    result.add_argument("--sizes-of-files", action="store_true", help="with --fix, where entries have another size")
    result.add_argument("--copy", action="store_true", help="with --fix: copy images instead of linking them")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """0 without problems, in the mended copy where one is written; 1 with; 2 where there is no data set."""
    options = parser().parse_args(arguments)
    near_bits = None if options.near_bits < 0 else options.near_bits
    depth = Depth(not options.labels_only, near_bits, options.view_pattern)
    try:
        reports = check_folder(options.source, options.images, depth, Bar)
        print("\n\n".join(report.table() for report in reports))
        if options.json:
            write_json(options.json, [report.to_json() for report in reports], indent=1)
        if options.pictures:
            draw(reports, options.pictures)
        if options.fix:
            print("\n".join(["", *fix(options)]))
            reports = check_folder(options.fix, None, depth, Bar)
            print("\n" + "\n\n".join(report.table() for report in reports))
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return int(any(report.fatal for report in reports))


def draw(reports: Sequence[Report], folder: Path) -> None:
    """By kit.plots.check, which stands on a higher step: it reads the reports as data."""
    with tempfile.TemporaryDirectory() as place:
        path = write_json(Path(place) / "reports.json", [report.to_json() for report in reports])
        subprocess.run([sys.executable, "-m", "kit.plots.check", str(path), str(folder)], check=True)


def fix(options: argparse.Namespace) -> list[str]:
    """Writes the mended copy; what has changed, for reading."""
    sources = sources_of(options.source, options.images)
    choices = Choices(options.boxes_from_masks, options.sizes_of_files)
    changes = write_mended(sources, options.fix, choices, options.copy, Bar("images to mend"))
    return [
        f"{one_line(options.fix)}: mended, {len(changes)} changes, all of them in mended.json",
        *table_of_changes(changes),
    ]


if __name__ == "__main__":
    sys.exit(main())
