"""Odd images in, plain ones out: a folder of any images, PDFs among them, as 8-bit RGB PNG or JPEG, with a log.

    python -m kit.data.intake SOURCE OUT [--to png|jpg] [--labels stored|shown] [--range format|image]
                              [--dpi N] [--most-pixels N] [--most-pages N]

What is plain already is copied byte for byte. Where SOURCE is a data set (images/ and annotations/), its labels come
along: they are turned where an EXIF orientation is applied. If the size in the annotation file does not tell whether
labels were drawn on the stored or on the shown picture, --labels decides. OUT/intake.json says of each picture where
it is from, with a checksum, what was done, and what does not come back. Pages become pictures of their own
(name_p0001.png); labels of a file of several pages go with the first.
"""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np

from kit.data.coco import name_of_part
from kit.data.formats.images import inside
from kit.data.mask_boxes import read_content
from kit.data.plain_pixels import ENDINGS, UNREADABLE, Limits, Plain, is_plain, plain_pages
from kit.data.turned_labels import Labels, turned_annotation
from kit.files import one_line, sha256, whole_folder, write_bytes, write_json
from kit.progress import Bar

JPEG_QUALITY = 95
EXAMPLES = 5

Ending = Literal["png", "jpg"]


@dataclass(frozen=True)
class Picture:
    """One picture that was written. source, name: paths from the two folders."""

    source: str
    source_sha256: str
    name: str
    size_hw: tuple[int, int]
    stored_hw: tuple[int, int]
    orientation: int
    steps: list[str]
    losses: list[str]

    def entry(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Log:
    """What became of a folder."""

    pictures: list[Picture] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # file: why
    others: list[str] = field(default_factory=list)  # files that are no images
    labels: list[str] = field(default_factory=list)  # what was done to labels
    problems: list[str] = field(default_factory=list)  # labels that may be wrong now

    def entry(self) -> dict[str, Any]:
        return vars(self) | {"pictures": [picture.entry() for picture in self.pictures]}


def take_in(
    source: Path,
    out: Path,
    to: Ending = "png",
    labels: Labels = "stored",
    limits: Limits | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Log:
    """Makes the folder `out`; the source stays as it is."""
    if not source.is_dir():
        raise ValueError(f"{source}: expected a folder of images, found none; check the path")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: expected a folder outside of {source}, found one inside; name another")
    log = Log()
    annotations = sorted((source / "annotations").glob("instances_*.json*"))
    files = sorted(path for path in source.rglob("*") if path.is_file() and path not in annotations)
    log.others.extend(named(path, source) for path in files if path.suffix.lower() not in ENDINGS)
    files = [path for path in files if path.suffix.lower() in ENDINGS]
    plain = {named(path, source) for path in files if ends_well(path) and is_plain_file(path)}
    taken = set(plain)
    with whole_folder(out) as made:
        for done, path in enumerate(files, 1):
            log_file(path, source, made, Choice(to, limits or Limits(), plain, taken), log)
            if progress:
                progress(done, len(files))
        for path in annotations:
            take_labels(path, source, made, labels, log)
        write_json(made / "intake.json", log.entry(), indent=1)
    return log


def named(path: Path, source: Path) -> str:
    return path.absolute().relative_to(source.absolute()).as_posix()


def ends_well(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".jpg", ".jpeg")


def is_plain_file(path: Path) -> bool:
    """False for what cannot be read, too: reading it as a whole then tells why."""
    try:
        return is_plain(path)
    except UNREADABLE:
        return False


@dataclass(frozen=True)
class Choice:
    """How pictures are written. plain: files that are copied; taken: names in use, grows."""

    to: Ending
    limits: Limits
    plain: set[str]
    taken: set[str]


def log_file(path: Path, source: Path, made: Path, choice: Choice, log: Log) -> None:
    """A file of which a page is broken is refused as a whole, and leaves nothing."""
    pictures: list[Picture] = []
    try:
        for picture in taken_in(path, source, made, choice):
            pictures.append(picture)
    except UNREADABLE as error:
        for picture in pictures:
            (made / picture.name).unlink(missing_ok=True)
        log.refused[named(path, source)] = str(error) or type(error).__name__
    else:
        log.pictures.extend(pictures)


def taken_in(path: Path, source: Path, made: Path, choice: Choice) -> Iterator[Picture]:
    """The pictures of a file, as they are written."""
    name, digest = named(path, source), sha256(path)
    for number, plain in enumerate(plain_pages(path, choice.limits), 1):
        size_hw = (plain.pixels.shape[0], plain.pixels.shape[1])
        if name in choice.plain:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)
            yield Picture(name, digest, name, size_hw, size_hw, 1, ["plain already, copied"], [])
            continue
        has_pages = any(step.startswith("page ") for step in plain.steps)
        own = free_name(name, number if has_pages else None, choice.to, choice.taken)
        write_bytes(made / own, encoded(plain, choice.to))
        steps = [*plain.steps, f"written as {choice.to}"]
        losses = plain.losses + ["pixels are rounded by JPEG"] * (choice.to == "jpg")
        yield Picture(name, digest, own, size_hw, plain.stored_hw, plain.orientation, steps, losses)


def free_name(name: str, page: int | None, to: Ending, taken: set[str]) -> str:
    """The same name with another ending; a.tif beside a.png becomes a_tif.png."""
    path = PurePosixPath(name)
    part = "" if page is None else f"_p{page:04d}"
    found = path.with_name(f"{path.stem}{part}.{to}")
    count = 1
    while found.as_posix() in taken:
        again = "" if count == 1 else f"_{count}"
        found = path.with_name(f"{path.stem}_{path.suffix[1:].lower()}{again}{part}.{to}")
        count += 1
    taken.add(found.as_posix())
    return found.as_posix()


def encoded(plain: Plain, to: Ending) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if to == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    _, data = cv2.imencode(f".{to}", np.ascontiguousarray(plain.pixels[..., ::-1]), options)
    return bytes(data.tobytes())


# --- labels ---


def take_labels(path: Path, source: Path, made: Path, labels: Labels, log: Log) -> None:
    """Writes the annotation file with new names, sizes and turned labels; adds to log."""
    content = read_content(path)
    folder = next((each for each in folders_of(path, source) if each.is_dir()), source)
    written: dict[str, Picture] = {}
    for picture in log.pictures:
        written.setdefault(picture.source, picture)
    images, turns = [], dict[int, Picture]()
    for image in content["images"]:
        where = f"{path.name}: {image['file_name']}"
        name = named(inside(folder, str(image["file_name"]), path.name), source)
        if name not in written:
            log.problems.append(f"{where}: {log.refused.get(name, 'no such file')}; the entry stays as it was")
            images.append(image)
            continue
        picture = written[name]
        images.append(image | new_entry(picture, folder, source))
        if is_to_be_turned(image, picture, labels, where, log):
            turns[image["id"]] = picture
    rows = [turned_row(each, turns, path, log) for each in content.get("annotations") or []]
    write_json(made / "annotations" / path.name, content | {"images": images, "annotations": rows})


def folders_of(path: Path, source: Path) -> list[Path]:
    part = name_of_part(path)
    return [source / "images" / part, source / part, source / "images"]


def new_entry(picture: Picture, folder: Path, source: Path) -> dict[str, Any]:
    name = PurePosixPath(picture.name).relative_to(PurePosixPath(named(folder, source)))
    return {"file_name": name.as_posix(), "height": picture.size_hw[0], "width": picture.size_hw[1]}


def is_to_be_turned(image: Mapping[str, Any], picture: Picture, labels: Labels, where: str, log: Log) -> bool:
    """By the size where it tells; where it does not, as asked for."""
    size = (image.get("height"), image.get("width"))
    if size not in (picture.size_hw, picture.stored_hw):
        found = f"size {size[0]} x {size[1]} in the file, {picture.size_hw[0]} x {picture.size_hw[1]} in the picture"
        log.problems.append(f"{where}: {found}; labels may be of another picture, and are not turned")
        return False
    if picture.orientation == 1:
        return False
    if picture.size_hw == picture.stored_hw:
        log.labels.append(f"{where}: orientation {picture.orientation}, labels taken for {labels}, as --labels says")
        return labels == "stored"
    is_stored = size == picture.stored_hw
    log.labels.append(f"{where}: labels {'turned' if is_stored else 'of the shown picture, stay'}, as their size tells")
    return is_stored


def turned_row(annotation: Mapping[str, Any], turns: Mapping[int, Picture], path: Path, log: Log) -> dict[str, Any]:
    picture = turns.get(annotation["image_id"])
    if picture is None:
        return dict(annotation)
    result, faults = turned_annotation(annotation, picture.orientation, picture.stored_hw)
    log.problems.extend(f"{path.name}: annotation {annotation.get('id')}: {fault}" for fault in faults)
    return result


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """0 well, 1 some files are refused or labels may be wrong, 2 it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m kit.data.intake", description=str(__doc__).partition("\n")[0])
    parser.add_argument("source", type=Path, help="a folder with images anywhere below it")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--to", choices=("png", "jpg"), default="png")
    parser.add_argument("--labels", choices=("stored", "shown"), default="stored")
    parser.add_argument("--range", choices=("format", "image"), default="format", help="of 16 bits and floats")
    parser.add_argument("--dpi", type=float, default=Limits.dpi, help="of PDF pages")
    parser.add_argument("--most-pixels", type=int, default=Limits.most_pixels)
    parser.add_argument("--most-pages", type=int, default=Limits.most_pages)
    options = parser.parse_args(arguments)
    limits = Limits(options.most_pixels, options.most_pages, options.dpi, options.range)
    try:
        log = take_in(options.source, options.out, options.to, options.labels, limits, Bar("images"))
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print("\n".join(table(log)))
    print(f"{options.out} is written; intake.json in it tells all")
    return int(bool(log.refused or log.problems))


def table(log: Log) -> list[str]:
    """What was done, how often, and what is to be looked at."""
    lines = [f"{len(log.pictures):>7}  pictures of {len({each.source for each in log.pictures})} files"]
    steps = Counter(step for picture in log.pictures for step in picture.steps if not step.startswith("page "))
    losses = Counter(loss for picture in log.pictures for loss in picture.losses)
    lines += [f"{count:>7}  {step}" for step, count in steps.most_common()]
    lines += [f"{count:>7}  loss: {loss}" for loss, count in losses.most_common()]
    told = {"label files": log.labels, "no images, left out": log.others, "! labels": log.problems}
    told["! refused"] = [f"{name}: {why}" for name, why in log.refused.items()]
    for what, texts in told.items():
        lines += [f"{len(texts):>7}  {what}"] * bool(texts) + [f"{'':9}{one_line(text)}" for text in texts[:EXAMPLES]]
        lines += [f"{'':9}..."] * (len(texts) > EXAMPLES)
    return lines


if __name__ == "__main__":
    sys.exit(main())
