from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import parse_coco
from kit.data.copy_paste import (
    GRID,
    REACH,
    TURN_DEG,
    intersections,
    is_donor,
    make_book,
    moves,
    paste_objects,
    road_region,
    stamp,
)
from kit.data.dataset import picture_of
from kit.data.picture import Picture
from kit.data.views import TRACK4_VIEW

SIZE = 200  # of the images, both sides
SQUARE = [np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])]


def ring_place(angle_deg, radius_px=60):
    """The corner of a box of 20 x 16 px whose centre lies on a ring about the image centre."""
    angle = np.deg2rad(angle_deg)
    return [100 + radius_px * np.cos(angle) - 10, 100 + radius_px * np.sin(angle) - 8, 20, 16]


def coco_of(boxes_of, with_outlines=False):
    """boxes_of: file name -> boxes xywh, all of class 0 except those with a fifth number, their class."""
    images, annotations = [], []
    for image_id, (name, boxes) in enumerate(boxes_of.items(), 1):
        images.append({"id": image_id, "file_name": name, "height": SIZE, "width": SIZE})
        for x, y, width, height, *label in boxes:
            one = {"image_id": image_id, "category_id": (label or [0])[0], "bbox": [x, y, width, height]}
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            one |= {"segmentation": [outline]} if with_outlines else {}
            annotations.append({"id": len(annotations) + 1, **one})
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}]
    return parse_coco({"images": images, "annotations": annotations, "categories": categories}, Path("a.json"))


def load_from(coco):
    """Each image grey, with the red value 200 + index in its boxes."""

    def load(index):
        record = coco.records[index]
        image = np.full((SIZE, SIZE, 3), 90, np.uint8)
        for x, y, width, height in record.boxes_xywh_px.round().astype(int):
            image[y : y + height, x : x + width, 0] = 200 + index
        return picture_of(record, image)

    return load


def crossing(with_outlines=False):
    """Two cameras by day and by night, with cars on a ring."""
    names = [f"camera{camera}_{scene}_{frame}.png" for camera in (1, 2) for scene in "MN" for frame in range(3)]
    boxes = {name: [ring_place(40 * k + 13 * place) for k in range(6)] for place, name in enumerate(names)}
    boxes |= {"camera1_M_9.png": [], "camera3_N_1.png": []}
    return coco_of(boxes, with_outlines)


# --- regions and donors ---


def test_a_region_holds_what_it_was_made_of_and_not_the_rest():
    road = np.random.default_rng(0).uniform([0.1, 0.45], [0.9, 0.55], (500, 2))  # a street from left to right
    region = road_region(road)
    assert region.holds(road).mean() > 0.9
    assert not region.holds(np.array([[0.5, 0.1], [0.5, 0.9], [1.2, 0.5], [-0.1, 0.5]])).any()
    assert 0.05 < region.is_road.mean() < 0.2  # the street is 8 % of the image


def test_a_region_of_no_objects_holds_nothing():
    region = road_region(np.zeros((0, 2)))
    assert region.is_road.shape == (GRID, GRID) and not region.is_road.any()


def test_donors_are_large_whole_and_not_covered():
    boxes = [
        [150, 150, 170, 166],
        [0, 80, 20, 96],
        [100, 100, 105, 105],
        [120, 20, 140, 40],
        [125, 20, 145, 40],
        [5, 5, 95, 60],
    ]
    assert is_donor(np.array(boxes, float), (SIZE, SIZE)).tolist() == [True, False, False, False, False, False]
    assert is_donor(np.zeros((0, 4)), (SIZE, SIZE)).tolist() == []


def test_donors_come_from_the_same_camera_and_light():
    coco = crossing()
    book = make_book(coco, TRACK4_VIEW)
    names = [record.file_name for record in coco.records]
    likely = {names[home] for home in book.donors.indices[book.chances(names.index("camera1_M_0.png")) > 0]}
    assert likely == {"camera1_M_1.png", "camera1_M_2.png"}


def test_where_the_camera_has_none_another_of_the_same_light_and_size_gives_donors():
    coco = crossing()
    book = make_book(coco, TRACK4_VIEW)
    names = [record.file_name for record in coco.records]
    homes = book.donors.indices[book.chances(names.index("camera3_N_1.png")) > 0]
    assert len(homes) and all("_N_" in names[home] for home in homes)


def test_rare_classes_are_copied_more_often_than_they_are_met():
    boxes = {"camera1_M_0.png": [], "camera1_M_1.png": [[*ring_place(20 * k)] for k in range(16)]}
    boxes["camera1_M_2.png"] = [[*ring_place(5), 1]]
    book = make_book(coco_of(boxes), TRACK4_VIEW)
    assert book.chances(0)[book.donors.labels == 1].sum() == pytest.approx(1 / 5)  # 1 of 17, weighted 1 : 16 / 4


def test_a_class_has_a_region_of_its_own_where_it_is_met_often():
    cars = [[5 + 2 * k, 20, 12, 12] for k in range(80)]
    book = make_book(coco_of({"camera1_M_0.png": [*cars, [90, 150, 12, 12, 1]]}), TRACK4_VIEW)
    assert book.region(0, 0) is book.regions["1", 0]
    assert book.region(0, 1) is book.regions["1", None]  # one bus is too few


def test_all_images_count_as_of_one_camera_where_names_tell_none():
    book = make_book(coco_of({"a.png": [ring_place(0)], "b.png": [ring_place(90)]}), None)
    assert list(book.regions) == [("", None)] and book.chances(0).tolist() == [0, 1]


# --- setting down ---


@pytest.mark.parametrize("with_outlines", [False, True])
def test_the_new_boxes_lie_where_the_new_pixels_are(with_outlines):
    coco = crossing(with_outlines)
    book, load = make_book(coco, TRACK4_VIEW), load_from(coco)
    empty, pasted = next(i for i, r in enumerate(coco.records) if r.file_name == "camera1_M_9.png"), 0
    for seed in range(8):
        result = paste_objects(load(empty), empty, book, load, np.random.default_rng(seed), most=1)
        red = result.image[..., 0] > 145
        for box in result.boxes_xyxy_px:
            x0, y0, x1, y1 = (box + np.array([-4, -4, 4, 4])).round().astype(int)
            rows, columns = np.nonzero(red[y0:y1, x0:x1])
            found = np.array([x0 + columns.min(), y0 + rows.min(), x0 + columns.max() + 1, y0 + rows.max() + 1])
            assert np.abs(found - box).max() <= 2, f"seed {seed}: {box}, {found}"
            pasted += 1
    assert pasted >= 8


def test_copies_stay_near_the_radius_and_direction_of_home():
    box = np.array([150.0, 90, 170, 106])
    for move in moves(box, None, (SIZE, SIZE), (2 * SIZE, 2 * SIZE), np.random.default_rng(0)):
        home, new = np.array([60.0, -2]), move(np.array([160.0, 98])) - SIZE
        assert abs(np.linalg.norm(new) / (2 * np.linalg.norm(home)) - 1) <= REACH + 1e-9  # twice the resolution
        turn = np.arctan2(*new[::-1]) - np.arctan2(*home[::-1])
        assert abs(np.rad2deg(turn)) <= TURN_DEG + 1e-9
        assert np.allclose(move.box(box, None)[2:] - move.box(box, None)[:2], [40, 32])  # the box is never turned


@pytest.mark.parametrize("seed", range(6))
def test_copies_stand_on_the_road_and_hide_little(seed):
    coco = crossing()
    book, load = make_book(coco, TRACK4_VIEW), load_from(coco)
    before = load(0)
    after = paste_objects(before, 0, book, load, np.random.default_rng(seed), most=6, hidden=0.1)
    boxes, old = after.boxes_xyxy_px, len(before.labels)
    shared = intersections(boxes, boxes) - np.diag((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert shared.max() <= 0.1 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).max()
    middles = (boxes[old:, :2] + boxes[old:, 2:]) / 2 / SIZE
    assert book.regions["1", None].holds(middles).all() and len(boxes) <= old + 6
    assert np.array_equal(boxes[:old], before.boxes_xyxy_px)


def test_the_picture_given_stays_and_the_same_seed_pastes_the_same():
    coco = crossing(with_outlines=True)
    book, load = make_book(coco, TRACK4_VIEW), load_from(coco)
    before = load(1)
    pixels = before.image.copy()
    one, two = (paste_objects(before, 1, book, load, np.random.default_rng(3)) for _ in range(2))
    assert len(one.labels) > len(before.labels) and len(one.outlines) == len(one.labels)
    assert np.array_equal(one.image, two.image) and np.array_equal(one.boxes_xyxy_px, two.boxes_xyxy_px)
    assert np.array_equal(before.image, pixels)


def test_without_a_donor_the_picture_comes_back():
    coco = coco_of({"a.png": [ring_place(0)]})  # its own objects are no donors
    load = load_from(coco)
    picture = load(0)
    assert paste_objects(picture, 0, make_book(coco, None), load, np.random.default_rng(0)) is picture


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels_is_pasted(channels):
    canvas, source = np.full((60, 60, channels), 50, np.uint8), np.full((60, 60, channels), 60, np.uint8)
    source[20:40, 20:40] = 250
    box = np.array([20.0, 20, 40, 40])
    move = next(moves(box, None, (60, 60), (60, 60), np.random.default_rng(0)))
    stamp(canvas, source, move, move.box(box, None), None)
    x, y = move(np.array([30.0, 30])).astype(int)
    assert canvas.shape == (60, 60, channels) and (canvas[y, x] > 180).all()
    assert (canvas[0, 0] == 50).all()


def test_a_copy_takes_the_brightness_of_its_new_place():
    dark, source = np.full((80, 80, 3), 60, np.uint8), np.full((80, 80, 3), 75, np.uint8)
    source[30:50, 30:50] = 150
    box = np.array([30.0, 30, 50, 50])
    move = next(moves(box, None, (80, 80), (80, 80), np.random.default_rng(0)))
    stamp(dark, source, move, move.box(box, None), None)
    x, y = move(np.array([40.0, 40])).astype(int)
    assert dark[y, x, 0] == pytest.approx(150 * (60 + 8) / (75 + 8), abs=2)


def test_an_outline_of_two_overlapping_parts_has_no_hole():
    canvas, source = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 200, np.uint8)
    outline = [10 + 20 * SQUARE[0], 20 + 20 * SQUARE[0]]
    box = np.array([10.0, 10, 40, 40])
    move = next(moves(box, outline, (60, 60), (60, 60), np.random.default_rng(0)))
    stamp(canvas, source, move, move.box(box, outline), outline)
    x, y = move(np.array([25.0, 25])).astype(int)
    assert canvas[y, x, 0] > 100
    corner_x, corner_y = move(np.array([35.0, 14])).astype(int)  # in the box, outside of both parts
    assert canvas[corner_y, corner_x, 0] < 20


def test_pictures_of_outlines_and_of_boxes_mix():
    boxes = {"camera1_M_0.png": [ring_place(180)], "camera1_M_1.png": [ring_place(40 * k) for k in range(5)]}
    plain, outlined = coco_of(boxes), coco_of(boxes, with_outlines=True)
    book = make_book(outlined, TRACK4_VIEW)
    target = load_from(plain)(0)
    assert target.outlines is None
    result = paste_objects(
        Picture(target.image, target.boxes_xyxy_px, target.labels),
        0,
        book,
        load_from(outlined),
        np.random.default_rng(1),
    )
    assert result.outlines[0] is None and all(result.outlines[1:]) and len(result.labels) > 1
