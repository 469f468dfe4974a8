"""Every way in which kit reads a file of a stranger, as a function of the folder it lies in and of one to write to.

Each gives what it has read as plain values. Where these are a dict by image, damage to one entry may change one or two
of them and no more. A report that finds something wrong raises Told; a command that ends with 2 raises Refused.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kit.competitions.coco import COCO
from kit.competitions.kaggle_csv import KAGGLE_CSV
from kit.data import check, convert, intake, masks, merge, split
from kit.data.category_table import read_category_table
from kit.data.coco import read_coco
from kit.data.image_files import read_state
from kit.data.mask_boxes import disagreements, read_content
from kit.data.near_duplicates import hash_file
from kit.data.partition import contents_of, partition_of_list
from kit.data.pixels import read_image
from kit.dfine.weights import load_detector, read_weights
from kit.media import frames
from kit.media.sources import frame_count
from kit.metrics.tables import read_tables
from kit.params import NOTEBOOKS
from kit.submission import rules_of, validate_file
from kit.train import read_state as read_train_state
from tests.fuzzing.jail import Refused, Told

Reader = Callable[[Path, Path], Any]
IMAGES = [{"id": row + 1, "file_name": f"train_{row}.png", "width": 64, "height": 48} for row in range(4)]
RULES = rules_of(IMAGES, [3, 7])
KEYS = {"id", "file_name", "width", "height", "bbox", "category_id", "iscrowd", "area", "segmentation"}


# --- commands ---


def command(main: Callable[[Sequence[str] | None], int], *arguments: str) -> Reader:
    """IN and OUT among the arguments stand for the two folders."""

    def read(folder: Path, out: Path) -> Any:
        places = {"IN": str(folder), "OUT": str(out)}
        words = [word.replace("IN", places["IN"]).replace("OUT", places["OUT"]) for word in arguments]
        printed, errors = terminal(), terminal()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            status = main(words)
        if status == 2:
            raise Refused(shown(errors).partition("error: ")[2].removesuffix("\n"))
        if status == 1:
            raise Told(without_bars(shown(printed)))
        return [without_bars(shown(printed)), contents(out)]

    return read


def terminal() -> io.TextIOWrapper:
    """As strict as a true one: what is no Unicode cannot be printed."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def shown(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


def without_bars(text: str) -> str:
    """How far a loop is differs with the time it takes; a bar below another one begins with empty lines."""
    return "\n".join(line for line in text.split("\n") if line and "\r" not in line)


def contents(folder: Path) -> dict[str, str]:
    """Each file below a folder with a digest; JSON by what it says."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder] if folder.is_file() else []:
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".json" or folder.is_file():
                data = json.dumps(without_sums(json.loads(data)), sort_keys=True).encode()
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def without_sums(value: Any) -> Any:
    """The checksum of a source differs by its white space."""
    if isinstance(value, dict):
        return {key: without_sums(each) for key, each in value.items() if "sha256" not in key}
    return [without_sums(each) for each in value] if isinstance(value, list) else value


TRAIN = "IN/annotations/instances_train.json"
COMMANDS: dict[str, Reader] = {
    "check": command(check.main, "IN"),
    "masks check": command(masks.main, "check", "IN"),
    "masks to polygons": command(masks.main, "convert", TRAIN, "OUT", "--to", "polygons"),
    "masks to runs": command(masks.main, "convert", TRAIN, "OUT", "--to", "rle"),
    "masks to boxes": command(masks.main, "boxes", TRAIN, "OUT"),
    "masks extract": command(masks.main, "extract", "IN", "OUT", "--margin", "2"),
    "split": command(split.main, TRAIN, "OUT", "--parts", "a=0.5", "b=0.5"),
    "split list": command(split.main, TRAIN, "OUT", "--list", "IN/parts.csv"),
    "merge": command(merge.main, "OUT", "IN", "--into", "all"),
    "to coco": command(convert.main, "IN", "OUT", "--to", "coco"),
    "to yolo": command(convert.main, "IN", "OUT", "--to", "yolo"),
    "to voc": command(convert.main, "IN", "OUT", "--to", "voc"),
    "to csv": command(convert.main, "IN", "OUT", "--to", "csv"),
    "objects365": command(convert.main, "IN", "OUT", "--to", "coco", "--from", "objects365", "--longest-px", "50"),
    "bare folder": command(convert.main, "IN/images", "OUT", "--to", "coco", "--from", "folder"),
    "intake": command(intake.main, "IN", "OUT", "--most-pixels", "4000000"),
    "intake, stretched": command(intake.main, "IN", "OUT", "--range", "image", "--most-pixels", "4000000"),
}


# --- labels ---


def coco(folder: Path, out: Path) -> dict[str, Any]:
    found = read_coco(next((folder / "annotations").glob("instances_train.json*")))
    names = {str(key): name for key, name in zip(found.category_ids, found.names, strict=True)}
    return {"names": names} | {str(record.image_id): plain(vars(record)) for record in found.records}


def raw(kind: convert.Source) -> Reader:
    """By image: all that kit knows of it; what else the file holds is left out here."""

    def read(folder: Path, out: Path) -> dict[str, Any]:
        dataset = convert.read_dataset(folder, kind)
        answer: dict[str, Any] = {"names": {str(each["id"]): each.get("name") for each in dataset.categories}}
        for part in dataset.parts:
            own: dict[int, list[Any]] = {image["id"]: [known(image)] for image in part.images}
            for each in part.annotations:
                own.setdefault(each["image_id"], []).append(
                    {key: each[key] for key in sorted(KEYS & each.keys() - {"id"})}
                )
            answer |= {f"{part.name}/{own[key][0]['file_name']}": plain(own[key]) for key in own if key in part.files}
        if dataset.problems:
            raise Told("\n".join(dataset.problems))
        return answer

    return read


def known(image: dict[str, Any]) -> dict[str, Any]:
    return {key: image.get(key) for key in ("file_name", "width", "height")}


def plain(value: Any) -> Any:
    """As JSON has it; arrays by their numbers, pictures by their digest."""
    if isinstance(value, np.ndarray):
        is_long = value.size > 10_000 or value.dtype == np.uint8
        return [value.shape, hashlib.sha256(value.tobytes()).hexdigest()] if is_long else value.tolist()
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def mask_disagreements(folder: Path, out: Path) -> Any:
    content = read_content(folder / "annotations" / "instances_train.json")
    return plain([asdict(each) for each in disagreements(content)])


def category_table(name: str, folder: Path, out: Path) -> Any:
    table = read_category_table(folder / name)
    return {f"{data_set}/{category}": target for (data_set, category), target in table.targets.items()}


def part_list(folder: Path, out: Path) -> Any:
    content = read_content(folder / "annotations" / "instances_train.json")
    partition = partition_of_list(contents_of(content), folder / "parts.csv")
    return [list(partition.names), partition.part.tolist()]


# --- results ---


def validation(name: str, folder: Path, out: Path) -> Any:
    """Then as the competition reads it: what is valid must be readable."""
    reasons = validate_file(folder / name, RULES)
    if reasons:
        raise Told("\n".join(reasons))
    return plain(COCO.read(folder / name, IMAGES))


def kaggle(folder: Path, out: Path) -> Any:
    return KAGGLE_CSV.read(folder / "results.csv", IMAGES)


def truth(folder: Path, out: Path) -> Any:
    return plain(vars(read_tables([], folder / "annotations" / "instances_train.json").truths))


def tables(folder: Path, out: Path) -> Any:
    found = read_tables(folder / "results.json", folder / "annotations" / "instances_train.json")
    return plain(vars(found.detections))


# --- pictures ---


def media(pattern: str, folder: Path, out: Path) -> Any:
    """All frames of a file; one that cannot be loaded is told in its place."""
    path = next(iter(sorted(folder.glob(pattern))))
    told, pictures = [], []
    for frame in frames(path):
        try:
            pictures.append(plain(frame.load(3)))
        except ValueError as error:
            told.append(str(error))
    if told:
        raise Told("\n".join(told))
    return [pictures, frame_count(path)]


def first_image(folder: Path) -> Path:
    return next(iter(sorted((folder / "images" / "train").glob("train_0.*"))))


def trained_on(folder: Path, out: Path) -> Any:
    """As the training reads a picture, with each number of channels."""
    return [plain(read_image(first_image(folder), channels)) for channels in (1, 3, 4)]


def state(folder: Path, out: Path) -> Any:
    found = read_state(first_image(folder))
    if found.fault:
        raise Told(f"{first_image(folder)}: {found.fault} {found.detail}")
    return asdict(found)


def near_duplicates(folder: Path, out: Path) -> Any:
    return plain(hash_file(first_image(folder)))


# --- weights and parameters ---


def weights(name: str, folder: Path, out: Path) -> Any:
    tensors, about = read_weights(folder / name)
    return [{key: plain(value.float().numpy()) for key, value in tensors.items()}, plain(about)]


def whole_detector(folder: Path, out: Path) -> Any:
    model, about = load_detector(folder / "detector.safetensors")
    return [float(sum(each.double().abs().sum() for each in model.parameters())), plain(about)]


def training_state(folder: Path, out: Path) -> Any:
    return plain(read_train_state(folder / "weights.pt", "cpu"))


def parameters(folder: Path, out: Path) -> Any:
    """Of every notebook; in a report on parameters each finding has a line of its own."""
    try:
        return {name: plain(vars(each.from_yaml(folder / "run.yaml"))) for name, each in NOTEBOOKS.items()}
    except (ValueError, TypeError) as error:
        if type(error) not in (ValueError, TypeError):
            raise
        if "run" not in str(error):
            raise AssertionError(f"the file is not named: {error}") from error
        raise Told(str(error)) from error


cv2.setNumThreads(0)  # no threads that a fork would leave behind
