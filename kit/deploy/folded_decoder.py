"""What takes the place of the decoder in a folded detector.

What an exported half-precision file computes in full precision, an island, is a module of its own, so that the graph
can name it; see precision.ISLANDS.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.deploy.folded_layers import linear
from kit.dfine.bins import BINS, bin_values
from kit.dfine.decoder import (
    QUALITY_TOP,
    Decoder,
    DeformableAttention,
    Output,
    QualityHead,
    QuerySelection,
    anchor_logits,
    inverse_sigmoid,
)
from kit.dfine.layers import Mlp


class FoldedDecoder(nn.Module):
    """Decoder, where only what the last layer's answer needs is computed."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.heads, self.project = decoder.heads, decoder.project
        self.layers, self.edges = decoder.layers, decoder.edges
        self.selection = FoldedSelection(decoder.selection, decoder.num_queries)
        self.query_position, self.first_box = decoder.query_position, decoder.first_box
        self.reference = FirstBoxes()
        self.bins = nn.ModuleList(Bins(decoder.reg_scale) for _ in decoder.layers)
        head, quality = decoder.score[-1], decoder.quality[-1]
        assert isinstance(head, nn.Linear) and isinstance(quality, QualityHead)
        self.sharpness, self.scores = Sharpness(), Scores(head, quality.mlp)

    def forward(self, levels: list[Tensor], noise: None = None) -> Output:
        """One (B, C, H, W) per level, fine to coarse -> logits (B, Q, K), boxes (B, Q, 4)."""
        levels = [project(level) for project, level in zip(self.project, levels, strict=True)]
        x, boxes = self.selection(levels)
        maps = [level.unflatten(1, (self.heads, -1)).flatten(0, 1).contiguous() for level in levels]
        before = reference = corners = None
        for layer, edges, bins in zip(self.layers, self.edges, self.bins, strict=True):
            position = self.query_position(boxes.to(x.dtype)).clamp(-10, 10)  # (B, Q, C)
            x = layer(x, position, boxes, maps, None)  # (B, Q, C)
            if reference is None:
                reference = self.reference(self.first_box(x), boxes)  # (B, Q, 4)
            offsets = edges(x if before is None else x + before)  # (B, Q, 4*R)
            corners, boxes = bins(offsets, corners, reference)
            before = x
        return Output(self.scores(x, self.sharpness(corners)), boxes)


class FoldedSelection(nn.Module):
    """QuerySelection, which also says the first boxes."""

    def __init__(self, selection: QuerySelection, queries: int):
        super().__init__()
        self.proj, self.norm, self.score, self.box = selection.proj, selection.norm, selection.score, selection.box
        self.anchors, self.best, self.proposals = Anchors(), BestTokens(queries), Proposals()

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) each -> tokens (B, Q, C), boxes (B, Q, 4)."""
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)  # (B, S, C)
        anchors, usable = self.anchors(levels)
        tokens = self.norm(self.proj(tokens * usable))
        best = self.best(self.score(tokens).amax(dim=-1))  # (B, Q)
        tokens = tokens.gather(1, best[..., None].repeat(1, 1, tokens.shape[2]))  # (B, Q, C)
        return tokens, self.proposals(self.box(tokens), anchors, best)


class Anchors(nn.Module):
    """The anchors; constants where the input size is."""

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) each -> logits (S, 4), infinite near the rim; 1 where they are not (S, 1)."""
        anchors = torch.cat([anchor_logits(level, index) for index, level in enumerate(levels)])  # (S, 4)
        return anchors, (anchors[:, :1] < torch.inf).to(levels[0].dtype)


class BestTokens(nn.Module):
    """An island: the tokens whose best class scores highest."""

    def __init__(self, queries: int):
        super().__init__()
        self.queries = queries

    def forward(self, logits: Tensor) -> Tensor:
        """(B, S) -> (B, Q) int64."""
        return logits.topk(at_most(self.queries, logits.shape[1]), dim=1).indices


def at_most(count: int, available: int) -> int:
    """count, or what is available; where that is a symbol, in an export of dynamic size, the caller sees to enough."""
    return count if isinstance(available, torch.SymInt) else min(count, available)


class Proposals(nn.Module):
    """An island: the first boxes, from anchors moved in logits."""

    def forward(self, offsets: Tensor, anchors: Tensor, best: Tensor) -> Tensor:
        """offsets: (B, Q, 4) logits, anchors: (S, 4) logits, best: (B, Q) -> (B, Q, 4)."""
        return (offsets.float() + F.embedding(best, anchors)).sigmoid()


class FoldedSampling(nn.Module):
    """DeformableAttention; the offsets come out of their weights in units of half a box, as the grid counts."""

    def __init__(self, sampling: DeformableAttention):
        super().__init__()
        self.heads, self.weights = sampling.heads, sampling.weights
        share = torch.cat([torch.full((count,), 1 / count, dtype=torch.float64) for count in sampling.points])  # (P,)
        share = share.repeat(sampling.heads).repeat_interleave(2)  # (heads*P*2,)
        weight = (sampling.offsets.weight.double() * share[:, None]).to(sampling.offsets.weight.dtype)
        self.offsets = linear(weight, (sampling.offsets.bias.double() * share).to(weight.dtype))
        self.points = SamplingPoints(sampling.heads, sampling.points)

    def forward(self, x: Tensor, boxes: Tensor, levels: list[Tensor]) -> Tensor:
        """x: (B, Q, C), boxes: (B, Q, 4), levels: (B*heads, C/heads, H, W) each -> (B, Q, C)."""
        batch, count, channels = x.shape
        sampled = self.points(self.offsets(x), boxes, levels)  # (B*heads, C/heads, Q, P)
        weights = self.weights(x).unflatten(-1, (self.heads, -1)).softmax(dim=-1)  # (B, Q, heads, P)
        weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B*heads, 1, Q, P)
        y = (sampled * weights).sum(dim=-1)  # (B*heads, C/heads, Q)
        return y.reshape(batch, channels, count).transpose(1, 2)


class SamplingPoints(nn.Module):
    """An island: where the queries look, and what is there."""

    def __init__(self, heads: int, points: tuple[int, ...]):
        super().__init__()
        self.heads, self.points = heads, points

    def forward(self, offsets: Tensor, boxes: Tensor, levels: list[Tensor]) -> Tensor:
        """offsets: (B, Q, heads*P*2), boxes: (B, Q, 4), levels as FoldedSampling -> (B*heads, C/heads, Q, P)."""
        centre, size = boxes[:, :, None, None].split(2, dim=-1)  # (B, Q, 1, 1, 2) each
        grid = offsets.unflatten(-1, (self.heads, -1, 2)) * size + (2 * centre - 1)  # (B, Q, heads, P, 2)
        grid = grid.transpose(1, 2).flatten(0, 1).to(levels[0].dtype)  # (B*heads, Q, P, 2)
        sampled = [
            F.grid_sample(level, part, mode="bilinear", padding_mode="zeros", align_corners=False)
            for level, part in zip(levels, grid.split(self.points, dim=2), strict=True)
        ]  # (B*heads, C/heads, Q, points) each
        return torch.cat(sampled, dim=-1)


class FirstBoxes(nn.Module):
    """An island: the proposals moved in logits, which every edge then refines."""

    def forward(self, offsets: Tensor, boxes: Tensor) -> Tensor:
        """offsets: (B, Q, 4) logits, boxes: (B, Q, 4) -> (B, Q, 4)."""
        return (offsets.float() + inverse_sigmoid(boxes)).sigmoid()


class Bins(nn.Module):
    """An island: the edges' distributions, and the boxes that their means move.

    The means and what they do to centre and size are one product: with edges l, t, r, b in units of the box, as in
    move_edges, the centre moves by (r - l) / 2 and (b - t) / 2, the size grows by l + r and t + b.
    """

    moves: Tensor

    def __init__(self, reg_scale: float):
        super().__init__()
        values = bin_values(reg_scale)  # (R,)
        change = torch.tensor([[-0.5, 0, 1, 0], [0, -0.5, 0, 1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]], dtype=torch.float64)
        moves = torch.kron(change, values.double()[:, None] / reg_scale)  # (4*R, 4)
        self.register_buffer("moves", moves.to(values.dtype))

    def forward(self, offsets: Tensor, corners: Tensor | None, reference: Tensor) -> tuple[Tensor, Tensor]:
        """offsets: (B, Q, 4*R), corners: (B, Q, 4, R) so far, reference: (B, Q, 4) -> corners, boxes (B, Q, 4)."""
        offsets = offsets.unflatten(-1, (4, BINS))  # (B, Q, 4, R)
        corners = offsets if corners is None else offsets + corners
        change = corners.float().softmax(dim=-1).flatten(2) @ self.moves  # (B, Q, 4)
        return corners, reference + change * reference[..., 2:].repeat(1, 1, 2)


class Sharpness(nn.Module):
    """An island: how sharp each edge's distribution is, for the quality head."""

    def forward(self, corners: Tensor) -> Tensor:
        """(B, Q, 4, R) -> (B, Q, 4 * (top + 1))."""
        top = corners.softmax(dim=-1).topk(QUALITY_TOP, dim=-1).values  # (B, Q, 4, top)
        return torch.cat([top, top.mean(dim=-1, keepdim=True)], dim=-1).flatten(2)


class Scores(nn.Module):
    """An island: the classes' logits, corrected by how sharp the boxes are."""

    def __init__(self, head: nn.Linear, quality: Mlp):
        super().__init__()
        self.head, self.quality = head, quality

    def forward(self, x: Tensor, sharpness: Tensor) -> Tensor:
        """x: (B, Q, C), sharpness: (B, Q, 4 * (top + 1)) -> (B, Q, K)."""
        return self.head(x) + self.quality(sharpness)
