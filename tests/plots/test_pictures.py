from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from kit.boxes import Target
from kit.data.augment import plain_policy
from kit.data.coco import parse_coco
from kit.data.dataset import Batch, CocoDataset, Sample
from kit.plots.canvas import OUTCOMES, class_colour
from kit.plots.pictures import Shot, show_batch, show_detections, show_images, show_mistakes, show_sample, show_shots

NAMES = ["bus", "car"]


def boxes_in(axes):
    """x, y, w, h of each outline."""
    rectangles = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(*box.get_xy(), box.get_width(), box.get_height()) for box in rectangles]


def sample(channels=3, boxes=((0.5, 0.5, 0.2, 0.4),)):
    image = torch.zeros(channels, 50, 100, dtype=torch.uint8)
    return Sample(image, torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64), 7, (50, 100))


@pytest.fixture
def dataset(tmp_path):
    """One image, 100 wide and 50 high, with a car; category ids 3 and 9."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((50, 100, 3), 90, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 100}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [10, 10, 20, 30]}],
        "categories": [{"id": 3, "name": "bus"}, {"id": 9, "name": "car"}],
    }
    return CocoDataset(parse_coco(content, Path("a.json")), tmp_path, plain_policy())


def test_a_sample_shows_its_box_in_place_with_colour_and_name():
    axes = show_sample(sample(), NAMES).axes[0]
    assert boxes_in(axes) == [pytest.approx((39.5, 14.5, 20, 20), abs=1e-4)]
    assert [text.get_text() for text in axes.texts] == ["car"]
    assert axes.texts[0].get_bbox_patch().get_facecolor()[:3] == pytest.approx(hex_to_rgb(class_colour(1)), abs=0.01)


def hex_to_rgb(colour):
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize(("channels", "shape"), [(1, (50, 100)), (3, (50, 100, 3)), (4, (50, 100, 3))])
def test_grey_images_and_a_fourth_channel_are_shown(channels, shape):
    figure = show_sample(sample(channels), NAMES)
    assert figure.axes[0].get_images()[0].get_array().shape == shape


def test_an_image_without_boxes_is_shown_without_a_legend():
    figure = show_sample(sample(boxes=()), NAMES)
    assert boxes_in(figure.axes[0]) == [] and figure.legends == []


def test_a_batch_shows_its_first_images_as_the_model_sees_them():
    target = Target(torch.tensor([[0.5, 0.5, 1.0, 1.0]]), torch.tensor([0]))
    batch = Batch(torch.zeros(3, 3, 32, 64, dtype=torch.uint8), [target] * 3, [1, 2, 3], [(480, 640)] * 3)
    figure = show_batch(batch, NAMES, most=2)
    assert len(figure.axes) == 2 and boxes_in(figure.axes[1]) == [(-0.5, -0.5, 64, 32)]


def test_a_stored_image_is_shown_with_its_annotations(dataset):
    axes = show_images(dataset, [0], "Train").axes[0]
    assert boxes_in(axes) == [(9.5, 9.5, 20, 30)]
    assert axes.get_title(loc="left") == "a.png: 1 boxes"


def test_long_headings_lose_their_middle_and_do_not_run_into_each_other():
    heading = "street_" * 9 + "$1$.png: 12 boxes"
    shots = [Shot(np.zeros((30, 60, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, int), heading)] * 3
    figure = show_shots(shots, NAMES, "Train")
    figure.draw_without_rendering()
    assert figure.axes[0].get_title(loc="left").endswith(r"..t_\$1\$.png: 12 boxes")
    widths = [axes._left_title.get_window_extent() for axes in figure.axes]
    assert all(one.x1 < other.x0 for one, other in pairwise(widths))
    assert widths[-1].x1 < figure.bbox.x1


def test_detections_under_the_score_and_of_other_images_are_not_shown(dataset):
    box = {"image_id": 1, "category_id": 9, "bbox": [50, 20, 10, 10], "score": 0.8}
    found = [box, box | {"score": 0.1}, box | {"image_id": 2}]
    axes = show_detections(dataset, [0], found, "Detections", least_score=0.3).axes[0]
    assert boxes_in(axes) == [(49.5, 19.5, 10, 10)] and axes.texts[0].get_text() == "car 0.80"


def test_mistakes_differ_in_colour_and_in_line_and_are_told_in_the_legend():
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], np.float64)
    shot = Shot(np.zeros((50, 100, 3), np.uint8), boxes, np.array([0, 0, 1]), outcomes=list(OUTCOMES))
    figure = show_mistakes([shot], NAMES, "Mistakes")
    assert len({patch.get_linestyle() for patch in figure.axes[0].patches}) == 3
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "correct detection",
        "false detection",
        "object missed",
    ]
