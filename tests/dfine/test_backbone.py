"""The backbone's own pass after each norm: the same answers, the same slopes, the same statistics as timm's modules."""

import copy

import pytest
import torch
from timm.models.hgnet import ConvBNAct
from torch import Tensor

from kit.dfine.backbone import Unit, freeze_norms, hgnetv2


def unit(scale: float, shift: float, kernel: int = 3) -> tuple[ConvBNAct, Unit]:
    """timm's block in double precision, away from its start, and ours around a copy of it."""
    torch.manual_seed(0)
    block = ConvBNAct(3, 5, kernel, use_lab=True).double().train()
    with torch.no_grad():
        block.bn.weight.uniform_(-2, 2)
        block.bn.bias.uniform_(-1, 1)
        block.lab.scale.fill_(scale)
        block.lab.bias.fill_(shift)
    return block, Unit(copy.deepcopy(block))


def slopes(module: torch.nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The answer, and the gradients of a sum that weighs each entry of it differently."""
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return y.detach(), {"x": leaf.grad} | {name: weight.grad for name, weight in module.named_parameters()}


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.3, -0.7), (2.5, 0.9), (0.0, 0.4), (-1.3, 0.2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_unit_has_the_answers_and_slopes_of_timm_s_block(
    scale: float, shift: float, layout: torch.memory_format
) -> None:
    theirs, ours = unit(scale, shift)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64).contiguous(memory_format=layout)
    assert ours.is_quick_for(x) == (scale > 0)
    expected, found = slopes(theirs, x), slopes(ours, x)
    assert torch.allclose(found[0], expected[0], rtol=0, atol=1e-12)
    assert found[1].keys() == expected[1].keys() and len(found[1]) == 6
    for name, slope in expected[1].items():
        assert torch.allclose(found[1][name], slope, rtol=1e-10, atol=1e-10), name
    for name, value in theirs.state_dict().items():  # the running statistics, and the count of batches
        assert torch.allclose(ours.state_dict()[name], value, rtol=0, atol=1e-12), name


def test_without_momentum_the_statistics_are_the_plain_mean_of_the_batches() -> None:
    theirs, ours = unit(0.5, 0.1)
    for block in (theirs, ours):
        block.bn.momentum = None
        block.bn.reset_running_stats()
        for batch in torch.randn(3, 2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)):
            block(batch)
    assert torch.allclose(ours.bn.running_mean, theirs.bn.running_mean, rtol=0, atol=1e-12)
    assert torch.allclose(ours.bn.running_var, theirs.bn.running_var, rtol=0, atol=1e-12)


def test_a_unit_keeps_the_names_and_the_order_of_the_weights() -> None:
    theirs, ours = unit(1.0, 0.0)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_in_eval_mode_and_with_frozen_norms_a_unit_is_timm_s_to_the_last_bit() -> None:
    theirs, ours = unit(0.3, -0.7)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    for block in (theirs, ours):
        block.train().bn.eval()
    assert torch.equal(ours(x), theirs(x))
    freeze_norms(theirs), freeze_norms(ours)
    assert torch.equal(ours.train()(x), theirs.train()(x)) and not ours.is_quick_for(x)


def test_weights_that_are_frozen_one_by_one_get_no_slope_and_leave_the_others_theirs() -> None:
    theirs, ours = unit(0.6, 0.1)
    for module in (theirs, ours):
        module.bn.weight.requires_grad_(False)
        module.lab.scale.requires_grad_(False)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected, found = slopes(theirs, x)[1], slopes(ours, x)[1]
    assert found["bn.weight"] is None and found["lab.scale"] is None
    for name in ("x", "conv.weight", "bn.bias", "lab.bias"):
        assert torch.allclose(found[name], expected[name], rtol=1e-10, atol=1e-10), name


def test_half_the_bits_stay_half_and_near() -> None:
    _, ours = unit(0.8, 0.3)
    x = torch.randn(2, 3, 8, 8)
    ours = ours.float()
    full = slopes(copy.deepcopy(ours), x)
    with torch.autocast("cpu", torch.bfloat16):
        half = slopes(ours, x)
    assert half[0].dtype == torch.bfloat16 and torch.allclose(half[0].float(), full[0], atol=0.1)
    assert half[0].min() == torch.tensor(0.3).bfloat16()  # exactly the floor, so that backward knows it again
    assert torch.allclose(half[1]["bn.bias"], full[1]["bn.bias"], rtol=0.1, atol=0.5)


def test_every_block_with_an_affine_of_the_backbone_is_a_unit_and_trains_quickly() -> None:
    backbone = hgnetv2("hgnetv2_b0", (2, 3), 3, freeze_stem=False, freeze_norm=False).train()
    units = [module for module in backbone.modules() if isinstance(module, Unit)]
    quick = [each for each in units if each.is_quick_for(torch.zeros(1))]
    assert not [module for module in backbone.modules() if isinstance(module, ConvBNAct)]
    assert (len(quick), len(units)) == (30, 42)  # the others have no ReLU, so no affine
