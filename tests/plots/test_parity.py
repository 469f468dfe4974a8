import numpy as np
import pytest

from kit.plots.parity import Parity, plot_parity


def parity(passed: bool = True, **changes: object) -> Parity:
    figures: dict[str, object] = {
        "heading": "onnxruntime fp32",
        "passed": passed,
        "reference": np.array([0.9, 0.4]),
        "candidate": np.array([0.9, 0.5]),
        "iou": np.array([1.0, 0.9]),
        "missing": 0,
        "added": 0,
        "before": {"AP": 0.5, "F1": 0.4},
        "after": {"AP": 0.45, "F1": 0.4},
    }
    return Parity(**(figures | changes))  # type: ignore[arg-type]


def test_each_comparison_has_a_row_of_scores_overlaps_and_accuracy():
    figure = plot_parity([parity(), parity(passed=False)])
    assert len(figure.axes) == 6
    scores, overlaps, accuracy = figure.axes[:3]
    assert scores.collections[0].get_offsets().tolist() == [[0.9, 0.9], [0.4, 0.5]]
    assert sum(bar.get_height() for bar in overlaps.patches) == 2
    assert [bar.get_height() for bar in accuracy.patches] == [0.5, 0.4, 0.45, 0.4]


def test_a_long_heading_does_not_run_into_the_next_panel():
    figure = plot_parity([parity(heading="onnxruntime fp16 (cpu, rounded as on a GPU): passed")])
    scores, overlaps = figure.axes[:2]
    figure.canvas.draw()
    assert scores._left_title.get_window_extent().x1 < overlaps._left_title.get_window_extent().x0


def test_what_was_refused_has_another_colour():
    passed, refused = plot_parity([parity(), parity(passed=False)]).axes[::3]
    assert (passed.collections[0].get_facecolor() != refused.collections[0].get_facecolor()).any()


def test_boxes_without_a_partner_are_counted():
    overlaps = plot_parity([parity(missing=3, added=2)]).axes[1]
    assert overlaps.patches[-1].get_height() == 5
    assert overlaps.get_title(loc="left") == "2 boxes matched; at the right, dark: 3 missing, 2 added"


def test_nothing_matched_and_no_annotations_can_be_drawn():
    nothing = np.zeros(0)
    figure = plot_parity([parity(reference=nothing, candidate=nothing, iou=nothing, before={}, after={})])
    figure.canvas.draw()
    assert figure.axes[2].texts[0].get_text() == "no annotations were given"


def test_no_comparison_is_told():
    with pytest.raises(ValueError, match="expected at least one comparison, got none"):
        plot_parity([])
