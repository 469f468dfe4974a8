"""What a run leaves behind: one writer a kind of file. None of them grows with the number of pictures."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from kit.competitions import Competition
from kit.competitions.track4 import TRACK4, track4_image_id
from kit.data.coco import CocoFile
from kit.deploy.about import About
from kit.files import atomic, read_json, write_bytes, write_text
from kit.media.frame import Unreadable
from kit.media.videos import VideoWriter, video_about
from kit.predict import coco_results
from kit.predictor.drawing import crop, draw
from kit.predictor.prediction import Prediction
from kit.submission import tidy

JPEG_QUALITY = 92
CSV_COLUMNS = (
    "name",
    "index",
    "time_s",
    "image_id",
    "class",
    "category_id",
    "score",
    "x1_px",
    "y1_px",
    "x2_px",
    "y2_px",
)


@dataclass(frozen=True)
class Found:
    """A prediction with what the files call it."""

    prediction: Prediction
    image_id: int
    stem: str  # path of its own files below each folder, without ending

    @property
    def image(self) -> np.ndarray:
        assert self.prediction.image is not None  # the faulty are not written
        return self.prediction.image


Writer = Callable[[Found], None]


# --- names and numbers ---


class Stems:
    """A name of its own for the files of each picture: that of its file, and the number of the frame or page."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.last = ("", -1, "")  # name, index and base of the last one

    def __call__(self, prediction: Prediction) -> str:
        name, index, base = self.last
        if prediction.name != name or prediction.index <= index:
            base = self.new_base(prediction.name)
        self.last = (prediction.name, prediction.index, base)
        endings = {"image": "", "video": f"_{prediction.index:06}", "pdf": f"_page_{prediction.index + 1:03}"}
        return base + endings[prediction.kind]

    def new_base(self, name: str) -> str:
        """Without the ending, unless another file has that name; then with a number."""
        plain = Path(name).with_suffix("").as_posix()
        whole = name.replace(".", "_")
        wanted = next(
            each
            for each in (plain, whole, *(f"{whole}_{number}" for number in range(2, len(self.taken) + 3)))
            if each not in self.taken
        )
        self.taken.add(wanted)
        return wanted


def running_number() -> Callable[[Prediction], int]:
    """1, 2, 3, ... in the order of the pictures."""
    count = 0

    def number(prediction: Prediction) -> int:
        nonlocal count
        count += 1
        return count

    return number


def track4_number(prediction: Prediction) -> int:
    try:
        return track4_image_id(prediction.name)
    except ValueError as error:
        raise Unreadable(f"{prediction.name}: {error}") from error


def listed_number(coco: CocoFile) -> Callable[[Prediction], int]:
    """The image id that an annotation file gives: by the path in it, or by the file name where that is unique."""
    by_path = {record.file_name: record for record in coco.records}
    by_name: dict[str, Any] = {}
    for record in coco.records:
        name = Path(record.file_name).name
        by_name[name] = None if name in by_name else record

    def number(prediction: Prediction) -> int:
        record = by_path.get(prediction.name) or by_name.get(Path(prediction.name).name)
        if record is None or prediction.kind != "image":
            raise Unreadable(f"{prediction.name}: expected one of the images of {coco.path}, it is not listed there")
        if record.size_hw not in ((0, 0), prediction.size_hw):
            raise Unreadable(
                f"{prediction.name}: expected height, width {record.size_hw} as in {coco.path}, "
                f"got {prediction.size_hw}"
            )
        return int(record.image_id)

    return number


def numbering(coco: CocoFile | None, competition: Competition | None) -> Callable[[Prediction], int]:
    """Prediction -> image id; Unreadable where it has none."""
    if coco is not None:
        return listed_number(coco)
    return track4_number if competition is TRACK4 else running_number()


# --- files that hold all pictures ---


@contextmanager
def json_list(file: IO[str], head: str = "[", tail: str = "]") -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A JSON list written entry by entry; readable for every reader of JSON."""
    separator = "\n"
    file.write(head)

    def write(entry: Mapping[str, Any]) -> None:
        nonlocal separator
        file.write(separator + json.dumps(entry, allow_nan=False))
        separator = ",\n"

    yield write
    file.write("\n" + tail + "\n")


@contextmanager
def coco_file(path: Path, about: About) -> Iterator[Writer]:
    """COCO results."""
    with atomic(path) as temporary, temporary.open("w") as file, json_list(file) as write:

        def add(found: Found) -> None:
            for entry in entries_of(found, about.category_ids):
                write(entry)

        yield add


def entries_of(found: Found, category_ids: list[int]) -> list[dict[str, Any]]:
    return coco_results(found.prediction.detections, found.image_id, found.prediction.size_hw, category_ids, 0.0)


@contextmanager
def images_file(path: Path, about: About) -> Iterator[Writer]:
    """A COCO file without annotations: which image ids are which pictures, and what the categories are called."""
    categories = [{"id": each, "name": name} for each, name in zip(about.category_ids, about.names, strict=True)]
    tail = f'], "annotations": [], "categories": {json.dumps(categories)}}}'
    with atomic(path) as temporary, temporary.open("w") as file, json_list(file, '{"images": [', tail) as write:

        def add(found: Found) -> None:
            prediction = found.prediction
            height, width = prediction.size_hw
            entry = {"id": found.image_id, "file_name": prediction.name, "height": height, "width": width}
            if prediction.kind != "image":
                entry |= {"index": prediction.index}
            if prediction.time_s is not None:
                entry |= {"time_s": prediction.time_s}
            write(entry)

        yield add


@contextmanager
def csv_file(path: Path, about: About) -> Iterator[Writer]:
    """A line for each detection, corners in pixels of the picture."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(CSV_COLUMNS)

        def add(found: Found) -> None:
            prediction, boxes = found.prediction, found.prediction.detections
            time_s = "" if prediction.time_s is None else f"{prediction.time_s:.3f}"
            for box, score, label in zip(
                boxes.boxes_xyxy_px.tolist(), boxes.scores.tolist(), boxes.labels.tolist(), strict=True
            ):
                start = (prediction.name, prediction.index, time_s, found.image_id)
                lines.writerow((*start, about.names[label], about.category_ids[label], score, *box))

        yield add


def write_competition_file(
    out: Path, competition: Competition, category_ids: Sequence[int], coco: CocoFile | None
) -> Path:
    """The competition's file from the results that lie in out; all its images and entries are in memory at once."""
    images = read_json(out / "images.json")["images"] if coco is None else images_of(coco)
    rules = competition.rules(images, category_ids, allow_missing_images=True)
    path = out / f"submission{competition.file_ending}"
    return competition.write(path, tidy(read_json(out / "results.json"), rules), images, rules)


def images_of(coco: CocoFile) -> list[dict[str, Any]]:
    return [
        {"id": each.image_id, "file_name": each.file_name, "height": each.size_hw[0], "width": each.size_hw[1]}
        for each in coco.records
    ]


# --- files of their own for each picture ---


def write_yolo(folder: Path, found: Found) -> None:
    """A line for each detection: label, centre x, centre y, width, height in [0, 1] of the picture, score."""
    height, width = found.prediction.size_hw
    detections = found.prediction.detections
    lines = io.StringIO()
    for box, score, label in zip(
        detections.boxes_xyxy_px.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
        lines.write(f"{label} {' '.join(f'{number:.6f}' for number in numbers)}\n")
    write_text(folder / f"{found.stem}.txt", lines.getvalue())


def write_crops(folder: Path, found: Found, names: Sequence[str], padding: float) -> None:
    """A picture of each detection, in a folder for each class; numbered with the best first."""
    detections = found.prediction.detections
    for number, (box, label) in enumerate(zip(detections.boxes_xyxy_px, detections.labels.tolist(), strict=True)):
        name = names[label].replace("/", "_")
        write_jpeg(folder / name / f"{found.stem}_{number:03}.jpg", crop(found.image, box.numpy(), padding))


def write_drawn(folder: Path, found: Found, names: list[str]) -> None:
    write_jpeg(folder / f"{found.stem}.jpg", draw(found.image, found.prediction.detections, names))


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """image: (H, W, C) uint8; of four channels the fourth is not shown."""
    bgr = image if image.shape[2] == 1 else np.ascontiguousarray(image[..., 2::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_bytes(path, data.tobytes())


class DrawnVideos:
    """A drawn video for each video; its frames have to come one after the other. A context manager."""

    def __init__(self, folder: Path, names: list[str], every: int):
        self.folder, self.names, self.every = folder, names, every
        self.base = ""
        self.writer: VideoWriter | None = None

    def __call__(self, found: Found) -> None:
        base = found.stem.rpartition("_")[0]
        if base != self.base:
            self.finish()
            assert found.prediction.path is not None  # a video is a file
            rate_fps = video_about(found.prediction.path).rate_fps / self.every
            self.writer, self.base = VideoWriter(self.folder / f"{base}.mp4", rate_fps).__enter__(), base
        assert self.writer is not None
        self.writer.write(draw(found.image, found.prediction.detections, self.names))

    def finish(self, *error: Any) -> None:
        writer, self.writer, self.base = self.writer, None, ""
        if writer is not None:
            writer.__exit__(*(error or (None, None, None)))

    def __enter__(self) -> "DrawnVideos":
        return self

    def __exit__(self, *error: Any) -> None:
        self.finish(*error)
