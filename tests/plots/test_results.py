import pytest

from kit.metrics import match, search_thresholds
from kit.plots.results import plot_f1_curves, plot_history, plot_precision_recall, plot_thresholds

CATEGORIES = [{"id": 3, "name": "bus"}, {"id": 7, "name": "car"}]


def box(image_id, category_id, x, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": [x, 0, 10, 10], **more}


@pytest.fixture
def matches():
    """Image 1: a bus found at 0.9. Image 2: a car found at 0.6, and a car at 0.3 where there is none."""
    truths = [box(1, 3, 0, id=1), box(2, 7, 0, id=2)]
    found = [box(1, 3, 0, score=0.9), box(2, 7, 0, score=0.6), box(2, 7, 50, score=0.3)]
    images = [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}]
    return match(found, {"images": images, "annotations": truths, "categories": CATEGORIES})


def stars(axes):
    return [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "*"]


def test_the_best_epoch_counted_from_1_is_marked_and_epochs_without_validation_are_skipped():
    history = [{"epoch": e, "loss": 3.0 - e, "lr": 1e-3} for e in range(4)]
    history[1] |= {"ap": 0.3, "ap50": 0.5, "f1": 0.2}
    history[3] |= {"ap": 0.2, "ap50": 0.6, "f1": 0.4}
    quality = plot_history(history, "ap").axes[1]
    assert stars(quality) == [(2, 0.3)] and quality.lines[0].get_xdata().tolist() == [2, 4]
    assert stars(plot_history(history, "f1").axes[1]) == [(4, 0.4)]


def test_a_run_without_val_or_without_an_epoch_can_be_drawn():
    for history in ([], [{"epoch": 0, "loss": 1.0, "lr": 1e-3}]):
        figure = plot_history(history)
        figure.canvas.draw()
        assert figure.axes[1].texts[0].get_text() == "not evaluated"


def test_dots_stand_where_the_chosen_thresholds_cut(matches):
    levels = search_thresholds(matches)
    overall, by_class = plot_f1_curves(matches, levels["global"], levels["class"]).axes
    dots = [tuple(line.get_xydata()[0]) for line in by_class.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx((0.9, 1), abs=1e-6), pytest.approx((0.6, 1), abs=1e-6)]
    assert overall.lines[0].get_ydata().tolist() == pytest.approx([0.5, 1, 5 / 6], abs=1e-6)


def test_the_curve_of_a_class_ends_at_its_precision_and_recall(matches):
    precision_recall, f1, _, _ = plot_precision_recall(matches).axes
    bus, car = precision_recall.lines
    assert bus.get_xydata().tolist() == [[1, 1]] and car.get_xydata().tolist() == [[1, 1], [1, 0.5]]
    assert f1.lines[1].get_ydata().tolist() == pytest.approx([1, 2 / 3], abs=1e-6)


def test_thresholds_by_group_are_bars_with_their_group(matches):
    thresholds = search_thresholds(matches, {1: "day", 2: "night"})["class_group"]
    axes = plot_thresholds(thresholds, matches.names).axes[0]
    assert len(axes.patches) == 4 and {text.get_text().split()[1] for text in axes.texts} == {"day", "night"}


def test_nothing_found_can_be_drawn(matches):
    empty = matches.keep(matches.score > 2)
    levels = search_thresholds(empty)
    for figure in (
        plot_f1_curves(empty, levels["global"], levels["class"]),
        plot_precision_recall(empty, levels["class"]),
    ):
        figure.canvas.draw()
