import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kit.dfine.detector import Detector
from kit.dfine.weights import read_weights
from kit.optimisation import (
    RECIPES,
    Average,
    Held,
    freeze,
    make_optimizer,
    parameter_groups,
    rate_share,
    recipe_for,
    rescaled,
    set_rates,
)
from kit.train import fit
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
    with pytest.raises(ValueError, match="freeze must be one of none, stem, backbone, encoder, decoder, got 'neck'"):
        freeze(Detector(tiny.SIZE, 2), "neck")


# --- frozen, held, and moving again ---


def train_two_epochs(folder: Path, detector: Detector, **changes: Any) -> None:
    dataset = tiny.dataset(folder / "data", images=4)
    fit(detector, dataset, None, out=folder / "run", plan=tiny.plan(epochs=2, strong_until_epoch=1, **changes))


def moved(before: dict[str, torch.Tensor], detector: Detector, part: str) -> set[str]:
    """The parts of a state that are not the same to the last bit."""
    state = detector.state_dict()
    return {name for name in before if name.startswith(part) and not state[name].equal(before[name])}


@pytest.mark.parametrize(
    "until, still", [("stem", ("backbone.stem",)), ("decoder", ("backbone", "encoder", "decoder.layers"))]
)
def test_what_is_frozen_does_not_move_by_a_bit_statistics_included(
    tmp_path: Path, until: str, still: tuple[str, ...]
) -> None:
    detector = tiny.detector()
    freeze(detector, until)
    before = copy.deepcopy(detector.state_dict())
    train_two_epochs(tmp_path, detector)
    changed = moved(before, detector, "")
    assert not {name for name in changed if name.startswith(tuple(f"{part}." for part in still))}
    assert moved(before, detector, "decoder.score") and (until != "stem" or moved(before, detector, "backbone.stages"))


@pytest.mark.slow
def test_what_is_held_until_stage_2_does_not_move_before_and_moves_after(tmp_path: Path) -> None:
    detector = tiny.detector()
    before = copy.deepcopy(detector.state_dict())
    train_two_epochs(tmp_path, detector, held="backbone", keep_epochs=True, best_into_stage_2=False)
    first, last = (read_weights(tmp_path / "run" / f"epoch_{epoch}.pt")[0] for epoch in (1, 2))
    frozen = [name for name in first if name.startswith("backbone.")]
    assert all(first[name].equal(before[name]) for name in frozen)
    assert not first["decoder.score.0.weight"].equal(before["decoder.score.0.weight"])
    assert {"backbone.stem.stem1.conv.weight", "backbone.stem.stem1.bn.running_mean"} <= {
        name for name in frozen if not last[name].equal(before[name])
    }


@pytest.mark.slow
def test_a_run_that_is_stopped_while_parts_are_held_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    dataset = tiny.dataset(tmp_path / "data", images=4)
    changes: dict[str, Any] = {"epochs": 2, "strong_until_epoch": 1, "held": "backbone", "best_into_stage_2": False}

    def sitting(name: str, **more: Any) -> list[float]:
        history = fit(tiny.detector(), dataset, None, out=tmp_path / name, plan=tiny.plan(**changes | more))
        return [row["loss"] for row in history.epochs]

    whole = sitting("whole")
    for _ in range(3):  # a step each: held, at the change, and after it
        sitting("stopped", max_minutes=0.0)
    assert sitting("stopped") == whole


def test_held_parts_leave_alone_what_was_frozen_before() -> None:
    detector = tiny.detector()
    freeze(detector, "stem")
    held = Held(detector, "backbone")
    held.hold()
    assert not any(weight.requires_grad for weight in detector.backbone.parameters())
    held.release()
    names = {name for name, weight in detector.backbone.named_parameters() if not weight.requires_grad}
    assert names and all(name.startswith("stem.") for name in names)


def test_freezing_the_decoder_leaves_the_heads_to_train() -> None:
    detector = tiny.detector()
    freeze(detector, "decoder")
    trained = {name.split(".")[1] for name, weight in detector.named_parameters() if weight.requires_grad}
    assert trained == {"selection", "label_embedding", "first_box", "score", "edges", "quality"}
    assert not detector.decoder.selection.proj.weight.requires_grad
    assert all(weight.requires_grad for weight in detector.decoder.selection.score.parameters())
