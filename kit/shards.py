"""Predictions for any number of images, in shards: by any number of processes or hosts, and resumable.

    python -m torch.distributed.run --standalone --nproc-per-node 8 -m kit.shards FOLDER [FOLDER ...]

A folder holds manifest.json, with everything its predictions depend on, and a file for each shard of the image list.
Which images are in a shard depends on the list alone, never on who is at work. A shard is written in one go, and one
that is there is never done again: whoever is killed, whoever comes next goes on. Other settings have another folder.
"""

import argparse
import errno
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kit.data.coco import CocoFile, parse_coco
from kit.dfine.weights import load_detector
from kit.files import read_json, sha256, write_json
from kit.launch import is_orphan, launch
from kit.params import ROOT
from kit.predict import Progress
from kit.tta import InputView, Results, input_views, predict_with_views

PREDICTING = 1  # raised whenever the same settings would predict something else, so that older shards are told apart
MANIFEST, CLAIMS = "manifest.json", "claims"
TELL_EVERY_S = 10.0

Images = Sequence[Mapping[str, Any]]  # COCO: id, file_name (from the repository root), height, width, and bytes
Predict = Callable[[Images, Progress], dict[str, Results]]  # of one shard: by view, as predict_with_views


@dataclass(frozen=True)
class Settings:
    """What one model is asked; the fingerprint holds all of it."""

    weights_sha256: str
    size_hw: tuple[int, int]
    category_ids: Sequence[int]  # label k is written as category_ids[k]
    flip: bool = False
    scales: Sequence[float] = (1.0,)  # of size_hw
    tiles: int = 0
    top_k: int = 300
    min_score: float = 0.01
    shard_images: int = 64

    @property
    def views(self) -> dict[str, InputView]:
        return input_views(self.size_hw, flip=self.flip, scales=self.scales, tiles=self.tiles)


@dataclass(frozen=True)
class Plan:
    """The content of a manifest, and the folder it lies in."""

    folder: Path
    weights: str  # path from the repository root
    settings: Settings
    images: list[dict[str, Any]]

    @property
    def shards(self) -> int:
        return -(-len(self.images) // self.settings.shard_images)

    def images_of(self, shard: int) -> list[dict[str, Any]]:
        size = self.settings.shard_images
        return self.images[shard * size : (shard + 1) * size]

    def file_of(self, shard: int) -> Path:
        return self.folder / f"shard_{shard:06}.json.gz"

    def missing(self) -> list[int]:
        there = set(os.listdir(self.folder))
        return [shard for shard in range(self.shards) if self.file_of(shard).name not in there]

    @property
    def images_done(self) -> int:
        return len(self.images) - sum(len(self.images_of(shard)) for shard in self.missing())

    def read(self, shard: int) -> dict[str, Results]:
        """By view: the COCO results of one shard."""
        if not self.file_of(shard).is_file():
            missing = self.missing()
            raise ValueError(
                f"{self.folder}: expected {self.shards} shards, {len(missing)} are missing, such as {missing[:3]}; "
                "predict again, what is there stays"
            )
        views: dict[str, Results] = read_json(self.file_of(shard))["views"]
        return views


def make_plan(folder: Path | str, weights: Path | str, settings: Settings, images: Images) -> Plan:
    """Writes the manifest into folder/<fingerprint>, or finds it there."""
    wanted = ("id", "file_name", "height", "width", "bytes")
    listed = [{name: image[name] for name in wanted} for image in images]
    if not listed:
        raise ValueError("expected at least one image to predict on, got none; were all of them left out?")
    if len({image["id"] for image in listed}) < len(listed):
        raise ValueError(f"expected an id of its own for each of {len(listed)} images, some have the same; renumber")
    content = {"predicting": PREDICTING, "settings": asdict(settings), "images": listed}
    own = Path(folder) / fingerprint(content)[:12]
    path = Path(weights)
    shown = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    if not (own / MANIFEST).is_file() or read_json(own / MANIFEST)["weights"] != shown:
        write_json(own / MANIFEST, content | {"weights": shown})
    return read_plan(own)


def read_plan(folder: Path | str) -> Plan:
    """The plan of a folder that make_plan has made; refused where it has been changed since."""
    folder = Path(folder)
    content = read_json(folder / MANIFEST)
    if content["predicting"] != PREDICTING or fingerprint(content)[:12] != folder.name:
        raise ValueError(f"{folder / MANIFEST}: expected the fingerprint {folder.name}, the content differs; delete it")
    settings = content["settings"]
    settings["size_hw"] = tuple(settings["size_hw"])
    return Plan(folder, content["weights"], Settings(**settings), content["images"])


def fingerprint(content: Mapping[str, Any]) -> str:
    """Where the weights lie does not matter, what they are does."""
    parts = {name: content[name] for name in ("predicting", "settings", "images")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- the work ---


def work(plan: Plan, predict: Predict, rank: int = 0, world: int = 1, progress: Progress | None = None) -> int:
    """Does the shards that are neither there nor in other hands, one's own turn first -> how many it did.

    predict: may be asked for any shard. progress: images of the whole list that are done, of how many.
    """
    done = 0
    with claims(plan.folder / CLAIMS) as claim:
        for shard in sorted(range(plan.shards), key=lambda shard: ((shard - rank) % world, shard)):
            if plan.file_of(shard).is_file() or not claim(shard) or plan.file_of(shard).is_file():
                continue
            for remains in plan.folder.glob(f".{plan.file_of(shard).stem}.*"):  # of someone killed while writing
                remains.unlink(missing_ok=True)
            before = plan.images_done

            def tell(batches: int, of: int, before: int = before, count: int = len(plan.images_of(shard))) -> None:
                if progress:
                    progress(before + count * batches // of, len(plan.images))

            write_json(plan.file_of(shard), {"views": predict(plan.images_of(shard), tell)})
            done += 1
    return done


@contextmanager
def claims(path: Path) -> Iterator[Callable[[int], bool]]:
    """A callable that takes a shard for this process, or finds it taken: byte n of one file is locked for shard n.

    The system gives locks back when their holder dies. Where a disk shared by hosts has none, two may do the same
    shard: they write the same file in one go, so time is lost, or one of them stops and has to be started again.
    """
    with path.open("ab") as file:

        def claim(shard: int) -> bool:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOLCK, errno.ENOTSUP):
                    raise
                return error.errno in (errno.ENOLCK, errno.ENOTSUP)  # no locks at all on this disk: go on without
            return True

        yield claim


def predictor(plan: Plan, batch_size: int, workers: int, device: torch.device) -> Predict:
    """The detector of a plan as a function of the images of a shard."""
    weights = ROOT / plan.weights
    if sha256(weights) != plan.settings.weights_sha256:
        raise ValueError(
            f"{weights}: expected the weights that {plan.folder} was planned with, found others; plan anew"
        )
    detector, _ = load_detector(weights)
    detector.to(device)
    settings = plan.settings
    how: dict[str, Any] = {"top_k": settings.top_k, "min_score": settings.min_score}
    how |= {"batch_size": batch_size, "workers": workers}

    def predict(images: Images, progress: Progress) -> dict[str, Results]:
        coco = as_file(images, settings.category_ids, plan.folder / MANIFEST)
        return predict_with_views(detector, coco, ROOT, settings.views, progress=progress, **how)

    return predict


def as_file(images: Images, category_ids: Sequence[int], path: Path) -> CocoFile:
    content = {"images": list(images), "categories": [{"id": each} for each in category_ids]}
    return parse_coco(content, path)


@contextmanager
def one_thread() -> Iterator[None]:
    """The last bits of a result depend on the number of threads; they must not on the number of processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def do_plans(
    plans: Sequence[Plan],
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> None:
    """All shards of all plans that are missing, in this process. progress: images, over all plans."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    total = sum(len(plan.images) for plan in plans)
    with one_thread():
        for plan in plans:
            if not plan.missing():
                continue
            others = sum(each.images_done for each in plans if each is not plan)

            def tell(done: int, _of: int, others: int = others) -> None:
                if progress:
                    progress(others + done, total)

            work(plan, predictor(plan, batch_size, workers, device), rank, world, tell)


def predict_all(
    plans: Sequence[Plan],
    *,
    processes: int = 1,
    batch_size: int = 8,
    workers: int = 0,
    progress: Progress | None = None,
) -> None:
    """Whatever is missing, in this process or in several new ones; then nothing is."""
    todo = [plan for plan in plans if plan.missing()]
    if todo and processes == 1:
        do_plans(todo, batch_size, workers, progress=progress)
    elif todo:
        total = sum(len(plan.images) for plan in todo)

        def say(_line: str) -> None:
            if progress:
                progress(sum(plan.images_done for plan in todo), total)

        launch("kit.shards", command_arguments(todo, batch_size, workers), processes, say)
    for plan in plans:
        for shard in plan.missing()[:1]:
            plan.read(shard)  # says what is missing


def command_arguments(plans: Sequence[Plan], batch_size: int, workers: int) -> list[str]:
    """For `python -m kit.shards`, in the root of the repository."""
    folders = [each.folder.relative_to(ROOT) if each.folder.is_relative_to(ROOT) else each.folder for each in plans]
    return [*map(str, folders), "--batch", str(batch_size), "--loaders", str(workers)]


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """One of the processes that torchrun starts; without it, the only one."""
    parser = argparse.ArgumentParser(prog="python -m kit.shards", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="with a manifest.json each")
    parser.add_argument("--batch", type=int, default=8, help="images at a time")
    parser.add_argument("--loaders", type=int, default=0, help="processes that read images, for each")
    options = parser.parse_args(arguments)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    started, told, parent = time.monotonic(), -TELL_EVERY_S, os.getppid()

    def say(text: str) -> None:
        sys.stdout.write(f"process {rank + 1} of {world}: {text}\n")  # in one piece, as kit.launch asks for
        sys.stdout.flush()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if is_orphan() or os.getppid() != parent:
            sys.exit("the process that started this one is gone; what is done stays")
        seconds = time.monotonic() - started
        if done == total or seconds - told >= TELL_EVERY_S:
            told = seconds
            say(f"{done} of {total} images are done, {seconds:.0f} s")

    do_plans([read_plan(folder) for folder in options.folders], options.batch, options.loaders, rank, world,
             local_device(), tell)  # fmt: skip
    say("nothing left to do")
    return 0


def local_device() -> torch.device:
    """The processes of one host share its GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


if __name__ == "__main__":
    sys.exit(main())
