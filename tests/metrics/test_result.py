"""COCO figures against pycocotools, and F1 against a plain loop over pycocotools' own matches."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kit.files import read_json, write_json
from kit.metrics import evaluate

STATS = [
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
]


def oracle(predictions, annotations):
    """pycocotools' twelve figures, and the official F1 summed from its matches at area `all`."""
    with contextlib.redirect_stdout(io.StringIO()):
        truths, found = COCO(), COCO()
        truths.dataset = copy.deepcopy(annotations)
        scored = [p | {"id": i + 1, "area": p["bbox"][2] * p["bbox"][3]} for i, p in enumerate(predictions)]
        found.dataset = annotations | {"annotations": scored}
        truths.createIndex()
        found.createIndex()
        coco_eval = COCOeval(truths, found, "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    f1 = []
    for category_id in coco_eval.params.catIds:
        images = [e for e in coco_eval.evalImgs if e and e["category_id"] == category_id and e["aRng"][1] == 1e10]
        images = [e for e in images if e["aRng"] == [0, 1e10]]
        total = sum((e["gtIgnore"] == 0).sum() for e in images)
        for i in range(10 if total else 0):
            true = sum(((e["dtMatches"][i] > 0) & ~e["dtIgnore"][i]).sum() for e in images)
            false = sum(((e["dtMatches"][i] == 0) & ~e["dtIgnore"][i]).sum() for e in images)
            precision, recall = true / (true + false + np.spacing(1)), true / total
            f1.append(2 * precision * recall / (precision + recall + 1e-9))
    return coco_eval.stats, np.mean(f1) if f1 else -1.0


def one_image(boxes=(), ids=None, category_id=1, **fields):
    """Ground truth: one image of 100 pixels, these boxes, categories 1 and 2."""
    numbered = zip(ids or range(1, len(boxes) + 1), boxes, strict=True)
    return {
        "images": [{"id": 7, "width": 100, "height": 100, "file_name": "7.png"}],
        "categories": [{"id": 1, "name": "Car"}, {"id": 2, "name": "Bus"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            | fields
            for i, box in numbered
        ],
    }


def found(box, score=0.9, category_id=1, image_id=7):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def random_case(seed):
    """Few distinct scores (ties), jittered and doubled boxes, crowds, empty images, sizes of all areas, crowding."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i), "width": 800, "height": 800} for i in rng.permutation(100)[:8]]
    categories = [{"id": i, "name": str(i)} for i in (0, 3, 9)]
    annotations, predictions = [], []
    for image in images[:6]:
        for _ in range(rng.integers(0, 12)):
            category_id = int(rng.choice([0, 3]))  # nothing of category 9 is there, some of it is found
            box = np.round(np.append(rng.uniform(0, 500, 2), np.exp(rng.uniform(2, 5.7, 2))), 1)
            crowd = int(rng.random() < 0.15)
            area = float(box[2] * box[3] * rng.choice([1, 0.6]))
            entry = {"id": len(annotations) + 1, "image_id": image["id"], "bbox": box.tolist(), "area": area}
            annotations.append(entry | {"iscrowd": crowd, "category_id": category_id})
            for _ in range(rng.integers(0, 130 if rng.random() < 0.03 else 4)):
                moved = box + rng.normal(0, 0.06, 4) * box[[2, 3, 2, 3]] * rng.integers(0, 2)
                label = category_id if rng.random() < 0.8 else int(rng.choice([0, 3, 9]))
                predictions.append(found(moved.tolist(), float(rng.integers(1, 12) / 12), label, image["id"]))
    for _ in range(rng.integers(0, 15)):
        box = np.append(rng.uniform(0, 500, 2), rng.uniform(5, 300, 2))
        image_id = images[rng.integers(8)]["id"]
        predictions.append(found(box.tolist(), float(rng.integers(1, 12) / 12), int(rng.choice([0, 3, 9])), image_id))
    rng.shuffle(predictions)
    return predictions, {"images": images, "categories": categories, "annotations": annotations}


@pytest.mark.parametrize("seed", range(25))
def test_all_figures_equal_pycocotools_to_the_last_digit_on_random_cases(seed):
    predictions, annotations = random_case(seed)
    result = evaluate(predictions, annotations)
    stats, f1 = oracle(predictions, annotations)
    assert [getattr(result, name) for name in STATS] == stats.tolist()
    assert result.f1 == pytest.approx(f1, abs=1e-15)


def test_all_figures_equal_pycocotools_on_the_coco_sample(shared):
    annotations = shared("data/eval_fixtures/cocoapi/instances_val2014_100.json")
    predictions = annotations.with_name("instances_val2014_fakebbox100_results.json")
    result = evaluate(predictions, annotations)
    stats, f1 = oracle(read_json(predictions), read_json(annotations))
    assert [getattr(result, name) for name in STATS] == stats.tolist()
    assert result.f1 == pytest.approx(f1, abs=1e-15)
    assert round(result.ap, 3) == 0.505 and round(result.ar_large, 3) == 0.564  # printed by the COCO API itself


def test_padillas_twelve_figures_come_out(shared):
    folder = shared("data/eval_fixtures/padilla_coco")
    result = evaluate(folder / "sampled_bbox_results.json", folder / "sampled_gts_bbox_area.json")
    expected = read_json(folder / "expected.json")["expected"]
    assert [getattr(result, name) for name in STATS] == pytest.approx(list(expected.values()), abs=1e-6)


@pytest.mark.parametrize("quality", ["good", "poor"])
def test_official_f1_and_areas_equal_the_organisers_figures(shared, quality):
    folder = shared("fixtures/track4_f1")
    predictions = read_json(folder / f"predictions_{quality}.json.gz")
    for minimum, expected in read_json(folder / "expected.json")[quality].items():
        kept = [entry for entry in predictions if entry["score"] >= float(minimum)]
        result = evaluate(kept, folder / "ground_truth.json.gz")
        sizes = [result.ap_small_track4, result.ap_medium_track4, result.ap_large_track4]
        assert [result.f1, result.ap, result.ap50, *sizes] == pytest.approx(list(expected.values()), abs=1e-9)


def test_one_false_positive_of_low_score_costs_a_third_of_f1_and_nothing_of_ap():
    box = [10, 10, 20, 20]
    result = evaluate([found(box), found([60, 60, 20, 20], score=0.001)], one_image([box]))
    assert result.ap == pytest.approx(1) and result.f1 == pytest.approx(2 / 3, abs=1e-8)


def test_120_cars_all_found_give_0_909_through_the_cap_of_100():
    boxes = [[5.0 * (i % 20), 5.0 * (i // 20), 4, 4] for i in range(120)]
    predictions = [found(box) for box in boxes]
    assert evaluate(predictions, one_image(boxes)).f1 == pytest.approx(200 / 220, abs=1e-8)
    assert evaluate(predictions, one_image(boxes), f1_max_per_class_image=120).f1 == pytest.approx(1, abs=1e-8)


def test_a_larger_cap_of_f1_leaves_ap_with_its_hundred():
    boxes = [[5.0 * (i % 20), 5.0 * (i // 20), 4, 4] for i in range(120)]
    predictions = [found(box) for box in boxes]
    assert evaluate(predictions, one_image(boxes), f1_max_per_class_image=120).ar100 == 100 / 120


def test_a_class_with_objects_and_no_detection_scores_zero():
    annotations = one_image([[10, 10, 20, 20]])
    annotations["annotations"] += one_image([[50, 50, 20, 20]], ids=[2], category_id=2)["annotations"]
    result = evaluate([found([10, 10, 20, 20])], annotations)
    assert result.per_class["Bus"] == {"ap": 0, "ap50": 0, "f1": 0, "ground_truths": 1, "detections": 0}
    assert result.f1 == pytest.approx(0.5, abs=1e-8)


def test_a_detection_of_a_class_without_objects_changes_nothing():
    box = [10, 10, 20, 20]
    alone, beside = (evaluate(p, one_image([box])) for p in ([found(box)], [found(box), found(box, category_id=2)]))
    assert alone.f1 == beside.f1 and alone.ap == beside.ap == pytest.approx(1)
    assert beside.per_class["Bus"] == {"ap": -1, "ap50": -1, "f1": -1, "ground_truths": 0, "detections": 1}


def test_no_predictions_give_zero_and_no_annotations_minus_one():
    nothing_found, nothing_there = (
        evaluate([], one_image([[10, 10, 20, 20]])),
        evaluate([found([1, 1, 5, 5])], one_image()),
    )
    assert nothing_found.ap == nothing_found.f1 == nothing_found.ar100 == 0
    assert nothing_there.ap == nothing_there.f1 == nothing_there.ar1 == evaluate([], one_image()).ap == -1


def test_annotation_id_0_counts_here_though_pycocotools_loses_it():
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10]]
    predictions = [found(box) for box in boxes]
    result, (stats, f1) = (
        evaluate(predictions, one_image(boxes, ids=[0, 1, 2])),
        oracle(predictions, one_image(boxes, ids=[0, 1, 2])),
    )
    assert result.ap == pytest.approx(1) and result.f1 == pytest.approx(1, abs=1e-8)
    assert stats[0] < 0.9 and f1 == pytest.approx(2 / 3, abs=1e-8)
    assert "annotation id 0" in result.notes[0] and evaluate(predictions, one_image(boxes)).notes == ()


def test_an_only_object_of_id_0_gives_0_in_pycocotools():
    box = [0, 0, 10, 10]
    assert oracle([found(box)], one_image([box], ids=[0]))[0][0] == 0
    assert evaluate([found(box)], one_image([box], ids=[0])).ap == pytest.approx(1)


def test_repeated_annotation_ids_count_each_object_once_and_are_noted():
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10]]
    result = evaluate([found(box) for box in boxes], one_image(boxes, ids=[5, 5]))
    assert result.ap == pytest.approx(1) and "repeat" in result.notes[0]


def test_evaluation_leaves_its_input_alone_and_says_nothing(capfd):
    predictions, annotations = random_case(3)
    before = json.dumps([predictions, annotations])
    evaluate(predictions, annotations)
    assert json.dumps([predictions, annotations]) == before and capfd.readouterr() == ("", "")


def test_files_gzipped_files_and_values_give_the_same(tmp_path):
    predictions, annotations = random_case(4)
    paths = write_json(tmp_path / "p.json.gz", predictions), str(write_json(tmp_path / "a.json", annotations))
    assert evaluate(*paths) == evaluate(predictions, annotations)
    json.dumps(evaluate(*paths).as_dict(), allow_nan=False)
