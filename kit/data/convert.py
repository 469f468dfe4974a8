"""Converts data sets between COCO, YOLO, Pascal VOC, CSV and VisDrone, and from Objects365 and bare images.

What the other format cannot carry is listed; what is wrong in the source as well. The source is never changed, and the
new folder appears when it is whole. Images are linked, which takes no place on the disk.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.data.formats.coco import coco_files, read_raw_coco, write_raw_coco
from kit.data.formats.folder import read_folder
from kit.data.formats.images import Progress, image_files
from kit.data.formats.objects365 import annotation_files, read_objects365, remapped, with_longest_side
from kit.data.formats.raw import Loss, RawDataset
from kit.data.formats.table import read_table, write_table
from kit.data.formats.table_columns import table_files
from kit.data.formats.visdrone import part_folders, read_visdrone, write_visdrone
from kit.data.formats.voc import read_voc, write_voc
from kit.data.formats.yolo import read_yolo, write_yolo, yaml_file
from kit.files import one_line
from kit.progress import Bar

Source = Literal["coco", "yolo", "voc", "csv", "visdrone", "objects365", "folder"]
Target = Literal["coco", "yolo", "voc", "csv", "visdrone"]
SOURCES: tuple[Source, ...] = ("coco", "yolo", "voc", "csv", "visdrone", "objects365", "folder")
TARGETS: tuple[Target, ...] = ("coco", "yolo", "voc", "csv", "visdrone")


@dataclass(frozen=True)
class Reading:
    """How a source is read. one_based: pixels of VOC files; None: as they tell. part: of images without any."""

    images: Path | None = None
    one_based: bool | None = None
    part: str = "train"
    others: bool = False  # VisDrone's category 11
    remap: bool = False  # Objects365's validation images into train
    longest_px: int | None = None


@dataclass(frozen=True)
class Conversion:
    """What has been done. source: the format that was read."""

    source: Source
    dataset: RawDataset
    losses: list[Loss]

    @property
    def problems(self) -> list[str]:
        """What is wrong in the source, each in one line."""
        found = [f"{loss.what} ({loss.count}), first {loss.example}" for loss in self.losses if loss.is_problem]
        return self.dataset.problems + found

    def table(self) -> str:
        """For reading: what was read, noted and lost."""
        parts = [
            f"{one_line(part.name):<12}{len(part.images):>8}{len(part.annotations):>12}" for part in self.dataset.parts
        ]
        lines = [f"read as {self.source}: {len(self.dataset.categories)} classes"]
        lines += [f"{'part':<12}{'images':>8}{'objects':>12}", *parts]
        lines += [f"note: {one_line(note)}" for note in self.dataset.notes]
        lost = [loss for loss in self.losses if not loss.is_problem]
        lines += [f"lost or changed: {loss.what} ({loss.count}), first {one_line(loss.example)}" for loss in lost]
        return "\n".join([*lines, *(f"problem: {one_line(problem)}" for problem in self.problems)])


def recognised(source: Path) -> Source:
    """The format of a folder or file. ValueError where it could be several, or none."""
    if not source.exists():
        raise ValueError(f"{source}: expected a data set, found nothing; check the path")
    if source.is_file():
        return recognised_file(source)
    if annotation_files(source):
        return "objects365"
    tests: dict[Source, bool] = {
        "coco": bool(coco_files(source)),
        "visdrone": bool(part_folders(source)),
        "yolo": yaml_file(source) is not None or any(True for folder in source.rglob("labels") if has_texts(folder)),
        "voc": any(True for _ in source.rglob("*.xml")),
        "csv": bool(table_files(source)),
    }
    found = [name for name, is_it in tests.items() if is_it]
    if len(found) > 1:
        raise ValueError(f"{source}: expected one format, found {' and '.join(found)}; say which with --from")
    if not found and beside_images(source):
        return "yolo"
    if not found and not image_files(source):
        raise ValueError(f"{source}: expected a data set ({', '.join(SOURCES)}), found neither labels nor images")
    return found[0] if found else "folder"


def recognised_file(source: Path) -> Source:
    endings: dict[str, Source] = {".json": "coco", ".gz": "coco", ".csv": "csv", ".yaml": "yolo", ".yml": "yolo"}
    if source.suffix not in endings:
        raise ValueError(f"{source}: expected .json, .json.gz, .csv or .yaml, found another file; give the folder")
    return endings[source.suffix]


def has_texts(folder: Path) -> bool:
    return folder.is_dir() and any(True for _ in folder.rglob("*.txt"))


def beside_images(source: Path) -> bool:
    """YOLO text beside the images themselves."""
    return any(image.with_suffix(".txt").is_file() for image in image_files(source))


def read_dataset(
    source: Path, kind: Source, reading: Reading | None = None, progress: Progress | None = None
) -> RawDataset:
    """A data set of any format as COCO entries."""
    reading = reading or Reading()
    dataset = read_as(source, kind, reading, progress)
    dataset = remapped(dataset) if reading.remap else dataset
    return with_longest_side(dataset, reading.longest_px) if reading.longest_px else dataset


def read_as(source: Path, kind: Source, reading: Reading, progress: Progress | None) -> RawDataset:
    if source.is_file() and kind not in ("coco", "yolo", "csv"):
        raise ValueError(f"{source}: expected the folder of the data set ({kind}), found a file; give the folder")
    if kind == "coco":
        return read_raw_coco(source, reading.images)
    if kind == "yolo":
        return read_yolo(source, progress)
    if kind == "voc":
        return read_voc(source, reading.one_based, progress)
    if kind == "csv":
        return read_table(source, progress)
    if kind == "visdrone":
        return read_visdrone(source, reading.others, progress)
    if kind == "objects365":
        return read_objects365(source)
    return read_folder(source, reading.part, progress)


def convert(
    source: Path | str,
    out: Path | str,
    to: Target,
    start: Source | None = None,
    reading: Reading | None = None,
    polygons: bool = False,
    copy: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Reads source and writes out. start: its format, found out where not given; polygons: for YOLO, not boxes."""
    source, out, reading = Path(source), Path(out), reading or Reading()
    kind = start or recognised(source)
    dataset = read_dataset(source, kind, reading, progress)
    if to == "coco":
        losses = write_raw_coco(dataset, out, copy, progress)
    elif to == "yolo":
        losses = write_yolo(dataset, out, polygons, copy, progress)
    elif to == "voc":
        losses = write_voc(dataset, out, bool(reading.one_based), copy, progress)
    elif to == "visdrone":
        losses = write_visdrone(dataset, out, copy, progress)
    else:
        losses = write_table(dataset, out, copy, progress)
    return Conversion(kind, dataset, losses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts; 1 if something in the source is wrong and was left out or is missing, 2 if it cannot be converted."""
    parser = argparse.ArgumentParser(prog="python -m kit.data.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="a folder, or an annotation file")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--to", required=True, choices=TARGETS)
    parser.add_argument("--from", dest="start", choices=SOURCES, help="the format of the source, if it is not plain")
    parser.add_argument("--images", type=Path, help="folder of the images of a COCO file that lies elsewhere")
    parser.add_argument("--copy", action="store_true", help="copy the images, which are linked otherwise")
    parser.add_argument("--polygons", action="store_true", help="YOLO: write polygons, not boxes")
    pixels = parser.add_mutually_exclusive_group()
    pixels.add_argument("--one-based", action="store_true", help="VOC: pixels count from 1, both ends inside")
    pixels.add_argument("--edges", action="store_true", help="VOC: pixels are edges, xmax = x + width")
    parser.add_argument("--part", default="train", help="name of the part that bare images become")
    parser.add_argument("--others", action="store_true", help="VisDrone: keep category 11 as a class")
    parser.add_argument("--remap", action="store_true", help="Objects365: all but 5,000 images of val into train")
    parser.add_argument("--longest-px", type=int, help="make images of all parts smaller that are longer, such as 640")
    given = parser.parse_args(arguments)
    one_based = True if given.one_based else False if given.edges else None
    reading = Reading(given.images, one_based, given.part, given.others, given.remap, given.longest_px)
    try:
        done = convert(
            *(given.source, given.out, given.to, given.start, reading, given.polygons, given.copy),
            progress=Bar("images"),
        )
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(done.table())
    print(f"written: {one_line(given.out)} ({given.to})")
    return int(bool(done.problems))


if __name__ == "__main__":
    sys.exit(main())
