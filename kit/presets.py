"""Ways to train by name: all that is chosen together, in one table, and a plan for the set and the time at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, Self

from kit.data.augment import Policy, multi_scale_sizes, train_policy
from kit.data.picture import Size
from kit.optimisation import RECIPES, Plan, Recipe, rescaled

Part = Literal["none", "stem", "backbone", "encoder", "decoder"]


@dataclass(frozen=True)
class Preset:
    """One way to train, before the size, the set and the time are known. Shares are of the run, or of its epochs.

    The defaults are D-FINE's figures (arXiv 2410.13842); a table of those that differ follows below.
    """

    classification: Literal["vfl", "mal"] = "vfl"  # loss of the scores
    lr_ratio: float = 1.0  # of the published rate of the size, rescaled to the batch
    lr_ratio_n: float = 1.0  # of that of size n, which was published at a high one
    backbone_ratio: float = 1.0  # of the published share of the rate that the backbone gets
    most_backbone: bool = False  # the backbone moves as fast as the rest: it is as random
    warmup_share: float = 0.1  # of the steps, at most
    ema_share: float = 0.1  # of the steps that the average looks back on, at most
    flat_until: float = 0.5  # share of the steps at the full rate; then it falls along a cosine
    final_share: float = 0.05  # of the full rate, at the end
    freeze: Part = "none"
    freeze_until: Literal["end", "stage_2"] = "end"
    strong_until: float = 0.9  # share of the epochs with strong augmentation; the rest is stage 2
    best_into_stage_2: bool = True
    plain_share: float = 0.0  # of the epochs, at the start, without strong augmentation
    photometric: float = 0.5  # from here on: probability per image
    zoom_out: float = 0.5
    zoom_out_max: float = 4.0
    iou_crop: float = 0.8
    mosaic: float = 0.0
    mixup: float = 0.0
    mosaic_until: float = 1.0  # share of the epochs
    multi_scale: int | None = None  # how often the size itself is among the others; None: as published

    def changed(self, given: Mapping[str, Any]) -> Self:
        """What is given and not None wins; names that no preset has are passed over."""
        known = {each.name for each in fields(self)}
        return replace(self, **{name: value for name, value in given.items() if name in known and value is not None})

    @property
    def frozen(self) -> Part:
        """For the whole run, by `optimisation.freeze`; what thaws at stage 2 is held by `fit`."""
        return self.freeze if self.freeze_until == "end" else "none"

    def plain_epochs(self, epochs: int) -> int:
        return round(self.plain_share * epochs)

    def strong_until_epoch(self, epochs: int) -> int:
        return round(self.strong_until * epochs)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # arXiv 2410.13842; published at a rate that never falls
        "dfine": Preset(),
        # arXiv 2412.04234: more objects an image (mosaic, mixup) over the first half, MAL, flat and half a cosine
        "deim": Preset(
            classification="mal",
            lr_ratio=2.0,
            final_share=0.5,
            strong_until=0.92,
            plain_share=0.025,
            mosaic=0.5,
            mixup=0.5,
            mosaic_until=0.5,
        ),
        # from weights that know such pictures: little to unlearn, so gentle to the backbone and early to fall
        "finetune": Preset(
            classification="mal",
            backbone_ratio=0.5,
            warmup_share=0.02,
            ema_share=0.05,
            flat_until=0.3,
            final_share=0.02,
            freeze="stem",
            strong_until=0.8,
            best_into_stage_2=False,
            zoom_out=0.2,
            zoom_out_max=2.0,
            iou_crop=0.5,
            multi_scale=0,
        ),
        # a small set and random weights: high rates everywhere, and objects as large as they are
        "scratch_small": Preset(
            classification="mal",
            lr_ratio=2.0,
            lr_ratio_n=2.0,
            most_backbone=True,
            warmup_share=0.05,
            ema_share=0.05,
            flat_until=0.4,
            final_share=0.02,
            strong_until=0.85,
            best_into_stage_2=False,
            zoom_out=0.0,
            iou_crop=0.5,
            multi_scale=0,
        ),
    }
)
LONG = 10_000  # epochs, of a run that is only looked into
AUGMENTED = ("photometric", "zoom_out", "zoom_out_max", "iou_crop", "mosaic", "mixup")


def preset_of(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def recipe_of(
    preset: Preset, size: str, batch_size: int, total_steps: int, given: Mapping[str, Any] | None = None
) -> Recipe:
    """The rates of a size under a preset. given: lr, backbone_lr, weight_decay, ... of your own; lr takes the
    backbone's rate along."""
    recipe = rescaled(RECIPES[size], batch_size, total_steps, preset.warmup_share, preset.ema_share)
    ratio = preset.lr_ratio_n if size == "n" else preset.lr_ratio
    share = 1.0 if preset.most_backbone else preset.backbone_ratio * recipe.backbone_lr / recipe.lr
    own = {name: value for name, value in (given or {}).items() if value is not None}
    lr = own.pop("lr", recipe.lr * ratio)
    return replace(recipe, **{"lr": lr, "backbone_lr": lr * share} | own)


def policy_of(preset: Preset, epochs: int, plain_epochs: int | None = None, **augmentation: Any) -> Policy:
    """The augmentation of a run of so many epochs. augmentation: further arguments of `train_policy`; None: the
    preset's."""
    given = {name: value for name, value in augmentation.items() if value is not None}
    return train_policy(
        preset.strong_until_epoch(epochs),
        preset.plain_epochs(epochs) if plain_epochs is None else plain_epochs,
        round(min(preset.mosaic_until, preset.strong_until) * epochs),
        **{name: getattr(preset, name) for name in AUGMENTED} | given,
    )


def strongest_policy(preset: Preset, **augmentation: Any) -> Policy:
    """That of the middle of a run from the first epoch on: to be looked at, and to be timed."""
    return policy_of(replace(preset, mosaic_until=1.0), LONG, 0, **augmentation)


def plan_of(
    preset: Preset,
    size: str,
    *,
    images: int,
    epochs: int,
    batch_size: int,
    size_hw: Size,
    scales: tuple[float, float] = (0.75, 1.25),
    rates: Mapping[str, Any] | None = None,
) -> Plan:
    """What `fit` is to do on so many images. rates: as given of `recipe_of`; scales: of the input size, multi-scale."""
    recipe = recipe_of(preset, size, batch_size, max(1, images // batch_size) * epochs, rates)
    repeat = recipe.base_size_repeat if preset.multi_scale is None else preset.multi_scale
    return Plan(
        epochs=epochs,
        batch_size=batch_size,
        size_hw=size_hw,
        recipe=recipe,
        sizes=tuple(multi_scale_sizes(size_hw, repeat, *scales)) if repeat else (),
        strong_until_epoch=preset.strong_until_epoch(epochs),
        best_into_stage_2=preset.best_into_stage_2,
        flat_until=preset.flat_until,
        final_share=preset.final_share,
        classification=preset.classification,
        held=preset.freeze if preset.freeze_until == "stage_2" else "none",
    )
