"""The doctor as a command: one page of verdicts and pictures in a few minutes, on a CPU too."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from kit.data.augment import plain_policy, train_policy
from kit.data.coco import CocoFile, find_dataset, read_coco
from kit.data.dataset import CocoDataset
from kit.dfine.detector import SIZES, Detector, unfrozen
from kit.dfine.weights import load_weights
from kit.doctor.examine import Effort, doctor
from kit.doctor.report import Report, write_report
from kit.files import one_line, write_json
from kit.optimisation import Plan, recipe_for
from kit.params import ROOT
from kit.progress import Bar

START_WEIGHTS = ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m kit.doctor", description=str(__doc__).partition("\n")[0])
    result.add_argument("data", type=Path, help="a COCO data set folder with annotations/instances_train.json")
    result.add_argument(
        "--out", type=Path, default=Path("runs/doctor"), help="folder of the page; default: runs/doctor"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the verdicts and curves here")
    result.add_argument("--model", choices=list(SIZES), default="n", help="default: n")
    result.add_argument("--weights", help="path, URL or hub id; none: random; default: those of kit for n, else random")
    result.add_argument("--side", type=int, default=640, help="px of the planned input, a multiple of 32; default: 640")
    result.add_argument("--batch-size", type=int, default=16, help="of the planned run; default: 16")
    result.add_argument("--epochs", type=int, default=72, help="of the planned run; default: 72")
    result.add_argument("--lr", type=float, help="of the planned run; default: as published, for the batch size")
    result.add_argument("--workers", type=int, default=2, help="processes that read images; default: 2")
    result.add_argument("--overfit-side", type=int, default=320, help="px at which images are learned by heart")
    result.add_argument("--overfit-steps", type=int, help="at most; default: 120, from random weights 400")
    result.add_argument("--data-only", action="store_true", help="train nothing: seconds")
    result.add_argument("--seed", type=int, default=0)
    return result


def examined(options: argparse.Namespace) -> Report:
    parts = find_dataset(options.data)
    coco, policy = read_coco(parts.train.annotations), train_policy(options.epochs)
    train_set = CocoDataset(coco, parts.train.images, policy, options.seed)
    val_set = None
    if parts.val is not None:
        val_set = CocoDataset(read_coco(parts.val.annotations), parts.val.images, plain_policy())
    detector, is_random = detector_of(options, coco)
    steps = options.overfit_steps or (400 if is_random else 120)
    side = options.overfit_side
    effort = Effort(overfit_size_hw=(side, side), overfit_steps=steps, trains=not options.data_only)
    return doctor(detector, train_set, val_set, plan=plan_of(options, len(train_set)), effort=effort, bars=Bar)


def detector_of(options: argparse.Namespace, coco: CocoFile) -> tuple[Detector, bool]:
    """On the GPU where there is one; whether its weights are random."""
    torch.manual_seed(options.seed)
    weights = options.weights or (str(START_WEIGHTS) if options.model == "n" else "none")
    is_random = weights == "none"
    detector = Detector(unfrozen(options.model) if is_random else options.model, len(coco.names))
    if not is_random:
        load_weights(detector, weights)
    return detector.to("cuda" if torch.cuda.is_available() else "cpu"), is_random


def plan_of(options: argparse.Namespace, images: int) -> Plan:
    steps = max(1, images // options.batch_size) * options.epochs
    recipe = recipe_for(options.model, options.batch_size, steps, lr=options.lr)
    size_hw = (options.side, options.side)
    return Plan(
        options.epochs, options.batch_size, size_hw, recipe, strong_until_epoch=options.epochs, workers=options.workers,
        seed=options.seed,
    )  # fmt: skip


def draw(report: Report, page: Path) -> None:
    """By kit.plots.doctor, which stands on a higher step: it reads the report as data."""
    with tempfile.TemporaryDirectory() as place:
        write_report(report, Path(place))
        subprocess.run([sys.executable, "-m", "kit.plots.doctor", place, str(page)], check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing is wrong; 1: something is; 2: it cannot be done; 130: stopped, and no page was written."""
    options = parser().parse_args(arguments)
    page = options.out / "doctor.html"
    try:
        report = examined(options)
        if options.json:
            write_json(options.json, report.to_json(), indent=1)
        draw(report, page)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; no page was written", file=sys.stderr)
        return 130
    print(f"{report.table()}\n{page}: the page, with curves and pictures")
    return int(report.mark == "wrong")


if __name__ == "__main__":
    sys.exit(main())
