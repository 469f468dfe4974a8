from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import parse_coco, read_coco
from kit.plots.statistics import (
    class_counts,
    frequent,
    plot_box_sizes,
    plot_cameras,
    plot_class_counts,
    plot_comparison,
    plot_objects_per_image,
    plot_positions,
    plot_radius,
    quartiles_by,
    stack,
)


def coco_of(*images):
    """images: lists of (x, y, w, h, category id, is crowd), each 200 wide and 100 high."""
    entries = [
        {"id": number, "file_name": f"{number}.png", "height": 100, "width": 200}
        for number in range(1, len(images) + 1)
    ]
    annotations = [
        {"id": 10 * number + row, "image_id": number, "bbox": box, "category_id": category_id, "iscrowd": crowd}
        for number, boxes in enumerate(images, 1)
        for row, (*box, category_id, crowd) in enumerate(boxes)
    ]
    categories = [{"id": 3, "name": "bus"}, {"id": 7, "name": "car"}]
    return parse_coco({"images": entries, "annotations": annotations, "categories": categories}, Path("a.json"))


@pytest.fixture
def coco():
    """Two cars and a bus in the first image, a crowd of cars in the second, nothing in the third."""
    objects = [(0, 0, 20, 20, 7, 0), (190, 0, 10, 10, 7, 0), (80, 30, 40, 40, 3, 0)]
    return coco_of(objects, [(0, 0, 50, 50, 7, 1)], [])


@pytest.fixture
def nothing():
    return coco_of([])


def test_crowds_and_empty_images_are_not_counted(coco):
    assert class_counts(coco).tolist() == [[1, 1], [2, 1]]


def test_all_objects_are_stacked_with_the_size_of_their_image(coco):
    boxes, labels, sizes_hw = stack(coco)
    assert boxes[1].tolist() == [190, 0, 200, 10] and labels.tolist() == [1, 1, 0]
    assert sizes_hw.tolist() == [[100, 200]] * 3


def test_frequent_labels_come_in_order_and_absent_ones_do_not():
    assert frequent(np.array([5, 5, 2, 0, 0, 0]), 8, most=2) == [0, 5]
    assert frequent(np.zeros(0, int), 8) == []


def test_a_box_in_the_upper_right_corner_is_bright_there():
    corner = coco_of([(190, 0, 10, 10, 7, 0)])
    heat = plot_positions(corner, most_bins=8).axes[0].get_images()[0].get_array()
    assert np.argwhere(heat > 0).tolist() == [[0, heat.shape[1] - 1]]


def test_quartiles_are_those_of_each_bin_and_thin_bins_are_left_out():
    keys, values = np.array([0.5] * 5 + [1.5] * 4), np.array([1, 2, 3, 4, 5, 9, 9, 9, 9])
    middles, quartiles = quartiles_by(keys, values, np.array([0.0, 1.0, 2.0]))
    assert middles.tolist() == [0.5] and quartiles.tolist() == [[2, 3, 4]]


def test_bars_tell_the_boxes_of_each_class(coco):
    (axes,) = plot_class_counts({"train": coco}).axes
    assert [bar.get_width() for bar in axes.patches] == [2, 1]
    assert axes.texts[0].get_text() == "2 (67%) in 1 images"


def test_cameras_are_counted_by_part_and_stand_in_the_order_of_their_numbers():
    figure = plot_cameras(["camera 10", "camera 2", "camera 2"], ["train", "train", "val"], [5, 1, 0], "Cameras")
    images, boxes = figure.axes
    assert [tick.get_text() for tick in images.get_yticklabels()] == ["camera 2", "camera 10"]
    assert images.get_images()[0].get_array().tolist() == [[1, 1], [1, 0]]
    assert boxes.get_images()[0].get_array().tolist() == [[0.2, 0], [1, 0]]


def test_the_groups_of_a_comparison_keep_their_colour(coco, nothing):
    axes = plot_comparison({"day": coco, "night": nothing}, "Day and night").axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2


@pytest.mark.parametrize("plot", [plot_box_sizes, plot_positions, plot_radius])
def test_a_file_without_boxes_can_be_drawn(nothing, plot):
    plot(nothing).canvas.draw()


@pytest.mark.parametrize("plot", [plot_class_counts, plot_objects_per_image, lambda files: plot_comparison(files, "")])
def test_files_without_boxes_can_be_drawn(nothing, plot):
    plot({"train": nothing, "val": replace(nothing, records=[])}).canvas.draw()


def test_all_boxes_of_fisheye8k_are_drawn(shared):
    coco = read_coco(shared("data/fisheye8k_mini/annotations_full/fisheye8k_gt_test.json.gz"))
    texts = [text.get_text() for text in plot_class_counts({"test": coco}).axes[0].texts]
    assert texts[0].startswith("26,230 (58%)")
