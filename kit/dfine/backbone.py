"""The backbone: timm's HGNetV2, which gives the published D-FINE features to the last bit."""

import timm
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


def hgnetv2(name: str, stages: tuple[int, ...], channels: int, freeze_stem: bool, freeze_norm: bool) -> nn.Module:
    """A timm feature extractor, random: images (B, channels, H, W) -> one (B, C, H/stride, W/stride) per stage.

    stages count from 0, of stride 4, 8, 16, 32. freeze_norm: BatchNorm keeps what it is loaded with.
    """
    backbone = timm.create_model(name, pretrained=False, features_only=True, out_indices=stages, in_chans=channels)
    if freeze_norm:
        freeze_norms(backbone)
    if freeze_stem:
        backbone.stem.requires_grad_(False)
    return backbone


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
