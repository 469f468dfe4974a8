"""A trained detector folded for deployment: the same answers from fewer and wider operations.

Norms, scales and biases go into the convolutions, RepVGG branches are summed, constant factors go into the weights;
exact up to rounding, and nothing of it can be trained any more. See folded_layers and folded_decoder for what takes the
place of what.
"""

import copy

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from kit.deploy.folded_decoder import FoldedDecoder, FoldedSampling
from kit.deploy.folded_layers import FoldedAttention, FoldedEncoder, FoldedTokenLayer, MergedBlock
from kit.dfine.decoder import DeformableAttention
from kit.dfine.detector import Detector
from kit.dfine.encoder import RepBlock, TokenLayer
from kit.dfine.layers import QueryAttention

Norm = nn.BatchNorm2d | FrozenBatchNorm2d
LARGEST = torch.finfo(torch.float32).max


def folded(detector: Detector) -> Detector:
    """A copy in eval mode that computes the same with fewer and wider operations."""
    detector = copy.deepcopy(detector).eval().requires_grad_(False)
    for parent in list(detector.modules()):
        for conv, norm in (("conv", "bn"), ("conv", "norm")):  # timm's name, and ours
            fold_norm(parent, conv, norm)
    for parent in list(detector.modules()):
        fold_affine(parent)
    replace_modules(detector)
    detector.add_module("encoder", FoldedEncoder(detector.encoder))
    detector.add_module("decoder", FoldedDecoder(detector.decoder))
    return detector.eval().requires_grad_(False)


def replace_modules(detector: Detector) -> None:
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepBlock):
                setattr(parent, name, MergedBlock(child))
            elif isinstance(child, QueryAttention):
                setattr(parent, name, FoldedAttention(child))
            elif isinstance(child, DeformableAttention):
                setattr(parent, name, FoldedSampling(child))
            elif isinstance(child, TokenLayer):
                setattr(parent, name, FoldedTokenLayer(child))


def fold_norm(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """conv then norm becomes a conv with a bias."""
    conv, norm = getattr(parent, conv_name, None), getattr(parent, norm_name, None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, Norm):
        return
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()  # (C,)
    scale_conv(conv, scale, norm.bias.double() - norm.running_mean.double() * scale)
    setattr(parent, norm_name, nn.Identity())


def fold_affine(parent: nn.Module) -> None:
    """conv, ReLU, then scale * x + bias, both scalars (HGNetV2's affine block), becomes conv, then one clamp.

    scale * max(x, 0) + bias is max(scale * x + bias, bias), or the min where the scale is negative.
    """
    conv, affine = getattr(parent, "conv", None), getattr(parent, "lab", None)
    if not isinstance(conv, nn.Conv2d) or affine is None or isinstance(affine, nn.Identity):
        return
    assert isinstance(parent.act, nn.ReLU)
    scale, bias = affine.scale.double(), affine.bias.double()  # (1,) each
    scale_conv(conv, scale, bias)
    limits = (bias.item(), LARGEST) if scale.item() >= 0 else (-LARGEST, bias.item())
    parent.act = nn.Hardtanh(limits[0], limits[1], inplace=True)
    parent.lab = nn.Identity()


def scale_conv(conv: nn.Conv2d, scale: Tensor, bias: Tensor) -> None:
    """conv(x) becomes scale * conv(x) + bias; scale, bias: (C,) or (1,) double."""
    dtype = conv.weight.dtype
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).to(dtype), False)
    conv.bias = nn.Parameter(bias.expand(conv.out_channels).to(dtype).contiguous(), False)
