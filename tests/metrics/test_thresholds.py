import itertools
import json

import numpy as np
import pytest

from kit.metrics import (
    IOU_THRESHOLDS,
    Matches,
    Thresholds,
    apply_thresholds,
    class_f1,
    cross_fit,
    evaluate,
    f1_at,
    match,
    mean_f1,
    search_thresholds,
)
from kit.metrics.thresholds import thresholds_between


def random_matches(seed, images=8, detections=40, classes=2):
    """Right at a falling share of IoU thresholds; few distinct scores, so there are ties."""
    rng = np.random.default_rng(seed)
    score = rng.integers(1, 12, detections) / 12
    label = np.sort(rng.integers(0, classes, detections))
    is_true = rng.uniform(0.2, 0.7 + 0.5 * score)[:, None] > IOU_THRESHOLDS
    image, rank = rng.integers(0, images, detections), np.zeros(detections, dtype=int)
    ground_truths = rng.integers(0, 5, (images, classes))
    names, ids = tuple("ABC"[:classes]), list(range(classes))
    return Matches(list(range(images)), ids, names, image, label, score, rank, is_true, ~is_true, ground_truths)


def groups_of(matches):
    return {image_id: "night" if image_id % 3 == 0 else "day" for image_id in matches.image_ids}


def best_by_trying(matches, columns):
    """Every combination of thresholds, one a column of masks."""
    cuts = [*np.unique(matches.score).tolist(), 2.0]
    kept = [
        sum((mask & (matches.score >= cut)) for mask, cut in zip(columns, tried, strict=True)).astype(bool)
        for tried in itertools.product(cuts, repeat=len(columns))
    ]
    return max(mean_f1(class_f1(matches.keep(mask))) for mask in kept)


@pytest.mark.parametrize("seed", range(5))
def test_global_and_class_thresholds_are_the_best_there_are(seed):
    matches = random_matches(seed)
    found = search_thresholds(matches)
    everything = np.ones(len(matches.score), dtype=bool)
    assert f1_at(matches, found["global"]) == pytest.approx(best_by_trying(matches, [everything]), abs=1e-12)
    by_class = [matches.label == 0, matches.label == 1]
    assert f1_at(matches, found["class"]) == pytest.approx(best_by_trying(matches, by_class), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_group_thresholds_come_within_a_hair_of_the_best(seed):
    matches = random_matches(seed, classes=1)
    groups = groups_of(matches)
    night = np.array([groups[image_id] == "night" for image_id in matches.image_ids])[matches.image]
    found = f1_at(matches, search_thresholds(matches, groups)["class_group"], groups)
    assert found >= 0.999 * best_by_trying(matches, [night, ~night])


@pytest.mark.parametrize("seed", range(20))
def test_a_finer_level_is_never_worse_where_it_was_fitted(seed):
    matches = random_matches(seed, detections=seed * 5, classes=3)
    groups = groups_of(matches)
    f1 = [f1_at(matches, found, groups) for found in search_thresholds(matches, groups).values()]
    assert all(finer >= coarser - 1e-12 for coarser, finer in itertools.pairwise(f1))


def example():
    """Two images: a car by day found at 0.8, one by night at 0.3; a false car of 0.5 by day, of 0.1 by night."""
    annotations = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 5, "name": "Car"}, {"id": 6, "name": "Bus"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 5, "bbox": [0, 0, 9, 9]} for i in (1, 2)],
    }
    scores = [(1, [0, 0, 9, 9], 0.8), (1, [50, 0, 9, 9], 0.5), (2, [0, 0, 9, 9], 0.3), (2, [50, 0, 9, 9], 0.1)]
    return [{"image_id": i, "category_id": 5, "bbox": box, "score": score} for i, box, score in scores], annotations


def test_day_and_night_get_their_own_threshold_and_applying_it_gives_the_f1_promised():
    predictions, annotations = example()
    matches, groups = match(predictions, annotations), {1: "day", 2: "night"}
    found = search_thresholds(matches, groups)["class_group"]
    assert found.groups == ("day", "night") and found.scores[0] == pytest.approx((0.65, 0.2))
    kept = apply_thresholds(predictions, found, groups)
    assert [entry["score"] for entry in kept] == [0.8, 0.3]
    assert f1_at(matches, found, groups) == evaluate(kept, annotations).f1 == pytest.approx(1, abs=1e-8)


def test_fitted_on_one_part_and_reported_on_another():
    predictions, annotations = example()
    matches = match(predictions, annotations)
    found = search_thresholds(matches.subset([1]))["global"]
    assert f1_at(matches.subset([1]), found) == pytest.approx(1, abs=1e-8)
    assert f1_at(matches.subset([2]), found) == 0


def test_a_class_without_objects_takes_the_global_threshold():
    predictions, annotations = example()
    found = search_thresholds(match(predictions, annotations))
    assert found["class"].scores[1] == found["global"].scores[0]


def test_a_group_without_images_in_the_fitted_part_takes_the_threshold_of_the_class():
    predictions, annotations = example()
    found = search_thresholds(match(predictions, annotations).subset([1]), {1: "day", 2: "night"})
    assert found["class_group"].scores[0] == (found["class"].scores[0][0],) * 2


def test_nothing_to_fit_keeps_everything():
    _, annotations = example()
    found = search_thresholds(match([], annotations | {"annotations": []}), {1: "day", 2: "night"})
    assert all(score == 0 for level in found.values() for row in level.scores for score in row)


def test_cross_fit_gives_each_image_thresholds_fitted_without_it():
    predictions, annotations = example()
    fit = cross_fit(match(predictions, annotations), {1: "a", 2: "b"})
    assert fit.thresholds["a"]["global"].scores[0] == pytest.approx((0.2,))  # fitted on image 2
    assert fit.fitted["global"] == pytest.approx(0.8, abs=1e-8)  # 0.2: two right, one false
    assert fit.held_out["global"] == pytest.approx(0.5, abs=1e-8)  # image 1 at 0.2, 2 at 0.65: a right one, a false one


def test_cross_fit_wants_every_image_in_a_fold_and_two_folds():
    matches = match(*example())
    with pytest.raises(ValueError, match="got 1, no fold: 2"):
        cross_fit(matches, {1: "a"})


def test_a_threshold_lies_half_way_to_the_next_score():
    assert thresholds_between(np.array([0.8, 0.4])).tolist() == pytest.approx([0.9, 0.6, 0.2])


def test_neighbouring_floats_and_the_ends_still_separate():
    high = np.nextafter(0.5, 1)
    thresholds = thresholds_between(np.array([1.0, high, 0.5, 0.0]))
    kept = [(np.array([1.0, high, 0.5, 0.0]) >= threshold).sum() for threshold in thresholds]
    assert kept == [0, 1, 2, 3, 4]


def test_one_number_is_a_threshold_too_and_is_reached_by_equality():
    predictions, annotations = example()
    assert [entry["score"] for entry in apply_thresholds(predictions, 0.5)] == [0.8, 0.5]
    assert f1_at(match(predictions, annotations), 0.6) == pytest.approx(2 / 3, abs=1e-8)
    assert apply_thresholds([], 0.5) == []


def test_thresholds_survive_json():
    found = search_thresholds(random_matches(1), groups_of(random_matches(1)))["class_group"]
    assert Thresholds.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (None, "by group .day, night.; give groups"),
        ({1: "day"}, "group of every image, missing: 2"),
        ({1: "day", 2: "dawn"}, "no threshold for group dawn, only for day, night"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, told):
    with pytest.raises(ValueError, match=told):
        apply_thresholds(example()[0], Thresholds((5,), ("day", "night"), ((0.1, 0.2),)), groups)


def test_a_category_without_threshold_is_refused():
    with pytest.raises(ValueError, match="no threshold for category_id 5, only for 1"):
        apply_thresholds(example()[0], Thresholds((1,), (), ((0.1,),)))
