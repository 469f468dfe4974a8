"""A few images learned by heart."""

import pytest

from kit import load_weights
from kit.doctor.overfit import check_overfit, share_of_rate, verdict
from kit.doctor.steps import Setting, is_untrained
from kit.params import ROOT
from tests import tiny

SETTING = Setting("vfl", 0, (64, 64), 0.1)


@pytest.mark.slow
def test_a_few_images_are_learned_to_an_ap_over_nine_tenths(tmp_path):
    detector = tiny.detector(classes=2)
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    steps: list[int] = []
    data = tiny.dataset(tmp_path)
    said, curves, images = check_overfit(detector, data, [0, 1, 2], SETTING, 200, lambda *at: steps.append(at[0]))
    assert said.mark == "well" and curves["overfit ap"].y[-1] > 0.9
    assert curves["overfit loss"].y[0] > curves["overfit loss"].y[-1] and steps[-1] == 200
    assert len(images.labels) == 3 and all(len(labels) >= 2 for labels in images.labels)  # each has two squares


def test_what_is_not_learned_is_wrong(tmp_path):
    detector = tiny.detector()
    assert is_untrained(detector)
    detector.decoder.first_box.layers[-1].bias.data.fill_(0.1)  # no longer as it began
    said, curves, _ = check_overfit(detector, tiny.dataset(tmp_path), [0, 1], SETTING, 2, None)
    assert said.mark == "wrong" and "after 2 steps" in said.found and len(curves["overfit loss"].x) == 2


def test_the_mark_follows_the_best_ap_and_random_weights_are_never_wrong():
    marks = [verdict([(20, ap), (40, 0.1)], 8, False).mark for ap in (0.91, 0.9, 0.61, 0.59)]
    assert marks == ["well", "look", "look", "wrong"]
    from_random = verdict([(20, 0.1)], 8, True)
    assert from_random.mark == "look" and "random weights" in from_random.mend


def test_the_rate_warms_up_stays_and_falls_to_nothing():
    assert [round(share_of_rate(step, 100), 3) for step in (0, 9, 49, 75)] == [0.1, 1.0, 1.0, 0.5]
    assert share_of_rate(99, 100) < 0.01
