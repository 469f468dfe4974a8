"""Matching and all losses with their backward, here and in `transformers`: same answers, same objects, turn by turn.

python benchmarks/losses.py [--rounds 15] [--threads 2] [--json FILE]
A ratio over 1 means that ours is faster; it is the median of the rounds' ratios. `transformers` leaves out some of the
terms that the official code and ours have (the first plain head, and FGL of the last layer's queries), so that it does
less work.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DFineConfig
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss

from kit.boxes import Target
from kit.dfine.bins import BINS
from kit.dfine.decoder import Predictions, TrainOutput
from kit.dfine.denoising import make_denoising
from kit.dfine.losses import losses
from kit.files import write_json

CASES = ((2, 20), (8, 100), (2, 300))  # images, objects in each
TARGETS = {(2, 20): 1.0, (8, 100): 1.5, (2, 300): 1.5}
LAYERS, QUERIES, CLASSES = 3, 300, 80


def objects(images: int, count: int) -> list[Target]:
    random = torch.Generator().manual_seed(0)
    centre = 0.1 + 0.8 * torch.rand(images, count, 2, generator=random)
    size = 0.02 + 0.18 * torch.rand(images, count, 2, generator=random)
    labels = torch.randint(CLASSES, (images, count), generator=random)
    return [Target(*each) for each in zip(torch.cat([centre, size], dim=2), labels, strict=True)]


def answers(images: int, queries: int) -> Predictions:
    """Random ones of every layer, as leaves of the graph."""
    random = torch.Generator().manual_seed(queries)

    def leaf(*shape: int, like_boxes: bool = False) -> Tensor:
        value = torch.rand(*shape, generator=random)
        value = value * 0.8 + 0.1 if like_boxes else value * 4 - 4
        if like_boxes:
            value[..., 2:] *= 0.2
        return value.requires_grad_()

    return Predictions(
        leaf(LAYERS, images, queries, CLASSES),
        leaf(LAYERS, images, queries, 4, like_boxes=True),
        leaf(LAYERS, images, queries, 4, BINS),
        leaf(images, queries, 4, like_boxes=True).detach(),
        leaf(images, queries, CLASSES),
        leaf(images, queries, 4, like_boxes=True),
    )


def prepared(images: int, count: int) -> tuple[Callable[[], float], Callable[[], float]]:
    targets = objects(images, count)
    noise = make_denoising(targets, CLASSES)
    normal, noisy = answers(images, QUERIES), answers(images, noise.labels.shape[1])
    proposals = answers(images, QUERIES)
    output = TrainOutput(normal, proposals.first_logits, proposals.first_boxes, noisy, noise)
    leaves = [
        value for part in (normal, noisy, proposals) for value in vars(part).values() if value.requires_grad
    ]  # fmt: skip

    def timed(loss: Callable[[], Tensor]) -> float:
        began = time.perf_counter()
        loss().backward()
        seconds = time.perf_counter() - began
        for leaf in leaves:
            leaf.grad = None
        return seconds

    joined = their_arguments(normal, noisy, proposals, noise, targets)
    return (
        lambda: timed(lambda: losses(output, targets).total),
        lambda: timed(lambda: DFineForObjectDetectionLoss(**joined)[0]),
    )


def their_arguments(
    normal: Predictions, noisy: Predictions, proposals: Predictions, noise: Any, targets: list[Target]
) -> dict[str, Any]:
    def both(name: str) -> Tensor:
        return torch.cat([getattr(noisy, name), getattr(normal, name)], dim=2).transpose(0, 1)  # (B, L, D + Q, ...)

    logits, boxes, corners = both("logits"), both("boxes"), both("corners").flatten(3)
    reference = torch.cat([noisy.reference, normal.reference], dim=1)[:, None].expand(-1, LAYERS, -1, -1)
    positive = [noise.query[noise.image == image] for image in range(len(targets))]
    return {
        "logits": logits[:, -1],
        "labels": [{"class_labels": target.labels, "boxes": target.boxes} for target in targets],
        "device": logits.device,
        "pred_boxes": boxes[:, -1],
        "config": DFineConfig(num_labels=CLASSES),
        "outputs_class": logits,
        "outputs_coord": boxes,
        "enc_topk_logits": proposals.first_logits,
        "enc_topk_bboxes": proposals.first_boxes,
        "denoising_meta_values": {
            "dn_positive_idx": positive,
            "dn_num_group": noise.groups,
            "dn_num_split": [noise.labels.shape[1], QUERIES],
        },
        "predicted_corners": corners,
        "initial_reference_points": reference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for case in CASES:
        ours, theirs = prepared(*case)
        times = [(ours(), theirs()) for _ in range(options.rounds + 2)][2:]
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(peer / own for own, peer in times)
        name = f"matching, losses, backward: {case[0]} images x {case[1]} objects"
        rows.append({"name": name, "ours": a, "peer": b, "ratio": ratio, "target": TARGETS[case]})
        print(f"{name}: ours {a:.3f} s, transformers {b:.3f} s, ratio {ratio:.2f} (target {TARGETS[case]})")
    if options.json:
        write_json(options.json, rows, indent=1)


if __name__ == "__main__":
    main()
