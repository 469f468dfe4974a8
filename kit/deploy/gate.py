"""The parity gate: an exported file is compared with the checkpoint on real images, and refused where it finds less.

    python -m kit.deploy.gate CHECKPOINT CANDIDATE --data data/x     exit status 1: refused, 2: cannot be judged

Matched boxes, how far scores lie apart, AP and F1 before and after; `LIMITS` says how much may be lost.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from kit.data.coco import CocoFile, as_coco, find_split, read_coco
from kit.data.formats.images import image_files as images_below
from kit.data.pixels import read_image
from kit.deploy.about import About
from kit.deploy.divergence import find_divergence
from kit.deploy.export import export_onnx, read_onnx, write_onnx
from kit.deploy.parity import only_finite, pair_all
from kit.deploy.results import find
from kit.deploy.rounding import RoundedRunner, has_half
from kit.deploy.runtimes import Runner, Runtime, open_runner
from kit.deploy.verdict import LIMITS, Accuracy, GateFailed, Limits, Verdict, verdict_of
from kit.files import write_json
from kit.metrics import evaluate, f1_at, match, search_thresholds
from kit.plots.canvas import save_figure
from kit.plots.parity import plot_parity
from kit.predict import Detections, Progress, coco_results
from kit.progress import Bar

__all__ = ["LIMITS", "Accuracy", "GateFailed", "Limits", "Verdict", "accept", "judge", "open_candidate", "pass_gate"]

MIN_SCORE = 0.01  # of the results that AP is told of, as in kit.predict_dataset


# --- judging ---


def open_candidate(path: Path | str, runtime: Runtime | None = None, device: str | None = None) -> Runner:
    """As open_runner, but an fp16 ONNX file on a CPU is rounded as a GPU would round it: see kit.deploy.rounding."""
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if Path(path).suffix == ".onnx" and runtime in (None, "onnxruntime") and on_cpu and has_half(onnx.load(str(path))):
        return RoundedRunner(path)
    return open_runner(path, runtime, device)


def judge(
    reference: Runner,
    candidate: Runner,
    images: Path | str,
    coco: CocoFile | None = None,
    *,
    limits: Limits | None = None,
    count: int | None = 50,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Verdict:
    """Both on `count` images, spread over all (None: on all of them): those of coco, or else all in the folder.

    limits: None takes those of the candidate's precision. What is not finite, or empty, is a reason to refuse.
    """
    refuse_other_classes(reference, candidate)
    limits = limits or LIMITS[candidate.about.precision]
    records = spread(coco.records, count) if coco else []
    files = [Path(images) / record.file_name for record in records] if coco else spread(image_files(images), count)
    ours, theirs = find_both(reference, candidate, files, batch_size, progress)
    pairs = pair_all(ours, theirs, limits.min_score)
    before, after, threshold = None, None, None
    if coco:
        refuse_other_categories(reference.about, coco)
        before, after, threshold = accuracies(ours, theirs, replace(coco, records=records))
    return verdict_of(describe(reference), describe(candidate), len(files), pairs, before, after, threshold, limits)


def pass_gate(
    reference: Runner,
    candidate: Runner,
    images: Path | str,
    coco: CocoFile | None = None,
    *,
    limits: Limits | None = None,
    count: int | None = 50,
    batch_size: int = 4,
    allow_drop: bool = False,
    progress: Progress | None = None,
) -> Verdict:
    """As judge; GateFailed where it refuses, unless a drop is allowed."""
    verdict = judge(
        reference, candidate, images, coco, limits=limits, count=count, batch_size=batch_size, progress=progress
    )
    if not verdict.passed and not allow_drop:
        raise GateFailed(verdict)
    return verdict


def find_both(
    reference: Runner, candidate: Runner, files: Sequence[Path], batch_size: int, progress: Progress | None
) -> tuple[list[Detections], list[Detections]]:
    """What each finds in each image, in pixels of the image; every image is read once."""
    ours: list[Detections] = []
    theirs: list[Detections] = []
    for start in range(0, len(files), batch_size):
        images = [read_image(file, reference.about.channels) for file in files[start : start + batch_size]]
        ours += find(reference, images)
        theirs += find(candidate, images)
        if progress:
            progress(len(ours), len(files))
    return ours, theirs


def accuracies(
    ours: Sequence[Detections], theirs: Sequence[Detections], coco: CocoFile
) -> tuple[Accuracy, Accuracy, float]:
    """Of both, and the threshold that serves F1 of the first best."""
    truths = as_coco(coco)
    results = [as_results(found, coco) for found in (ours, theirs)]
    matches = [match(each, truths) for each in results]
    threshold = search_thresholds(matches[0])["global"].scores[0][0]
    scores = [evaluate(each, truths) for each in results]
    before, after = (
        Accuracy(score.ap, score.ap50, f1_at(each, threshold)) for score, each in zip(scores, matches, strict=True)
    )
    return before, after, threshold


def as_results(found: Sequence[Detections], coco: CocoFile) -> list[dict[str, Any]]:
    return [
        result
        for each, record in zip(found, coco.records, strict=True)
        for result in coco_results(only_finite(each), record.image_id, record.size_hw, coco.category_ids, MIN_SCORE)
    ]


def image_files(folder: Path | str) -> list[Path]:
    files = images_below(Path(folder))
    if not files:
        raise ValueError(f"{folder}: expected a folder with images, found none; check the path")
    return files


def spread(entries: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of them, at even distances; all where there are not more."""
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, or None for all images, got {count}")
    if count is None or count >= len(entries):
        return list(entries)
    return [entries[index * len(entries) // count] for index in range(count)]


def refuse_other_classes(reference: Runner, candidate: Runner) -> None:
    ours, theirs = reference.about, candidate.about
    for what in ("names", "channels", "size_hw"):
        if getattr(ours, what) != getattr(theirs, what):
            raise ValueError(
                f"expected a reference and a candidate of the same {what}, got {getattr(ours, what)} and "
                f"{getattr(theirs, what)}; compare a file with the checkpoint it was made of, opened at its size"
            )


def refuse_other_categories(about: About, coco: CocoFile) -> None:
    if len(about.names) != len(coco.names):
        raise ValueError(
            f"{coco.path}: expected the classes of the checkpoint ({', '.join(about.names)}), found "
            f"{', '.join(coco.names)}; give the data it was trained for, or no annotations"
        )


def describe(runner: Runner) -> str:
    rounding = ", rounded as on a GPU" if isinstance(runner, RoundedRunner) else ""
    return f"{runner.runtime} {runner.about.precision} ({runner.device}{rounding})"


# --- a file that has to pass to get its name ---


def accept(
    path: Path | str, write: Callable[[Path], object], judged: Callable[[Path], Verdict], *, allow_drop: bool = False
) -> Verdict:
    """A file takes its name when the gate lets it through, and all that was written beside it comes along.

    write: writes it to the path it is given, which ends as `path` does; judged: judges what lies there. The verdict is
    left in `<name>.gate.json`. Refused: GateFailed, what had the name before stays, and `<name>.refused.json` says why.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        written = Path(folder) / path.name
        write(written)
        verdict = judged(written)
        if not verdict.passed and not allow_drop:
            write_json(beside(path, "refused"), verdict.as_dict(), indent=1)
            raise GateFailed(verdict)
        remember(written, verdict)
        for file in sorted(Path(folder).iterdir(), key=lambda each: each == written):  # the file itself comes last
            shutil.move(file, path.parent / file.name)
    write_json(beside(path, "gate"), verdict.as_dict(), indent=1)
    beside(path, "refused").unlink(missing_ok=True)
    return verdict


def beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}.json")


def remember(path: Path, verdict: Verdict) -> None:
    """An ONNX file tells itself what the gate has seen."""
    if path.suffix != ".onnx":
        return
    model, about = read_onnx(path)
    figures = ("images", "boxes", "share_matched", "iou_mean", "score_p99", "before", "after")
    told = {key: value for key, value in verdict.as_dict().items() if key in ("passed", *figures)}
    write_onnx(model, path, replace(about, notes={**about.notes, "gate": told}))


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """0: passed, or a drop is allowed; 1: refused; 2: cannot be judged."""
    options = parser().parse_args(arguments)
    try:
        verdict = judge_files(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(verdict.table())
    if not verdict.passed and not verdict.first_layer:
        print("  no layer to blame: only ONNX files can be traced, and only what goes wrong in a layer is seen there")
    if options.json:
        write_json(options.json, verdict.as_dict(), indent=1)
    if options.picture:
        save_figure(plot_parity([verdict.picture()]), options.picture)
    return int(not verdict.passed and not options.allow_drop)


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="python -m kit.deploy.gate", description=(__doc__ or "").partition("\n")[0])
    command.add_argument("checkpoint", type=Path, help="the reference: a checkpoint, or an fp32 file that has passed")
    command.add_argument("candidate", type=Path, help="the file to judge: .onnx, .xml, .engine")
    command.add_argument("--data", type=Path, required=True, help="folder of a COCO data set")
    command.add_argument("--split", default="val", help="its part (default: val)")
    command.add_argument("--images", type=int, default=50, help="how many of its images (default: 50)")
    command.add_argument("--runtime", help="of the candidate (default: the file's own)")
    command.add_argument("--json", type=Path, help="also write the verdict here")
    command.add_argument("--picture", type=Path, help="also draw it here, as PNG")
    command.add_argument("--allow-drop", action="store_true", help="exit status 0 also where it is refused")
    return command


def judge_files(options: argparse.Namespace) -> Verdict:
    """A refused ONNX file is traced too, for its first layer that diverges."""
    split = find_split(options.data, options.split)
    coco = read_coco(split.annotations)
    candidate = open_candidate(options.candidate, options.runtime)
    reference = open_runner(options.checkpoint, size_hw=candidate.about.size_hw)
    bar = Bar("judging")
    verdict = judge(reference, candidate, split.images, coco, count=options.images, progress=bar)
    if verdict.passed or options.candidate.suffix != ".onnx" or not coco.records:
        return verdict
    image = read_image(split.images / coco.records[0].file_name, candidate.about.channels)
    return replace(verdict, first_layer=trace(options.checkpoint, options.candidate, image))


def trace(checkpoint: Path, candidate: Path, image: np.ndarray) -> str:
    """The first layer of an ONNX file that diverges, against the checkpoint's fp32 export; image: (H, W, C) uint8."""
    if checkpoint.suffix == ".onnx":
        return find_divergence(checkpoint, candidate, image).layer
    _, about = read_onnx(candidate)
    with tempfile.TemporaryDirectory() as folder:
        reference = export_onnx(
            checkpoint, Path(folder) / "reference.onnx", size_hw=about.size_hw, batch=about.batch, input=about.input
        )
        return find_divergence(reference, candidate, image).layer


if __name__ == "__main__":
    sys.exit(main())
