"""A whole source, predicted and written as it goes: decoding, inference and writing overlap."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from kit.competitions import COMPETITIONS
from kit.data.coco import CocoFile, read_coco
from kit.deploy.about import About
from kit.files import write_text
from kit.media.frame import Unreadable
from kit.media.sources import Source, frame_count
from kit.predict import Progress
from kit.predictor.overlap import Bounded, Clock
from kit.predictor.prediction import MOST_FAULTS, Prediction, Summary
from kit.predictor.predictor import Predictor
from kit.predictor.results import (
    DrawnVideos,
    Found,
    Stems,
    Writer,
    coco_file,
    csv_file,
    images_file,
    numbering,
    write_competition_file,
    write_crops,
    write_drawn,
    write_yolo,
)

Format = Literal["coco", "yolo", "csv", "submission"]
FORMATS: tuple[Format, ...] = ("coco", "yolo", "csv", "submission")


@dataclass(frozen=True)
class Wanted:
    """What a run is to write."""

    formats: Sequence[Format]
    competition: str | None
    crops: bool
    crop_padding: float
    drawn: bool
    video: bool

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ValueError(f"formats must be of {', '.join(FORMATS)}, got {unknown[0]!r}")
        if ("submission" in self.formats) != (self.competition is not None):
            raise ValueError("a submission needs the format submission and a competition; give both or neither")
        if self.competition is not None and self.competition not in COMPETITIONS:
            raise ValueError(f"competition must be one of {', '.join(COMPETITIONS)}, got {self.competition!r}")
        if not 0 <= self.crop_padding <= 10:
            raise ValueError(f"crop_padding is a share of the box, 0 to 10, got {self.crop_padding}")

    def asks_for(self, *formats: Format) -> bool:
        return any(each in self.formats for each in formats)

    @property
    def names(self) -> list[str]:
        """Of the files and folders that there may be afterwards."""
        names = ["images.json"]
        names += ["results.json"] * self.asks_for("coco", "submission") + ["detections.csv"] * self.asks_for("csv")
        names += ["labels", "classes.txt"] * self.asks_for("yolo")
        return names + ["crops"] * self.crops + ["drawn"] * self.drawn


def run(
    predictor: Predictor,
    source: Source,
    out: Path | str,
    *,
    formats: Sequence[Format] = ("coco",),
    competition: str | None = None,
    annotations: Path | str | None = None,
    crops: bool = False,
    crop_padding: float = 0.1,
    drawn: bool = False,
    video: bool = True,
    recursive: bool = False,
    every: int = 1,
    dpi: int = 150,
    exif: bool = True,
    progress: Progress | None = None,
) -> Summary:
    """Writes into the folder `out`: images.json, and what is asked for.

    formats: coco = results.json, with the image ids of images.json; yolo = labels/*.txt and classes.txt; csv =
    detections.csv; submission = the file of a competition, and results.json. annotations: a COCO file that tells the
    image ids; pictures are then taken as they are stored, as the boxes of a data set are. crops: crops/<class>/, with
    crop_padding of the width and height on each side. drawn: drawn/, a video as a video unless `video` is off.
    """
    began, out, clock = time.perf_counter(), Path(out), Clock()
    wanted = Wanted(formats, competition, crops, crop_padding, drawn, video)
    page = None if competition is None else COMPETITIONS[competition]
    coco = None if annotations is None else listed_images(annotations, predictor.about)
    tally = Tally(progress, frame_count(source, recursive=recursive, every=every) if progress else 0)
    refuse_own_output(source, out, recursive)
    stems, number = Stems(), numbering(coco, page)
    exif = exif and coco is None
    with ExitStack() as stack:
        write = writers(stack, predictor, out, wanted, every, clock)
        seen = predictor.stream(source, recursive=recursive, every=every, dpi=dpi, exif=exif, clock=clock)
        for prediction in stack.enter_context(closing(seen)):
            fault = prediction.fault
            try:
                if not fault:
                    write(Found(prediction, number(prediction), stems(prediction)))
            except Unreadable as error:
                fault = str(error)
            tally(prediction, fault)
    files = [out / name for name in wanted.names if (out / name).exists()]
    if page is not None:
        files.append(write_competition_file(out, page, predictor.about.category_ids, coco))
    tally.finish()
    return tally.summary(time.perf_counter() - began, clock, files)


def refuse_own_output(source: Source, out: Path, recursive: bool) -> None:
    """Drawn copies must not be predicted on as they come."""
    items = [source] if isinstance(source, str | Path) else [] if isinstance(source, np.ndarray) else source
    for item in items if recursive else ():
        if isinstance(item, str | Path) and out.resolve().is_relative_to(Path(item).resolve()):
            raise ValueError(f"{out}: lies in {item}, whose folders are all read (recursive); give another one")


class Tally:
    """Counts as a run goes on."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total = progress, total
        self.images = self.detections = self.faulty = 0
        self.faults: list[str] = []

    def __call__(self, prediction: Prediction, fault: str) -> None:
        if fault:
            self.faulty += 1
            self.faults += [fault] if len(self.faults) < MOST_FAULTS else []
        else:
            self.images += 1
            self.detections += len(prediction.detections.scores)
        if self.progress:  # the total is what the files say, so only `finish` tells the end
            self.progress(self.images + self.faulty, max(self.total, self.images + self.faulty + 1))

    def finish(self) -> None:
        if self.progress:
            self.progress(self.images + self.faulty, self.images + self.faulty)

    def summary(self, seconds: float, clock: Clock, files: list[Path]) -> Summary:
        return Summary(self.images, self.detections, self.faulty, self.faults, seconds, dict(clock.seconds), files)


def listed_images(annotations: Path | str, about: About) -> CocoFile:
    """ValueError where the file knows other categories than the detector."""
    coco = read_coco(annotations)
    if coco.category_ids and set(about.category_ids) - set(coco.category_ids):
        raise ValueError(
            f"{annotations}: expected the categories {about.category_ids} of the detector, it has {coco.category_ids}; "
            "give the annotations of the data that it was trained on"
        )
    return coco


def writers(
    stack: ExitStack, predictor: Predictor, out: Path, wanted: Wanted, every: int, clock: Clock
) -> Callable[[Found], None]:
    """All that is wanted, behind one call. What takes time is handed to threads."""
    about = predictor.about
    lists = [stack.enter_context(images_file(out / "images.json", about))]
    if wanted.asks_for("coco", "submission"):
        lists.append(stack.enter_context(coco_file(out / "results.json", about)))
    if wanted.asks_for("csv"):
        lists.append(stack.enter_context(csv_file(out / "detections.csv", about)))
    single: list[Writer] = []
    if wanted.asks_for("yolo"):
        write_text(out / "classes.txt", "".join(f"{name}\n" for name in about.names))
        single.append(partial(write_yolo, out / "labels"))
    if wanted.crops:
        single.append(partial(write_crops, out / "crops", names=about.names, padding=wanted.crop_padding))
    pictures = partial(write_drawn, out / "drawn", names=about.names)
    videos = stack.enter_context(DrawnVideos(out / "drawn", about.names, every))
    pool = stack.enter_context(Bounded(predictor.workers, 2 * predictor.workers))
    row = stack.enter_context(Bounded(1, 2))  # the frames of a video, in order

    def timed(work: Writer, found: Found) -> None:
        with clock("writing"):
            work(found)

    def write(found: Found) -> None:
        for each in lists:
            timed(each, found)
        for each in single:
            pool(timed, each, found)
        if wanted.drawn and wanted.video and found.prediction.kind == "video":
            row(timed, videos, found)
        elif wanted.drawn:
            pool(timed, pictures, found)

    return write
