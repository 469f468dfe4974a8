from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from kit.data.census import objects_table
from kit.data.coco import parse_coco
from kit.data.label_sanity import suspects
from kit.data.near_duplicates import Nearest
from kit.plots.suspects import (
    SUSPECT,
    Twins,
    closest,
    plot_nearest,
    plot_suspects,
    short_name,
    show_suspects,
    show_twins,
    strongest,
    window,
)

NAMES = ["bus", "car"]


@pytest.fixture
def files():
    """A car twice, a bus on a car, and a tiny car."""
    boxes = [[50, 40, 40, 40, 1], [51, 40, 40, 40, 1], [140, 40, 40, 40, 1], [140, 41, 40, 40, 0], [5, 5, 3, 3, 1]]
    annotations = [
        {"id": number, "image_id": 1, "bbox": box, "category_id": label}
        for number, (*box, label) in enumerate(boxes, 1)
    ]
    image = {"id": 1, "file_name": "a.png", "width": 200, "height": 100}
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    content = {"images": [image], "annotations": annotations, "categories": categories}
    return {"train": parse_coco(content, Path("a.json"))}


def picture(path, value=0, size_hw=(100, 200)):
    cv2.imwrite(str(path), np.full((*size_hw, 3), value, np.uint8))
    return path


def test_suspects_are_counted_by_kind_and_class(files):
    objects = objects_table(files, None)
    axes = plot_suspects(suspects(objects), objects, NAMES).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "tiny",
        "twice at one place",
        "two classes at one place",
    ]
    assert [text.get_text().strip() for text in axes.texts] == ["1", "1", "1"]


def test_the_suspect_is_cut_out_in_red_with_the_reason(files, tmp_path):
    picture(tmp_path / "a.png")
    found = suspects(objects_table(files, None))
    figure = show_suspects(found[found["kind"] == "tiny"], files, {"train": tmp_path}, most=4)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "tiny: car\n3.0 px at its shorter side\na.png"
    red = [box for box in axes.patches if box.get_edgecolor()[:3] == pytest.approx((0.89, 0, 0.06), abs=0.01)]
    assert len(red) == 1 and red[0].get_bbox().bounds == (4.5, 4.5, 3, 3) and SUSPECT == "#e3000f"
    assert axes.get_images()[0].get_array().shape == (100, 120, 3)  # the window is pushed into the image


def test_the_first_of_each_kind_come_before_the_second_of_any():
    table = pd.DataFrame({"kind": ["a", "a", "a", "b", "c"], "strength": [9, 8, 7, 1, 1]})
    assert strongest(table, 4)[["kind", "strength"]].to_numpy().tolist() == [["a", 9], ["b", 1], ["c", 1], ["a", 8]]


def test_a_window_is_three_boxes_wide_and_inside_the_image():
    low, high = window(np.array([500.0, 500, 600, 550]), (1000, 1000))
    assert low.tolist() == [400, 375] and high.tolist() == [700, 675]
    low, high = window(np.array([0.0, 0, 900, 900]), (1000, 1000))
    assert low.tolist() == [0, 0] and high.tolist() == [1000, 1000]


def test_a_pair_is_shown_once_and_the_nearest_first():
    near = Nearest(np.array([1, 0, 0, -1]), np.array([9, 9, 4, 256]))
    paths = [Path(f"{letter}.png") for letter in "abcd"]
    assert [(pair.one.name, pair.other.name, pair.bits) for pair in closest(near, paths, paths, 5)] == [
        ("c.png", "a.png", 4),
        ("a.png", "b.png", 9),
    ]


def test_twins_are_told_by_the_share_of_pixels_that_differ(tmp_path):
    one, other = picture(tmp_path / "a.png"), tmp_path / "b.png"
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, :50] = 33
    cv2.imwrite(str(other), image)
    axes = show_twins([Twins(one, other, 7)], "Twins").axes
    assert axes[1].get_title(loc="left") == "b.png, 7 bits away"
    assert axes[2].get_title(loc="left") == "25.0% of the pixels differ clearly"


def test_twins_of_different_sizes_are_shown_without_a_difference(tmp_path):
    pair = Twins(picture(tmp_path / "a.png"), picture(tmp_path / "b.png", size_hw=(50, 100)), 0)
    assert [text.get_text() for text in show_twins([pair], "").axes[2].texts] == ["of different sizes"]


def test_the_legend_counts_the_pictures_within_the_limit():
    near = {"val to train": Nearest(np.array([0, 1, 2]), np.array([0, 24, 25]))}
    labels = plot_nearest(near, 24).axes[0].get_legend_handles_labels()[1]
    assert labels == ["val to train: 2 of 3 within 24 bits"]


def test_a_long_name_keeps_its_beginning_and_end():
    assert short_name("folder/camera1_A_1.png") == "camera1_A_1.png"
    assert short_name("0" * 40 + "_end.png", 20) == "0000000000...end.png"


def test_nothing_odd_and_no_twins_can_be_drawn(files, tmp_path):
    objects = objects_table(files, None)
    none = suspects(objects).iloc[:0]
    for figure in (
        plot_suspects(none, objects, NAMES),
        plot_suspects(none, objects.iloc[:0], NAMES),
        show_suspects(none, files, {"train": tmp_path}, 4),
        show_twins([], ""),
        plot_nearest({}, 24),
    ):
        figure.canvas.draw()
    notes = [text.get_text() for text in show_suspects(none, files, {"train": tmp_path}, 4).axes[0].texts]
    assert notes == ["no odd labels were found"]
