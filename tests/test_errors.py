import numpy as np
import pytest

from kit.errors import (
    confusion_matrix,
    false_negatives_by,
    false_positives_by,
    find_errors,
    scores_by,
    threshold_curves,
    worst_images,
)
from kit.metrics import COCO_AREAS, Thresholds, class_f1, f1_at, match

CAR, BUS = 3, 8  # ids of the file


def truth(box, category_id=CAR, image_id=1, **fields):
    return {"image_id": image_id, "category_id": category_id, "bbox": box} | fields


def found(box, score=0.9, category_id=CAR, image_id=1):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def dataset(*truths):
    return {
        "images": [{"id": i, "width": 200, "height": 100, "file_name": f"{i}.png"} for i in (1, 2)],
        "categories": [{"id": CAR, "name": "Car"}, {"id": BUS, "name": "Bus"}],
        "annotations": [{"id": number} | entry for number, entry in enumerate(truths, start=1)],
    }


def outcomes(predictions, *truths, threshold=0.5):
    errors = find_errors(predictions, dataset(*truths), threshold)
    return list(errors.detections["outcome"]), list(errors.truths["outcome"])


def test_a_found_object_is_no_error():
    assert outcomes([found([0, 0, 10, 10])], truth([0, 0, 10, 10])) == (["true"], ["found"])


def test_a_second_detection_of_one_object_is_a_duplicate():
    predictions = [found([0, 0, 10, 9], 0.6), found([0, 0, 10, 10], 0.9)]
    assert outcomes(predictions, truth([0, 0, 10, 10])) == (["duplicate", "true"], ["found"])


def test_the_wrong_class_on_an_object_is_a_confusion_on_both_sides():
    errors = find_errors([found([0, 0, 10, 10], category_id=BUS)], dataset(truth([0, 0, 10, 10])), 0.5)
    assert errors.detections.loc[0, ["outcome", "other"]].tolist() == ["confusion", "Car"]
    assert errors.truths.loc[0, ["outcome", "other"]].tolist() == ["confusion", "Bus"]


def test_too_little_overlap_is_localisation_down_to_a_tenth():
    assert outcomes([found([0, 0, 10, 4])], truth([0, 0, 10, 10])) == (["localisation"], ["localisation"])
    assert outcomes([found([0, 0, 10, 0.9])], truth([0, 0, 10, 10])) == (["background"], ["unseen"])


def test_an_object_that_a_lower_threshold_would_find_is_low_score():
    assert outcomes([found([0, 0, 10, 10], 0.4)], truth([0, 0, 10, 10])) == ([], ["low_score"])
    assert outcomes([found([0, 0, 10, 10], 0.5)], truth([0, 0, 10, 10])) == (["true"], ["found"])


def test_nothing_near_is_background_and_unseen():
    assert outcomes([found([50, 50, 10, 10])], truth([0, 0, 10, 10])) == (["background"], ["unseen"])


def test_detections_on_a_crowd_are_ignored_and_crowds_are_no_objects():
    assert outcomes([found([5, 5, 10, 10])], truth([0, 0, 50, 50], iscrowd=1)) == (["ignored"], [])


def test_a_false_detection_beside_a_found_object_of_another_class_is_a_confusion():
    predictions = [found([0, 0, 10, 10]), found([0, 0, 10, 10], 0.7, category_id=BUS)]
    assert outcomes(predictions, truth([0, 0, 10, 10])) == (["true", "confusion"], ["found"])


def test_the_stricter_the_iou_the_more_is_localisation():
    args = [found([0, 0, 10, 7])], dataset(truth([0, 0, 10, 10])), 0.5
    assert find_errors(*args, iou=0.7).detections["outcome"][0] == "true"
    assert find_errors(*args, iou=0.75).detections["outcome"][0] == "localisation"


def test_thresholds_by_class_and_group_decide_what_is_kept():
    predictions = [found([0, 0, 9, 9], 0.3), found([0, 0, 9, 9], 0.3, image_id=2), found([0, 0, 9, 9], 0.3, BUS)]
    thresholds = Thresholds((CAR, BUS), ("day", "night"), ((0.5, 0.2), (0.5, 0.5)))
    errors = find_errors(predictions, dataset(), thresholds, {1: "day", 2: "night"})
    assert errors.detections[["row", "group"]].to_numpy().tolist() == [[1, "night"]]


def test_sizes_and_distances_fall_into_their_bins():
    boxes = [[98, 48, 4, 4], [150, 0, 50, 50], [0, 0, 64, 64], [0, 0, 65, 64]]  # centre at 0, 1.58, 1.4 and 1.4 radii
    errors = find_errors([], dataset(*map(truth, boxes)), 0.5)
    assert list(errors.truths["size"]) == ["small", "small", "small", "medium"]
    assert list(errors.truths["distance"]) == ["0-0.25", "over 1", "over 1", "over 1"]
    assert errors.truths["radius"][1] == pytest.approx(np.hypot(75, 25) / 50)
    coco = find_errors([], dataset(*map(truth, boxes)), 0.5, areas=COCO_AREAS)
    assert list(coco.truths["size"]) == ["small", "medium", "medium", "medium"]


def scene():
    """Image 1: a car found, a car taken for a bus, a bus unseen. Image 2: one false car."""
    truths = truth([0, 0, 10, 10]), truth([50, 0, 10, 10]), truth([0, 50, 10, 10], BUS)
    seen = [found([0, 0, 10, 10]), found([50, 0, 10, 10], category_id=BUS), found([90, 90, 9, 9], image_id=2)]
    return seen, dataset(*truths)


def test_causes_are_counted_by_class_with_all_columns():
    errors = find_errors(*scene(), 0.5)
    assert false_positives_by(errors, "category").loc["Bus"].to_dict() == {
        "localisation": 0, "confusion": 1, "duplicate": 0, "background": 0,
    }  # fmt: skip
    assert false_negatives_by(errors, "category")["unseen"].to_dict() == {"Car": 0, "Bus": 1}
    assert list(false_positives_by(errors, "size").index) == ["small", "medium", "large"]


def test_scores_by_class_agree_with_the_metrics_at_one_iou():
    predictions, annotations = scene()
    table = scores_by(find_errors(predictions, annotations, 0.5), "category")
    assert table.loc["Car"].tolist() == [1, 1, 1, 0.5, 0.5, 0.5] and table.loc["Bus", "f1"] == 0
    f1 = class_f1(match(predictions, annotations))[:, 0]  # by category id: Car, Bus
    assert table["f1"].to_numpy() == pytest.approx(f1, abs=1e-8)


def test_the_confusion_matrix_adds_up_to_objects_and_detections():
    matrix = confusion_matrix(find_errors(*scene(), 0.5))
    assert matrix.to_numpy().tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]  # Car, Bus, background
    assert list(matrix.index) == list(matrix.columns) == ["Car", "Bus", "background"]


def test_in_the_confusion_matrix_each_object_is_taken_once_by_the_highest_score():
    box = [0, 0, 10, 10]
    predictions = [found(box, 0.6, BUS), found([0, 0, 10, 9], 0.8, BUS)]
    matrix = confusion_matrix(find_errors(predictions, dataset(truth(box)), 0.5))
    assert matrix.loc["Car", "Bus"] == 1 and matrix.loc["background", "Bus"] == 1


@pytest.mark.parametrize("seed", range(10))
def test_on_random_scenes_every_detection_and_object_is_accounted_for_once(seed):
    rng = np.random.default_rng(seed)
    boxes = np.append(rng.uniform(0, 60, (60, 2)), rng.uniform(10, 30, (60, 2)), axis=1).tolist()
    classes, images, scores = (
        rng.choice([CAR, BUS], 60).tolist(),
        rng.choice([1, 2], 60).tolist(),
        rng.random(60).tolist(),
    )
    annotations = dataset(*[truth(*row) for row in zip(boxes[:20], classes, images, strict=False)])
    predictions = [found(*row) for row in zip(boxes, scores, classes[::-1], images, strict=True)]
    errors = find_errors(predictions, annotations, 0.3)
    matrix = confusion_matrix(errors)
    kept = sum(score >= 0.3 for score in scores)
    assert matrix.iloc[:, :-1].to_numpy().sum() == len(errors.detections) == kept
    assert matrix.iloc[:-1].to_numpy().sum() == len(errors.truths) == 20
    true = (errors.detections["outcome"] == "true").sum()
    assert true == (errors.truths["outcome"] == "found").sum() == np.trace(matrix.to_numpy()[:2, :2])


def test_the_worst_image_comes_first_and_all_are_listed():
    table = worst_images(find_errors(*scene(), 0.5))
    assert table.reset_index().to_numpy().tolist() == [
        [1, "1.png", 1, 1, 2, 0.4, 3],  # id, file, true, false, missed, f1, badness
        [2, "2.png", 0, 1, 0, 0, 1],
    ]


def test_no_detections_no_objects_and_neither_are_cases_too():
    for predictions, annotations in ((scene()[0], dataset()), ([], scene()[1]), ([], dataset())):
        errors = find_errors(predictions, annotations, 0.5)
        assert confusion_matrix(errors).to_numpy().sum() == len(predictions) + len(annotations["annotations"])
        assert len(worst_images(errors)) == 2 and list(scores_by(errors, "distance")["true"]) == [0] * 5


def test_curves_come_for_each_class_and_for_all():
    curves = threshold_curves(match(*scene()))
    assert curves.groupby("category").size().to_dict() == {"all": 1, "Bus": 1, "Car": 1}
    assert curves.set_index("category").loc["all", "recall"] == pytest.approx(1 / 3)


def test_the_threshold_of_the_metrics_and_of_the_errors_is_one():
    predictions, annotations = (
        [found([0, 0, 10, 10], 0.3), found([0, 0, 10, 10], 0.8, image_id=2)],
        dataset(truth([0, 0, 10, 10]), truth([0, 0, 10, 10], image_id=2)),
    )
    assert f1_at(match(predictions, annotations), 0.3) == pytest.approx(1, abs=1e-8)
    assert len(find_errors(predictions, annotations, 0.3).detections) == 2


def test_an_unknown_column_and_an_image_without_size_are_refused():
    with pytest.raises(ValueError, match="by must be one of the columns"):
        false_positives_by(find_errors(*scene(), 0.5), "colour")
    annotations = scene()[1] | {"images": [{"id": 1}, {"id": 2}]}
    with pytest.raises(ValueError, match="2 images lack width or height, such as 1"):
        find_errors([], annotations, 0.5)
