from pathlib import Path

import numpy as np
import pytest

from kit.data.census import (
    counts_by,
    frozen,
    images_table,
    leaks,
    objects_table,
    overlap_in_class,
    paired_overlap,
    scene_name,
)
from kit.data.coco import parse_coco, read_coco
from kit.data.near_duplicates import Nearest
from kit.data.views import TRACK4_VIEW

NAMES = ["bus", "car"]


def coco_of(images, size_wh=(200, 100)):
    """images: file name -> boxes (x, y, w, h, label, is crowd)."""
    entries = [
        {"id": number, "file_name": name, "width": size_wh[0], "height": size_wh[1]}
        for number, name in enumerate(images, 1)
    ]
    annotations = [
        {"image_id": number, "bbox": list(box[:4]), "category_id": box[4], "iscrowd": box[5]}
        for number, boxes in enumerate(images.values(), 1)
        for box in boxes
    ]
    numbered = [each | {"id": number} for number, each in enumerate(annotations, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    return parse_coco({"images": entries, "annotations": numbered, "categories": categories}, Path("a.json"))


CAR, BUS, CROWD = (0, 0, 30, 40, 1, 0), (90, 40, 20, 20, 0, 0), (0, 0, 50, 50, 1, 1)
TRAIN = {"camera2_A_1.png": [CAR, CAR, BUS], "camera10_N_3.png": [CAR, CROWD], "camera2_A_9.png": []}
VAL = {"camera2_A_7.png": [CAR], "camera3_A_7.png": [BUS], "camera2_N_9.png": [CAR]}


@pytest.fixture
def files():
    return {"train": coco_of(TRAIN), "val": coco_of(VAL)}


def test_an_image_tells_its_part_view_and_objects(files):
    table = images_table(files, TRACK4_VIEW)
    assert table.loc[1, ["part", "camera", "scene", "frame", "boxes"]].tolist() == ["train", "10", "N", 3, 1]
    assert table["boxes"].tolist() == [3, 1, 0, 1, 1, 1]
    assert set(images_table(files, None)["camera"]) == {"-"}


def test_an_object_tells_its_place_size_and_shape(files):
    table = objects_table(files, TRACK4_VIEW)
    assert len(table) == 7 and table["name"].tolist()[:3] == ["car", "car", "bus"]
    car, bus = table.iloc[0], table.iloc[2]
    assert car[["x1", "y1", "x2", "y2"]].tolist() == [0, 0, 30, 40] and car["aspect"] == 0.75
    assert car["side_px"] ** 2 == pytest.approx(1200) and bus["radius"] == 0
    assert car["radius"] == pytest.approx(np.hypot(85, 30) / 50)  # 1 is half the shorter side
    assert table["annotation_id"].tolist() == [1, 2, 3, 4, 1, 2, 3]


def test_overlap_is_with_another_object_of_the_class():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10.0]])
    assert paired_overlap(boxes)[0].tolist() == [0, 0.5, 1]
    assert overlap_in_class(boxes, np.array([1, 1, 0])).tolist() == [0.5, 0.5, 0]
    assert overlap_in_class(boxes[:0], np.zeros(0, np.int64)).shape == (0,)


def test_cameras_are_counted_in_the_order_of_their_numbers(files):
    images, objects = images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)
    table = counts_by(images, objects, ["camera"], NAMES)
    assert table.index.tolist() == ["2", "3", "10"]
    assert table.loc["2", ["images", "boxes", "bus", "car"]].tolist() == [4, 5, 1, 4]
    assert table.loc["2", "boxes per image"] == 1.25 and table.loc["3", "under 64 px"] == 1


def test_parts_and_times_of_day_keep_their_order_and_none_is_lost(files):
    images, objects = images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)
    table = counts_by(images, objects, ["part", "scene"], NAMES)
    assert table.index.tolist() == [("train", "A"), ("train", "N"), ("val", "A"), ("val", "N")]
    assert [scene_name(letter) for letter in "MAEN"] == ["morning", "afternoon", "evening", "night"]


def test_a_group_without_boxes_is_counted_too():
    empty = {"train": coco_of({"camera1_A_1.png": [], "camera2_A_1.png": [CAR]})}
    images, objects = images_table(empty, TRACK4_VIEW), objects_table(empty, TRACK4_VIEW)
    assert counts_by(images, objects, ["camera"], NAMES).loc["1", ["images", "boxes", "car"]].tolist() == [1, 0, 0]


def test_files_without_any_box_have_empty_tables():
    files = {"train": coco_of({"camera1_A_1.png": []}), "val": coco_of({})}
    images, objects = images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)
    assert len(objects) == 0 and counts_by(images, objects, ["camera"], NAMES)["car"].tolist() == [0]
    assert leaks(images, None)["share of val"].tolist() == [0, 0, 0]


def test_leaks_are_told_by_name_camera_frame_and_picture(files):
    near = Nearest(np.array([2, 0, 1]), np.array([24, 25, 90]))
    table = leaks(images_table(files, TRACK4_VIEW), near)
    assert table["images"].tolist() == [0, 2, 1, 1]  # file, camera 2 twice, frame 7 near 9, one picture within 24 bits
    assert table["example"].tolist()[2:] == ["camera2_A_7.png, a gap of 2", "camera2_A_7.png is like camera2_A_9.png"]


def test_a_frame_more_than_five_away_is_no_neighbour():
    files = {"train": coco_of({"camera1_A_10.png": []}), "val": coco_of({"camera1_A_4.png": [], "camera1_A_5.png": []})}
    assert leaks(images_table(files, TRACK4_VIEW), None)["images"].tolist()[2] == 1


def test_images_with_equal_annotations_are_found_in_any_order_of_the_boxes():
    coco = coco_of({"a.png": [CAR, BUS], "b.png": [BUS, CAR], "c.png": [CAR], "d.png": [], "e.png": []})
    assert frozen(coco) == [["a.png", "b.png"]]


def test_all_of_fisheye8k_is_counted(shared):
    folder = shared("data/fisheye8k_mini/annotations_full")
    files = {
        name: read_coco(folder / f"fisheye8k_gt_{part}.json.gz") for name, part in (("train", "train"), ("val", "test"))
    }
    images, objects = images_table(files, TRACK4_VIEW), objects_table(files, TRACK4_VIEW)
    table = counts_by(images, objects, ["camera"], files["train"].names)
    assert len(table) == 18 and table["boxes"].sum() == 157303 and table["Bike"].sum() == 62261 + 26230
    assert leaks(images, None)["images"].tolist() == [0, 0, 0] and sum(map(len, frozen(files["val"]))) == 31
