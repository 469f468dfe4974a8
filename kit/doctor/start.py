"""The loss at the start against what it has to be, and whether gradients reach every part that is trained.

What it has to be follows from how the detector begins, without running it. Its score heads give every class the
probability 0.01, with a spread that follows from their random weights; heads of boxes and edges begin at zero, so that
a query answers with the anchor that it began from, or a denoising query with its noisy box, and every edge is spread
evenly over its bins. Such an answer is made up here from chance alone, and goes through the same losses with the same
objects; it depends on the number of objects, images, queries and classes, and on nothing that the detector computes.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kit.data.dataset import Batch
from kit.dfine.bins import BINS
from kit.dfine.decoder import Predictions, TrainOutput, anchor_logits
from kit.dfine.detector import Detector
from kit.doctor.report import Verdict, few, judged
from kit.doctor.steps import Setting, Trial, trained

PART = "start"
PRIOR = 0.01  # of the score heads
SPREAD = 1 / math.sqrt(3)  # of a random linear map of normed channels, in logits
NEAR, FAR = 1.25, 1.6  # times as much, or as little
REACHED = "Are gradients finite, and do they reach every trained weight?"
CHANCE = 0.05  # of the whole loss
WRONG_SHARE = 0.25  # of the whole loss, by which one term is off
GRADIENT_STEPS = 3  # heads that begin at zero let gradients through from the second step on
SMALL_RATE = 1e-4


def check_start(
    detector: Detector, batch: Batch, setting: Setting, is_random: bool
) -> tuple[Verdict, list[dict[str, float | str]]]:
    """The verdict, and a row for each term. is_random: no trained weights were loaded."""
    trial = Trial.of(detector, setting)
    batch = batch.to(trial.device)
    with torch.no_grad():
        found = trial.losses(batch, 0).figures()
        expected = trial.losses_of(untrained_answer(trial, batch), batch).figures()
    rows: list[dict[str, float | str]] = [
        {"term": name, "expected": expected[name], "found": found[name]} for name in expected
    ]
    ratio = found["loss"] / expected["loss"]
    odd = [name for name in expected if is_unlike(found[name], expected[name], expected["loss"])]
    objects = sum(len(target.labels) for target in batch.targets)
    about = f"{expected['loss']:.1f} for {objects} objects in {len(batch.targets)} images"
    shown = f"{found['loss']:.1f}" + (f", most unlike in {few(odd)}" if odd and is_random else "")
    mend = "the heads do not begin as they should: were biases overwritten, or the classification loss changed?"
    if not is_random:
        return judged(
            PART,
            "Is the loss of these weights below that of random ones?",
            not ratio < FAR,
            ratio > 1,
            f"less than {about}",
            shown,
            "the weights are worse than none: are they of this model, and read whole?",
        ), rows
    off = max(abs(found[name] - expected[name]) for name in expected) / expected["loss"]
    wrong = off > WRONG_SHARE or not 1 / FAR < ratio < FAR
    return judged(
        PART,
        "Is the loss at the start what random heads give?",
        wrong,
        bool(odd) or not 1 / NEAR < ratio < NEAR,
        f"about {about}: scores at {PRIOR}, boxes at their anchors, bins even",
        shown,
        mend,
    ), rows


def is_unlike(found: float, expected: float, total: float) -> bool:
    """Of one term: by much, and by more than chance moves the terms that hang on a few overlaps."""
    return not expected / FAR <= found <= expected * FAR and not abs(found - expected) <= CHANCE * total


# --- what an untrained detector answers ---


def untrained_answer(trial: Trial, batch: Batch) -> TrainOutput:
    """From chance and the objects alone."""
    detector, noise = trial.detector, trial.noise(batch, 0)
    generator = torch.Generator().manual_seed(trial.setting.seed)
    height, width = batch.images.shape[2:]
    proposals, logits = chosen_anchors(detector, len(batch.targets), (height, width), generator)
    boxes = torch.cat([noise.boxes.cpu(), proposals], dim=1).to(trial.device)  # (B, D + Q, 4)
    every = unmoved(detector, boxes, generator)
    split = noise.labels.shape[1]
    logits, proposals = logits.to(trial.device), proposals.to(trial.device)
    return TrainOutput(every.part(slice(split, None)), logits, proposals, every.part(slice(0, split)), noise)


def chosen_anchors(
    detector: Detector, images: int, size_hw: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The Q anchors with the best of random scores -> boxes (B, Q, 4), logits (B, Q, K)."""
    sides = [(size_hw[0] >> (stage + 2), size_hw[1] >> (stage + 2)) for stage in detector.size.stages]
    anchors = torch.cat([anchor_logits(torch.zeros(1, 1, *side), level) for level, side in enumerate(sides)])  # (S, 4)
    logits = random_logits((images, len(anchors), detector.num_classes), generator)  # (B, S, K)
    best = logits.amax(dim=-1).topk(min(detector.size.queries, len(anchors)), dim=1).indices  # (B, Q)
    boxes = anchors.sigmoid()[best]  # (B, Q, 4)
    return boxes, logits.gather(1, best[..., None].expand(-1, -1, logits.shape[-1]))


def unmoved(detector: Detector, boxes: Tensor, generator: torch.Generator) -> Predictions:
    """boxes: (B, Q, 4), as every layer answers when no head has learned anything."""
    layers, (images, queries) = detector.size.layers, boxes.shape[:2]
    first = random_logits((images, queries, detector.num_classes), generator).to(boxes.device)
    logits = random_logits((layers, images, queries, detector.num_classes), generator).to(boxes.device)
    corners = boxes.new_zeros(layers, images, queries, 4, BINS)
    return Predictions(logits, boxes.expand(layers, -1, -1, -1), corners, boxes, first, boxes)


def random_logits(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * SPREAD - math.log((1 - PRIOR) / PRIOR)


# --- gradients ---


def check_gradients(
    detector: Detector, batch: Batch, setting: Setting
) -> tuple[list[Verdict], list[dict[str, float | str]]]:
    """After a few small steps: is each trained weight moved, each frozen one left alone, and no gradient infinite?"""
    trial = Trial.of(detector, setting)
    batch, weights = batch.to(trial.device), trained(trial.detector)
    frozen = {name: w.detach().clone() for name, w in trial.detector.named_parameters() if not w.requires_grad}
    if not weights:
        mend = "nothing is left to be trained: lower freeze"
        return [judged(PART, REACHED, True, True, "weights to train", "all of them frozen", mend)], []
    optimizer = torch.optim.AdamW(weights.values(), lr=SMALL_RATE, weight_decay=0.0)
    largest = dict.fromkeys(weights, 0.0)
    for step in range(GRADIENT_STEPS):
        trial.learn(optimizer, batch, step)
        for name, weight in weights.items():
            size = 0.0 if weight.grad is None else float(weight.grad.norm())
            largest[name] = max(largest[name], size) if math.isfinite(size) else math.inf
    infinite = [name for name, size in largest.items() if not math.isfinite(size)]
    unreached = [name for name, size in largest.items() if size == 0]
    after = dict(trial.detector.named_parameters())
    moved = [name for name, before in frozen.items() if not torch.equal(after[name], before)]
    about = f"{len(weights)} weights are trained, {len(frozen)} frozen"
    return [
        judged(
            PART,
            REACHED,
            bool(infinite or unreached),
            False,
            "a finite gradient in each",
            f"{about}; {len(infinite)} infinite, {len(unreached)} without any"
            + (f" ({few([*infinite, *unreached])})" if infinite or unreached else ""),
            "a part that the loss does not reach is not trained: is it cut off by detach, or a loss weight of 0?",
        ),
        judged(
            PART,
            "Do frozen weights stay?",
            bool(moved),
            False,
            "none moves",
            f"{len(moved)} of {len(frozen)} moved" + (f" ({few(moved)})" if moved else ""),
            "an optimizer holds weights that are frozen",
        ),
    ], gradient_rows(largest)


def gradient_rows(largest: Mapping[str, float]) -> list[dict[str, float | str]]:
    """The norm in each part of the detector, two names deep."""
    parts: dict[str, list[float]] = {}
    for name, size in largest.items():
        parts.setdefault(".".join(name.split(".")[:2]), []).append(size)
    return [
        {"part": part, "weights": float(len(sizes)), "gradient": math.sqrt(sum(size**2 for size in sizes))}
        for part, sizes in parts.items()
    ]
