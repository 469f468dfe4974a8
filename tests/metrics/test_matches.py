import numpy as np

from kit.metrics import match, read_tables
from kit.metrics.matches import find_pairs, match_areas


def truth(box, **fields):
    return {"image_id": 1, "category_id": 0, "bbox": box, "id": 1} | fields


def found(box, score, **fields):
    return {"image_id": 1, "category_id": 0, "bbox": box, "score": score} | fields


def dataset(*truths):
    return {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 0, "name": "Car"}], "annotations": list(truths)}


def test_the_higher_score_takes_the_object_and_the_lower_is_false():
    matches = match([found([0, 0, 10, 9], 0.4), found([0, 0, 10, 7], 0.8)], dataset(truth([0, 0, 10, 10])))
    assert matches.score.tolist() == [0.8, 0.4]
    assert matches.is_true[:, 0].tolist() == [True, False]  # at IoU 0.5
    assert matches.is_true[:, 6].tolist() == [False, True]  # at IoU 0.8 the first is out


def test_of_equal_scores_the_first_in_the_file_comes_first():
    same = [found([0, 0, 10, 10], 0.5), found([0, 0, 10, 10], 0.5)]
    tables = read_tables(same, dataset(truth([0, 0, 10, 10])))
    assert find_pairs(tables, 100).rows.tolist() == [0, 1] and find_pairs(tables, 1).rows.tolist() == [0]


def test_of_equal_overlaps_the_last_object_is_taken_as_in_pycocotools():
    twins = dataset(truth([0, 0, 10, 10]), truth([0, 0, 10, 10]))
    tables = read_tables([found([0, 0, 10, 10], 0.5)], twins)
    pairs = find_pairs(tables, 100)
    assert match_areas(tables, pairs, (0, 1e10)).is_true.all()
    assert pairs.truth.tolist() == [0, 1] and pairs.iou.tolist() == [1, 1]


def test_detections_on_a_crowd_are_neither_true_nor_false_and_never_use_it_up():
    crowd = dataset(truth([0, 0, 50, 50], iscrowd=1))
    matches = match([found([5, 5, 10, 10], 0.9), found([6, 6, 10, 10], 0.8), found([80, 0, 9, 9], 0.7)], crowd)
    assert not matches.is_true.any() and matches.ground_truths.sum() == 0
    assert matches.is_false[:, 0].tolist() == [False, False, True]


def test_an_object_goes_before_a_crowd_that_overlaps_more():
    both = dataset(truth([0, 0, 50, 50], iscrowd=1), truth([0, 0, 10, 12]))
    assert match([found([0, 0, 10, 10], 0.9)], both).is_true[0, 0]


def test_leaving_out_low_scores_changes_no_match_above_them():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 30, (60, 2)), rng.uniform(10, 20, (60, 2))], axis=1).tolist()
    objects = dataset(*[truth(box) for box in boxes[:15]])
    predictions = [found(box, float(score)) for box, score in zip(boxes, rng.random(60), strict=True)]
    whole, part = match(predictions, objects), match([p for p in predictions if p["score"] >= 0.5], objects)
    kept = whole.keep(whole.score >= 0.5)
    assert (kept.is_true == part.is_true).all() and (kept.is_false == part.is_false).all()


def test_a_subset_holds_the_detections_and_objects_of_its_images():
    objects = dataset(truth([0, 0, 9, 9]), truth([0, 0, 9, 9], image_id=2))
    part = match([found([0, 0, 9, 9], 0.5), found([0, 0, 9, 9], 0.6, image_id=2)], objects).subset([2])
    assert part.score.tolist() == [0.6] and part.ground_truths.tolist() == [[0], [1]]


def test_nothing_found_and_nothing_there_are_cases_too():
    assert match([], dataset(truth([0, 0, 9, 9]))).ground_truths.sum() == 1
    assert match([found([0, 0, 9, 9], 0.5)], dataset()).is_false.all()
    assert match([], dataset()).is_true.shape == (0, 10)


def test_boxes_without_area_overlap_nothing():
    flat = match([found([0, 0, 0, 10], 0.5), found([0, 0, 0, 0], 0.4)], dataset(truth([0, 0, 0, 10])))
    assert flat.is_false.all()
