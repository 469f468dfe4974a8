from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import parse_coco
from kit.data.copy_paste import intersections
from kit.data.perspective import LONGEST, fisheye_view, make_perspective, window_at
from kit.data.picture import Picture, areas

TARGET = ["Bus", "Car"]


def coco_of(names, objects, size_hw=(60, 80)):
    """objects: file name -> (class, is_crowd) of each; every box is [10, 10, 20, 20]."""
    images, annotations = [], []
    for image_id, (file_name, each) in enumerate(objects.items(), 1):
        images.append({"id": image_id, "file_name": file_name, "height": size_hw[0], "width": size_hw[1]})
        for name, crowd in each:
            one = {"category_id": names.index(name), "bbox": [10, 10, 20, 20], "iscrowd": int(crowd)}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **one})
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return parse_coco({"images": images, "annotations": annotations, "categories": categories}, Path("a.json"))


def target():
    return coco_of(TARGET, {"camera1_M_1.png": [("Car", False)], "camera1_M_2.png": []}, (96, 128))


def mapped(rules, objects):
    return make_perspective(coco_of(["car", "Tram", "Misc"], objects), Path("."), rules, target())


def test_classes_go_by_their_rule_or_by_their_name():
    objects = {"a.png": [("car", False), ("Tram", False), ("Misc", False)]}
    with_rule, without = mapped(["Tram -> Bus"], objects), mapped([], objects)
    assert with_rule.coco.names == TARGET and with_rule.coco.records[0].labels.tolist() == [1, 0]
    assert without.coco.records[0].labels.tolist() == [1]
    assert with_rule.table == [("car", "Car", 1), ("Tram", "Bus", 1), ("Misc", "left out", 1)]


def test_images_without_a_wanted_object_or_with_a_crowd_of_them_are_left_out():
    objects = {
        "a.png": [("Misc", False)],
        "b.png": [("car", False), ("car", True)],
        "c.png": [("car", False), ("Misc", True)],
    }
    assert [record.file_name for record in mapped([], objects).coco.records] == ["c.png"]


def test_the_pictures_get_the_size_of_the_target():
    assert mapped([], {"a.png": [("car", False)]}).size_hw == (96, 128)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("Tram Bus", "expected a rule such as \"Tram -> Bus\", got 'Tram Bus'"),
        ("Tramm -> Bus", "there is no class Tramm, did you mean Tram?"),
        ("Tram -> Boot", "there is no class Boot, "),
    ],
)
def test_a_rule_that_names_nothing_is_refused(rule, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        mapped([rule], {"a.png": [("car", False)]})


def test_a_set_without_a_wanted_object_is_refused_with_its_classes():
    with pytest.raises(
        ValueError, match=r"expected objects of the classes Bus, Car, got none of them.*car, Tram, Misc"
    ):
        mapped([], {"a.png": [("Misc", False)]})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size_hw", [(160, 520), (240, 320)])
def test_boxes_stay_on_their_objects(seed, size_hw):
    rng = np.random.default_rng(seed)
    image = np.full((*size_hw, 3), 60, np.uint8)
    x0, y0 = int(rng.integers(20, size_hw[1] - 80)), int(rng.integers(20, 60))
    image[y0 : y0 + 60, x0 : x0 + 48] = 250
    box = np.array([[x0, y0, x0 + 48, y0 + 60]], float)
    result = fisheye_view(Picture(image, box, np.array([1])), (401, 441), rng)
    assert result.image.shape == (401, 441, 3) and len(result.labels) == 1
    rows, columns = np.nonzero(result.image[..., 0] > 155)
    hull = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    both = intersections(hull, result.boxes_xyxy_px)[0, 0]
    assert both / (areas(hull)[0] + areas(result.boxes_xyxy_px)[0] - both) >= 0.97


def test_the_view_is_drawn_from_the_generator_alone():
    picture = Picture(np.full((60, 90, 3), 99, np.uint8), np.array([[20.0, 20, 40, 40]]), np.array([0]))
    one, two, three = (fisheye_view(picture, (64, 64), np.random.default_rng(seed)).image for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, three)


def test_a_picture_without_objects_is_seen_too():
    empty = Picture(np.full((60, 90, 3), 99, np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    result = fisheye_view(empty, (64, 64), np.random.default_rng(0))
    assert result.image.any() and result.boxes_xyxy_px.shape == (0, 4)


@pytest.mark.parametrize("seed", range(5))
def test_a_window_lies_in_the_image_and_holds_its_place(seed):
    x0, y0, x1, y1 = window_at((900, 30), (100, 1000), np.random.default_rng(seed))
    assert 0 <= x0 <= 900 <= x1 <= 1000 and (y0, y1) == (0, 100)
    assert x1 - x0 == round(LONGEST * 100)
