"""How long a D-FINE takes here and in `transformers`: same size, same images, same objects, one run, turn by turn.

python benchmarks/step.py --size n --side 320 --images 2 --objects 20 [--json FILE]
A ratio over 1 means that ours is faster. Medians of the rounds; the machine should do nothing else.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import DFineForObjectDetection

from kit import Detector
from kit.boxes import Target
from kit.dfine.denoising import make_denoising
from kit.dfine.losses import losses
from kit.files import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.dfine.test_transformers import oracle


def objects(images: int, count: int, classes: int) -> list[Target]:
    random = torch.Generator().manual_seed(0)
    centre = 0.2 + 0.6 * torch.rand(images, count, 2, generator=random)
    size = 0.05 + 0.25 * torch.rand(images, count, 2, generator=random)
    labels = torch.randint(classes, (images, count), generator=random)
    return [Target(*each) for each in zip(torch.cat([centre, size], dim=2), labels, strict=True)]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compared(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians, in seconds; one round of each to warm up."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds + 1)][1:]
    return statistics.median(each[0] for each in times), statistics.median(each[1] for each in times)


def step_of_ours(detector: Detector, images: torch.Tensor, targets: list[Target]) -> None:
    output = detector(images, make_denoising(targets, detector.num_classes))
    losses(output, targets, reg_scale=detector.size.reg_scale).total.backward()
    detector.zero_grad(set_to_none=True)


def step_of_theirs(model: DFineForObjectDetection, images: torch.Tensor, targets: list[Target]) -> None:
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]
    model(pixel_values=images, labels=labels).loss.backward()
    model.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="n", choices=["n", "l"])
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    classes = 5
    model, detector = oracle(options.size, classes), Detector(options.size, classes)
    images, targets = (
        torch.rand(options.images, 3, options.side, options.side),
        objects(options.images, options.objects, classes),
    )
    detector.eval(), model.eval()
    with torch.inference_mode():
        forward = compared(lambda: detector(images), lambda: model(images), options.rounds)
    detector.train(), model.train()
    step = compared(
        lambda: step_of_ours(detector, images, targets), lambda: step_of_theirs(model, images, targets), options.rounds
    )
    rows = [
        {"name": f"{name}, {options.size}", "ours": ours, "peer": peer, "ratio": peer / ours, "target": 1.0}
        for name, (ours, peer) in (("forward", forward), ("forward, losses and backward", step))
    ]
    for row in rows:
        print(
            f"{row['name']:34} ours {row['ours']:.3f} s   transformers {row['peer']:.3f} s   ratio {row['ratio']:.2f}"
        )
    if options.json:
        write_json(options.json, rows, indent=1)


if __name__ == "__main__":
    main()
