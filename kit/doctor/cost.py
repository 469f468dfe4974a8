"""What a step of the planned run takes, in time and memory, and when the run will be over."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from kit.data.dataset import Batch
from kit.dfine.detector import Detector
from kit.doctor.report import Verdict, judged
from kit.doctor.steps import Setting, Trial
from kit.limits import free_bytes
from kit.optimisation import Average, Plan, make_optimizer
from kit.predict import to_unit

PART = "cost"
STEPS = 3  # measured, the first of them not: it pays for what is set up
GIB = 2**30
MOST_SHARE = 0.8  # of the memory that is free
LONG_H = 72.0
COPIES = 5  # of the weights: themselves, their gradients, two of AdamW, the average


@dataclass(frozen=True)
class Cost:
    """Of the planned run; seconds and bytes of a step, images a second in training, hours of all."""

    step_s: float
    step_bytes: float
    free_bytes: float
    rate: float
    hours: float
    measured_images: int


def measure(detector: Detector, batch: Batch, plan: Plan, images: int, val_images: int) -> Cost:
    """batch: of the planned size, of as many images as are to be measured; the rest follows in proportion."""
    trial = Trial.of(detector, Setting(plan.classification, plan.seed, plan.size_hw, plan.clip_norm))
    optimizer, average = make_optimizer(trial.detector, plan.recipe), Average(trial.detector, 0.9, 1)
    batch = batch.to(trial.device)
    seconds = []
    for step in range(STEPS):
        began = now(trial.device)
        trial.learn(optimizer, batch, step)
        average.update(trial.detector)
        seconds.append(now(trial.device) - began)
    measured = len(batch.image_ids)
    image_s = min(seconds[1:]) / measured
    forward_s = forward_seconds(trial, batch) / measured
    steps = images // plan.batch_size * plan.epochs
    validations = plan.epochs // plan.val_every
    hours = (steps * plan.batch_size * image_s + validations * val_images * forward_s) / 3600
    a_pass = max(1, plan.batch_size // plan.accumulate)
    held = saved_bytes(trial, batch) / measured * a_pass
    weights = sum(weight.nbytes for weight in trial.detector.state_dict().values())
    return Cost(image_s * plan.batch_size, held + COPIES * weights, free_on(trial.device), 1 / image_s, hours, measured)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def forward_seconds(trial: Trial, batch: Batch) -> float:
    trial.detector.eval()
    with torch.inference_mode():
        began = now(trial.device)
        trial.detector(to_unit(batch.images))
        return now(trial.device) - began


def saved_bytes(trial: Trial, batch: Batch) -> float:
    """What the forward pass keeps for the backward pass: most of a step's memory, each piece of it once."""
    pieces: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        total = trial.losses(batch, 0).total
    weights = {weight.untyped_storage().data_ptr() for weight in trial.detector.parameters()}
    del total
    return float(sum(size for place, size in pieces.items() if place not in weights))


def free_on(device: torch.device) -> float:
    """Bytes."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_bytes()


def check_cost(cost: Cost, plan: Plan) -> list[Verdict]:
    height, width = plan.size_hw
    about = f"{plan.batch_size} images of {width} x {height} px"
    measured = "" if cost.measured_images == plan.batch_size else f" (from steps of {cost.measured_images})"
    return [
        judged(
            PART,
            "Does a step fit into memory?",
            cost.step_bytes > cost.free_bytes,
            cost.step_bytes > MOST_SHARE * cost.free_bytes,
            f"at most {MOST_SHARE:.0%} of {cost.free_bytes / GIB:.1f} GiB free",
            f"about {cost.step_bytes / GIB:.1f} GiB for {about}{measured}",
            "lower batch_size, or raise accumulate",
        ),
        judged(
            PART,
            "When is the planned run over?",
            False,
            cost.hours > LONG_H,
            f"within {LONG_H:.0f} hours on this machine",
            f"{cost.step_s:.2f} s a step of {about}{measured}, {plan.epochs} epochs in {hours_text(cost.hours)}",
            "a smaller model or input, fewer epochs, or a GPU",
        ),
    ]


def hours_text(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
