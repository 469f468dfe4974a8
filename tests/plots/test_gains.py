from dataclasses import replace

import pytest

from kit.data.augment import plain_policy
from kit.data.coco import as_coco
from kit.data.dataset import CocoDataset
from kit.errors import find_errors
from kit.gains import Judge, Step, choose_method
from kit.plots.gains import most_changed, plot_gains, show_changes
from kit.sources import Fusion, Source
from tests import tiny
from tests.test_gains import BUS, CAR, FOLDS, IMAGES, NOTHING, SIZES_HW, coco_of, found


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    judge = Judge(coco_of(IMAGES), FOLDS, report=coco_of([1, 2], shift=5.0))
    one = Source("one", {"whole": found(BUS, CAR, NOTHING), "flip": found(BUS, CAR)}, seconds={"whole": 1, "flip": 2})
    return choose_method([one], judge, Fusion(), SIZES_HW, finest="class").steps


def widths(axes) -> list[float]:
    return [patch.get_width() for patch in axes.patches]


def test_each_step_after_the_first_has_a_bar_of_its_gain_in_points(steps):
    gain, _, cost = plot_gains(steps).axes
    assert widths(gain) == pytest.approx([100 * step.gain for step in steps[1:]])
    assert [text.get_text() for text in gain.get_yticklabels()] == [step.name for step in steps]
    assert widths(cost) == [step.seconds for step in steps]


def test_what_was_dropped_differs_in_colour_and_hatch(steps):
    bars = plot_gains([steps[0], replace(steps[1], kept=True), replace(steps[2], kept=False)]).axes[0].patches
    assert bars[0].get_facecolor() != bars[1].get_facecolor() and (bars[0].get_hatch(), bars[1].get_hatch()) == (
        None,
        "///",
    )


def test_the_title_tells_the_score_on_images_kept_for_the_report_too(steps):
    assert "; on images kept for the report from " in plot_gains(steps)._suptitle.get_text()
    quiet = [replace(step, score=replace(step.score, report=None), seconds=None) for step in steps]
    figure = plot_gains(quiet, "ap")
    figure.canvas.draw()
    assert "report" not in figure._suptitle.get_text() and figure._suptitle.get_text().startswith("Step by step: AP")


def test_a_single_step_can_be_drawn(steps):
    plot_gains(steps[:1]).canvas.draw()


def test_images_that_changed_most_come_from_both_ends_and_unchanged_ones_never(tmp_path):
    data = tiny.dataset(tmp_path, images=4, objects=1)
    truths = as_coco(data.coco)
    right = [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for each in truths["annotations"]
    ]
    before = find_errors([each for each in right if each["image_id"] in (1, 4)], truths, 0.5)
    after = find_errors([each for each in right if each["image_id"] in (2, 3, 4)], truths, 0.5)
    assert most_changed(before, after, 9) == [(1, 1), (2, -1), (3, -1)]
    assert most_changed(before, before, 9) == []
    figure = show_changes(before, after, CocoDataset(data.coco, data.images, plain_policy()), 2, "Changes")
    headings = [axes.get_title(loc="left") for axes in figure.axes]
    assert headings[:2] == [
        "before: 1.png: 1 correct, 0 false, 0 missed",
        "after: 0 correct, 0 false, 1 missed (+1 errors)",
    ]
    show_changes(before, before, data, 2, "Nothing changed").canvas.draw()
