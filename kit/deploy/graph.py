"""The detector as it is deployed: norms folded into convolutions, RepVGG branches summed, post-processing inside.

Exact up to rounding; nothing here can be trained any more.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from kit.boxes import cxcywh_to_xyxy
from kit.dfine.detector import Detector
from kit.dfine.encoder import RepBlock

Norm = nn.BatchNorm2d | FrozenBatchNorm2d


class Deployed(nn.Module):
    """Images to finished boxes, in one graph; the inputs and outputs of every exported file.

    images: (B, C, H, W) float in [0, 1], or with uint8_input (B, H, W, C) uint8; sizes_hw: (B, 2) float, height and
    width that the boxes are to be told in -> boxes (B, top_k, 4) xyxy, scores (B, top_k) falling, labels (B, top_k)
    int32 in 0..K-1.
    """

    def __init__(self, detector: Detector, top_k: int = 300, uint8_input: bool = False):
        super().__init__()
        self.detector = folded(detector)
        self.top_k, self.uint8_input = min(top_k, detector.size.queries * detector.num_classes), uint8_input

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.uint8_input:
            images = images.permute(0, 3, 1, 2).float() / 255
        output = self.detector(images)
        return best_boxes(output.logits, output.boxes, sizes_hw, self.top_k)


def best_boxes(logits: Tensor, boxes: Tensor, sizes_hw: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The top_k (query, class) pairs: logits (B, Q, K), boxes (B, Q, 4), sizes_hw (B, 2) -> as Deployed."""
    classes = logits.shape[2]
    best, index = logits.flatten(1).topk(top_k, dim=1)  # (B, top_k) each; the sigmoid keeps the order
    query = index // classes  # (B, top_k)
    scale = sizes_hw.flip(1).repeat(1, 2)[:, None]  # (B, 1, 4): w, h, w, h
    chosen = boxes.gather(1, query[..., None].expand(-1, -1, 4))  # (B, top_k, 4)
    return cxcywh_to_xyxy(chosen) * scale, best.sigmoid(), (index - query * classes).int()


def folded(detector: Detector) -> Detector:
    """A copy in eval mode that computes the same with fewer and wider operations."""
    detector = copy.deepcopy(detector).eval().requires_grad_(False)
    for parent in list(detector.modules()):
        for conv, norm in (("conv", "bn"), ("conv", "norm")):  # timm's name, and ours
            fold_norm(parent, conv, norm)
    for parent in list(detector.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RepBlock):
                setattr(parent, name, MergedBlock(child))
    return detector


def fold_norm(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """conv then norm becomes a conv with a bias."""
    conv, norm = getattr(parent, conv_name, None), getattr(parent, norm_name, None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, Norm):
        return
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()  # (C,)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype), False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), False)
    setattr(parent, norm_name, nn.Identity())


class MergedBlock(nn.Module):
    """RepBlock after training: the 1x1 branch lies in the middle of the 3x3 kernel."""

    def __init__(self, block: RepBlock):
        super().__init__()
        self.conv = block.square.conv
        point = block.point.conv
        assert self.conv.bias is not None and point.bias is not None
        self.conv.weight = nn.Parameter(self.conv.weight + F.pad(point.weight, [1, 1, 1, 1]), False)
        self.conv.bias = nn.Parameter(self.conv.bias + point.bias, False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.silu(self.conv(x), inplace=True)
