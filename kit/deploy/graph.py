"""What is deployed: a folded detector with its post-processing, and the names of the layers in its exported graph."""

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.boxes import cxcywh_to_xyxy
from kit.deploy.folded_decoder import at_most
from kit.deploy.folding import folded
from kit.dfine.detector import Detector, Size


class Deployed(nn.Module):
    """Images to finished boxes, in one graph; the inputs and outputs of every exported file.

    images: (B, C, H, W) float in [0, 1], or with uint8_input (B, H, W, C) uint8; sizes_hw: (B, 2) float, height and
    width that the boxes are to be told in -> boxes (B, top_k, 4) xyxy, scores (B, top_k) falling, labels (B, top_k)
    int32 in 0..K-1. Fewer than top_k where a small input has fewer queries and classes than that.
    """

    def __init__(self, detector: Detector, top_k: int = 300, uint8_input: bool = False):
        super().__init__()
        self.detector, self.answers, self.uint8_input = folded(detector), Answers(top_k), uint8_input

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.uint8_input:
            images = (images.float() / 255).permute(0, 3, 1, 2)  # float first: TensorRT moves no uint8
        output = self.detector(images)
        return self.answers(output.logits, output.boxes, sizes_hw)


class Answers(nn.Module):
    """An island: the post-processing."""

    def __init__(self, top_k: int):
        super().__init__()
        self.top_k = top_k

    def forward(self, logits: Tensor, boxes: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (B, Q, K), boxes (B, Q, 4), sizes_hw (B, 2) -> as Deployed."""
        return best_boxes(logits, boxes, sizes_hw, self.top_k)


def best_boxes(logits: Tensor, boxes: Tensor, sizes_hw: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The top_k (query, class) pairs: logits (B, Q, K), boxes (B, Q, 4), sizes_hw (B, 2) -> as Deployed."""
    pairs, (queries, classes) = logits.flatten(1), logits.shape[1:]  # (B, Q*K)
    best, index = pairs.topk(at_most(top_k, pairs.shape[1]), dim=1)  # (B, top_k) each; the sigmoid keeps the order
    rows = torch.arange(queries, device=index.device)[:, None].expand(-1, classes).reshape(-1, 1)  # (Q*K, 1)
    columns = torch.arange(classes, dtype=torch.int32, device=index.device).expand(queries, -1).reshape(-1, 1)
    query = F.embedding(index, rows)  # (B, top_k, 1); looked up, as runtimes divide integers unlike
    labels = F.embedding(index, columns).squeeze(2)  # (B, top_k)
    order = torch.tensor([1, 0, 1, 0], device=sizes_hw.device)  # w, h, w, h
    scale = sizes_hw.index_select(1, order)[:, None]  # (B, 1, 4)
    return cxcywh_to_xyxy(boxes.gather(1, query.repeat(1, 1, 4))) * scale, best.sigmoid(), labels


def token_count(size: Size, size_hw: tuple[int, int]) -> int:
    """S, of all levels, for an input of this size; where it is below size.queries, there are only so many queries."""
    strides = [4 * 2**stage for stage in size.stages]
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)


def layer_of(node: onnx.NodeProto) -> str:
    """The layer that a node of an exported graph belongs to, such as `decoder.layers.1.norm2`; empty where none is."""
    return node.name.rpartition("/")[0]
