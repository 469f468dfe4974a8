from pathlib import Path

import pytest

from kit.metrics.bootstrap import Difference
from kit.plots.stage2 import plot_candidates, plot_pseudo_gain, plot_soup, plot_stage2, verdict
from kit.soup import greedy_soup
from kit.stage2 import Candidate, Gain, Labels

STAGE_1 = {"ap": 0.3, "ap50": 0.5, "f1": 0.2}
LABELS = Labels({"bus": 10, "car": 90}, {"bus": 5, "car": 0}, frozenset({4}))


def history(*values):
    return [{"epoch": epoch, "ap": ap, "ap50": 0.5, "f1": 0.2} for epoch, ap in enumerate(values)]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def stars(axes):
    return [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "*"]


def test_both_runs_begin_at_stage_1_and_their_best_epochs_are_marked_where_it_is_chosen():
    ap, _, f1 = plot_stage2(history(0.31, 0.35), history(0.33, 0.32), STAGE_1).axes
    curves = [line.get_xydata().tolist() for line in ap.lines if line.get_marker() == "."]
    assert curves == [[[0, 0.3], [1, 0.31], [2, 0.35]], [[0, 0.3], [1, 0.33], [2, 0.32]]]
    assert stars(ap) == [(2, 0.35), (1, 0.33)] and stars(f1) == []


def test_a_run_without_control_or_without_an_epoch_can_be_drawn():
    labels = [text.get_text() for text in plot_stage2(history(0.4), None, STAGE_1).axes[0].get_legend().get_texts()]
    assert labels == ["stage 1", "stage 2"]
    plot_stage2([], None, STAGE_1).canvas.draw()


def test_the_candidates_stand_with_both_figures_and_the_chosen_one_says_so():
    tune = {"ap": 0.4, "ap50": 0.6, "f1": 0.5}
    found = [
        Candidate("stage 1", (Path("a/1.pt"),), STAGE_1, STAGE_1),
        Candidate("SWA", (Path("a/2.pt"),), tune, {**tune, "ap": 0.35}),
    ]
    figure = plot_candidates(found, "SWA")
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["stage 1", "SWA, chosen"]
    assert texts(figure.axes[0]) == ["0.300", "0.300", "0.400", "0.350"]
    assert texts(plot_candidates([Candidate("stage 1", (), STAGE_1)], "stage 1", "f1").axes[2]) == ["0.200"]


def test_the_soup_shows_what_was_kept_and_what_was_left_out():
    a, b, c = (Path(f"run/{name}.pt") for name in "abc")
    scores = {(a,): 0.5, (b,): 0.4, (c,): 0.3, (a, b): 0.45, (a, c): 0.6}
    (axes,) = plot_soup(greedy_soup([a, b, c], scores.__getitem__)).axes
    points = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert points["soup with it: kept"] == [[0.5, 0], [0.6, 2]]
    assert points["soup with it: left out"] == [[0.45, 1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["run/a.pt", "run/b.pt", "run/c.pt"]


def test_what_pseudo_labels_gave_stands_beside_what_they_added():
    gain = Gain(Difference(0.02, 0.01, 0.03), Difference(0.0, -0.1, 0.1), {"car": 0.03, "bus": -0.01})
    figure = plot_pseudo_gain(gain, LABELS, "report")
    added, changed = figure.axes
    assert [label.get_text() for label in added.get_yticklabels()] == ["car", "bus"]
    assert texts(added) == ["+0 (0%)", "+5 (50%)"] and texts(changed) == ["+0.030", "-0.010"]
    assert figure.get_suptitle().startswith("Pseudo labels helped: AP +0.020 (+0.010 to +0.030), F1 +0.000")
    assert "no sure difference" in plot_pseudo_gain(gain, LABELS, select_by="f1").get_suptitle()


def test_a_class_without_ground_truth_in_the_part_and_no_control_can_be_drawn():
    gain = Gain(Difference(0.0, 0.0, 0.0), Difference(0.0, 0.0, 0.0), {"car": 0.0})
    assert texts(plot_pseudo_gain(gain, LABELS).axes[1]) == ["+0.000"]
    assert "no control" in texts(plot_pseudo_gain(None, LABELS).axes[1])[0]


@pytest.mark.parametrize(
    "low, high, word", [(0.01, 0.03, "helped"), (-0.03, -0.01, "did harm"), (-0.01, 0.03, "made no sure difference")]
)
def test_the_verdict_is_no_more_than_the_span_allows(low, high, word):
    assert verdict(Difference((low + high) / 2, low, high)) == word


def test_an_axis_never_makes_much_of_next_to_nothing():
    figure = plot_candidates(
        [Candidate(name, (), STAGE_1 | {"ap": ap}) for name, ap in (("a", 0.3), ("b", 0.301))], "b"
    )
    low, high = figure.axes[0].get_xlim()
    assert high - low >= 0.03 and low < 0.3 < 0.301 < high
