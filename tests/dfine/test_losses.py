"""What the official figures do not cover: options, and cases small enough for the hand."""

import math

import pytest
import torch

from kit.boxes import Target
from kit.dfine.denoising import make_denoising, noisy_boxes, noisy_labels
from kit.dfine.losses import Losses, Weights, losses, matchability_aware, pos_neg_balance, varifocal
from kit.dfine.matching import match, union
from tests import tiny
from tests.dfine.test_detector import Transfers


def one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_varifocal_weighs_a_positive_by_its_iou_and_a_negative_by_its_score() -> None:
    yes, no = torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    assert varifocal(one(0.0), one(0.5), yes).item() == pytest.approx(0.5 * math.log(2))
    assert varifocal(one(0.0), one(0.0), no).item() == pytest.approx(0.75 * 0.25 * math.log(2))


def test_matchability_aware_aims_at_the_iou_to_the_gamma_with_full_weight() -> None:
    yes, no = torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    aim = 0.25**1.5  # 0.125
    found = matchability_aware(one(2.0), one(0.25), yes).item()
    p = 1 / (1 + math.exp(-2.0))
    assert found == pytest.approx(-(aim * math.log(p) + (1 - aim) * math.log(1 - p)), rel=1e-5)
    assert matchability_aware(one(0.0), one(0.0), no).item() == pytest.approx(0.5**1.5 * math.log(2))


def test_the_balance_follows_the_roots_of_the_counts() -> None:
    assert pos_neg_balance(1, 1, 10) == (0.25, 0.75)  # 1 : sqrt(9)


def test_a_term_of_weight_zero_is_not_computed() -> None:
    detector = tiny.detector().train()
    target = [Target(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([1]))]
    output = detector(torch.rand(1, 3, 64, 64), make_denoising(target, 2, num_matching=20))
    found = losses(output, target, weights=Weights(fgl=0.0, ddf=0.0), classification="mal")
    assert set(found.terms) == {"vfl", "l1", "giou", "dn_vfl", "dn_l1", "dn_giou"}
    assert found.total.item() == pytest.approx(sum(value.sum().item() for value in found.terms.values()), rel=1e-5)


def test_all_figures_come_in_one_transfer_and_a_bad_one_is_told_by_its_term() -> None:
    terms = {"vfl": torch.tensor([1.0, 2.0]), "l1": torch.tensor([math.nan, 0.5])}
    with Transfers() as transfers:
        figures = Losses(torch.tensor(math.nan), terms).figures()
    assert list(figures) == ["loss", "vfl", "l1"] and figures["vfl"] == 3.0
    assert math.isnan(figures["loss"]) and math.isnan(figures["l1"])
    assert transfers.found == []  # no entry was read by itself


def test_each_head_takes_the_query_that_fits_best() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]).expand(2, 1, 2, 4)  # two heads, two queries
    logits = torch.zeros(2, 1, 2, 3)
    target = [Target(torch.tensor([[0.12, 0.1, 0.1, 0.1]]), torch.tensor([2]))]
    each, together = match(logits, boxes, target)
    assert each.answer.tolist() == [0, 1] and each.query.tolist() == [1, 1] and together.query.tolist() == [1]


def test_the_union_takes_most_votes_then_the_first_target() -> None:
    rows = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 0, 0], [4, 4, 4, 5, 5], [1, 0, 1, 3, 2]]).numpy()
    assert union(rows).tolist() == [[0, 0], [0, 0], [4, 5], [1, 2]]


def test_padding_labels_stay_padding_and_noise_zero_changes_nothing() -> None:
    labels = torch.tensor([[0, 3, 1, 3]])
    assert noisy_labels(labels, 3, noise=0.0, generator=None).tolist() == labels.tolist()
    noisy = noisy_labels(labels.repeat(1, 500), 3, noise=1.0, generator=torch.Generator().manual_seed(0))
    assert (noisy[0, 1::2] == 3).all() and 0.2 < (noisy[0, 0::4] != 0).float().mean() < 0.45  # 1/2 drawn, 2/3 differ


@pytest.mark.parametrize("reject, low, high", [(False, 0.0, 0.5), (True, 0.5, 1.0)])
def test_box_noise_moves_each_edge_by_a_share_of_the_size(reject: bool, low: float, high: float) -> None:
    boxes = torch.tensor([0.5, 0.5, 0.1, 0.1]).repeat(1, 400, 1)
    noisy = noisy_boxes(boxes, torch.full((400,), reject), 1.0, torch.Generator().manual_seed(0))
    left = noisy[..., 0] - noisy[..., 2] / 2  # of boxes whose edges did not pass each other
    moved = ((left - 0.45).abs() / 0.1)[noisy[..., 2] > 1e-4]
    assert moved.max() <= (high if not reject else 1.6) and moved.quantile(0.5) > low


def test_noise_follows_its_generator_alone() -> None:
    target = [Target(torch.full((3, 4), 0.3), torch.arange(3))]
    a, b = (make_denoising(target, 5, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels)
