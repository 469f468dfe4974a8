"""What a training step costs when parts of the detector are frozen: seconds, memory, and the parameters that move.

python benchmarks/freezing.py [--size n] [--side 640] [--images 2] [--objects 20] [--rounds 7] [--json FILE]
A part freezes all before it too; with `decoder` the heads alone train. A ratio over 1 means less than without. What it
does to AP in equal time: `benchmarks/presets.py --presets finetune finetune:decoder ... --weights FILE`.
"""

import argparse
import multiprocessing
import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from step import CLASSES, Step, drawn_images, in_turn, most_added_mib, objects, seconds_of, step_of_ours

from kit import Detector
from kit.files import write_json
from kit.optimisation import FREEZABLE, freeze


def frozen(part: str, options: argparse.Namespace) -> Detector:
    detector = Detector(options.size, CLASSES).train()
    freeze(detector, part)
    return detector


def step_with(part: str, options: argparse.Namespace) -> Step:
    images, targets = drawn_images(options.images, options.side), objects(options.images, options.objects, CLASSES)
    return step_of_ours(frozen(part, options), images, targets, compiled=False, amp=False)


def added_mib(options: argparse.Namespace, part: str) -> float:
    """In a process of its own."""
    torch.set_num_threads(options.threads)
    return most_added_mib(step_with(part, options))


def moving(part: str, options: argparse.Namespace) -> float:
    parameters = list(frozen(part, options).parameters())
    return sum(each.numel() for each in parameters if each.requires_grad) / sum(each.numel() for each in parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="n", choices=["n", "s", "m", "l", "x"])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = in_turn({part: step_with(part, options) for part in FREEZABLE}, options.rounds)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        added = dict(zip(FREEZABLE, pool.map(partial(added_mib, options), FREEZABLE, chunksize=1), strict=True))
    rows: list[dict[str, Any]] = []
    for part in FREEZABLE:
        seconds, whole = (
            statistics.median(seconds_of(t, "whole step") for t in times[each]) for each in (part, "none")
        )
        time, memory = f"{seconds:6.3f} s a step, {whole / seconds:.2f} times as fast", f"{added[part]:5.0f} MiB"
        share = f"{added[part] / added['none']:.2f} of all; {moving(part, options):6.1%} of the parameters move"
        print(f"freeze: {part:9} {time}   {memory}, {share}")
        rows += [
            row(f"step in s, {options.size}, freeze {part}", seconds, whole),
            row(f"peak memory in MiB, {options.size}, freeze {part}", added[part], added["none"]),
        ]
    print(f"load of the machine, {options.threads} threads here: {os.getloadavg()[0]:.1f}")
    if options.json:
        write_json(options.json, rows, indent=1)


def row(name: str, ours: float, peer: float) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": peer / ours, "target": None}


if __name__ == "__main__":
    main()
