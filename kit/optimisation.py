"""How fast and for how long the weights move: the recipe of each size, its rescaling, groups, schedule, averages."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from kit.dfine.backbone import freeze_norms
from kit.dfine.detector import Detector


@dataclass(frozen=True)
class Recipe:
    """What the paper's authors trained a size with (their COCO configurations)."""

    batch_size: int
    lr: float
    backbone_lr: float
    weight_decay: float
    warmup_steps: int = 500
    ema_decay: float = 0.9999
    ema_ramp: int = 1000  # updates
    base_size_repeat: int = 0  # of the multi-scale sizes, how often the base is among them; 0 = one size


RECIPES = MappingProxyType(
    {
        "n": Recipe(128, 8.0e-4, 4.0e-4, 1.0e-4),
        "s": Recipe(32, 2.0e-4, 1.0e-4, 1.0e-4, base_size_repeat=20),
        "m": Recipe(32, 2.0e-4, 2.0e-5, 1.0e-4, base_size_repeat=6),
        "l": Recipe(32, 2.5e-4, 1.25e-5, 1.25e-4, base_size_repeat=4),
        "x": Recipe(32, 2.5e-4, 2.5e-6, 1.25e-4, base_size_repeat=3),
    }
)


@dataclass(frozen=True)
class Plan:
    """Everything that says how a run of `fit` goes; `plan_for` fills in the rates.

    epochs count from 0; stage 2 begins at strong_until_epoch; sizes: the input sizes of stage 1; flat_until: the share
    of all steps after which the rate falls along a cosine to final_share of itself.
    """

    epochs: int
    batch_size: int
    size_hw: tuple[int, int]
    recipe: Recipe
    sizes: tuple[tuple[int, int], ...] = ()
    strong_until_epoch: int | None = None
    best_into_stage_2: bool = True
    flat_until: float = 0.5
    final_share: float = 0.05
    accumulate: int = 1
    clip_norm: float | None = 0.1
    amp: Literal["no", "bf16", "fp16"] = "no"
    classification: Literal["vfl", "mal"] = "vfl"
    select_by: Literal["ap", "f1"] = "ap"
    val_every: int = 1
    keep_epochs: bool = False  # the average after each epoch, as epoch_1.pt, epoch_2.pt, ...
    patience: int | None = None
    max_minutes: float | None = None
    save_every_s: float = 60.0
    workers: int = 2
    seed: int = 0
    held: Literal["none", "stem", "backbone", "encoder", "decoder"] = (
        "none"  # everything up to it stays as it is until stage 2
    )
    repeat_below: float = 0.0  # images of classes in a smaller share of the images come more often; 0: none does
    class_balance: float = 0.0  # 0.9 to 0.9999: objects of rare classes count more; 0: all alike


def rescaled(
    recipe: Recipe, batch_size: int, total_steps: int, warmup_share: float = 0.1, ema_share: float = 0.1
) -> Recipe:
    """The recipe for another batch size and for a short run, from one number: how many images a step sees.

    Rates follow the root of the batch size (Adam's scaling, arXiv 2205.10287); warm-up and averaging span the same
    number of images as published, but at most a share of the run.
    """
    ratio = batch_size / recipe.batch_size
    horizon = max(1.0, min(1 / (1 - recipe.ema_decay) / ratio, total_steps * ema_share))
    return replace(
        recipe,
        batch_size=batch_size,
        lr=recipe.lr * ratio**0.5,
        backbone_lr=recipe.backbone_lr * ratio**0.5,
        warmup_steps=round(min(recipe.warmup_steps / ratio, total_steps * warmup_share)),
        ema_decay=1 - 1 / horizon,
        ema_ramp=max(1, round(min(recipe.ema_ramp / ratio, total_steps * ema_share))),
    )


def recipe_for(
    size: str,
    batch_size: int,
    total_steps: int,
    *,
    lr: float | None = None,
    backbone_lr: float | None = None,
    weight_decay: float | None = None,
    warmup_steps: int | None = None,
    ema_decay: float | None = None,
) -> Recipe:
    """The published recipe of a size, rescaled; what is given replaces a figure, lr moves backbone_lr along."""
    recipe = rescaled(RECIPES[size], batch_size, total_steps)
    if lr is not None:
        recipe = replace(recipe, lr=lr, backbone_lr=recipe.backbone_lr * lr / recipe.lr)
    given = {
        "backbone_lr": backbone_lr,
        "weight_decay": weight_decay,
        "warmup_steps": warmup_steps,
        "ema_decay": ema_decay,
    }
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def parameter_groups(detector: Detector, *, lr: float, backbone_lr: float, decay: float) -> list[dict[str, object]]:
    """Four groups: backbone or not, decayed or not. Norms, biases, all one-dimensional weights are not."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, weight in detector.named_parameters():
        if weight.requires_grad:
            groups.setdefault((name.startswith("backbone."), weight.ndim > 1), []).append(weight)
    return [
        {
            "name": f"{'backbone' if in_backbone else 'rest'}{'' if decays else ', no decay'}",
            "params": weights,
            "lr": backbone_lr if in_backbone else lr,
            "peak_lr": backbone_lr if in_backbone else lr,
            "weight_decay": decay if decays else 0.0,
        }
        for (in_backbone, decays), weights in groups.items()
    ]


def make_optimizer(detector: Detector, recipe: Recipe) -> torch.optim.AdamW:
    groups = parameter_groups(detector, lr=recipe.lr, backbone_lr=recipe.backbone_lr, decay=recipe.weight_decay)
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)  # one pass over each weight, on a CPU too


def rate_share(step: int, total_steps: int, warmup_steps: int, flat_until: float, final_share: float) -> float:
    """Linear warm-up, flat, cosine (DEIM, arXiv 2412.04234): the share of the peak rate at a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    flat_steps = max(warmup_steps, flat_until * total_steps)
    if step <= flat_steps:
        return 1.0
    progress = (step - flat_steps) / max(1.0, total_steps - flat_steps)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


class Average:
    """The exponential moving average of the weights and of BatchNorm's statistics; integers are copied."""

    def __init__(self, detector: Detector, decay: float, ramp: int):
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        """Young averages follow quickly: decay * (1 - exp(-updates / ramp))."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp))
        averages, values = list(state_tensors(self.detector)), list(state_tensors(detector))
        moving = [index for index, value in enumerate(values) if value.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in moving], [values[i] for i in moving], 1 - decay)
        for average, value in zip(averages, values, strict=True):
            if not value.is_floating_point():
                average.copy_(value)


def state_tensors(module: nn.Module) -> Iterable[Tensor]:
    """What a checkpoint holds, in its order."""
    return module.state_dict().values()


FREEZABLE = ("none", "stem", "backbone", "encoder", "decoder")


def freeze(detector: Detector, until: str) -> None:
    """Everything up to `until` stays as it is from now on: weights, and BatchNorm's statistics."""
    for part in parts_until(detector, until):
        freeze_norms(part)
        part.requires_grad_(False)


class Held:
    """What stays as it is for a while, weights and BatchNorm's statistics, and moves later.

    Made after the optimizer, which has to know these weights. What was frozen before stays so after.
    """

    def __init__(self, detector: Detector, until: str):
        self.parts = parts_until(detector, until)
        self.weights = [weight for part in self.parts for weight in part.parameters() if weight.requires_grad]

    def hold(self) -> None:
        """To be called again after each `train()` of the detector, which sets its norms moving."""
        for weight in self.weights:
            weight.requires_grad_(False)
        for part in self.parts:
            part.eval()

    def release(self) -> None:
        for weight in self.weights:
            weight.requires_grad_(True)
        self.weights, self.parts = [], []


def parts_until(detector: Detector, until: str) -> list[nn.Module]:
    """decoder: all of it but the heads, which tell classes and boxes, and the embedding of the classes."""
    if until not in FREEZABLE:
        raise ValueError(f"freeze must be one of {', '.join(FREEZABLE)}, got {until!r}")
    decoder = detector.decoder
    thinking = [decoder.project, decoder.selection.proj, decoder.selection.norm, decoder.query_position, decoder.layers]
    parts: dict[str, list[nn.Module]] = {
        "none": [],
        "stem": [detector.backbone.get_submodule("stem")],
        "backbone": [detector.backbone],
        "encoder": [detector.backbone, detector.encoder],
        "decoder": [detector.backbone, detector.encoder, *thinking],
    }
    return parts[until]
