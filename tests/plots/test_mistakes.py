from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from kit.data.augment import plain_policy
from kit.data.coco import as_coco, parse_coco
from kit.data.dataset import CocoDataset
from kit.errors import confusion_matrix, find_errors
from kit.plots.mistakes import (
    busiest,
    mistakes_of,
    plot_confusion,
    plot_error_causes,
    plot_scores_by,
    show_worst_images,
)


@pytest.fixture
def dataset(tmp_path):
    """One image with a bus on the left and a car on the right."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((100, 100, 3), 90, np.uint8))
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 100, "width": 100}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 20]},
            {"id": 2, "image_id": 5, "category_id": 9, "bbox": [60, 0, 20, 20]},
        ],
        "categories": [{"id": 3, "name": "bus"}, {"id": 9, "name": "car"}],
    }
    return CocoDataset(parse_coco(content, Path("a.json")), tmp_path, plain_policy())


@pytest.fixture
def errors(dataset):
    """The bus is found, the car is not, and a bus is seen where there is nothing."""
    bus = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 20], "score": 0.9}
    return find_errors([bus, bus | {"bbox": [0, 60, 20, 20], "score": 0.7}], as_coco(dataset.coco), 0.5)


def test_bars_are_as_long_as_the_counts_of_each_cause(errors):
    figure = plot_error_causes(errors)
    false, missed = figure.axes[:2]
    assert [bar.get_width() for bar in false.patches if bar.get_width()] == [1]
    assert [text.get_text().strip() for text in false.texts] == ["1", "0"]
    assert [text.get_text().strip() for text in missed.texts] == ["0", "1"]


def test_only_the_busiest_rows_are_shown_and_in_their_order():
    table = pd.DataFrame({"background": range(30)}, index=[f"class {label}" for label in range(30)])
    assert busiest(table).index.tolist() == [f"class {label}" for label in range(10, 30)]


def test_precision_and_recall_of_a_class_stand_side_by_side(errors):
    heights = [bar.get_height() for bar in plot_scores_by(errors).axes[0].patches]
    assert heights == [0.5, 0, 1, 0]  # precision of bus and car, recall of bus and car


def test_the_confusion_matrix_shows_its_counts(errors):
    axes = plot_confusion(confusion_matrix(errors)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "1", "1"]


def test_a_picture_of_mistakes_has_every_box_once(errors, dataset):
    shot = mistakes_of(errors, dataset, 5)
    assert shot.outcomes == ["correct", "false", "missed"] and shot.labels.tolist() == [0, 0, 1]
    assert shot.boxes_xyxy_px.tolist() == [[0, 0, 20, 20], [0, 60, 20, 80], [60, 0, 80, 20]]
    assert shot.heading == "a.png: 1 correct, 1 false, 1 missed"
    assert len(show_worst_images(errors, dataset, [5], "Worst").axes[0].patches) == 3


def test_no_errors_can_be_drawn(dataset):
    truths = as_coco(dataset.coco)
    perfect = find_errors([entry | {"score": 1.0} for entry in truths["annotations"]], truths, 0.5)
    for figure in (plot_error_causes(perfect), plot_scores_by(perfect), plot_confusion(confusion_matrix(perfect))):
        figure.canvas.draw()


@pytest.mark.parametrize(("groups", "panels"), [({5: "night", 6: "day"}, 4), ({5: "day", 6: "day"}, 3), (None, 3)])
def test_precision_and_recall_are_shown_by_group_where_there_are_several(dataset, groups, panels):
    truths = as_coco(dataset.coco)
    other = {"id": 6, "file_name": "b.png", "height": 100, "width": 100}
    car = truths["annotations"][0] | {"id": 9, "image_id": 6}
    truths |= {"images": [*truths["images"], other], "annotations": [*truths["annotations"], car]}
    figure = plot_scores_by(find_errors([], truths, 0.5, groups))
    headings = [axes.get_title(loc="left") for axes in figure.axes]
    assert headings == ["By class", "By size", "By distance from the centre", "By time of day"][:panels]
