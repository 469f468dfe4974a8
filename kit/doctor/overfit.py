"""Can the detector learn a few of your images by heart? If not, something on the way to the weights is broken."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from kit.data.coco import CocoFile, as_coco
from kit.data.dataset import Batch, CocoDataset
from kit.dfine.detector import Detector
from kit.doctor.report import Curve, Images, Verdict, judged
from kit.doctor.steps import Setting, Trial, is_untrained, plain_batch, trained
from kit.metrics import evaluate
from kit.predict import Detections, Progress, coco_results, to_unit, top_detections

PART = "overfit"
WANTED_AP = 0.9
DOUBTFUL_AP = 0.6
RATE = 8.0e-4
WARMUP_STEPS = 10
EVERY = 10  # steps between two looks at the AP
LEAST_SCORE = 0.4  # of a box that is drawn


def check_overfit(
    detector: Detector,
    train_set: CocoDataset,
    indices: list[int],
    setting: Setting,
    steps: int,
    progress: Progress | None,
) -> tuple[Verdict, dict[str, Curve], Images]:
    """Steps on one fixed batch, without augmentation, average or decay, until the AP is reached."""
    trial = Trial.of(detector, setting)
    batch = plain_batch(train_set, indices, setting.size_hw)
    truth = as_coco(part_of(train_set.coco, indices))
    on_device = batch.to(trial.device)
    optimizer = torch.optim.AdamW(trained(trial.detector).values(), lr=RATE, weight_decay=0.0)
    losses: list[float] = []
    aps: list[tuple[int, float]] = []
    found: list[Detections] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * share_of_rate(step, steps)
        losses.append(trial.learn(optimizer, on_device, step))
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            found = detections(trial, on_device)
            aps.append((step + 1, evaluate(results(found, batch, train_set.coco), truth).ap))
        done = bool(aps) and aps[-1][1] > WANTED_AP
        if progress:
            progress(steps if done else step + 1, steps)
        if done:
            break
    return verdict(aps, len(indices), is_untrained(detector)), curves_of(losses, aps), drawn(found, batch)


def share_of_rate(step: int, steps: int) -> float:
    """Warm-up, flat, and along a cosine to zero over the second half."""
    warm, through = min(1.0, (step + 1) / WARMUP_STEPS), step / steps
    return warm * (1.0 if through < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * through - 1))))


def part_of(coco: CocoFile, indices: list[int]) -> CocoFile:
    """These images, with the boxes of known classes."""
    records = [coco.records[index] for index in indices]
    return replace(coco, records=[record.only(record.labels >= 0) for record in records])


def detections(trial: Trial, batch: Batch) -> list[Detections]:
    trial.detector.eval()
    with torch.inference_mode():
        found = top_detections(trial.detector(to_unit(batch.images)), batch.original_hw)
    trial.detector.train()
    return found


def results(found: Sequence[Detections], batch: Batch, coco: CocoFile) -> list[dict[str, Any]]:
    rows = zip(found, batch.image_ids, batch.original_hw, strict=True)
    return [row for each, i, hw in rows for row in coco_results(each, i, hw, coco.category_ids, 0.01)]


def verdict(aps: Sequence[tuple[int, float]], images: int, is_random: bool) -> Verdict:
    """From random weights a few steps may be too few, so that is never called wrong."""
    step, best = max(aps, key=lambda each: each[1])
    mend = "boxes or labels that contradict the images, or weights, gradients or rates that are wrong: see the others"
    mend = "random weights may want more steps, or published weights to start from" if is_random else mend
    return judged(
        PART,
        f"Can {images} of your images be learned by heart?",
        best < DOUBTFUL_AP and not is_random,
        best <= WANTED_AP,
        f"AP over {WANTED_AP}",
        f"AP {best:.3f} after {step} steps",
        mend,
    )


def curves_of(losses: list[float], aps: Sequence[tuple[int, float]]) -> dict[str, Curve]:
    steps = [float(step + 1) for step in range(len(losses))]
    finite = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
    return {
        "overfit ap": Curve([float(step) for step, _ in aps], [ap for _, ap in aps], "step", "AP", level=WANTED_AP),
        "overfit loss": Curve([step for step, _ in finite], [loss for _, loss in finite], "step", "loss"),
    }


def drawn(found: Sequence[Detections], batch: Batch) -> Images:
    """What was found at the end, on the images as the model got them."""
    images = batch.images.permute(0, 2, 3, 1).numpy()
    height, width = images.shape[1:3]
    boxes, labels = [], []
    for each, (original_height, original_width) in zip(found, batch.original_hw, strict=True):
        sure = (each.scores >= LEAST_SCORE).cpu()
        scale = torch.tensor([width / original_width, height / original_height]).repeat(2)
        boxes.append((each.boxes_xyxy_px.cpu()[sure] * scale).numpy())
        labels.append(each.labels.cpu()[sure].numpy())
    return Images(images, boxes, labels)
