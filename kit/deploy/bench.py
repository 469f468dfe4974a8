"""How quick, how large and how right detectors are: every runtime side by side, in one run, turn by turn.

python -m kit.deploy.bench best.pt model.onnx --data data/mine --out runs/bench
A checkpoint is exported into the cache for the runtimes that run exports. See bench_table.Row for what is measured.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np

from kit.data.coco import Split, as_coco, find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy.about import About
from kit.deploy.bench_table import NAN, Bench, Row, with_knees, write_bench
from kit.deploy.choice import Say, cached_export, in_turn, processor, silent
from kit.deploy.flops import count_flops, count_parameters
from kit.deploy.memory import Memory, memory_of
from kit.deploy.raw import Work, raw_work
from kit.deploy.results import dataset_results, fed, find
from kit.deploy.runtimes import (
    CHECKPOINT,
    ENDINGS,
    Runner,
    Runtime,
    Size,
    chosen_device,
    installed_runtimes,
    open_runner,
)
from kit.deploy.threads import describe, settle
from kit.dfine.detector import SIZES, Detector
from kit.files import write_bytes, write_json
from kit.metrics import evaluate, match, official_f1_curve
from kit.predict import Progress
from kit.progress import Bar

PERCENTILES = (50, 90, 99)
WARM_UP = 3  # rounds that do not count
DRAWN_HW = (960, 1280)  # of the picture that is decoded where no data are given
LATER: tuple[Runtime, ...] = ("compiled",)  # takes a minute to make, so only where it is asked for
Figures = dict[str, Any]  # some fields of a Row


@dataclass(frozen=True)
class Entrant:
    """One model in one runtime; raw: the same without its post-processing."""

    model: str
    file: Path  # what the runner has opened
    runner: Runner
    half: bool
    raw: Work | None


def bench(
    sources: Sequence[Path | str],
    *,
    runtimes: Sequence[Runtime] | None = None,
    batches: Sequence[int] = (1, 2, 4, 8),
    rounds: int = 20,
    device: str | None = None,
    data: Path | str | None = None,
    split: str = "val",
    images: int | None = None,
    size_hw: Size | None = None,
    threads: int | None = None,
    memory: bool = True,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Bench:
    """Each source (checkpoint, .onnx, .xml, .engine) in each runtime that can run it here.

    runtimes: only these; None: all but torch.compile. data: a COCO folder, whose images are decoded, and whose
    annotations tell AP and F1 of its first `images` images. size_hw: where a source leaves it open.
    """
    part = None if data is None else find_split(data, split)
    with tempfile.TemporaryDirectory() as folder:
        opened = partial(open_all, device=chosen_device(device), size_hw=size_hw, threads=threads, say=say or silent)
        entrants, notes = opened(sources, runtimes, Path(folder))
        pictures = [drawn_picture(Path(folder))] if part is None else pictures_in(part)
        latencies: dict[tuple[int, int], Figures] = {}  # by entrant and batch
        others: list[dict[int, Figures]] = []  # by entrant, by batch
        for done, batch in enumerate(sorted(set(batches)), start=1):
            for index, figures in latencies_of(entrants, batch, rounds, pictures).items():
                latencies[index, batch] = figures
            report(progress, done, len(set(batches)) + len(entrants))
        for index, each in enumerate(entrants):
            sizes = [batch for entrant, batch in latencies if entrant == index]
            accuracy = {} if part is None else accuracy_of(each.runner, part, images)
            memories = memories_of(each, sizes, size_hw, threads) if memory and sizes else {}
            others.append({batch: accuracy | memories.get(batch, {}) for batch in sizes})
            report(progress, len(set(batches)) + index + 1, len(set(batches)) + len(entrants))
    fixed = [identity(each) for each in entrants]
    rows = [
        Row(**fixed[index], batch=batch, **figures, **others[index][batch])
        for (index, batch), figures in sorted(latencies.items())
    ]
    if part is None:
        notes.append(f"decoded: one drawn JPEG of {DRAWN_HW[0]} x {DRAWN_HW[1]} px; give data for your own images")
    return Bench(with_knees(rows), f"{processor().rpartition(' ')[0]}; {describe(threads)}", notes)


def report(progress: Progress | None, done: int, total: int) -> None:
    if progress:
        progress(done, total)


# --- who takes part ---


def open_all(
    sources: Sequence[Path | str],
    runtimes: Sequence[Runtime] | None,
    folder: Path,
    *,
    device: str,
    size_hw: Size | None,
    threads: int | None,
    say: Say,
) -> tuple[list[Entrant], list[str]]:
    """What can run here, and notes on what cannot; ValueError where nothing can. folder: for cut files."""
    entrants, notes = [], []
    for place, (source, runtime) in enumerate(pairs(sources, runtimes, device)):
        say(f"opening {Path(source).name} in {runtime}")
        halves = (False, True) if runtime in CHECKPOINT and device == "cuda" else (False,)
        try:
            file = file_for(source, runtime, size_hw, say)
            for half in halves:
                runner = open_runner(file, runtime, device, size_hw=size_hw, threads=threads, half=half)
                own = folder / f"{place}"
                own.mkdir(exist_ok=True)
                entrants.append(Entrant(Path(source).name, file, runner, half, raw_work(runner, file, own, threads)))
        except (ValueError, ImportError, RuntimeError) as error:
            notes.append(f"left out: {Path(source).name} in {runtime}: {error}")
    if not entrants:
        names, what = ", ".join(map(str, sources)) or "none", " or ".join(runtimes or ()) or "a runtime that is here"
        raise ValueError("; ".join(notes) or f"expected a source that {what} can run, got {names}")
    return entrants, notes


def pairs(
    sources: Sequence[Path | str], runtimes: Sequence[Runtime] | None, device: str
) -> Iterator[tuple[Path | str, Runtime]]:
    """Each source with each runtime that could run it: a checkpoint's export counts as the checkpoint."""
    for source in sources:
        able = [*ENDINGS.get(Path(source).suffix.lower(), CHECKPOINT)]
        if able == [*CHECKPOINT]:
            able += ENDINGS[".onnx"]
        here = installed_runtimes(source, device) + installed_runtimes("export.onnx", device)
        for runtime in able:
            if runtime in runtimes if runtimes else runtime in here and runtime not in LATER:
                yield source, runtime


def file_for(source: Path | str, runtime: Runtime, size_hw: Size | None, say: Say) -> Path:
    """What the runtime opens: the source itself, or the export of a checkpoint."""
    if Path(source).suffix.lower() in ENDINGS or runtime in CHECKPOINT:
        return Path(source)
    return cached_export(source, size_hw=size_hw, say=say)


def identity(entrant: Entrant) -> Figures:
    """The fields of a Row that do not depend on the batch."""
    about = entrant.runner.about
    return {
        "model": entrant.model,
        "size": about.size,
        "runtime": entrant.runner.runtime,
        "device": entrant.runner.device,
        "precision": "fp16" if entrant.half else about.precision,
        "input": about.input,
        "height_px": about.height_px,
        "width_px": about.width_px,
    } | cost_of(about)


def cost_of(about: About) -> Figures:
    """Of the detector as it was trained; not known of one that is no published size."""
    if about.size not in SIZES:
        return {"parameters": NAN, "gflop": NAN}
    detector = Detector(about.size, len(about.names), about.channels)
    return {
        "parameters": float(count_parameters(detector)),
        "gflop": count_flops(detector, about.size_hw).total / 1e9,
    }


# --- what is measured ---


def latencies_of(entrants: Sequence[Entrant], batch: int, rounds: int, pictures: Sequence[Path]) -> dict[int, Figures]:
    """By entrant, of those that take this batch; all turn by turn."""
    works: dict[tuple[int, str], Callable[[], object]] = {}
    for index, each in enumerate(entrants):
        if each.runner.about.batch in (None, batch):
            for kind, work in works_of(each, [pictures[place % len(pictures)] for place in range(batch)]).items():
                works[index, kind] = work
    figures: dict[int, Figures] = {}
    for (index, kind), times_s in in_turn(works, rounds, WARM_UP).items():
        values = 1e3 * np.percentile(times_s, PERCENTILES)
        mine = figures.setdefault(index, {})
        mine |= {f"{kind}_p{rank}_ms": float(ms) for rank, ms in zip(PERCENTILES, values, strict=True)}
        if kind == "finished":
            mine["images_per_s"] = 1e3 * batch / float(values[0])
    return figures


def works_of(entrant: Entrant, paths: Sequence[Path]) -> dict[str, Callable[[], object]]:
    """One call each, over the same images."""
    runner, about = entrant.runner, entrant.runner.about
    originals = [read_image(path, about.channels) for path in paths]
    images = np.stack([fed(each, about) for each in originals])
    sizes_hw = np.array([each.shape[:2] for each in originals], np.float32)
    works: dict[str, Callable[[], object]] = {
        "finished": partial(runner, images, sizes_hw),
        "decoded": lambda: find(runner, [read_image(path, about.channels) for path in paths]),
    }
    if entrant.raw is not None:
        works["model"] = partial(entrant.raw, images, sizes_hw)
    return works


def memories_of(
    entrant: Entrant, batches: Sequence[int], size_hw: Size | None, threads: int | None
) -> dict[int, Figures]:
    runner = entrant.runner
    found: list[Memory] = memory_of(
        entrant.file, runner.runtime, runner.device, batches, size_hw=size_hw, threads=threads, half=entrant.half
    )
    return {
        each.batch: {"peak_mib": each.peak_mib, "model_mib": each.model_mib, "gpu_mib": each.gpu_mib} for each in found
    }


def accuracy_of(runner: Runner, part: Split, images: int | None) -> Figures:
    """On the first images of the file, or on all; F1 at the one threshold that is best for it there."""
    coco = read_coco(part.annotations)
    coco = replace(coco, records=coco.records[:images])
    results, truths = dataset_results(runner, coco, part.images), as_coco(coco)
    scores, (_, f1) = evaluate(results, truths), official_f1_curve(match(results, truths))
    return {"ap": scores.ap, "ap50": scores.ap50, "f1": float(f1.max(initial=0.0))}


def pictures_in(part: Split, most: int = 32) -> list[Path]:
    return [part.images / record.file_name for record in read_coco(part.annotations).records[:most]]


def drawn_picture(folder: Path) -> Path:
    """A JPEG with the detail of a photo, the same each time."""
    random = np.random.default_rng(0)
    height, width = DRAWN_HW
    coarse = cv2.resize(random.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8), (width, height))
    image = np.clip(coarse + random.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)
    return write_bytes(folder / "drawn.jpg", cv2.imencode(".jpg", image)[1].tobytes())


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="checkpoints, .onnx, .xml, .engine")
    parser.add_argument("--data", type=Path, help="a COCO folder: its images are decoded, AP and F1 are told")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, help="as many for AP and F1; default: all")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8], help="such as 1,2,4,8")
    parser.add_argument("--runtimes", nargs="+", choices=get_args(Runtime), help="default: all here but compiled")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--size", type=numbers, metavar="HEIGHT,WIDTH", help="of the input, where it is open")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="a process for each runtime is spared")
    parser.add_argument("--out", type=Path, help="a folder for bench.csv, bench.json and bench.png")
    parser.add_argument("--json", type=Path, help="a file for the rows alone")
    wishes = vars(parser.parse_args(arguments))
    sources, out, json_file, size = (wishes.pop(name) for name in ("sources", "out", "json", "size"))
    settle(wishes["threads"])
    bar = Bar("bench")
    try:
        result = bench(sources, size_hw=size and (size[0], size[-1]), progress=bar, say=bar.say, **wishes)
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(result)
    if out:
        print("written:", *write_bench(result, out))
    if json_file:
        write_json(json_file, result.as_dict()["rows"], indent=1)
    return 0


def numbers(text: str) -> list[int]:
    """1,2,4 -> [1, 2, 4]; argparse turns the ValueError into its own words."""
    values = [int(each) for each in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


if __name__ == "__main__":
    sys.exit(main())
