"""Our own fisheye road scenes: drawn from a seed, with exact polygons and boxes, written as a COCO data set.

A scene is a pure function of (seed, camera, letter, frame, size). Polygons and boxes enclose the whole projected
silhouette of a road user inside the image circle, as if nothing stood before it. Left out of the labels is what is too
small (`MIN_SIDE_PX`) or hardly to be seen (`MIN_VISIBLE`: the share of the silhouette neither hidden nor cut off).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from kit.data.fisheye import EQUIDISTANT, Camera, Lens, Projection, looking_down
from kit.data.rendering import Backdrop, Seen, Thing, look, make_backdrop, make_light, render
from kit.data.road_users import lamp_post, road_user, tree
from kit.data.roads import Site, make_site
from kit.data.silhouettes import Silhouette, trace, visible_shares
from kit.data.traffic import far_to_near, place_traffic
from kit.files import read_json, whole_folder, write_json

Letter = Literal["M", "A", "E", "N"]
LETTERS: tuple[Letter, ...] = get_args(Letter)  # morning, afternoon, evening, night
CATEGORIES = ("Bus", "Bike", "Car", "Pedestrian", "Truck")
MIN_SIDE_PX = 4.0
MIN_VISIBLE = 0.3
SMALLEST_PX = 64
DRAWING = 1  # raised whenever the same seed draws other pixels or labels, so that older folders are told apart
FIRST_FRAME = {"train": 1000, "val": 4000, "unlabelled": 7000}  # four digits everywhere: image ids stay unique
FRAMES_OF_PART = 3000


@dataclass(frozen=True)
class Scene:
    """One picture with its labels, in order of painting."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    boxes_xywh_px: np.ndarray  # (N, 4) float64, hulls of the polygons
    labels: np.ndarray  # (N,) int64, index into CATEGORIES
    polygons_px: list[np.ndarray]  # (P, 2) float64 each
    visible: np.ndarray  # (N,) share of the silhouette that is neither hidden nor cut off
    camera: int
    letter: Letter
    frame: int

    @property
    def file_name(self) -> str:
        """By the rule of Track 4."""
        return f"camera{self.camera}_{self.letter}_{self.frame}.png"

    @property
    def image_id(self) -> int:
        """By the rule of Track 4."""
        return int(f"{self.camera}{LETTERS.index(self.letter)}{self.frame}")


def draw_scene(
    seed: int,
    *,
    size_px: int = 640,
    focal_px: float | None = None,
    centre_px: tuple[float, float] | None = None,
    projection: Projection = EQUIDISTANT,
    night: bool | None = None,
    camera: int = 1,
    letter: Letter | None = None,
    frame: int = 1000,
) -> Scene:
    """One scene. What is None is drawn: the lens from the camera number, day or night and the letter from the frame."""
    if size_px < SMALLEST_PX:
        raise ValueError(f"size_px must be at least {SMALLEST_PX}, got {size_px}; objects would be too small to see")
    letter = letter or _letter(np.random.default_rng([seed, camera, frame, 2]), night)
    rng = np.random.default_rng([seed, camera, frame, LETTERS.index(letter), 3])
    view = _view(seed, camera, size_px, focal_px, centre_px, projection)
    light = make_light(letter, rng)
    traffic = place_traffic(view.site, rng)
    things = [Thing(road_user(one.label, one.variant), one.position_m, one.heading_rad) for one in traffic]
    things += view.fixtures
    order = far_to_near(np.stack([thing.footprint_m for thing in things]))
    seen = [look(things[i], view.camera, light) for i in order]
    labels = [traffic[i].label if i < len(traffic) else None for i in order]
    kept = _labelled(seen, labels, view.camera.lens, size_px)
    return Scene(
        image=render(view.backdrop, view.camera, seen, light, rng),
        boxes_xywh_px=np.array([one.silhouette.box_xywh_px for one in kept]).reshape(-1, 4),
        labels=np.array([one.label for one in kept], dtype=np.int64),
        polygons_px=[one.silhouette.polygon_px for one in kept],
        visible=np.array([one.visible for one in kept]),
        camera=camera,
        letter=letter,
        frame=frame,
    )


@dataclass(frozen=True)
class _Labelled:
    label: int
    silhouette: Silhouette
    visible: float


def _labelled(seen: Sequence[Seen], labels: Sequence[int | None], lens: Lens, size_px: int) -> list[_Labelled]:
    """The road users that are large and visible enough; what has no label only hides others."""
    traced = [None if label is None else trace(one, lens, size_px) for one, label in zip(seen, labels, strict=True)]
    kept = []
    for label, outline, share in zip(labels, traced, visible_shares(seen, traced, size_px), strict=True):
        if label is None or outline is None or share < MIN_VISIBLE:
            continue
        if outline.box_xywh_px[2:].min() >= MIN_SIDE_PX:
            kept.append(_Labelled(label, outline, share))
    return kept


def _letter(rng: np.random.Generator, night: bool | None) -> Letter:
    if night is None:
        return LETTERS[rng.integers(4)]
    return "N" if night else LETTERS[rng.integers(3)]


@dataclass(frozen=True)
class _View:
    """What stays the same in all frames of a camera."""

    site: Site
    camera: Camera
    backdrop: Backdrop
    fixtures: tuple[Thing, ...]  # trees and lamp posts


@lru_cache(maxsize=4)
def _view(
    seed: int,
    number: int,
    size_px: int,
    focal_px: float | None,
    centre_px: tuple[float, float] | None,
    projection: Projection,
) -> _View:
    rng = np.random.default_rng([seed, number, 4])
    site = make_site(seed, number)
    focal = size_px * rng.uniform(0.35, 0.4)
    centre = tuple(size_px * (0.5 + rng.uniform(-0.015, 0.015, 2)))
    lens = Lens(projection, focal_px or focal, centre_px or (centre[0], centre[1]), np.deg2rad(rng.uniform(78, 86)))
    yaw = np.arctan2(site.centre_m[1], site.centre_m[0]) + rng.uniform(-0.25, 0.25)
    camera = Camera(lens, rng.uniform(6.0, 7.8), looking_down(np.deg2rad(rng.uniform(6, 26)), yaw))
    trees = [Thing(tree(int(rng.integers(12))), spot, rng.uniform(0, 6)) for spot in site.trees_m]
    lamps = [Thing(lamp_post(), lamp[:2], lamp[2]) for lamp in site.lamps]
    fixtures = tuple(thing for thing in (*trees, *lamps) if _is_in_view(thing, camera))
    return _View(site, camera, make_backdrop(site, camera, size_px), fixtures)


def _is_in_view(thing: Thing, camera: Camera) -> bool:
    """Whether any of it lies within the image circle."""
    offset_px = camera.project(thing.world(thing.mesh.points_m)) - np.array(camera.lens.centre_px)
    return bool((np.linalg.norm(offset_px, axis=1) < camera.lens.circle_px).any())


Progress = Callable[[int, int], None]  # called with (pictures done, pictures in all)


@dataclass(frozen=True)
class _Task:
    """One picture to draw and write."""

    part: str
    camera: int
    letter: Letter
    frame: int


def plan(train: int, val: int, unlabelled: int, cameras: int, split_by_camera: bool) -> list[_Task]:
    """All pictures of a data set: parts share no frame; by camera, val shares no camera with the others."""
    if min(train, val, unlabelled) < 0 or cameras < 1:
        raise ValueError(
            f"expected counts of 0 or more and a camera, got train {train}, val {val}, unlabelled {unlabelled}, "
            f"cameras {cameras}"
        )
    seen = list(range(1, cameras + 1))
    others = list(range(cameras + 1, cameras + 1 + max(cameras // 3, 1))) if split_by_camera else seen
    parts = {"train": (train, seen), "val": (val, others), "unlabelled": (unlabelled, seen)}
    tasks = []
    for part, (count, numbers) in parts.items():
        for index in range(count):
            turn, place = divmod(index, len(numbers))
            if turn >= FRAMES_OF_PART:
                raise ValueError(f"{part}: at most {FRAMES_OF_PART} frames a camera, got {count} pictures; add cameras")
            letter = LETTERS[(turn + place) % len(LETTERS)]
            tasks.append(_Task(part, numbers[place], letter, FIRST_FRAME[part] + turn))
    return tasks


def write_scenes(
    folder: Path | str,
    *,
    train: int = 400,
    val: int = 100,
    unlabelled: int = 0,
    seed: int = 0,
    size_px: int = 640,
    cameras: int = 8,
    split_by_camera: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Draw a data set: images/{train,val,unlabelled}, annotations/instances_*.json and recipe.json.

    A folder that was drawn by the same recipe is returned as it is; any other existing folder is refused. More than
    one worker means new processes, which need a script with `if __name__ == "__main__":`, or a notebook.
    """
    folder = Path(folder)
    recipe = {
        "drawing": DRAWING,
        "train": train,
        "val": val,
        "unlabelled": unlabelled,
        "seed": seed,
        "size_px": size_px,
        "cameras": cameras,
        "split_by_camera": split_by_camera,
    }
    if _is_drawn(folder, recipe):
        return folder
    tasks = plan(train, val, unlabelled, cameras, split_by_camera)
    with whole_folder(folder) as temporary:
        for part in FIRST_FRAME:
            (temporary / "images" / part).mkdir(parents=True)
        rows = list(_draw_all(temporary / "images", tasks, seed, size_px, workers, progress))
        for part in FIRST_FRAME:
            content = _coco([row for task, row in zip(tasks, rows, strict=True) if task.part == part], part, recipe)
            write_json(temporary / "annotations" / f"instances_{part}.json", content)
        write_json(temporary / "recipe.json", recipe, indent=2)
    return folder


def _is_drawn(folder: Path, recipe: dict[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "recipe.json").is_file():
        raise ValueError(f"{folder}: expected no folder or scenes with a recipe.json, got something else; name another")
    found = read_json(folder / "recipe.json")
    if found != recipe:
        differing = {key: (found.get(key), value) for key, value in recipe.items() if found.get(key) != value}
        raise ValueError(f"{folder}: scenes of another recipe, (there, asked) {differing}; delete it or name another")
    for part in FIRST_FRAME:
        count = sum(1 for _ in (folder / "images" / part).glob("*.png"))
        if count != recipe[part] or not (folder / "annotations" / f"instances_{part}.json").is_file():
            raise ValueError(f"{folder}: expected {recipe[part]} pictures and labels of {part}, got {count}; delete it")
    return True


Row = tuple[dict[str, Any], list[dict[str, Any]]]  # a COCO image and its annotations, ids of these still missing


def _draw_all(
    images: Path, tasks: Sequence[_Task], seed: int, size_px: int, workers: int, progress: Progress | None
) -> Iterator[Row]:
    """Draw camera by camera, since each has its backdrop, and give the rows in the order of the tasks."""
    groups: dict[int, list[_Task]] = {}
    for task in tasks:
        groups.setdefault(task.camera, []).append(task)
    rows: dict[_Task, Row] = {}
    with _mapping(workers) as mapping:
        for group in mapping(partial(_draw_group, images, seed, size_px), groups.values()):
            for task, row in group:
                rows[task] = row
                if progress is not None:
                    progress(len(rows), len(tasks))
    return (rows[task] for task in tasks)


def _draw_group(images: Path, seed: int, size_px: int, tasks: Sequence[_Task]) -> list[tuple[_Task, Row]]:
    return [(task, _draw_task(images, seed, size_px, task)) for task in tasks]


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Any]]:
    """`map`, in this process or in several new ones."""
    if workers <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads half-way
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield pool.map


def _draw_task(images: Path, seed: int, size_px: int, task: _Task) -> Row:
    scene = draw_scene(seed, size_px=size_px, camera=task.camera, letter=task.letter, frame=task.frame)
    path = images / task.part / scene.file_name
    if not cv2.imwrite(str(path), scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"{path}: expected to write a picture, could not; is the disk full?")
    return _row(scene)


def _row(scene: Scene) -> Row:
    """The COCO entries of a scene."""
    size_px = len(scene.image)
    image = {"id": scene.image_id, "file_name": scene.file_name, "width": size_px, "height": size_px}
    annotations = [
        {
            "image_id": scene.image_id,
            "category_id": int(label),
            "bbox": box.tolist(),
            "area": float(cv2.contourArea(polygon.astype(np.float32))),
            "segmentation": [polygon.reshape(-1).tolist()],
            "iscrowd": 0,
        }
        for label, box, polygon in zip(scene.labels, scene.boxes_xywh_px, scene.polygons_px, strict=True)
    ]
    return image, annotations


def _coco(rows: Sequence[Row], part: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """A COCO file; the unlabelled part has no annotations."""
    annotations = [one for _, group in rows for one in group] if part != "unlabelled" else []
    return {
        "info": {"description": "Synthetic fisheye road scenes", "part": part, **recipe},
        "images": [image for image, _ in rows],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CATEGORIES)],
    }
