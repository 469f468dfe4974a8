from dataclasses import fields
from typing import Any

import pytest

from kit.optimisation import RECIPES, Plan, recipe_for
from kit.params import OF_PRESET, RATES, BrowseParams, TrainParams
from kit.presets import PRESETS, Preset, plan_of, policy_of, preset_of, recipe_of, strongest_policy


def plan(name: str = "dfine", size: str = "n", **changes: Any) -> Plan:
    how: dict[str, Any] = {"images": 160, "epochs": 40, "batch_size": 8, "size_hw": (320, 320)}
    return plan_of(preset_of(name), size, **how | changes)


def test_params_know_every_preset_and_dfine_is_what_nothing_chosen_means() -> None:
    for cls in (TrainParams, BrowseParams):
        named = next(each for each in fields(cls) if each.name == "preset")  # type: ignore[arg-type]
        assert set(PRESETS) == set(named.type.__args__)  # type: ignore[union-attr]
    assert preset_of(TrainParams().preset).changed(TrainParams().given) == PRESETS[TrainParams().preset]


def test_what_the_user_sets_wins_over_the_preset_and_nothing_else_changes() -> None:
    params = TrainParams(preset="deim", mosaic=0.0, strong_until=0.5, best_into_stage_2=False)
    chosen = preset_of(params.preset).changed(params.given)
    assert (chosen.mosaic, chosen.strong_until, chosen.best_into_stage_2) == (0.0, 0.5, False)
    assert (chosen.mixup, chosen.classification) == (0.5, "mal")


def test_every_knob_of_a_preset_in_the_params_is_one_of_the_preset() -> None:
    assert set(OF_PRESET) <= {each.name for each in fields(Preset)}
    assert set(RATES) <= {each.name for each in fields(RECIPES["n"])}


def test_a_preset_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="preset must be one of dfine, deim, finetune, scratch_small, got 'yolo'"):
        preset_of("yolo")


def test_dfine_has_the_published_rates() -> None:
    assert recipe_of(PRESETS["dfine"], "s", 8, 4000) == recipe_for("s", 8, 4000)
    assert plan("dfine").classification == "vfl" and plan("dfine", "s").sizes.count((320, 320)) == 20


def test_deim_doubles_the_rates_but_that_of_n_and_ends_at_half() -> None:
    assert plan("deim", "s").recipe.lr == pytest.approx(2 * plan("dfine", "s").recipe.lr)
    assert plan("deim", "n").recipe.lr == plan("dfine", "n").recipe.lr
    assert plan("deim").final_share == 0.5 and plan("deim").classification == "mal"


def test_deim_mixes_pictures_from_after_the_plain_start_to_the_middle() -> None:
    policy = policy_of(PRESETS["deim"], 40)
    mosaics = [policy.recipe(epoch).mosaic for epoch in range(40)]
    assert mosaics == [0.0] + [0.5] * 19 + [0.0] * 20
    assert policy.recipe(36).zoom_out == 0.5 and policy.recipe(37).zoom_out == 0.0


def test_finetune_is_gentle_to_the_backbone_and_scratch_is_not() -> None:
    gentle, rough = plan("finetune", "m").recipe, plan("scratch_small", "m").recipe
    assert gentle.backbone_lr / gentle.lr == pytest.approx(0.5 * 0.1)
    assert rough.backbone_lr == rough.lr == pytest.approx(2 * plan("dfine", "m").recipe.lr)


def test_lr_takes_the_backbone_along_and_other_rates_are_taken_as_they_are() -> None:
    own = plan("finetune", "s", rates={"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 3, "ema_decay": None}).recipe
    assert (own.lr, own.backbone_lr, own.weight_decay, own.warmup_steps) == (1e-3, pytest.approx(2.5e-4), 0.0, 3)
    assert own.ema_decay == plan("finetune", "s").recipe.ema_decay


def test_a_preset_scales_with_the_length_of_the_run() -> None:
    short, long = plan("scratch_small", epochs=10), plan("scratch_small", epochs=400)
    assert (short.strong_until_epoch, long.strong_until_epoch) == (8, 340)
    assert short.recipe.warmup_steps == 10 and long.recipe.warmup_steps == 400
    assert short.recipe.ema_decay < long.recipe.ema_decay


def test_what_thaws_at_stage_2_is_held_by_the_plan_and_not_frozen() -> None:
    chosen = PRESETS["finetune"].changed({"freeze": "backbone", "freeze_until": "stage_2"})
    how: dict[str, Any] = {"images": 16, "epochs": 4, "batch_size": 4, "size_hw": (64, 64)}
    assert chosen.frozen == "none" and plan_of(chosen, "n", **how).held == "backbone"
    assert PRESETS["finetune"].frozen == "stem" and plan("finetune").held == "none"


def test_the_strongest_policy_is_strong_from_the_first_epoch() -> None:
    recipe = strongest_policy(PRESETS["deim"], flip=0.25).recipe(0)
    assert (recipe.mosaic, recipe.zoom_out, recipe.flip) == (0.5, 0.5, 0.25)


def test_finetune_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="preset: finetune starts from weights, got None"):
        TrainParams.from_dict({"preset": "finetune"})
