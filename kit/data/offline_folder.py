"""The offline augmentation on the disk: in parallel, resumable, its cost told beforehand.

Images are made in chunks, each sealed by a part file with its labels. What is sealed is never made again, everything
appears under its name only when it is whole, and the annotation file comes last: neither the number of processes nor a
kill at any moment changes a byte of the result.
"""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any

import albumentations as A
import cv2
import numpy as np

from kit.data.coco import CocoFile, Record, Split, as_coco, find_split, write_coco
from kit.data.offline import Job, Loads, Task, loads, origin_of, picture_of_task, record_of, with_least_sides
from kit.files import link, read_json, write_bytes, write_json

MAKING = 1  # raised whenever the same settings make other pixels or labels, so that older folders are told apart
WORTH_S = 20.0  # work of less is done by one process: others take seconds to start
RESERVE_BYTES = 200 * 2**20  # left free on the disk
GIB = 2**30

Progress = Callable[[int, int], object]  # images written, images in all


def write_augmented(job: Job, folder: Path | str, processes: int = 2, progress: Progress | None = None) -> Split:
    """Makes folder/images/train and folder/annotations/instances_train.json, or goes on where it was cut off.

    A folder made by the same job is returned as it is; one made by another is made anew. More than one process, used
    where it is worth it, needs a script with `if __name__ == "__main__":`, or a notebook.
    """
    folder = Path(folder)
    if not is_finished(job, folder):
        begin(job, folder)
        cost = measured_cost(job, folder, samples=2)
        refuse_small_disk(cost, folder)
        processes = processes if cost.seconds > WORTH_S else 1
        missing = missing_chunks(job, folder)
        done = job.total - sum(len(job.chunks[number]) for number in missing)
        for count in chunks_made(job, folder, missing, processes):
            done += count
            if progress:
                progress(done, job.total)
        finish(job, folder)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    return find_split(folder, "train")


def chunks_made(job: Job, folder: Path, numbers: Sequence[int], processes: int) -> Iterator[int]:
    """Images in each chunk, as it is finished."""
    if processes <= 1 or len(numbers) <= 1:
        yield from map(partial(make_chunk, job, folder), numbers)
        return
    packed = pickle.dumps(job)
    context = multiprocessing.get_context("spawn")  # a fork would copy this process's threads half-way
    with ProcessPoolExecutor(min(processes, len(numbers)), context, initializer=begin_worker) as pool:
        futures = [pool.submit(make_packed_chunk, packed, folder, number) for number in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def make_packed_chunk(packed: bytes, folder: Path, number: int) -> int:
    return make_chunk(unpacked(packed), folder, number)


@lru_cache(maxsize=1)
def unpacked(packed: bytes) -> Job:
    """Once in each process: 100,000 labels take as long as a copy or two."""
    job: Job = pickle.loads(packed)
    return job


def begin_worker() -> None:
    """One thread each, and an end with the parent: killed, it cannot tell its workers to stop."""
    cv2.setNumThreads(0)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- the folder ---


def images_folder(folder: Path) -> Path:
    return folder / "images" / "train"


def annotations_file(folder: Path) -> Path:
    return folder / "annotations" / "instances_train.json"


def part_file(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:06d}.json"


def is_finished(job: Job, folder: Path) -> bool:
    return (
        (folder / "recipe.json").is_file()
        and read_json(folder / "recipe.json") == recipe_of(job)
        and annotations_file(folder).is_file()
        and all((images_folder(folder) / task.file_name).is_file() for chunk in job.chunks for task in chunk)
    )


def begin(job: Job, folder: Path) -> None:
    """Clears away what another job has left, or a kill half-way; refuses a data set that was not made here."""
    recipe = recipe_of(job)
    found = read_json(folder / "recipe.json") if (folder / "recipe.json").is_file() else None
    if found is None and ((folder / "images").exists() or (folder / "annotations").exists()):
        raise ValueError(
            f"{folder}: expected a folder of this augmentation, found another data set; name another folder"
        )
    if found != recipe:
        for name in ("annotations", "parts", "images"):
            shutil.rmtree(folder / name, ignore_errors=True)
        write_json(folder / "recipe.json", recipe, indent=1)
    for leftover in folder.glob("images/**/.*"):  # what `atomic` had begun when it was killed
        leftover.unlink()
    annotations_file(folder).unlink(missing_ok=True)


def recipe_of(job: Job) -> dict[str, Any]:
    """All that the result depends on."""
    versions = {"making": MAKING, "albumentations": A.__version__, "opencv": cv2.__version__, "numpy": np.__version__}
    recipe: dict[str, Any] = {"offline": asdict(job.offline), "source": digest(job.coco, job.images), **versions}
    if job.perspective is not None:
        recipe["perspective"] = {
            "source": digest(job.perspective.coco, job.perspective.images),
            "copies": job.perspective.copies,
            "size_hw": list(job.perspective.size_hw),
        }
    return dict(json.loads(json.dumps(recipe)))  # as it will be read again


def digest(coco: CocoFile, images: Path) -> str:
    """Changes with the labels and with the size of any image file."""
    found = hashlib.sha256(json.dumps([coco.category_ids, coco.names]).encode())
    for record in coco.records:
        size = (images / record.file_name).stat().st_size
        found.update(f"{record.image_id} {record.file_name} {record.size_hw} {size}".encode())
        for part in (record.boxes_xywh_px, record.labels, record.is_crowd, record.areas_px2):
            found.update(part.tobytes())
        for outline in record.outlines or []:
            for points in outline or []:
                found.update(points.tobytes())
    return found.hexdigest()


def missing_chunks(job: Job, folder: Path) -> list[int]:
    return [number for number in range(len(job.chunks)) if not part_file(folder, number).is_file()]


def finish(job: Job, folder: Path) -> None:
    """One annotation file out of the parts; annotation ids 1, 2, ..."""
    parts = [read_json(part_file(folder, number)) for number in range(len(job.chunks))]
    images = [image for part in parts for image in part["images"]]
    annotations = [each for part in parts for each in part["annotations"]]
    numbered = [each | {"id": number} for number, each in enumerate(annotations, 1)]
    categories = as_coco(replace(job.coco, records=[]))["categories"]
    write_coco(annotations_file(folder), images, numbered, categories, info={"recipe": recipe_of(job)})


# --- one chunk ---


def make_chunk(job: Job, folder: Path, number: int) -> int:
    """Writes the images of a chunk, then its part file -> images written."""
    load = loads(job)
    rows = [made(job, folder, task, load) for task in job.chunks[number]]
    contents = [as_coco(replace(job.coco, records=[record])) for record, _ in rows]
    images = [content["images"][0] | origin for content, (_, origin) in zip(contents, rows, strict=True)]
    annotations = [each for content in contents for each in content["annotations"]]
    write_json(part_file(folder, number), {"images": images, "annotations": annotations})
    return len(rows)


def made(job: Job, folder: Path, task: Task, load: Loads) -> tuple[Record, dict[str, int | str]]:
    """Writes one image -> its labels, and what its entry says of where it comes from."""
    path = images_folder(folder) / task.file_name
    if task.kind == "original":
        link(job.images / task.file_name, path)
        return with_least_sides(job.coco.records[task.index]), {}
    picture = picture_of_task(job, task, load)
    write_bytes(path, encoded(picture.image, path.suffix, job.offline.quality))
    return record_of(picture, task), origin_of(job, task)


def encoded(image: np.ndarray, ending: str, quality: int) -> bytes:
    """image: (H, W, C) uint8, RGB -> the bytes of a file."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[2]]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if ending == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, data = cv2.imencode(ending, np.ascontiguousarray(image[..., order]), options)
    return data.tobytes()


# --- what it costs ---


@dataclass(frozen=True)
class Cost:
    """What is still to be written, measured on a few images. seconds: of one process."""

    images: int
    bytes: float
    free_bytes: int
    seconds: float

    def text(self, processes: int = 1) -> str:
        return (
            f"{self.images:,} images to write: about {self.bytes / GIB:.2f} GiB of {self.free_bytes / GIB:.1f} GiB "
            f"free, about {self.seconds / 60 / max(processes, 1):.1f} minutes in {processes} processes"
        )


def measured_cost(job: Job, folder: Path | str, samples: int = 6) -> Cost:
    """Makes a few of the images, spread over the missing ones, in memory; nothing is written."""
    folder = Path(folder)
    tasks = (
        []
        if is_finished(job, folder)
        else [task for number in missing_chunks(job, folder) for task in job.chunks[number]]
    )
    linked = [job.images / task.file_name for task in tasks if task.kind == "original"]
    changed = [task for task in tasks if task.kind != "original"]
    spread = np.linspace(0, len(changed) - 1, min(samples, len(changed))).astype(int)
    load, bytes_each, seconds_each = loads(job), [0], [0.0]
    for task in [changed[place] for place in spread]:
        started = time.perf_counter()
        picture = picture_of_task(job, task, load)
        bytes_each.append(len(encoded(picture.image, PurePath(task.file_name).suffix, job.offline.quality)))
        seconds_each.append(time.perf_counter() - started)
    home = nearest_existing(folder)
    is_copied = bool(linked) and home.stat().st_dev != linked[0].stat().st_dev  # no hard link from disk to disk
    return Cost(
        images=len(tasks),
        bytes=len(changed) * float(np.mean(bytes_each[1:] or 0))
        + is_copied * sum(path.stat().st_size for path in linked),
        free_bytes=shutil.disk_usage(home).free,
        seconds=len(changed) * float(np.median(seconds_each[1:] or 0)),
    )


def nearest_existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(each for each in (folder, *folder.parents) if each.exists())


def refuse_small_disk(cost: Cost, folder: Path) -> None:
    needed = 1.1 * cost.bytes + RESERVE_BYTES
    if needed > cost.free_bytes:
        raise ValueError(
            f"{folder}: expected {needed / GIB:.2f} GiB of free disk for {cost.images:,} images, "
            f"got {cost.free_bytes / GIB:.2f} GiB; make room, or take fewer copies"
        )
