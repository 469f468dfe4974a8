from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kit.data.coco import CocoFile, as_coco, parse_coco
from kit.gains import Judge, choose_method, held_out, matches_of, steps_table
from kit.metrics import cross_fit, evaluate
from kit.sources import Fusion, Method, Source, combined

CATEGORIES = [{"id": 3, "name": "bus"}, {"id": 7, "name": "car"}]
IMAGES = range(1, 9)
SIZES_HW = {image_id: (100, 200) for image_id in IMAGES}
FOLDS = {image_id: image_id % 4 for image_id in IMAGES}
BUS, CAR, NOTHING = (3, 10.0), (7, 100.0), (7, 160.0)  # category and place; each image has one bus and one car


def box(image_id: int, category_id: int, x: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": [x, 20.0, 30.0, 30.0], **more}


def coco_of(image_ids: Any, shift: float = 0.0) -> CocoFile:
    images = [
        {"id": i, "file_name": f"camera{i}_{'N' if i % 2 else 'M'}_{i}.png", "width": 200, "height": 100}
        for i in image_ids
    ]
    truths = [box(i, category, x + shift) for i in image_ids for category, x in (BUS, CAR)]
    truths = [each | {"id": number, "area": 900.0} for number, each in enumerate(truths, 1)]
    return parse_coco({"images": images, "annotations": truths, "categories": CATEGORIES}, path="made up")


def found(*what: tuple[int, float], score: float = 0.8, images: Any = IMAGES) -> list[dict[str, Any]]:
    return [box(i, category, x, score=score) for i in images for category, x in what]


def choose(*sources: Source, judge: Judge | None = None, **how: Any) -> Any:
    return choose_method(sources, judge or Judge(coco_of(IMAGES), FOLDS), Fusion(), SIZES_HW, **how)


def kept(choice: Any) -> list[str]:
    return [step.name for step in choice.steps if step.kept]


def test_what_helps_is_kept_and_what_harms_is_dropped_and_both_are_told() -> None:
    sees_cars = Source("cars", {"whole": found(CAR) + found(BUS, images=[1]), "flip": found(NOTHING, score=0.9)})
    choice = choose(Source("buses", {"whole": found(BUS, BUS)}), sees_cars)
    assert choice.method.sources == ("cars", "buses") and choice.method.views == ("whole",)
    gain = {step.name: step.gain for step in choice.steps}
    assert gain["ensemble: buses"] > 0 > gain["TTA: flip"] and "TTA: flip" not in kept(choice)
    assert choice.score.f1 == pytest.approx(1.0, abs=1e-6) and choice.steps[0].score.f1 < 1


def test_nothing_is_dropped_when_that_is_asked_for() -> None:
    one = Source("one", {"whole": found(BUS, CAR), "flip": found(NOTHING, score=0.9)})
    choice = choose(one, drop_losing_steps=False, finest="class")
    assert choice.method == Method(("one",), ("whole", "flip"), True, "class")
    assert all(step.kept for step in choice.steps) and min(step.gain for step in choice.steps[1:]) < 0


def test_a_gain_has_to_be_larger_than_the_least() -> None:
    one, other = Source("one", {"whole": found(BUS, CAR, images=range(1, 8))}), Source("other", {"whole": found(BUS)})
    gain = next(step.gain for step in choose(one, other).steps if step.name == "ensemble: other")
    assert gain > 0
    assert "ensemble: other" not in kept(choose(one, other, least_gain=gain))
    assert "ensemble: other" in kept(choose(one, other, least_gain=0.99 * gain))


def test_what_pays_only_together_is_found_by_trying_all() -> None:
    """WBF: a score is the sum over the lists by their number. Each view brings a false bus that only three outvote."""
    flip = found(BUS, score=0.9) + found((3, 160.0), score=0.7)
    larger = found(CAR, score=0.9) + found((3, 60.0), score=0.8)
    whole = found(BUS, CAR, score=0.5) + found(NOTHING, score=0.6)
    choice = choose(Source("one", {"whole": whole, "flip": flip, "x2": larger}), finest="global")
    assert kept(choice) == ["single: one", "TTA: all 3 views"] and choice.score.f1 == pytest.approx(1.0, abs=1e-6)


def test_images_of_the_report_change_no_choice() -> None:
    sources = [Source("a", {"whole": found(BUS, CAR)}), Source("b", {"whole": found(BUS, NOTHING)})]
    tune, folds = coco_of(range(1, 7)), {image_id: FOLDS[image_id] for image_id in range(1, 7)}
    easy, hard = (Judge(tune, folds, report=coco_of([7, 8], shift)) for shift in (0.0, 80.0))
    one, other = choose(*sources, judge=easy), choose(*sources, judge=hard)
    assert (one.method, kept(one)) == (other.method, kept(other))
    assert one.score.thresholds == other.score.thresholds and one.score.f1 == other.score.f1
    assert one.score.report.f1 == pytest.approx(1.0, abs=1e-6) and other.score.report.f1 == 0


def test_where_ap_counts_no_threshold_is_tried_and_everything_is_sent() -> None:
    weak = Source("weak", {"whole": found(BUS, CAR, score=0.03) + found(NOTHING, score=0.02)})
    choice = choose(weak, judge=Judge(coco_of(IMAGES), FOLDS, metric="ap"), finest="class_group")
    assert [step.name for step in choice.steps] == ["single: weak", "NMS at IoU 0.55"] and choice.method.level == "none"
    assert {row[0] for row in choice.score.thresholds.scores} == {0.0}
    assert choice.score.f1 == pytest.approx(1.0, abs=1e-6) and choice.score.shown.scores[0][0] > 0


def test_thresholds_by_day_and_night_are_tried_only_where_there_are_both() -> None:
    pattern = r"camera(?P<camera>\d+)_(?P<scene>[MN])"
    one = Source("one", {"whole": found(BUS, CAR)})
    both, days = IMAGES, [2, 4, 6, 8]
    for image_ids, expected in ((both, True), (days, False)):
        judge = Judge(coco_of(image_ids), {each: FOLDS[each] for each in image_ids}, pattern)
        names = [step.name for step in choose(one, judge=judge, finest="class_group").steps]
        assert ("thresholds by class, day/night" in names) == expected


@pytest.mark.parametrize("level", ["none", "global", "class"])
def test_f1_of_a_step_is_the_cross_fitted_one(level: Any) -> None:
    coco, random = coco_of(IMAGES), np.random.default_rng(0)
    predictions = [each | {"score": float(random.random())} for each in found(BUS, CAR, NOTHING, (3, 60.0))]
    score, fit = Judge(coco, FOLDS).score(predictions, level), cross_fit(matches_of(predictions, coco), FOLDS)
    assert (score.f1, score.f1_fitted) == (fit.held_out[level], fit.fitted[level])
    assert (score.f1 < score.f1_fitted) == (level != "none")
    result = evaluate(predictions, as_coco(coco))
    assert (score.ap, score.ap50) == (result.ap, result.ap50)


def test_a_single_fold_is_judged_with_its_own_thresholds() -> None:
    matches = matches_of(found(BUS, CAR, images=[1]), coco_of([1]))
    assert len(held_out(matches, {1: 0}, {1: "day"}, "class").score) == 2


def test_a_model_weighs_as_much_as_it_is_given() -> None:
    lists = [Source("a", {"whole": found(BUS, score=0.9)}, 3.0), Source("b", {"whole": found(BUS, score=0.5)}, 1.0)]
    fused = combined(lists, Method(("a", "b")), Fusion(), SIZES_HW)
    assert [each["score"] for each in fused] == pytest.approx([0.8] * len(IMAGES))


def test_a_file_without_views_joins_the_views_of_a_model() -> None:
    model = Source("model", {"whole": found(BUS), "flip": found(BUS)})
    file = Source("file", {"whole": found(BUS, score=0.4)})
    fused = combined([model, file], Method(("model", "file"), ("whole", "flip")), Fusion(), SIZES_HW)
    assert [each["score"] for each in fused] == pytest.approx([0.6] * len(IMAGES))


def test_seconds_are_those_of_all_models_in_all_their_views() -> None:
    model = Source("model", {"whole": found(BUS, CAR), "flip": found(BUS, CAR)}, seconds={"whole": 0.1, "flip": 0.2})
    file = Source("file", {"whole": found(BUS)})
    steps = {step.name: step for step in choose(model, file, drop_losing_steps=False).steps}
    assert steps["single: model"].seconds == 0.1
    assert 0.3 <= steps["TTA: flip"].seconds < 0.35 and 0.3 <= steps["ensemble: file"].seconds < 0.35
    assert choose(file).steps[0].seconds is None


def test_where_the_best_source_is_a_file_views_are_tried_after_the_models_joined() -> None:
    model = Source("model", {"whole": found(BUS), "flip": found(BUS)})
    names = [step.name for step in choose(Source("file", {"whole": found(BUS, CAR)}), model).steps]
    assert names.index("ensemble: model") < names.index("TTA: flip")


def test_images_without_a_single_detection_are_no_problem() -> None:
    choice = choose(Source("blind", {"whole": [], "flip": []}), Source("also", {"whole": []}))
    assert choice.score.f1 == choice.score.ap == 0 and choice.predictions == []


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a model or a results file, got none"):
        choose()


def test_the_table_has_columns_of_the_report_only_where_there_is_one() -> None:
    one = Source("one", {"whole": found(BUS, CAR)})
    plain = steps_table(choose(one).steps)
    told = steps_table(choose(one, judge=replace(Judge(coco_of(IMAGES), FOLDS), report=coco_of([1]))).steps)
    assert set(told) - set(plain) == {"report_ap", "report_ap50", "report_f1"}
    assert plain.loc["single: one", "kept"] and plain["f1"].dtype == float
