from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import as_coco, parse_coco
from kit.files import write_json
from kit.metrics import evaluate, read_predictions, read_tables
from kit.metrics.tables import Truths


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


def test_a_file_that_was_read_gives_the_tables_of_its_content():
    random = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.png", "width": 90, "height": 60} for i in (9, 4, 30)]
    boxes = [
        {"id": 7 - row, "image_id": (9, 4)[row % 2], "category_id": (3, 1)[row % 3 == 0], "iscrowd": int(row == 2)}
        | {"bbox": (random.random(4) * 30).tolist(), "area": float(random.random() * 99)}
        for row in range(7)
    ]
    coco = parse_coco(annotations(images=images, annotations=boxes), Path("a.json"))
    coco = replace(coco, records=[coco.records[row] for row in (2, 0, 1)])  # as a merge may leave them
    found = [entry(image_id=4, category_id=1, bbox=boxes[3]["bbox"]), entry(image_id=30), entry(score=0.1)]
    of_columns, of_content = read_tables(found, coco), read_tables(found, as_coco(coco))
    assert of_columns.images == of_content.images and of_columns.names == of_content.names == ("Bus", "Car")
    assert (of_columns.image_ids, of_columns.category_ids) == (of_content.image_ids, of_content.category_ids)
    for each in fields(Truths):
        one, other = (getattr(tables.truths, each.name) for tables in (of_columns, of_content))
        assert np.array_equal(one, other), each.name
    assert evaluate(found, coco) == evaluate(found, as_coco(coco)) and evaluate(found, coco).ap > 0
    assert np.array_equal(of_columns.detections.image, of_content.detections.image)


def test_a_file_with_an_unknown_category_is_refused():
    stray = [{"id": 1, "image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1], "area": 1}]
    images = [{"id": 4, "file_name": "4.png", "width": 9, "height": 9}]
    with pytest.raises(ValueError, match=r"^a\.json: expected known categories, found others; check and clean"):
        read_tables([], parse_coco(annotations(images=images, annotations=stray), Path("a.json")))
