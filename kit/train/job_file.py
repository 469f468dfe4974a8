"""The file of a job: what each process of a training has to know, in plain JSON; labels and start weights beside it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.augment import Policy, Recipe
from kit.data.cache import PixelCache, open_cache
from kit.data.coco import CocoFile, coco_of, columns_of, read_coco, write_coco_file
from kit.data.colours import Colours
from kit.data.dataset import CocoDataset
from kit.dfine.detector import Detector, Size
from kit.dfine.weights import load_weights, save_weights
from kit.files import read_json, write_json
from kit.launch import LAUNCHER, is_orphan
from kit.optimisation import Plan
from kit.optimisation import Recipe as Rates
from kit.params import ROOT
from kit.train.ranks import frozen_parts, refreeze

JOB, INPUTS = "job.json", "job"  # in the folder of the run: the file, and the folder of what it names


@dataclass(frozen=True)
class Part:
    """Images with labels. rows: of the file, which are trained on and how often; None: each once.

    Paths are from the root of the repository, or absolute.
    """

    annotations: str
    images: str
    rows: list[int] | None = None

    def read(self) -> CocoFile:
        coco = read_coco(ROOT / self.annotations)
        if self.rows is None:
            return coco
        return coco_of(coco.path, columns_of(coco).take(np.array(self.rows)), coco.category_ids, coco.names)


@dataclass(frozen=True)
class Job:
    """All that a process has to know. cache: kind, bytes, folder; frozen: parts of the detector by name, or None."""

    out: str
    train: Part
    val: Part | None
    model: Size
    classes: int
    channels: int
    weights: str
    frozen: dict[str, list[str]]
    policy: Policy
    seed: int
    cache: dict[str, Any] | None
    plan: Plan

    def detector(self) -> Detector:
        detector = Detector(self.model, self.classes, self.channels)
        load_weights(detector, ROOT / self.weights)
        refreeze(detector, self.frozen)
        return detector

    def train_set(self) -> CocoDataset:
        coco = self.train.read()
        return CocoDataset(
            coco,
            ROOT / self.train.images,
            self.policy,
            self.seed,
            self.channels,
            opened(self.cache, coco, self.channels),
        )

    def val_set(self) -> CocoDataset | None:
        if self.val is None:
            return None
        return CocoDataset(self.val.read(), ROOT / self.val.images, self.policy, self.seed, self.channels)


def write_job(out: Path, detector: Detector, train_set: CocoDataset, val_set: CocoDataset | None, plan: Plan) -> Path:
    """out/job.json; labels and start weights lie in out/job."""
    for recipe in (train_set.policy.strong, train_set.policy.light):
        if recipe.distort is not None and not isinstance(recipe.distort, Colours):
            raise ValueError(
                f"processes: expected kit.data.colours.Colours as the colours of the augmentation, got "
                f"{type(recipe.distort).__name__}, which no file can tell; take Colours, or one process"
            )
    folder = out / INPUTS
    job = Job(
        from_root(out),
        write_part(train_set, folder / "train.json"),
        write_part(val_set, folder / "val.json") if val_set else None,
        detector.size,
        detector.num_classes,
        detector.channels,
        from_root(save_weights(detector, folder / "start.pt")),
        frozen_parts(detector),
        train_set.policy,
        train_set.seed,
        told(train_set.cache),
        plan,
    )
    return write_json(out / JOB, asdict(job), indent=1)


def write_part(dataset: CocoDataset, path: Path) -> Part:
    """The labels as they are in memory: without what was left out, each image once in order of its id."""
    ids = columns_of(dataset.coco).image_ids
    unique, first, rows = np.unique(ids, return_index=True, return_inverse=True)
    plain = len(unique) == len(ids) and bool((first[:-1] < first[1:]).all())
    coco = dataset.coco
    once = coco if plain else coco_of(coco.path, columns_of(coco).take(first), coco.category_ids, coco.names)
    write_coco_file(path, once)
    return Part(from_root(path), from_root(dataset.images), None if plain else rows.tolist())


def read_job(path: Path | str) -> Job:
    """ValueError where a field is missing, unknown, or of another form."""
    values = read_json(Path(path))
    try:
        plan = tupled(values.pop("plan"))
        policy = values.pop("policy")
        return Job(
            train=Part(**values.pop("train")),
            val=part_or_none(values.pop("val")),
            model=Size(**tupled(values.pop("model"))),
            policy=Policy(**policy | {name: recipe_of(policy[name]) for name in ("strong", "light")}),
            plan=Plan(**plan | {"recipe": Rates(**plan["recipe"])}),
            **values,
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a job as fit_in_processes writes it, found another ({error}); run the notebook again"
        ) from error


def part_or_none(values: dict[str, Any] | None) -> Part | None:
    return Part(**values) if values else None


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    colours = values["distort"]
    return Recipe(**tupled(values) | {"distort": Colours(**tupled(colours)) if colours else None})


def tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, and frozen dataclasses have no lists."""

    def of(value: Any) -> Any:
        return tuple(map(of, value)) if isinstance(value, list) else value

    return {name: of(value) for name, value in values.items()}


def from_root(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def told(cache: PixelCache | None) -> dict[str, Any] | None:
    if cache is None:
        return None
    return {"path": str(cache.path), "bytes": cache.most_bytes, "process": os.getpid()}


def opened(cache: dict[str, Any] | None, coco: CocoFile, channels: int) -> PixelCache | None:
    """The memory of the notebook that started these processes, a file on the disk, or a share of memory of its own."""
    if cache is None:
        return None
    path, most_bytes = Path(cache["path"]), cache["bytes"]
    if not path.is_relative_to("/proc"):
        return open_cache("disk", coco, channels, most_bytes, path.parent)
    if os.environ.get(LAUNCHER) == str(cache["process"]) and not is_orphan():
        return PixelCache(path, [record.size_hw for record in coco.records], channels, most_bytes)
    return open_cache("ram", coco, channels, most_bytes // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
