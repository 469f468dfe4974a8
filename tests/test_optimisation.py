import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from kit.dfine.detector import Detector
from kit.optimisation import (
    RECIPES,
    Average,
    freeze,
    make_optimizer,
    parameter_groups,
    rate_share,
    recipe_for,
    rescaled,
    set_rates,
)
from tests import tiny


def test_every_weight_is_in_exactly_one_group() -> None:
    detector = tiny.detector()
    groups = parameter_groups(detector, lr=2e-4, backbone_lr=1e-4, decay=1e-4)
    grouped = [id(weight) for group in groups for weight in group["params"]]  # type: ignore[attr-defined]
    assert sorted(grouped) == sorted(id(weight) for weight in detector.parameters())


def test_norms_and_biases_are_not_decayed_in_the_backbone_either() -> None:
    detector = tiny.detector()
    groups = parameter_groups(detector, lr=2e-4, backbone_lr=1e-4, decay=1e-4)
    decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}  # type: ignore
    for name, module in detector.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            assert id(module.weight) not in decayed and id(module.bias) not in decayed, name
        elif isinstance(module, nn.Conv2d | nn.Linear):
            assert id(module.weight) in decayed, name


def test_each_group_reaches_its_own_peak_rate() -> None:
    optimizer = make_optimizer(tiny.detector(), RECIPES["s"])
    peaks: dict[str, float] = {}
    for step in range(100):
        set_rates(optimizer, rate_share(step, 100, 10, 0.5, 0.05))
        for group in optimizer.param_groups:
            peaks[group["name"]] = max(peaks.get(group["name"], 0.0), group["lr"])
    assert peaks == {"backbone": 1e-4, "backbone, no decay": 1e-4, "rest": 2e-4, "rest, no decay": 2e-4}


def test_the_state_of_an_optimizer_of_separate_passes_is_gone_on_from() -> None:
    """As in checkpoints from before the fused one, to the same weights up to rounding."""
    detector = tiny.detector()
    groups = parameter_groups(detector, lr=2e-4, backbone_lr=1e-4, decay=1e-4)
    earlier, later = torch.optim.AdamW(groups, betas=(0.9, 0.999)), make_optimizer(detector, RECIPES["s"])

    def step(optimizer: torch.optim.Optimizer) -> None:
        for index, weight in enumerate(detector.parameters()):
            weight.grad = torch.full_like(weight, 0.01 * (index % 3 - 1))
        optimizer.step()

    step(earlier)
    state, weights = earlier.state_dict(), copy.deepcopy(detector.state_dict())
    step(earlier)
    expected = copy.deepcopy(detector.state_dict())
    detector.load_state_dict(weights)
    later.load_state_dict(copy.deepcopy(state))
    step(later)
    assert all(torch.allclose(value, expected[name], atol=1e-7) for name, value in detector.state_dict().items())
    assert any(not torch.equal(value, expected[name]) for name, value in weights.items())


def test_the_schedule_warms_up_stays_and_falls() -> None:
    shares = [rate_share(step, 100, 10, 0.5, 0.1) for step in range(101)]
    assert shares[0] == pytest.approx(1 / 11) and shares[9] < 1 and shares[10] == shares[50] == 1
    assert shares[75] == pytest.approx(0.55) and shares[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(shares[50:]))


def test_one_number_rescales_rates_warm_up_and_averaging_together() -> None:
    published = RECIPES["s"]  # batch 32
    half = rescaled(published, 8, total_steps=10**9)
    assert half.lr == pytest.approx(published.lr / 2) and half.backbone_lr == pytest.approx(published.backbone_lr / 2)
    assert half.warmup_steps == 4 * published.warmup_steps and half.ema_ramp == 4 * published.ema_ramp
    assert 1 - half.ema_decay == pytest.approx((1 - published.ema_decay) / 4)
    assert rescaled(published, 32, total_steps=10**9) == published


def test_a_short_run_has_a_short_warm_up_and_average() -> None:
    short = recipe_for("n", 8, total_steps=200)
    assert short.warmup_steps == 20 and short.ema_ramp == 20 and short.ema_decay == pytest.approx(0.95)


def test_given_figures_win_and_lr_takes_the_backbone_along() -> None:
    recipe = recipe_for("m", 32, 10**6, lr=4e-4, warmup_steps=7)
    assert (recipe.lr, recipe.backbone_lr, recipe.warmup_steps) == (4e-4, pytest.approx(4e-5), 7)
    assert recipe_for("m", 32, 10**6, lr=4e-4, backbone_lr=1e-5).backbone_lr == 1e-5


def test_the_average_follows_its_formula_and_copies_integers() -> None:
    detector = tiny.detector()
    average = Average(detector, decay=0.9, ramp=2)
    start = detector.decoder.score[0].bias.detach().clone()
    with torch.no_grad():
        detector.decoder.score[0].bias.add_(1.0)
        detector.encoder.project[0].norm.num_batches_tracked.fill_(5)
    average.update(detector)
    decay = 0.9 * (1 - math.exp(-0.5))
    assert torch.allclose(average.detector.decoder.score[0].bias, start + 1 - decay)
    assert average.detector.encoder.project[0].norm.num_batches_tracked == 5


@pytest.mark.parametrize("until, parts", [("none", ()), ("stem", ("backbone.stem",)), ("backbone", ("backbone",))])
def test_freezing_stops_everything_up_to_the_part(until: str, parts: tuple[str, ...]) -> None:
    detector = tiny.detector()
    freeze(detector, until)
    for name, weight in detector.named_parameters():
        assert weight.requires_grad != name.startswith(parts or ("nothing",)), name


def test_a_part_that_cannot_be_frozen_is_told() -> None:
    with pytest.raises(ValueError, match="freeze must be one of none, stem, backbone, encoder, got 'neck'"):
        freeze(Detector(tiny.SIZE, 2), "neck")
