from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.data.census import counts_by, images_table, objects_table
from kit.data.coco import parse_coco
from kit.data.folds import grouped_folds, usable_folds
from kit.data.views import TRACK4_VIEW
from kit.plots.census import (
    column_shades,
    fold_contents,
    plot_camera_positions,
    plot_counts,
    plot_crowding,
    plot_folds,
    shortened,
)

NAMES = ["bus", "car"]


def coco_of(images):
    """images: file name -> labels of its boxes, side by side."""
    entries = [{"id": number, "file_name": name, "width": 200, "height": 100} for number, name in enumerate(images, 1)]
    annotations = [
        {"image_id": number, "bbox": [20 * row, 10, 15, 30], "category_id": label}
        for number, labels in enumerate(images.values(), 1)
        for row, label in enumerate(labels)
    ]
    numbered = [each | {"id": number} for number, each in enumerate(annotations, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    return parse_coco({"images": entries, "annotations": numbered, "categories": categories}, Path("a.json"))


IMAGES = {"camera2_A_1.png": [0, 1, 1], "camera2_N_1.png": [1], "camera10_A_1.png": [1, 1, 1, 1], "camera3_A_1.png": []}


@pytest.fixture
def files():
    return {"train": coco_of(IMAGES), "val": coco_of({"camera4_M_1.png": [0]})}


@pytest.fixture
def tables(files):
    return images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_each_camera_has_a_row_with_its_boxes_of_each_class_in_an_image(tables):
    sizes, classes = plot_counts(counts_by(*tables, ["camera"], NAMES), NAMES, "").axes
    assert [tick.get_text() for tick in sizes.get_yticklabels()] == ["camera 2", "camera 3", "camera 4", "camera 10"]
    assert texts(classes) == ["0.5", "1.5", "", "", "1", "", "", "4"]  # boxes of bus and car in an image
    assert texts(sizes)[:2] == ["2", "2.0"]


def test_times_of_day_are_told_in_words(tables):
    axes = plot_counts(counts_by(*tables, ["part", "scene"], NAMES), NAMES, "").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["train afternoon", "train night", "val morning"]


def test_each_column_is_shaded_by_its_own_largest_value():
    shades = column_shades(np.array([[1.0, 0.0, np.nan], [4.0, 0.0, 2.0]]))
    assert shades.tolist() == [[0.25, 0, 0], [1, 0, 1]]


def test_the_contents_of_folds_add_up_to_the_file(files):
    folds = grouped_folds(files["train"], 2, TRACK4_VIEW)
    table = fold_contents(folds, TRACK4_VIEW)
    assert table.sum(axis=0).tolist() == [4, 1, 1, 7]  # images, nights, buses, cars
    axes = plot_folds(folds, TRACK4_VIEW).axes[0]
    assert f"{table[0, 0]} ({table[0, 0] / 4:.0%})" == texts(axes)[0]


def test_what_no_fold_has_is_not_shown():
    folds = usable_folds(coco_of({"1.png": [0], "2.png": [0]}), 2, None)
    axes = plot_folds(folds, None).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["images", "bus"]


def test_cameras_of_a_fold_are_named_and_images_counted():
    assert shortened(["camera 3"]) == "camera 3" and shortened(["camera 3", "camera 5"]) == "cameras 3, 5"
    assert shortened(["a.png", "b.png"]) == "2 groups"
    assert shortened([f"camera {number}" for number in range(30)], most=10) == "cameras 0, 1, 2, 3 ..."


def test_each_camera_with_boxes_has_its_map(tables):
    headings = [axes.get_title(loc="left") for axes in plot_camera_positions(tables[1], "Where").axes]
    assert headings == ["camera 2: 4", "camera 4: 1", "camera 10: 4"]


def test_overlaps_from_a_half_and_seven_tenths_on_are_counted(tables):
    images, objects = tables
    objects["overlap"] = [0, 0.5, 0.7, 0.71, 0.2, 0, 0, 0, 0]
    axes = plot_crowding(objects, images, NAMES).axes[0]
    assert "3 from IoU 0.5 on, 2 from IoU 0.7 on" in axes.get_title(loc="left")


def test_without_cameras_the_crowds_are_those_of_the_parts(files):
    images = images_table(files, None)
    axes = plot_crowding(objects_table(files, None), images, NAMES).axes[1]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["train", "val"]


def test_files_without_boxes_or_images_can_be_drawn():
    for images in ({"camera1_A_1.png": []}, {}):
        files = {"train": coco_of(images)}
        tables = images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)
        plot_crowding(tables[1], tables[0], NAMES).canvas.draw()
        plot_camera_positions(tables[1], "").canvas.draw()
        plot_counts(counts_by(*tables, ["camera"], NAMES), NAMES, "").canvas.draw()
        plot_folds(usable_folds(files["train"], 3, TRACK4_VIEW), TRACK4_VIEW).canvas.draw()
    assert isinstance(tables[0], pd.DataFrame)
