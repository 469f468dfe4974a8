from pathlib import Path

import numpy as np
import pytest

from kit.data import coco_columns
from kit.data.coco import coco_of_entries, columns_of
from kit.data.coco_columns import categories_of, order_of, places_in
from kit.data.coco_entries import entries_of


def entries(image_ids, owners):
    images = [{"id": each, "file_name": f"{row}.jpg"} for row, each in enumerate(image_ids)]
    boxes = [{"image_id": each, "id": row, "bbox": [row, 0, 1, 1]} for row, each in enumerate(owners)]
    return entries_of({"images": images, "annotations": boxes}, Path("x"))


def test_images_are_sorted_and_their_boxes_keep_the_order_of_the_file():
    columns = columns_of(coco_of_entries(entries([9, 4, 9, 6], [4, 9, 5, 4, 9, 1000])))
    assert columns.image_ids.tolist() == [4, 6, 9] and list(columns.file_names) == ["1.jpg", "3.jpg", "0.jpg"]
    assert columns.offsets.tolist() == [0, 2, 2, 4] and columns.annotation_ids.tolist() == [0, 3, 1, 4]
    assert columns.boxes_xywh_px[:, 0].tolist() == [0, 3, 1, 4]


@pytest.mark.parametrize("owners", [[], [7, 7], [5]])
def test_images_without_boxes_and_boxes_without_images(owners):
    columns = columns_of(coco_of_entries(entries([1, 2], owners)))
    assert columns.offsets.tolist() == [0, 0, 0] and columns.boxes_xywh_px.shape == (0, 4)
    assert len(columns_of(coco_of_entries(entries([], owners))).labels) == 0


def test_entries_that_are_kept_stay_as_they_are():
    kept = entries([2, 1], [2, 1, 2])
    coco_of_entries(kept)
    assert kept.images.image_ids.tolist() == [2, 1] and kept.annotations.image_ids.tolist() == [2, 1, 2]
    assert kept.annotations.boxes_xywh_px[:, 0].tolist() == [0, 1, 2]


def test_what_is_in_order_is_not_copied():
    kept = entries([1, 2], [1, 1, 2])
    assert np.shares_memory(columns_of(coco_of_entries(kept)).boxes_xywh_px, kept.annotations.boxes_xywh_px)


def test_values_are_found_slice_by_slice(monkeypatch):
    monkeypatch.setattr(coco_columns, "SLICE", 2)
    assert places_in(np.array([2, 5, 9]), np.array([9, 3, 2, 10, 5])).tolist() == [2, -1, 0, -1, 1]
    assert places_in(np.zeros(0, np.int64), np.array([1, 2])).tolist() == [-1, -1]


def test_rows_in_order_need_no_sorting():
    assert order_of(np.array([0, 0, 1, 3])) is None and order_of(np.zeros(0, np.int32)) is None
    assert order_of(np.array([1, -1, 0, 1, -1])).tolist() == [2, 0, 3]
    assert order_of(np.array([-1, 0])).tolist() == [1]


def test_categories_are_listed_once_by_their_ids_and_the_last_name_counts():
    categories = [{"id": 7, "name": "a"}, {"id": 2}, {"id": 7, "name": "b"}, {"id": True, "name": 5}]
    assert categories_of(categories) == ([1, 2, 7], ["5", "2", "b"])
