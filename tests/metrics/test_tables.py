import numpy as np
import pytest

from kit.files import write_json
from kit.metrics import read_predictions, read_tables


def annotations(**changes):
    images = [{"id": 9, "width": 10, "height": 10}, {"id": 4, "width": 10, "height": 10}]
    return {"images": images, "categories": [{"id": 3, "name": "Car"}, {"id": 1, "name": "Bus"}]} | changes


def entry(**changes):
    return {"image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5} | changes


def test_ids_become_rows_in_ascending_order():
    tables = read_tables([entry(), entry(image_id=4, category_id=1)], annotations())
    assert tables.image_ids == [4, 9] and tables.names == ("Bus", "Car")
    assert tables.detections.image.tolist() == [1, 0] and tables.detections.label.tolist() == [1, 0]


def test_area_and_crowd_have_defaults_and_the_box_is_never_rounded():
    tables = read_tables([], annotations(annotations=[{"image_id": 4, "category_id": 1, "bbox": [0.1, 0.2, 0.3, 0.5]}]))
    assert tables.truths.boxes_xywh_px.tolist() == [[0.1, 0.2, 0.3, 0.5]]
    assert tables.truths.area_px2[0] == 0.3 * 0.5 and not tables.truths.is_crowd[0]


def test_annotations_of_unlisted_images_or_categories_are_left_out():
    stray = [
        {"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1]},
    ]
    assert len(read_tables([], annotations(annotations=stray)).truths.image) == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"image_id": 77}, "image_id not in the annotations: 77; expected such as 4, 9"),
        ({"image_id": "9"}, "image_id not in the annotations: '9'"),
        ({"category_id": 2}, "category_id not in the annotations: 2; expected such as 1, 3"),
        ({"score": float("nan")}, "entry 1: box and score must be finite"),
        ({"bbox": [1, 2, 3]}, r"entry 1: bbox must be \[x, y, w, h\], got \[1, 2, 3\]"),
    ],
)
def test_a_wrong_prediction_is_refused_by_name(wrong, told):
    with pytest.raises(ValueError, match=told):
        read_tables([entry(), entry(**wrong)], annotations())


def test_a_missing_key_names_entry_and_key():
    with pytest.raises(ValueError, match="predictions: entry 0 must have 'score'"):
        read_tables([{"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]}], annotations())


def test_many_unknown_images_are_counted():
    with pytest.raises(ValueError, match="and 15 more"):
        read_tables([entry(image_id=100 + i) for i in range(20)], annotations())


@pytest.mark.parametrize("wrong", [[], {}, {"images": [{"id": 1}]}, {"images": [], "categories": [{"id": 1}]}])
def test_what_is_not_ground_truth_is_refused(wrong):
    with pytest.raises(ValueError, match="annotations must be a COCO dict with images and categories"):
        read_tables([], wrong)


def test_predictions_may_be_a_coco_dict_with_scores_and_nothing_else():
    assert read_predictions({"annotations": [entry()]}) == [entry()]
    with pytest.raises(ValueError, match="predictions must be a list of COCO results"):
        read_predictions({"detections": []})


def test_categories_of_one_name_are_told_apart_by_id():
    tables = read_tables([], annotations(categories=[{"id": 1, "name": "Car"}, {"id": 2, "name": "Car"}, {"id": 3}]))
    assert tables.names == ("Car (1)", "Car (2)", "3")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"score": "0.5"}, "entry 1: score must be made of numbers, got '0.5'"),
        ({"score": None}, "entry 1: score must be made of numbers, got None"),
        ({"bbox": ["1", 2, 3, 4]}, r"entry 1: bbox must be made of numbers, got \['1', 2, 3, 4\]"),
        ({"bbox": [[1], 2, 3, 4]}, "entry 1: bbox must be made of numbers"),
        ({"bbox": 5}, r"entry 1: bbox must be \[x, y, w, h\], got 5"),
        ({"bbox": [10**400, 1, 1, 1]}, "entry 1: bbox must be made of numbers"),
        ({"image_id": []}, r"image_id not in the annotations: \[\]"),
    ],
)
def test_values_of_another_type_are_refused_with_their_file(tmp_path, wrong, told):
    path = write_json(tmp_path / "found.json", [entry(), entry(**wrong)])
    with pytest.raises(ValueError, match=rf"found\.json: {told}"):
        read_tables(path, annotations())


def test_numbers_of_numpy_are_numbers():
    one = entry(bbox=np.array([1, 2, 3, 4], np.float32), score=np.float32(0.5))
    assert read_tables([one, entry()], annotations()).detections.score.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("part", ["images", "categories"])
@pytest.mark.parametrize("wrong", [[{"id": "1"}], [{"name": "x"}], [5], {"id": []}])
def test_ids_of_annotations_are_integers(part, wrong):
    with pytest.raises(ValueError, match=f"annotations: {part}"):
        read_tables([], annotations(**{part: wrong}))
