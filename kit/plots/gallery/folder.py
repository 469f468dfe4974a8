"""Writes the gallery: pictures in threads, what they show as scripts, and the page. File names are numbers of ours."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kit.data.check_report import Report
from kit.data.formats.images import inside
from kit.data.pixels import read_image
from kit.files import whole_folder, write_text
from kit.plots.gallery.draws import DrawnSet, WrittenDraws, write_draws
from kit.plots.gallery.shown import Contents, Part, Shown, Stored

Progress = Callable[[int, int], object]  # done, in all

PAGE = ("index.html", "gallery.css", "boxes.js", "head.js", "many.js", "one.js", "gallery.js")
OURS = {*PAGE, "data", "thumbnails", "pictures", "draws"}
THUMBNAIL_PX, THUMBNAIL_QUALITY = 360, 80
PICTURE_QUALITY = 90


@dataclass(frozen=True)
class Gallery:
    """What was written. faults: images and draws that could not be read."""

    page: Path
    images: int
    draws: int
    faults: list[str]

    def __str__(self) -> str:
        lines = [f"{self.page}: {self.images:,} images, {self.draws:,} draws of the training; open it in a browser"]
        lines += [f"! {len(self.faults):,} could not be read"] * bool(self.faults)
        return "\n".join(lines + [f"    {fault}" for fault in self.faults[:5]] + ["    ..."] * (len(self.faults) > 5))


def write_gallery(
    out: Path | str,
    parts: Sequence[Part],
    title: str,
    *,
    reports: Sequence[Report] = (),
    drawn: DrawnSet | None = None,
    most_images: int | None = None,
    side_px: int = 1280,
    view_pattern: str | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """A folder with the page; an older gallery of the same name goes when the new one is whole.

    most_images: of each part, spread evenly; side_px: of the longer side of a picture, larger ones are made smaller;
    view_pattern: how file names tell the camera. progress: of the images, then of the draws.
    """
    shown = [Shown(number, *place) for number, place in enumerate(chosen(parts, most_images))]
    with new_gallery(Path(out)) as folder:
        stored = write_pictures(folder, parts, shown, side_px, progress)
        made = written_draws(folder, parts, shown, stored, drawn, progress) if drawn else WrittenDraws({}, [])
        draws = {number: each for number, each in made.drawn.items() if each}
        about = drawn_text(drawn, sum(map(len, draws.values()))) if drawn else ""
        contents = Contents(title, parts, shown, stored, reports, draws, about, view_pattern)
        write_page(folder, contents)
    unread = [(each.record.file_name, told.fault) for each, told in zip(shown, stored, strict=True) if told.fault]
    faults = [f"{name!r:.120}: {fault}" for name, fault in unread] + made.faults
    return Gallery(Path(out) / "index.html", len(shown), sum(map(len, draws.values())), faults)


def chosen(parts: Sequence[Part], most: int | None) -> Iterator[tuple[int, int, Any]]:
    """Part, row and record of each image."""
    for number, part in enumerate(parts):
        records = part.coco.records
        count = len(records) if most is None else min(most, len(records))
        for row in np.linspace(0, len(records) - 1, count).round().astype(int).tolist():
            yield number, row, records[row]


# --- pictures ---


def write_pictures(
    folder: Path, parts: Sequence[Part], shown: Sequence[Shown], side_px: int, progress: Progress | None
) -> list[Stored]:
    """A picture and a thumbnail of each image, by its number."""
    for name in ("pictures", "thumbnails"):
        (folder / name).mkdir()
    stored = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and writing pictures releases Python's lock
        try:
            for told in pool.map(partial(write_one, folder, parts, side_px), shown):
                stored.append(told)
                if progress:
                    progress(len(stored), len(shown))
        finally:
            pool.shutdown(cancel_futures=True)  # who stops it waits for no more than what is at work
    return stored


def write_one(folder: Path, parts: Sequence[Part], side_px: int, each: Shown) -> Stored:
    """As the pixels are stored: an EXIF orientation is not applied, as for the model."""
    height, width = each.record.size_hw
    image = read_stored(parts[each.part].images, each.record.file_name)
    if isinstance(image, str):
        return Stored((width or 4, height or 3), fault=image)
    for name, side, quality in (
        ("pictures", side_px, PICTURE_QUALITY),
        ("thumbnails", THUMBNAIL_PX, THUMBNAIL_QUALITY),
    ):
        image_bgr = cv2.cvtColor(at_most(image, side), cv2.COLOR_RGB2BGR)
        path = folder / name / f"{each.number}.jpg"
        if not cv2.imwrite(str(path), image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality]):
            raise ValueError(f"{path}: expected to write a picture, the disk refused; is it full?")
    return Stored((image.shape[1], image.shape[0]))


def read_stored(images: Path, name: str) -> np.ndarray | str:
    """(H, W, 3) uint8 RGB, or why there is none."""
    try:
        path = inside(images, name, "")
    except ValueError:
        return "its name leads out of the image folder"
    if not os.path.isfile(path):  # unlike Path.is_file it bears names that are too long
        return "the file is missing"
    try:
        return read_image(path)
    except (ValueError, cv2.error):
        return "the file cannot be decoded"


def at_most(image: np.ndarray, side_px: int) -> np.ndarray:
    """(H, W, C) -> the same, or made smaller so that its longer side has side_px."""
    share = side_px / max(image.shape[:2])
    if share >= 1:
        return image
    height, width = (max(1, round(side * share)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


# --- draws ---


def written_draws(
    folder: Path,
    parts: Sequence[Part],
    shown: Sequence[Shown],
    stored: Sequence[Stored],
    drawn: DrawnSet,
    progress: Progress | None,
) -> WrittenDraws:
    """By number in the gallery. Images that the training leaves out have none."""
    index_of = {record.image_id: index for index, record in enumerate(drawn.dataset.coco.records)}
    own = [
        each
        for each in shown
        if parts[each.part].name == drawn.part and each.record.image_id in index_of and not stored[each.number].fault
    ]
    picked = [own[row] for row in np.linspace(0, len(own) - 1, min(drawn.images, len(own))).round().astype(int)]
    numbers = {index_of[each.record.image_id]: each.number for each in picked}
    classes = class_numbers(parts, drawn)
    made = write_draws(drawn, numbers, classes, folder, progress)
    return WrittenDraws({numbers[index]: draws for index, draws in made.drawn.items()}, made.faults)


def class_numbers(parts: Sequence[Part], drawn: DrawnSet) -> np.ndarray:
    """Label of the training -> class of the gallery."""
    place = {name: number for number, name in enumerate(Contents("", parts, (), ()).names)}
    return np.array([place[name] for name in drawn.dataset.coco.names], np.int64)


def drawn_text(drawn: DrawnSet, draws: int) -> str:
    sampler = drawn.sampler
    return (
        f"Pixels and boxes that a training is given, exactly: {draws} draws out of its {sampler.epochs} epochs of "
        f"{sampler.steps_per_epoch} steps, in the size of the step that they come in (seed {sampler.seed})."
    )


# --- the folder ---


def write_page(folder: Path, contents: Contents) -> None:
    for name in PAGE:
        shutil.copyfile(Path(__file__).parent / name, folder / name)
    write_text(folder / "data" / "index.js", f"window.galleryIndex = {script(contents.index())};\n")
    for key, details in contents.chunks():
        write_text(folder / "data" / f"{key}.js", f"window.galleryChunk({key}, {script(details)});\n")


def script(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON that is safe in a script, whatever the names hold: ASCII without <, > and &."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@contextmanager
def new_gallery(out: Path) -> Iterator[Path]:
    """A folder beside; whatever but a gallery is in the way stays, and is an error before anything is done."""
    refuse_others(out)
    beside = out.with_name(f"{out.name}.new")
    refuse_others(beside)
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was cut off
    with whole_folder(beside) as made:
        yield made
    if out.exists():
        shutil.rmtree(out)
    beside.rename(out)


def refuse_others(out: Path) -> None:
    """Only a folder that holds nothing but what a gallery holds is replaced."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ValueError(f"{out}: expected a new folder, found a file or a link; name another")
    others = sorted({each.name for each in out.iterdir()} - OURS) if out.exists() else []
    if others:
        raise ValueError(
            f"{out}: expected a new folder or an older gallery, found {others[0]!r:.80} in it; name another"
        )
