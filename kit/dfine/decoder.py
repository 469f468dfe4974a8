"""The decoder: picks queries from the encoder's tokens and refines their boxes edge by edge (D-FINE, section 4)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.dfine.bins import BINS, bin_values, decode_edges, move_edges
from kit.dfine.denoising import Denoising
from kit.dfine.layers import ConvNorm, Mlp, QueryAttention

ANCHOR_SIZE = 0.05  # of the image, on the finest level; twice as large on each next one
ANCHOR_MARGIN = 0.01  # anchors this close to the rim are not used
QUALITY_TOP = 4  # bins that the quality head looks at, per edge


@dataclass(frozen=True)
class Output:
    """What the detector finds: logits (B, Q, K), boxes (B, Q, 4) cxcywh in [0, 1]."""

    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Predictions:
    """All layers' answers for one set of queries; L layers, Q queries.

    logits: (L, B, Q, K); boxes: (L, B, Q, 4); corners: (L, B, Q, 4, R), the edges' bin logits;
    reference: (B, Q, 4), the boxes that the edges move;
    first_logits, first_boxes: (B, Q, K), (B, Q, 4) before any edge moved.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor
    reference: Tensor
    first_logits: Tensor
    first_boxes: Tensor

    def part(self, queries: slice) -> "Predictions":
        """The same for some of the queries."""
        return Predictions(
            self.logits[:, :, queries],
            self.boxes[:, :, queries],
            self.corners[:, :, queries],
            self.reference[:, queries],
            self.first_logits[:, queries],
            self.first_boxes[:, queries],
        )


@dataclass(frozen=True)
class TrainOutput:
    """What the losses need. proposal_logits: (B, Q, K), proposal_boxes: (B, Q, 4), the encoder's own answers."""

    queries: Predictions
    proposal_logits: Tensor
    proposal_boxes: Tensor
    denoising: Predictions | None
    noise: Denoising | None


class DeformableAttention(nn.Module):
    """Each query samples the levels at points around its box (arXiv 2010.04159), no projection of values."""

    def __init__(self, channels: int, heads: int, points: tuple[int, ...]):
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(channels, heads * sum(points) * 2)
        self.weights = nn.Linear(channels, heads * sum(points))
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        self.offsets.bias.data.copy_(self.star().flatten())

    def star(self) -> Tensor:
        """The offsets at start: each head looks in one direction, each point one step farther -> (heads, P, 2)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)  # (heads, 2)
        steps = torch.cat([torch.arange(1, count + 1) for count in self.points])  # (P,)
        return direction[:, None] * steps[None, :, None]

    def forward(self, x: Tensor, boxes: Tensor, levels: list[Tensor]) -> Tensor:
        """x: (B, Q, C), boxes: (B, Q, 4), levels: (B*heads, C/heads, H, W) each -> (B, Q, C)."""
        batch, count, channels = x.shape
        grid = self.sampling_grid(x, boxes).to(levels[0].dtype)  # (B*heads, Q, P, 2)
        sampled = [
            F.grid_sample(level, part, mode="bilinear", padding_mode="zeros", align_corners=False)
            for level, part in zip(levels, grid.split(self.points, dim=2), strict=True)
        ]  # (B*heads, C/heads, Q, points) each
        weights = self.weights(x).unflatten(-1, (self.heads, -1)).softmax(dim=-1)  # (B, Q, heads, P)
        weights = weights.transpose(1, 2).reshape(batch * self.heads, 1, count, -1)
        y = (torch.cat(sampled, dim=-1) * weights).sum(dim=-1)  # (B*heads, C/heads, Q)
        return y.reshape(batch, channels, count).transpose(1, 2)

    def sampling_grid(self, x: Tensor, boxes: Tensor) -> Tensor:
        """Points in [-1, 1] of each level: (B, Q, C), (B, Q, 4) -> (B*heads, Q, P, 2)."""
        offsets = self.offsets(x).unflatten(-1, (self.heads, -1, 2))  # (B, Q, heads, P, 2)
        share = torch.cat([offsets.new_full((count, 1), 0.5 / count) for count in self.points])  # (P, 1)
        boxes = boxes[:, :, None, None]  # (B, Q, 1, 1, 4)
        location = boxes[..., :2] + offsets * share * boxes[..., 2:]  # (B, Q, heads, P, 2)
        return (2 * location - 1).transpose(1, 2).flatten(0, 1)


class Gate(nn.Module):
    """A learned mix of two streams in place of a residual sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, Q, C), (B, Q, C) -> (B, Q, C)."""
        keep_a, keep_b = self.gate(torch.cat([a, b], dim=-1)).sigmoid().chunk(2, dim=-1)
        return self.norm(keep_a * a + keep_b * b)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the image, then think."""

    def __init__(self, channels: int, heads: int, ffn: int, points: tuple[int, ...]):
        super().__init__()
        self.attention = QueryAttention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.sampling = DeformableAttention(channels, heads, points)
        self.gate = Gate(channels)
        self.widen = nn.Linear(channels, ffn)
        self.narrow = nn.Linear(ffn, channels)
        self.norm2 = nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.widen.weight)
        nn.init.xavier_uniform_(self.narrow.weight)

    def forward(
        self, x: Tensor, position: Tensor, boxes: Tensor, levels: list[Tensor], allowed: Tensor | None
    ) -> Tensor:
        """x, position: (B, Q, C), boxes: (B, Q, 4), levels as in DeformableAttention, allowed: (Q, Q) -> (B, Q, C)."""
        x = self.norm1(x + self.attention(x, position, allowed))
        x = self.gate(x, self.sampling(x + position, boxes, levels))
        limit = 65504.0  # the largest half-precision number
        return self.norm2((x + self.narrow(F.relu(self.widen(x)))).clamp(-limit, limit))


class QualityHead(nn.Module):
    """Corrects a score by how sharp the box's edge distributions are (D-FINE's location quality estimator)."""

    def __init__(self, hidden: int = 64):
        super().__init__()
        self.mlp = Mlp([4 * (QUALITY_TOP + 1), hidden, 1]).start_at_zero()

    def forward(self, logits: Tensor, corners: Tensor) -> Tensor:
        """logits: (B, Q, K), corners: (B, Q, 4, R) -> (B, Q, K)."""
        top = corners.softmax(dim=-1).topk(QUALITY_TOP, dim=-1).values  # (B, Q, 4, top)
        sharpness = torch.cat([top, top.mean(dim=-1, keepdim=True)], dim=-1)  # (B, Q, 4, top + 1)
        return logits + self.mlp(sharpness.flatten(2))


class QuerySelection(nn.Module):
    """Scores every token of the encoder; the best Q become queries with a first box."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.score = score_head(channels, num_classes)
        self.box = Mlp([channels, channels, channels, 4]).start_at_zero()
        nn.init.xavier_uniform_(self.proj.weight)

    def forward(self, tokens: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """tokens: (B, S, C), anchors: (S, 4) logits, infinite if unused -> (B, Q, C), (B, Q, K), (B, Q, 4) logits."""
        usable = anchors.isfinite().all(dim=-1, keepdim=True)  # (S, 1)
        tokens = self.norm(self.proj(tokens * usable.to(tokens.dtype)))
        logits = self.score(tokens)  # (B, S, K)
        best = logits.amax(dim=-1).topk(min(count, tokens.shape[1]), dim=1).indices  # (B, Q)
        tokens = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[-1]))  # (B, Q, C)
        logits = logits.gather(1, best[..., None].expand(-1, -1, logits.shape[-1]))  # (B, Q, K)
        return tokens, logits, self.box(tokens).float() + anchors[best]


class Decoder(nn.Module):
    """Encoder levels to detections."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        num_classes: int,
        *,
        ffn: int,
        layers: int,
        points: tuple[int, ...],
        reg_scale: float,
        queries: int = 300,
        heads: int = 8,
    ):
        super().__init__()
        self.num_queries, self.heads, self.reg_scale = queries, heads, reg_scale
        same = channels_in == channels
        self.project = nn.ModuleList(nn.Identity() if same else ConvNorm(channels_in, channels, 1) for _ in points)
        self.selection = QuerySelection(channels, num_classes)
        self.label_embedding = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes)
        self.query_position = Mlp([4, 2 * channels, channels]).spread()
        self.first_box = Mlp([channels, channels, channels, 4]).start_at_zero()
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, ffn, points) for _ in range(layers))
        self.score = nn.ModuleList(score_head(channels, num_classes) for _ in range(layers))
        edges = [channels, channels, channels, 4 * BINS]
        self.edges = nn.ModuleList(Mlp(edges).start_at_zero() for _ in range(layers))
        self.quality = nn.ModuleList(QualityHead() for _ in range(layers))
        nn.init.normal_(self.label_embedding.weight[:-1])

    def forward(self, levels: list[Tensor], noise: Denoising | None = None) -> Output | TrainOutput:
        """One (B, C, H, W) per level, fine to coarse -> TrainOutput in training mode, Output otherwise."""
        levels = [project(level) for project, level in zip(self.project, levels, strict=True)]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)  # (B, S, C)
        anchors = torch.cat([anchor_logits(level, index) for index, level in enumerate(levels)])  # (S, 4)
        x, proposal_logits, box_logits = self.selection(tokens, anchors, self.num_queries)
        proposal_boxes = box_logits.sigmoid()
        maps = [level.unflatten(1, (self.heads, -1)).flatten(0, 1).contiguous() for level in levels]
        if not self.training:
            return self.answer(x, proposal_boxes, maps)
        return self.train_answers(x.detach(), proposal_logits, proposal_boxes, maps, noise)

    def train_answers(
        self, x: Tensor, proposal_logits: Tensor, proposal_boxes: Tensor, maps: list[Tensor], noise: Denoising | None
    ) -> TrainOutput:
        """The answers of all layers; the denoising queries, if any, run in front of the others."""
        boxes, allowed, count = proposal_boxes.detach(), None, 0
        if noise is not None:
            x = torch.cat([self.label_embedding(noise.labels).to(x.dtype), x], dim=1)
            boxes = torch.cat([noise.boxes, boxes], dim=1)
            allowed, count = ~noise.blocked[: x.shape[1], : x.shape[1]], noise.labels.shape[1]
        every = self.refine(x, boxes, maps, allowed)
        denoising = every.part(slice(0, count)) if noise is not None else None
        return TrainOutput(every.part(slice(count, None)), proposal_logits, proposal_boxes, denoising, noise)

    def refine(self, x: Tensor, boxes: Tensor, maps: list[Tensor], allowed: Tensor | None) -> Predictions:
        """x: (B, Q, C), boxes: (B, Q, 4) where to look first -> the answers of every layer."""
        states = self.states(x, boxes, maps, allowed)
        logits = [
            quality(score(state.x), state.corners)
            for quality, score, state in zip(self.quality, self.score, states, strict=True)
        ]
        return Predictions(
            torch.stack(logits),
            torch.stack([state.moved for state in states]),
            torch.stack([state.corners for state in states]),
            states[0].reference,
            self.score[0](states[0].x),
            states[0].first,
        )

    def answer(self, x: Tensor, boxes: Tensor, maps: list[Tensor]) -> Output:
        """As refine, but only the last layer is asked."""
        last = self.states(x, boxes, maps, None)[-1]
        return Output(self.quality[-1](self.score[-1](last.x), last.corners), last.moved)

    def states(self, x: Tensor, boxes: Tensor, maps: list[Tensor], allowed: Tensor | None) -> list["State"]:
        """The queries after each layer."""
        values = bin_values(self.reg_scale, x.device)
        nothing = x.new_zeros(())
        states = [State(x, nothing, boxes, boxes, boxes, nothing, boxes)]
        for index in range(len(self.layers)):
            states.append(self.step(index, states[-1], maps, allowed, values))
        return states[1:]

    def step(self, index: int, state: "State", maps: list[Tensor], allowed: Tensor | None, values: Tensor) -> "State":
        """One layer: the queries look around their boxes, and the edges' distributions are corrected."""
        position = self.query_position(state.boxes.to(state.x.dtype)).clamp(-10, 10)  # (B, Q, C)
        x = self.layers[index](state.x, position, state.boxes, maps, allowed)
        first, reference = state.first, state.reference
        if index == 0:
            first = (self.first_box(x).float() + inverse_sigmoid(state.boxes)).sigmoid()
            reference = first.detach()
        corners = self.edges[index](x + state.previous).unflatten(-1, (4, BINS)) + state.corners  # (B, Q, 4, R)
        moved = move_edges(reference, decode_edges(corners, values), self.reg_scale)
        return State(x, x.detach(), moved.detach(), first, reference, corners, moved)


@dataclass(frozen=True)
class State:
    """What one decoder layer hands to the next.

    x, previous: (B, Q, C), the second detached; boxes: (B, Q, 4) where the next layer looks; first: (B, Q, 4) of the
    plain head; reference: (B, Q, 4) that the edges move; corners: (B, Q, 4, R) bin logits; moved: (B, Q, 4) the answer.
    """

    x: Tensor
    previous: Tensor
    boxes: Tensor
    first: Tensor
    reference: Tensor
    corners: Tensor
    moved: Tensor


def score_head(channels: int, num_classes: int, prior: float = 0.01) -> nn.Linear:
    """A classifier that gives every class the probability `prior` at start."""
    head = nn.Linear(channels, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - prior) / prior))
    return head


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit, with both x and 1 - x kept above eps."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def anchor_logits(level: Tensor, index: int) -> Tensor:
    """One anchor per cell of level `index`, (B, C, H, W) -> (H*W, 4), infinite near the rim of the image."""
    height, width = level.shape[2:]
    y = (torch.arange(height, dtype=torch.float32, device=level.device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=level.device) + 0.5) / width
    size = torch.full((height, width), ANCHOR_SIZE * 2.0**index, device=level.device)
    anchors = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), size, size], dim=-1).flatten(0, 1)
    inside = ((anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)).all(dim=-1, keepdim=True)
    return torch.where(inside, (anchors / (1 - anchors)).log(), torch.inf)
