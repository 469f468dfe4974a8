"""Stage-1 augmentation as a plan: which images are to be made of a training set, and each one from its number.

A copy is a pure function of the data set, the settings, the image and the copy's number. What happens to it is what
`kit.data.augment` and `kit.data.warps` do in training as well; `kit.data.offline_folder` writes it to the disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np

from kit.data.augment import Load, Recipe, bent, mirrored, plain_policy
from kit.data.coco import CocoFile, Record
from kit.data.copy_paste import PasteBook, make_book, paste_objects
from kit.data.dataset import CocoDataset
from kit.data.outlines import Outline
from kit.data.perspective import Perspective, fisheye_view
from kit.data.photometric import weather, weathered
from kit.data.picture import Picture
from kit.data.warps import Shape

CHUNK = 8  # source images that are made together: what is lost at most, in each process, when a run is cut off
LEAST_SIDE_PX = 1.0
EFFECTS = (
    "copy_paste", "flip", "rotate", "lens", "radial", "vignette", "chromatic", "brightness_contrast", "clahe", "gamma",
    "jpeg", "shadow", "noise", "posterize", "gravel",
)  # fmt: skip


@dataclass(frozen=True)
class Offline:
    """What a copy is made by; numbers are probabilities per copy unless they say otherwise."""

    copies: int = 3  # of each image
    seed: int = 0
    channels: int = 3
    quality: int = 92  # of the JPEG files
    view_pattern: str | None = None  # tells camera and scene of a file name, for copy-paste
    copy_paste: float = 0.0
    flip: float = 0.5
    rotate: float = 0.0
    rotate_deg: float = 30.0  # to either side
    lens: float = 0.0
    radial: float = 0.0
    vignette: float = 0.0
    chromatic: float = 0.0
    box_outline: Shape = "rectangle"  # what is bent where an object has no outline
    brightness_contrast: float = 0.5
    clahe: float = 0.5
    gamma: float = 0.5
    jpeg: float = 0.8
    shadow: float = 0.5
    noise: float = 0.5
    posterize: float = 0.5
    gravel: float = 0.5

    @property
    def geometry(self) -> Recipe:
        """In the words of the online augmentation, whose functions do the work."""
        return Recipe(
            flip=self.flip,
            rotate=self.rotate,
            rotate_deg=self.rotate_deg,
            lens=self.lens,
            radial=self.radial,
            vignette=self.vignette,
            chromatic=self.chromatic,
            box_outline=self.box_outline,
        )

    @property
    def weather(self) -> A.Compose:
        return weather(
            brightness_contrast=self.brightness_contrast,
            clahe=self.clahe,
            gamma=self.gamma,
            jpeg=self.jpeg,
            shadow=self.shadow,
            noise=self.noise,
            posterize=self.posterize,
            gravel=self.gravel,
        )


def augmented(load: Load, index: int, number: int, image_id: int, offline: Offline, book: PasteBook | None) -> Picture:
    """Copy `number` of one image: objects pasted, geometry bent, then light, weather and a cheap camera."""
    rng = np.random.default_rng([offline.seed, image_id % 2**63, number])
    picture = load(index)
    if book is not None and rng.random() < offline.copy_paste:
        picture = paste_objects(picture, index, book, load, rng)
    picture = mirrored(bent(picture, offline.geometry, rng), offline.geometry, rng)
    return picture.with_image(weathered(picture.image, offline.weather, rng))


def typical_index(coco: CocoFile, book: PasteBook) -> int:
    """An image with a middling number of objects, by day where there are any."""
    rows = np.flatnonzero(~book.is_night) if (~book.is_night).any() else np.arange(len(coco.records))
    counts = [len(coco.records[row].labels) for row in rows]
    return int(rows[np.argsort(counts, kind="stable")[len(rows) // 2]])


def each_effect(load: Load, index: int, offline: Offline, book: PasteBook) -> dict[str, Picture]:
    """One image and each effect alone, for looking at; the key says how often copies have it."""
    pictures = {"as it is": load(index)}
    for name in EFFECTS:
        only: dict[str, Any] = dict.fromkeys(EFFECTS, 0.0) | {name: 1.0}
        alone = replace(offline, **only)
        pictures[f"{name}: {getattr(offline, name):g}"] = augmented(load, index, 1, 0, alone, book)
    return pictures


# --- what is to be written ---


@dataclass(frozen=True)
class Task:
    """One image to write."""

    kind: Literal["original", "copy", "perspective"]
    index: int  # of its source, in its own data set
    number: int  # of the copy, from 1; 0 for an original
    image_id: int
    file_name: str


@dataclass(frozen=True)
class Job:
    """A training set, and what is to be made of it. Use `make_job`."""

    coco: CocoFile
    images: Path
    offline: Offline
    perspective: Perspective | None
    book: PasteBook | None
    chunks: tuple[tuple[Task, ...], ...]

    @property
    def total(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


def make_job(coco: CocoFile, images: Path, offline: Offline, perspective: Perspective | None = None) -> Job:
    """Names and ids of all images, and the donors of copy-paste where it is asked for.

    Copies keep the name's beginning, so that camera and scene can still be read: camera3_A_12_copy1.jpg.
    """
    book = make_book(coco, offline.view_pattern) if offline.copy_paste else None
    taken = {record.file_name for record in coco.records}
    sources = list(own_tasks(coco, offline, taken))
    sources += perspective_tasks(coco, offline, perspective, taken) if perspective else []
    chunks = [sum(sources[start : start + CHUNK], ()) for start in range(0, len(sources), CHUNK)]
    return Job(coco, Path(images), offline, perspective, book, tuple(chunks))


def own_tasks(coco: CocoFile, offline: Offline, taken: set[str]) -> Iterator[tuple[Task, ...]]:
    """Each image and its copies. taken: names, to which those given here are added."""
    first = first_free_id(coco)
    for index, record in enumerate(coco.records):
        tasks = [Task("original", index, 0, record.image_id, record.file_name)]
        for number in range(1, offline.copies + 1):
            image_id = first + (number - 1) * len(coco.records) + index
            name = free_name(f"{stem_of(record.file_name)}_copy{number}", offline, taken, image_id)
            tasks.append(Task("copy", index, number, image_id, name))
        yield tuple(tasks)


def perspective_tasks(
    coco: CocoFile, offline: Offline, perspective: Perspective, taken: set[str]
) -> Iterator[tuple[Task, ...]]:
    """The fisheye pictures of each image of a perspective data set; ids go on after those of the copies."""
    first = first_free_id(coco) + offline.copies * len(coco.records)
    for index, record in enumerate(perspective.coco.records):
        stem = PurePath(stem_of(record.file_name)).name
        tasks = []
        for number in range(1, perspective.copies + 1):
            image_id = first + index * perspective.copies + number - 1
            name = free_name(f"perspective/{stem}_fisheye{number}", offline, taken, image_id)
            tasks.append(Task("perspective", index, number, image_id, name))
        yield tuple(tasks)


def first_free_id(coco: CocoFile) -> int:
    return max((record.image_id for record in coco.records), default=0) + 1


def stem_of(file_name: str) -> str:
    """With its folder, without its ending."""
    return str(PurePath(file_name).with_suffix(""))


def free_name(stem: str, offline: Offline, taken: set[str], image_id: int) -> str:
    """A file name that is not taken yet, and is now: a.png and a.jpg must not share a copy."""
    ending = ".jpg" if offline.channels < 4 else ".png"  # JPEG has no fourth channel
    name = stem + ending if stem + ending not in taken else f"{stem}_{image_id}{ending}"
    taken.add(name)
    return name


# --- one image ---


@dataclass(frozen=True)
class Loads:
    """How the two data sets are read; the last pictures are kept, since an image and its copies follow each other."""

    own: Load
    perspective: Load | None


def loads(job: Job) -> Loads:
    def load(coco: CocoFile, images: Path) -> Load:
        return lru_cache(maxsize=2)(CocoDataset(coco, images, plain_policy(), channels=job.offline.channels).load)

    other = load(job.perspective.coco, job.perspective.images) if job.perspective else None
    return Loads(load(job.coco, job.images), other)


def picture_of_task(job: Job, task: Task, load: Loads) -> Picture:
    """The pixels and labels of a copy or of a fisheye picture."""
    if job.perspective is None or load.perspective is None or task.kind != "perspective":
        source = job.coco.records[task.index]
        return augmented(load.own, task.index, task.number, source.image_id, job.offline, job.book)
    source = job.perspective.coco.records[task.index]
    rng = np.random.default_rng([job.offline.seed, source.image_id % 2**63, task.number, 1])
    seen = fisheye_view(load.perspective(task.index), job.perspective.size_hw, rng, job.offline.box_outline)
    return seen.with_image(weathered(seen.image, job.offline.weather, rng))


def origin_of(job: Job, task: Task) -> dict[str, int | str]:
    """What the image's entry says of where it comes from."""
    if job.perspective is not None and task.kind == "perspective":
        return {"perspective_source": job.perspective.coco.records[task.index].file_name, "copy": task.number}
    return {"source_id": job.coco.records[task.index].image_id, "copy": task.number}


def record_of(picture: Picture, task: Task) -> Record:
    """For the annotation file, where annotation ids are given last."""
    low, high = picture.boxes_xyxy_px[:, :2], picture.boxes_xyxy_px[:, 2:]
    count = len(picture.labels)
    areas = [outline_area(outline) for outline in picture.outlines or [None] * count]
    box_areas = (high - low).prod(axis=1)
    return with_least_sides(
        Record(
            image_id=task.image_id,
            file_name=task.file_name,
            size_hw=picture.size_hw,
            boxes_xywh_px=np.concatenate([low, high - low], axis=1),
            labels=picture.labels,
            is_crowd=np.zeros(count, bool),
            annotation_ids=np.zeros(count, np.int64),
            areas_px2=np.array([box if own is None else own for own, box in zip(areas, box_areas, strict=True)]),
            outlines=picture.outlines,
        )
    )


def outline_area(outline: Outline | None) -> float | None:
    if outline is None:
        return None
    return float(sum(cv2.contourArea(part.astype(np.float32)) for part in outline))


def with_least_sides(record: Record) -> Record:
    """Boxes thinner than LEAST_SIDE_PX grow to it about their middle, inside the image; the others stay exact."""
    corner, size = record.boxes_xywh_px[:, :2], record.boxes_xywh_px[:, 2:]
    grown = np.maximum(size, LEAST_SIDE_PX)
    limit = np.array(record.size_hw[::-1]) - grown
    moved = np.where(size < LEAST_SIDE_PX, (corner + (size - grown) / 2).clip(0, limit), corner)
    areas = np.where((size < LEAST_SIDE_PX).any(axis=1), grown.prod(axis=1), record.areas_px2)
    return replace(record, boxes_xywh_px=np.concatenate([moved, grown], axis=1), areas_px2=areas)
