"""All loss terms of D-FINE, each for all layers at once: VFL (or MAL), L1, GIoU, FGL, DDF."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.boxes import Target, cxcywh_to_xyxy, paired_giou
from kit.dfine.bins import EdgeTargets, edge_targets
from kit.dfine.decoder import Predictions, TrainOutput
from kit.dfine.denoising import Denoising
from kit.dfine.matching import Pairs, match

TEMPERATURE = 5.0  # of the distributions that DDF compares


@dataclass(frozen=True)
class Weights:
    """What each term counts for in the total; a term of weight 0 is not computed."""

    vfl: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    fgl: float = 0.15
    ddf: float = 1.5


@dataclass(frozen=True)
class Losses:
    """total: scalar; terms: weighted, one value a head: layers, then the first head, then the proposals.

    A name that begins with `dn_` is a term of the denoising queries.
    """

    total: Tensor
    terms: dict[str, Tensor]

    def figures(self) -> dict[str, float]:
        """`loss` and the sum of each term, in one transfer from the device."""
        sums = torch.stack([self.total, *(term.sum() for term in self.terms.values())])
        return dict(zip(["loss", *self.terms], sums.tolist(), strict=True))


def losses(
    output: TrainOutput,
    targets: list[Target],
    *,
    reg_scale: float = 4.0,
    weights: Weights | None = None,
    classification: Literal["vfl", "mal"] = "vfl",
    mean_over_ranks: Callable[[Tensor], Tensor] | None = None,
    world: int = 1,
    class_weights: Tensor | None = None,
) -> Losses:
    """The whole loss of one batch.

    reg_scale: the decoder's; mean_over_ranks: averages a tensor over the `world` processes of a distributed run, and
    then the mean of their totals is the loss of their batches in one, where each has as many images and queries.
    class_weights: (K,), what an object counts for in the score of its own class.
    """
    weights = weights or Weights()
    output = in_full_precision(output)
    logits, boxes = with_proposals(output)  # (L + 2, B, Q, K), (L + 2, B, Q, 4)
    truth = Truth.of(targets)
    each, union = match(logits, boxes, targets)
    counts = torch.tensor([len(truth.labels), len(union.query)], dtype=torch.float32, device=logits.device)
    counts = mean_over_ranks(counts) if mean_over_ranks else counts
    matched = counts[1] if mean_over_ranks else len(union.query)
    scored_count, located_count = counts.clamp(min=1 / world)  # at least one object in all of them
    group = Group(logits, boxes, output.queries, each, union, scored_count, located_count, counts[1])
    balance = pos_neg_balance(matched, boxes.shape[1], boxes.shape[2])
    terms = group_terms(group, truth, reg_scale, weights, classification, balance, class_weights)
    if output.denoising is not None and output.noise is not None:
        noisy = denoising_group(output.denoising, output.noise, targets, scored_count, counts[0])
        noisy_terms = group_terms(noisy, truth, reg_scale, weights, classification, balance, class_weights)
        terms |= {f"dn_{name}": value for name, value in noisy_terms.items()}
    return Losses(torch.cat(list(terms.values())).sum(), terms)


@dataclass(frozen=True)
class Truth:
    """All objects of the batch in one row: labels (M,), boxes (M, 4), boxes_xyxy (M, 4)."""

    labels: Tensor
    boxes: Tensor
    boxes_xyxy: Tensor

    @staticmethod
    def of(targets: list[Target]) -> "Truth":
        boxes = torch.cat([target.boxes for target in targets])
        return Truth(torch.cat([target.labels for target in targets]), boxes, cxcywh_to_xyxy(boxes))


@dataclass(frozen=True)
class Group:
    """One set of queries: T heads' logits (T, B, Q, K) and boxes (T, B, Q, 4), of which `layers` move edges.

    scored: the pairs the class terms use, head by head; located: the pairs the box terms use, the same for all heads.
    The counts are means over the processes; matched: that of located, which may be 0.
    """

    logits: Tensor
    boxes: Tensor
    layers: Predictions
    scored: Pairs
    located: Pairs
    scored_count: Tensor
    located_count: Tensor
    matched: Tensor


def in_full_precision(output: TrainOutput) -> TrainOutput:
    def full(p: Predictions) -> Predictions:
        return Predictions(
            p.logits.float(), p.boxes.float(), p.corners.float(), p.reference.float(), p.first_logits.float(),
            p.first_boxes.float(),
        )  # fmt: skip

    denoising = full(output.denoising) if output.denoising is not None else None
    proposal_logits, proposal_boxes = output.proposal_logits.float(), output.proposal_boxes.float()
    return TrainOutput(full(output.queries), proposal_logits, proposal_boxes, denoising, output.noise)


def with_proposals(output: TrainOutput) -> tuple[Tensor, Tensor]:
    """Layers, first head and proposals in one -> (L + 2, B, Q, K), (L + 2, B, Q, 4)."""
    queries = output.queries
    logits = torch.cat([queries.logits, queries.first_logits[None], output.proposal_logits[None]])
    return logits, torch.cat([queries.boxes, queries.first_boxes[None], output.proposal_boxes[None]])


def denoising_group(p: Predictions, noise: Denoising, targets: list[Target], count: Tensor, found: Tensor) -> Group:
    """Which query restores which object is known; every head is asked for the same. count: of objects, found or 1."""
    logits = torch.cat([p.logits, p.first_logits[None]])  # (L + 1, B, D, K)
    boxes = torch.cat([p.boxes, p.first_boxes[None]])
    starts = torch.tensor([0, *(len(target.labels) for target in targets[:-1])], device=logits.device).cumsum(0)
    located = Pairs(torch.zeros_like(noise.image), noise.image, noise.query, noise.target + starts[noise.image])
    heads = len(logits)
    answer = torch.arange(heads, device=logits.device).repeat_interleave(len(noise.image))
    scored = Pairs(answer, *(t.repeat(heads) for t in (located.image, located.query, located.target)))
    count = count * max(1, noise.groups)
    return Group(logits, boxes, p, scored, located, count, count, found * noise.groups)


def group_terms(
    group: Group,
    truth: Truth,
    reg_scale: float,
    weights: Weights,
    classification: str,
    balance: tuple[float | Tensor, float | Tensor],
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every weighted term, (T,) or (L,) or (L - 1,) values each."""
    pairs, layers = group.located, group.layers
    boxes = group.boxes[:, pairs.image, pairs.query]  # (T, M, 4)
    iou, giou = paired_giou(cxcywh_to_xyxy(boxes), truth.boxes_xyxy[pairs.target])  # (T, M)
    terms = {}
    if weights.vfl:
        score = varifocal if classification == "vfl" else matchability_aware
        terms["vfl"] = weights.vfl * score(group.logits, *soft_labels(group, truth), class_weights) / group.scored_count
    if weights.l1:
        distance = (boxes - truth.boxes[pairs.target]).abs().sum(dim=(1, 2))  # (T,)
        terms["l1"] = weights.l1 * distance / group.located_count
    if weights.giou:
        terms["giou"] = weights.giou * (1 - giou).sum(dim=1) / group.located_count
    iou = iou[: len(layers.corners)].detach()  # (L, M), the layers that move edges
    if weights.fgl:
        reference = layers.reference[pairs.image, pairs.query]  # (M, 4)
        edges = edge_targets(reference, truth.boxes_xyxy[pairs.target], reg_scale)
        corners = layers.corners[:, pairs.image, pairs.query]  # (L, M, 4, R)
        terms["fgl"] = weights.fgl * fine_grained_localization(corners, edges, iou) / group.located_count
    if weights.ddf:
        terms["ddf"] = weights.ddf * decoupled_distillation(group, iou, balance)
    return terms


def soft_labels(group: Group, truth: Truth) -> tuple[Tensor, Tensor]:
    """The true class of each matched query, by the IoU its box reaches -> IoU, matched; (T, B, Q, K) each."""
    pairs = group.scored
    boxes = group.boxes.detach()[pairs.answer, pairs.image, pairs.query]  # (M, 4)
    iou, _ = paired_giou(cxcywh_to_xyxy(boxes), truth.boxes_xyxy[pairs.target])  # (M,)
    where = (pairs.answer, pairs.image, pairs.query, truth.labels[pairs.target])
    quality = torch.zeros_like(group.logits).index_put(where, iou)
    positive = torch.zeros_like(group.logits, dtype=torch.bool).index_put(where, iou.new_ones((), dtype=torch.bool))
    return quality, positive


def varifocal(
    logits: Tensor,
    quality: Tensor,
    positive: Tensor,
    class_weights: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Tensor:
    """Varifocal loss (arXiv 2008.13367, equation 2), summed: (T, B, Q, K) three times, (K,) -> (T,)."""
    of_object = quality if class_weights is None else quality * class_weights
    weight = torch.where(positive, of_object, alpha * logits.detach().sigmoid() ** gamma)
    return weighted_entropy(logits, quality, weight)


def matchability_aware(
    logits: Tensor, quality: Tensor, positive: Tensor, class_weights: Tensor | None = None, gamma: float = 1.5
) -> Tensor:
    """Matchability-aware loss of DEIM (arXiv 2412.04234, equation 4), summed: (T, B, Q, K) x 3, (K,) -> (T,)."""
    of_object = 1.0 if class_weights is None else class_weights
    weight = torch.where(positive, of_object, logits.detach().sigmoid() ** gamma)
    return weighted_entropy(logits, quality**gamma, weight)


def weighted_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """(T, B, Q, K) three times -> (T,)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, weight=weight, reduction="none")
    return entropy.flatten(1).sum(dim=1)


def fine_grained_localization(corners: Tensor, edges: EdgeTargets, iou: Tensor) -> Tensor:
    """FGL (D-FINE, equation 6), summed: corners (L, M, 4, R), edges (M, 4), iou (L, M) -> (L,)."""
    log_p = corners.log_softmax(dim=-1)
    left = edges.left.expand(len(corners), -1, -1)[..., None]  # (L, M, 4, 1)
    entropy = (
        -log_p.gather(-1, left)[..., 0] * edges.left_weight - log_p.gather(-1, left + 1)[..., 0] * edges.right_weight
    )
    return (entropy * iou[..., None]).sum(dim=(1, 2))


def decoupled_distillation(group: Group, iou: Tensor, balance: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """DDF (D-FINE, equation 8): each layer's edges learn from the last layer's, matched and unmatched queries apart.

    iou: (L, M); balance: what the mean over matched and over unmatched queries counts for -> (L - 1,).
    """
    layers, pairs = group.layers, group.located
    teacher = (layers.corners[-1].detach() / TEMPERATURE).log_softmax(dim=-1)  # (B, Q, 4, R)
    student = (layers.corners[:-1] / TEMPERATURE).log_softmax(dim=-1)  # (L - 1, B, Q, 4, R)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=(3, 4)) / 4 * TEMPERATURE**2  # (L - 1, B, Q)
    confidence = layers.logits[-1].detach().sigmoid().amax(dim=-1)  # (B, Q)
    matched = torch.zeros_like(confidence).index_put((pairs.image, pairs.query), confidence.new_ones(()))
    positive = (divergence[:, pairs.image, pairs.query] * iou[:-1]).sum(dim=1) / group.located_count
    unmatched = (matched.numel() - group.matched).clamp(min=1)
    negative = (divergence * (confidence * (1 - matched))).sum(dim=(1, 2)) / unmatched
    return positive * balance[0] + negative * balance[1]


def pos_neg_balance(matched: int | Tensor, images: int, queries: int) -> tuple[float | Tensor, float | Tensor]:
    """Shares that grow with the root of how many queries are matched and not."""
    positive, negative = matched**0.5, (images * queries - matched) ** 0.5
    return positive / (positive + negative), negative / (positive + negative)
