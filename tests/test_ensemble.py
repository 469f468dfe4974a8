"""Fusion by hand, and against ensemble-boxes, bit for bit."""

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import Any, get_args

import ensemble_boxes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.ensemble import (
    Confidence,
    Members,
    Method,
    fuse,
    fuse_with_members,
    nms,
    non_maximum_weighted,
    soft_nms,
    weighted_boxes_fusion,
)

METHODS = get_args(Method)
LEFT, NEAR_LEFT = [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.4]  # IoU 0.8
RIGHT = [0.5, 0.5, 1.0, 1.0]
SIZES_HW = {7: (100, 200), 9: (50, 50)}


def found(image_id: int, box_xywh: list[float], score: float, category_id: int = 3) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": box_xywh, "score": score}


# ---- by hand ----


def test_wbf_is_the_mean_by_score_and_by_weight() -> None:
    boxes, scores, labels = weighted_boxes_fusion([[LEFT], [NEAR_LEFT]], [[0.5], [0.25]], [[2], [2]])
    assert boxes.tolist() == [[0, 0, 0.5, pytest.approx((0.5 * 0.5 + 0.25 * 0.4) / 0.75)]]
    assert scores.tolist() == [0.375] and labels.tolist() == [2]
    boxes, scores, _ = weighted_boxes_fusion([[LEFT], [NEAR_LEFT]], [[0.5], [0.25]], [[2], [2]], weights=[1, 2])
    assert boxes.tolist() == [[0, 0, 0.5, pytest.approx(0.45)]] and scores.tolist() == [pytest.approx(1 / 3)]


def test_a_box_that_one_of_two_models_found_has_half_its_score_in_wbf_and_all_of_it_elsewhere() -> None:
    one_sided = [[found(7, [10, 10, 20, 20], 0.8)], []]
    assert [fuse(one_sided, SIZES_HW, method=method)[0]["score"] for method in METHODS] == [
        0.4,
        0.8,
        0.8,
        pytest.approx(0.8, abs=1e-7),
    ]


@pytest.mark.parametrize(("iou", "boxes"), [(0.79, 1), (0.81, 2)])
@pytest.mark.parametrize("method", ["wbf", "nms", "nmw"])
def test_boxes_are_one_from_the_overlap_on(method: Method, iou: float, boxes: int) -> None:
    pair = [[found(9, [0, 0, 25, 25], 0.9)], [found(9, [0, 0, 25, 20], 0.8)]]
    assert len(fuse(pair, SIZES_HW, method=method, iou=iou)) == boxes


@pytest.mark.parametrize("method", METHODS)
def test_labels_and_images_are_not_mixed(method: Method) -> None:
    box = [5, 5, 20, 20]
    results = [[found(9, box, 0.5), found(7, box, 0.6)], [found(9, box, 0.7, category_id=1), found(7, box, 0.4, 8)]]
    fused = fuse(results, SIZES_HW, method=method)
    assert [(each["image_id"], each["category_id"]) for each in fused] == [(7, 3), (7, 8), (9, 1), (9, 3)]
    assert all(each["bbox"] == pytest.approx(box, rel=1e-6) for each in fused)


@pytest.mark.parametrize("method", METHODS)
def test_weak_boxes_are_not_looked_at_and_the_rest_is_cut_to_the_best(method: Method) -> None:
    rows = [found(7, [40 * place, 0, 20, 20], score) for place, score in enumerate([0.1, 0.3, 0.2, 0.4])]
    strong, best = fuse([rows], SIZES_HW, method=method, skip=0.2), fuse([rows], SIZES_HW, method=method, top_k=2)
    assert [round(each["bbox"][0]) for each in strong] == [120, 40, 80]
    assert [round(each["bbox"][0]) for each in best] == [120, 40]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_found_is_nothing_fused(method: Method) -> None:
    assert fuse([[], []], SIZES_HW, method=method) == [] == fuse([], {}, method=method)
    assert fuse_with_members([[]], SIZES_HW, method=method) == ([], [])
    assert fuse([[found(7, [10, 10, 0, 5], 0.9)]], SIZES_HW, method=method) == []


def test_the_members_tell_who_has_found_what() -> None:
    results = [
        [found(9, [30, 30, 9, 9], 0.3), found(7, [10, 10, 20, 20], 0.5)],
        [found(7, [10, 10, 20, 19], 0.6), found(7, [90, 50, 10, 10], 0.01)],
        [found(7, [11, 10, 20, 20], 0.9)],
    ]
    expected = [Members([2, 1, 0], [0, 0, 1], [0.9, 0.6, 0.5]), Members([0], [0], [0.3])]
    for method in ("wbf", "nms", "nmw"):
        fused, members = fuse_with_members(results, SIZES_HW, method=method, skip=0.02)
        assert members == expected and fused == fuse(results, SIZES_HW, method=method, skip=0.02)
    fused, members = fuse_with_members(results, SIZES_HW, method="soft_nms", skip=0.02, top_k=2)
    assert [each.models for each in members] == [[2], [1], [0]] and len(fused) == 3


def test_a_heavy_model_comes_first_and_what_nms_leaves_keeps_its_meaning() -> None:
    pair = [[found(7, [10, 10, 20, 20], 0.9)], [found(7, [10, 10, 20, 19], 0.6)]]
    fused, members = fuse_with_members(pair, SIZES_HW, method="nms", weights=[1, 2])
    assert fused == [found(7, [10, 10, 20, pytest.approx(19)], 0.6)]
    assert members == [Members([1, 0], [0, 0], [0.6, 0.9])]


def test_soft_nms_lowers_by_the_overlap() -> None:
    scene: tuple[Any, ...] = ([[LEFT, NEAR_LEFT, RIGHT]], [[0.9, 0.8, 0.5]], [[0, 0, 0]])
    assert soft_nms(*scene)[1].tolist() == pytest.approx([0.9, 0.5, 0.8 * np.exp(-(0.8**2) / 0.5)])
    assert soft_nms(*scene, decay="linear")[1].tolist() == pytest.approx([0.9, 0.5, 0.8 * 0.2])
    assert soft_nms(*scene, decay="linear", iou_thr=0.81)[1].tolist() == [0.9, 0.8, 0.5]
    assert soft_nms(*scene, thresh=0.25)[1].tolist() == [0.9, 0.5]
    assert soft_nms(*scene, lowered=False)[1].tolist() == [0.9, 0.5, 0.8]


def test_of_equal_scores_the_last_is_looked_at_first() -> None:
    boxes, _, _ = nms([[LEFT], [NEAR_LEFT]], [[0.5], [0.5]], [[0], [0]])
    assert boxes.tolist() == [NEAR_LEFT]
    boxes, _, labels = weighted_boxes_fusion([[RIGHT, LEFT]], [[0.5, 0.5]], [[4, 2]])
    assert labels.tolist() == [2, 4] and boxes.tolist() == [LEFT, RIGHT]


def test_boxes_of_score_zero_stay_numbers() -> None:
    scene: tuple[Any, ...] = ([[LEFT, NEAR_LEFT]], [[0.0, 0.0]], [[0, 0]])
    for method in (weighted_boxes_fusion, non_maximum_weighted):
        boxes, scores, _ = method(*scene)
        assert scores.tolist() == [0] and np.isfinite(boxes).all()


def test_a_mean_never_passes_the_rim() -> None:
    scores = np.random.default_rng(0).uniform(0.1, 1, (2, 500))
    results = [[found(image, [3, 2, 997, 777], score) for image, score in enumerate(each.tolist())] for each in scores]
    fused = fuse(results, {image: (779, 1000) for image in range(500)})
    assert max(each["bbox"][0] + each["bbox"][2] for each in fused) <= 1000
    assert max(each["bbox"][1] + each["bbox"][3] for each in fused) <= 779


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weights": [1.0]}, r"weights: expected 2 numbers over 0, one a model, got \[1.0\]"),
        ({"weights": [1.0, 0.0]}, "weights: expected 2 numbers over 0"),
        ({"iou": 1.5}, "iou: expected 0 to 1, got 1.5"),
        ({"method": "mean"}, "method: expected wbf, nms, soft_nms or nmw, got 'mean'"),
        ({"row": {"image_id": 8}}, "results: expected the 2 images of sizes_hw, got image_id 8"),
        ({"row": {"bbox": [1, 2, 3]}}, "results: expected 4 numbers in each bbox, got 3 in 1"),
        ({"row": {"bbox": [0, 0, 1000, 10]}}, r"boxes: expected corners in \[0, 1\] of the image, got \[0.0, 0.0, 5.0"),
        ({"row": {"score": float("nan")}}, "scores: expected 0 or more, got nan"),
        ({"row": {"score": -1}}, "scores: expected 0 or more, got -1"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], text: str) -> None:
    row = found(7, [10, 10, 20, 20], 0.5) | change.pop("row", {})
    with pytest.raises(ValueError, match=text):
        fuse([[row], []], SIZES_HW, **change)


def test_a_row_without_score_is_named() -> None:
    with pytest.raises(ValueError, match="got one without score"):
        fuse([[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}]], SIZES_HW)


def test_boxes_scores_and_labels_go_together() -> None:
    with pytest.raises(ValueError, match="as many of each in every model"):
        weighted_boxes_fusion([[LEFT]], [[0.5, 0.4]], [[0]])
    with pytest.raises(ValueError, match=r"expected one list a model in each, got 1, 2, 1"):
        weighted_boxes_fusion([[LEFT]], [[0.5], [0.4]], [[0]])


# ---- against ensemble-boxes ----

Scene = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]  # boxes, scores, labels: one a model


def random_scene(random: np.random.Generator, most: int) -> Scene:
    """Some models' boxes of some objects, few or many; on a coarse grid or not, scores tied or not, corners swapped."""
    objects, classes, models = random.integers(1, 10), random.integers(1, 5), random.integers(1, 7)
    centre, size = random.uniform(0.1, 0.9, (objects, 2)), random.uniform(0.02, 0.4, (objects, 2))
    grid, steps = random.choice([0, 10, 40]), random.choice([0, 0, 10, 100])
    boxes_list, scores_list, labels_list = [], [], []
    for _ in range(models):
        which = random.integers(objects, size=random.integers(0, most + 1))
        middle = centre[which] + random.normal(0, 0.02, (len(which), 2))
        half = size[which] * np.exp(random.normal(0, 0.15, middle.shape)) / 2
        boxes = np.concatenate([middle - half, middle + half], axis=1)
        scores = random.uniform(0.001, 1, len(which))
        boxes_list.append((np.round(boxes * grid) / grid if grid else boxes)[:, random.permutation(4) if grid else ...])
        scores_list.append(np.ceil(scores * steps) / steps if steps else scores)
        labels_list.append(np.where(random.random(len(which)) < 0.8, which % classes, random.integers(classes)))
    return boxes_list, scores_list, labels_list


def random_weights(random: np.random.Generator, models: int) -> list[float] | None:
    choices = [None, [1] * models, random.integers(1, 5, models).tolist(), random.uniform(0.1, 3, models).tolist()]
    return choices[random.integers(4)]


def quietly(work: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[np.ndarray, ...]:
    """The reference warns, prints, and writes into the lists that it gets."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return work(*(list(each) if isinstance(each, list) else each for each in arguments), **named)


def assert_same(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> None:
    for mine, peer in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, peer)


def compare_wbf(random: np.random.Generator, most: int) -> None:
    scene = random_scene(random, most)
    weights, iou = random_weights(random, len(scene[0])), random.choice([0, 0.3, 0.55, 0.9, 1])
    how = (weights, iou, random.choice([0, 0.15]), str(random.choice(get_args(Confidence))), bool(random.integers(2)))
    theirs = quietly(ensemble_boxes.weighted_boxes_fusion, *scene, *how)
    assert_same(weighted_boxes_fusion(*scene, *how), theirs)  # type: ignore[arg-type]


def compare_nmw(random: np.random.Generator, most: int) -> None:
    scene = random_scene(random, most)
    how = (random_weights(random, len(scene[0])), random.choice([0, 0.3, 0.55, 0.9, 1]), random.choice([0, 0.15]))
    assert_same(non_maximum_weighted(*scene, *how), quietly(ensemble_boxes.non_maximum_weighted, *scene, *how))


def compare_nms(random: np.random.Generator, most: int) -> None:
    scene = random_scene(random, most)
    weights, iou = random_weights(random, len(scene[0])), random.choice([0, 0.3, 0.55, 0.9, 1])
    if len(nms(*scene)[0]):  # the reference stops without any
        assert_same(nms(*scene, iou, weights), quietly(ensemble_boxes.nms, *scene, iou, weights))


def compare_soft_nms(random: np.random.Generator, most: int) -> None:
    scene = random_scene(random, most)
    weights, iou = random_weights(random, len(scene[0])), random.choice([0, 0.3, 0.55, 0.9])
    sigma, thresh = random.choice([0.1, 0.5]), random.choice([0.001, 0.1])
    if len(nms(*scene)[0]):
        for number, decay in ((1, "linear"), (2, "gaussian")):
            ours = soft_nms(*scene, decay, iou, sigma, thresh, weights, lowered=False)  # type: ignore[arg-type]
            assert_same(ours, quietly(ensemble_boxes.soft_nms, *scene, number, iou, sigma, thresh, weights))


def test_wbf_is_that_of_ensemble_boxes() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        compare_wbf(random, most=20)


@pytest.mark.slow
def test_wbf_is_that_of_ensemble_boxes_in_three_thousand_cases() -> None:
    random = np.random.default_rng(1)
    for case in range(3000):
        compare_wbf(random, most=100 if case % 50 == 0 else 12)


@pytest.mark.slow
@pytest.mark.parametrize("compare", [compare_nmw, compare_nms, compare_soft_nms])
def test_the_others_are_those_of_ensemble_boxes_in_a_thousand_cases(compare: Callable[..., None]) -> None:
    random = np.random.default_rng(2)
    for case in range(1000):
        compare(random, most=100 if case % 50 == 0 else 12)


def test_presence_of_many_models_is_summed_in_the_same_order() -> None:
    random = np.random.default_rng(3)
    for _ in range(60):
        counts = random.integers(2, size=19)
        scene = ([[LEFT] * n for n in counts], [random.uniform(0.4, 1, n) for n in counts], [[0] * n for n in counts])
        for confidence in get_args(Confidence):
            how = (random.uniform(0.1, 2, 19).tolist(), 0.5, 0.3, confidence)
            theirs = quietly(ensemble_boxes.weighted_boxes_fusion, *scene, *how)
            assert_same(weighted_boxes_fusion(*scene, *how), theirs)


def as_results(scenes: dict[int, Scene], models: int) -> list[list[dict[str, Any]]]:
    """As COCO results, the images of a model in any order; sizes as in the power of two, so that pixels are exact."""
    results: list[list[dict[str, Any]]] = [[] for _ in range(models)]
    for image_id in sorted(scenes, key=lambda each: each % 3):
        for rows, boxes, scores, labels in zip(results, *scenes[image_id], strict=False):
            low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
            boxes_xywh = np.concatenate([low, high - low], axis=1) * [1024, 512, 1024, 512]
            rows += [
                found(image_id, box, score, label)
                for box, score, label in zip(boxes_xywh.tolist(), scores.tolist(), labels.tolist(), strict=True)
            ]
    return results


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(METHODS))
def test_an_image_is_fused_as_if_it_were_alone(seed: int, method: Method) -> None:
    random = np.random.default_rng(seed)
    results = as_results({image_id: random_scene(random, 12) for image_id in range(1, 6)}, models=6)
    sizes_hw = {image_id: (512, 1024) for image_id in (4, 2, 1, 3, 5)}
    how: dict[str, Any] = {"method": method, "weights": random.uniform(0.1, 2, 6).tolist(), "top_k": 9}
    alone = [
        row
        for image_id, size_hw in sizes_hw.items()
        for row in fuse(
            [[r for r in rows if r["image_id"] == image_id] for rows in results], {image_id: size_hw}, **how
        )
    ]
    assert fuse(results, sizes_hw, **how) == alone


def test_whole_files_are_fused_as_ensemble_boxes_fuses_each_image() -> None:
    random = np.random.default_rng(5)
    scenes = {image_id: random_scene(random, 20) for image_id in range(1, 9)}
    results = as_results(scenes, models=6)
    fused = fuse(results, dict.fromkeys(scenes, (512, 1024)), iou=0.5, skip=0.1)
    for image_id in scenes:
        mine = [row for row in fused if row["image_id"] == image_id]
        rows = [[row for row in each if row["image_id"] == image_id] for each in results]
        corners = [
            [[x / 1024, y / 512, (x + w) / 1024, (y + h) / 512] for x, y, w, h in (row["bbox"] for row in each)]
            for each in rows
        ]
        scores, labels = ([[row[key] for row in each] for each in rows] for key in ("score", "category_id"))
        boxes, *others = quietly(ensemble_boxes.weighted_boxes_fusion, corners, scores, labels, None, 0.5, 0.1)
        boxes = boxes.clip(max=1) * [1024, 512, 1024, 512]
        boxes[:, 2:] -= boxes[:, :2]
        columns = ([row[key] for row in mine] for key in ("score", "category_id"))
        assert [row["bbox"] for row in mine] == boxes.tolist() and [*columns] == [each.tolist() for each in others]


@pytest.mark.slow
@pytest.mark.parametrize("models", [3, 6])
def test_wbf_is_at_least_five_times_as_fast_as_ensemble_boxes(models: int) -> None:
    random = np.random.default_rng(6)
    low, size = random.uniform(0, 0.8, (models, 300, 2)), random.uniform(0.05, 0.2, (models, 300, 2))
    scene = (
        np.concatenate([low, low + size], axis=2),
        random.random((models, 300)),
        random.integers(5, size=(models, 300)),
    )
    times = {weighted_boxes_fusion: [], ensemble_boxes.weighted_boxes_fusion: []}
    for _ in range(5):
        for work, taken in times.items():
            began = time.perf_counter()
            work(*scene)
            taken.append(time.perf_counter() - began)
    ours, theirs = (min(taken) for taken in times.values())
    assert theirs > 5 * ours
