"""The backbone: timm's HGNetV2, which gives the published D-FINE features to the last bit."""

from typing import Any

import timm
import torch
from timm.models.hgnet import ConvBNAct, LearnableAffineBlock
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import FrozenBatchNorm2d


def hgnetv2(name: str, stages: tuple[int, ...], channels: int, freeze_stem: bool, freeze_norm: bool) -> nn.Module:
    """A timm feature extractor, random: images (B, channels, H, W) -> one (B, C, H/stride, W/stride) per stage.

    stages count from 0, of stride 4, 8, 16, 32. freeze_norm: BatchNorm keeps what it is loaded with.
    """
    backbone = timm.create_model(name, pretrained=False, features_only=True, out_indices=stages, in_chans=channels)
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvBNAct):
                setattr(parent, name, Unit(child))
    if freeze_norm:
        freeze_norms(backbone)
    if freeze_stem:
        backbone.stem.requires_grad_(False)
    return backbone


class Unit(nn.Module):
    """timm's convolution, norm, ReLU and affine block under the same names; on a CPU it trains in half the passes."""

    def __init__(self, block: ConvBNAct):
        super().__init__()
        self.conv, self.bn, self.act, self.lab = block.conv, block.bn, block.act, block.lab
        if isinstance(self.act, nn.ReLU):
            self.act.inplace = True  # the norm does not need what it gave

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        x = self.conv(x)
        if not self.is_quick_for(x):
            return self.lab(self.act(self.bn(x)))
        norm, affine = self.bn, self.lab
        assert norm.num_batches_tracked is not None  # timm's norms keep statistics
        norm.num_batches_tracked.add_(1)
        momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum  # None: plain mean
        statistics = (norm.running_mean, norm.running_var, momentum, norm.eps)
        return NormReluAffine.apply(x, norm.weight, norm.bias, affine.scale, affine.bias, *statistics)

    def is_quick_for(self, x: Tensor) -> bool:
        """It reads the scale, for which a GPU would have to be waited for; a compiler makes its own way."""
        on_host = x.device.type == "cpu" and not torch.compiler.is_compiling()
        known = type(self.bn) is nn.BatchNorm2d and isinstance(self.lab, LearnableAffineBlock)  # of one process
        return on_host and known and self.bn.training and self.lab.scale.item() > 0


class NormReluAffine(torch.autograd.Function):
    """scale * relu(norm(x)) + shift, for scale > 0, as max(scale * norm(x) + shift, shift): BatchNorm, then one pass.

    The scale and the shift go into the norm's own; backward takes their gradients from those of the norm.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """x: (B, C, H, W); weight, bias, and the running mean and variance, which move: (C,); scale, shift: (1,)."""
        joint = scale * weight  # (C,)
        y, *batch = torch.native_batch_norm(x, joint, scale * bias + shift, mean, variance, True, momentum, eps)
        ctx.floor, ctx.eps = shift.to(x.dtype).item(), eps
        torch.threshold_(y, ctx.floor, ctx.floor)
        ctx.save_for_backward(x, weight, bias, scale, joint, y, *batch)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """(B, C, H, W) -> those of x, weight, bias, scale, shift."""
        x, weight, bias, scale, joint, y, *batch = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(slope, y, ctx.floor)
        slope_x, slope_joint, slope_sum = torch.ops.aten.native_batch_norm_backward(
            above, x, joint, None, None, *batch, True, ctx.eps, [True, True, True]
        )
        slope_scale = (slope_joint * weight + slope_sum * bias).sum(0, keepdim=True)  # (1,)
        shares = (slope_joint * scale, slope_sum * scale, slope_scale, slope.sum(dtype=weight.dtype).view(1))
        return slope_x, *shares, None, None, None, None


def freeze_norms(module: nn.Module) -> None:
    """Replaces each BatchNorm below `module` by one that training cannot move, statistics included."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, frozen_copy(child))


def frozen_copy(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen.to(norm.weight.device, norm.weight.dtype)
