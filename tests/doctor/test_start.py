"""The loss at the start and the gradients: a fresh detector is as derived, broken ones are not."""

import math

import pytest
import torch
from torch import nn

from kit.dfine.bins import BINS
from kit.doctor.start import check_gradients, check_start, untrained_answer
from kit.doctor.steps import Setting, Trial, is_untrained, plain_batch
from kit.optimisation import freeze
from tests import tiny

SETTING = Setting("vfl", 0, (64, 64))


@pytest.fixture
def batch(tmp_path):
    return plain_batch(tiny.dataset(tmp_path), [0, 1, 2, 3], (64, 64))


@pytest.mark.parametrize("classification", ["vfl", "mal"])
def test_a_fresh_detector_has_the_loss_that_follows_from_its_heads(batch, classification):
    verdict, rows = check_start(tiny.detector(), batch, Setting(classification, 0, (64, 64)), True)
    expected, found = rows[0]["expected"], rows[0]["found"]
    assert verdict.mark == "well" and found == pytest.approx(expected, rel=0.05)
    boxes = {row["term"]: (row["expected"], row["found"]) for row in rows}
    assert boxes["dn_l1"][1] == pytest.approx(boxes["dn_l1"][0], rel=1e-4)  # noisy boxes are given back as they are


def test_the_edges_of_the_expected_answer_cost_the_logarithm_of_the_bins(batch):
    """FGL of even bins: 4 edges, ln R each, weighted by the IoU; the noise tells that IoU."""
    trial = Trial.of(tiny.detector(), SETTING)
    answer = untrained_answer(trial, batch)
    assert not answer.queries.corners.any() and torch.equal(answer.denoising.boxes[0], answer.noise.boxes)
    terms = trial.losses_of(answer, batch).terms
    assert float(terms["dn_fgl"][0]) < 0.15 * 4 * math.log(BINS) and float(terms["dn_fgl"][0]) > 0


def test_a_head_that_begins_elsewhere_is_told(batch):
    detector = tiny.detector()
    for head in [*detector.decoder.score, detector.decoder.selection.score]:
        nn.init.zeros_(head.bias)
    verdict, _ = check_start(detector, batch, SETTING, True)
    assert verdict.mark == "wrong" and "vfl" in verdict.found


def test_boxes_that_do_not_begin_at_their_anchors_are_told(batch):
    detector = tiny.detector()
    detector.decoder.first_box.layers[-1].bias.data.fill_(4.0)
    assert check_start(detector, batch, SETTING, True)[0].mark == "wrong" and not is_untrained(detector)


def test_weights_worse_than_none_are_wrong(batch):
    detector = tiny.detector()
    assert is_untrained(detector) and check_start(detector, batch, SETTING, False)[0].mark != "wrong"
    for weight in detector.decoder.parameters():
        nn.init.normal_(weight, std=2.0)
    assert check_start(detector, batch, SETTING, False)[0].mark == "wrong"


@pytest.mark.slow
def test_gradients_reach_every_weight_and_leave_the_detector_alone(batch):
    detector = tiny.detector()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    (gradients, frozen), rows = check_gradients(detector, batch, SETTING)
    assert gradients.mark == frozen.mark == "well" and "0 frozen" in gradients.found
    assert {str(row["part"]).split(".")[0] for row in rows} == {"backbone", "encoder", "decoder"}
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.slow
def test_a_part_that_the_loss_does_not_reach_is_named(batch):
    detector = tiny.detector()
    detector.decoder.unused = nn.Linear(3, 3)
    (gradients, _), _ = check_gradients(detector, batch, SETTING)
    assert gradients.mark == "wrong" and "decoder.unused.weight" in gradients.found


def test_frozen_weights_are_counted_and_stay(batch):
    detector = tiny.detector()
    freeze(detector, "backbone")
    (gradients, frozen), rows = check_gradients(detector, batch, SETTING)
    assert gradients.mark == frozen.mark == "well" and "0 frozen" not in gradients.found
    assert not [row for row in rows if str(row["part"]).startswith("backbone")]


def test_with_everything_frozen_there_is_nothing_to_train(batch):
    detector = tiny.detector().requires_grad_(False)
    (gradients,), _ = check_gradients(detector, batch, SETTING)
    assert gradients.mark == "wrong" and "lower freeze" in gradients.mend
