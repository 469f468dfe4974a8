from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.check import check_dataset
from kit.data.coco import CocoFile, as_coco, parse_coco, read_coco, write_coco
from kit.data.unlabelled import Listing
from kit.data.views import TRACK4_VIEW
from kit.dfine.weights import save_weights
from kit.pseudo import (
    Sifted,
    Voice,
    agreement,
    find_teachers,
    fused,
    fused_shards,
    join,
    rules_table,
    sift,
    voice_names,
    worth_of,
)
from kit.pseudo_rules import parse_rules
from kit.shards import Settings, make_plan, work
from kit.sources import Fusion
from tests import tiny

CATEGORIES = [{"id": 3, "name": "Bus"}, {"id": 7, "name": "Car"}]
NAMES = ["Bus", "Car"]
IMAGES = [
    {"id": 1, "file_name": "x/camera1_M_10.png", "height": 100, "width": 200, "bytes": 9},
    {"id": 2, "file_name": "x/camera2_N_11.png", "height": 100, "width": 200, "bytes": 9},
]
A, B = Voice("a", "whole", 1.0), Voice("b", "whole", 1.0)


def truth(boxes: list[tuple[int, int, list[float]]] | None = None, crowds: tuple[int, ...] = ()) -> CocoFile:
    """boxes: image id, category id, xywh; two images of camera 1 with ids 10 and 20."""
    boxes = [(10, 7, [10, 10, 20, 20]), (10, 3, [100, 50, 40, 40])] if boxes is None else boxes
    images = [
        {"id": number, "file_name": f"camera1_M_{number}.png", "width": 200, "height": 100} for number in (10, 20)
    ]
    annotations = [
        {"id": 50 + row, "image_id": image_id, "category_id": category_id, "bbox": box, "iscrowd": int(row in crowds)}
        for row, (image_id, category_id, box) in enumerate(boxes)
    ]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return parse_coco(content, Path("train.json"))


def box(image_id: int, category_id: int, score: float, at: float = 10.0, **members: float) -> dict[str, Any]:
    """A fused box of 20 x 20 px, with a score by voice."""
    said = {Voice(name, "whole", 1.0): each for name, each in (members or {"a": score}).items()}
    return {"image_id": image_id, "category_id": category_id, "bbox": [at, 10.0, 20.0, 20.0], "score": score,
            "members": said}  # fmt: skip


def sifted(boxes: list[dict[str, Any]], rules: list[str], **more: Any) -> Sifted:
    return sift([(IMAGES, boxes)], parse_rules(rules, NAMES), truth(), TRACK4_VIEW, **more)


# --- teachers ---


def test_teachers_are_asked_for_classes_by_name_and_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    about = {"classes": ["Car", "Bus"], "size_hw": [64, 96]}
    for run in ("one", "two"):
        save_weights(tiny.detector(), tmp_path / run / "03_train/best.pt", about)
    folders = [tmp_path / run / "03_train" for run in ("one", "two")]
    first, second = find_teachers(folders, truth(), [2.0, 1.0])
    assert (first.name, second.name) == ("one/03_train", "two/03_train") and (first.weight, second.weight) == (2.0, 1.0)
    assert first.category_ids == [7, 3] and first.size_hw == (64, 96) and first.weights.name == "best.pt"
    assert [each.name for each in find_teachers([folders[0] / "best.pt"], truth())] == ["03_train"]


def test_a_teacher_of_other_classes_or_without_a_size_is_refused(tmp_path: Path) -> None:
    save_weights(tiny.detector(), tmp_path / "a.pt", {"classes": ["Car", "Tram"], "size_hw": [64, 64]})
    save_weights(tiny.detector(), tmp_path / "b.pt")
    with pytest.raises(ValueError, match="expected the classes Bus, Car, this model knows Tram too"):
        find_teachers([tmp_path / "a.pt"], truth())
    with pytest.raises(ValueError, match="this file tells no classes and no size_hw"):
        find_teachers([tmp_path / "b.pt"], truth())
    with pytest.raises(ValueError, match="teacher_weights: expected 1 numbers, one a teacher, got 2"):
        find_teachers([tmp_path / "a.pt"], truth(), [1.0, 2.0])


# --- fusion ---


def found(score: float, at: float = 10.0, category_id: int = 7) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category_id, "bbox": [at, 10.0, 20.0, 20.0], "score": score}


def test_a_fused_box_knows_who_found_it_and_how_sure_each_was() -> None:
    said = {A: [found(0.8), found(0.3, at=150)], B: [found(0.6, at=11)]}
    both, alone = fused(said, IMAGES, Fusion(iou=0.5))
    assert both["members"] == {A: 0.8, B: 0.6} and both["score"] == pytest.approx(0.7)
    assert both["bbox"][0] == pytest.approx((0.8 * 10 + 0.6 * 11) / 1.4, abs=1e-4)
    assert alone["members"] == {A: 0.3} and alone["score"] == pytest.approx(0.15)  # WBF: one of two


def test_weak_doubles_of_a_voice_do_not_lower_the_score_it_is_sure_of() -> None:
    """D-FINE leaves them: no NMS was in its training."""
    (best,) = fused({A: [found(0.8), found(0.1, at=10.5)], B: [found(0.6), found(0.05, at=10.5)]}, IMAGES, Fusion())
    assert best["score"] == pytest.approx(0.7)


def test_of_one_voice_the_surest_box_on_an_object_stays_with_its_own_score() -> None:
    (only,) = fused({A: [found(0.3, at=11), found(0.8)]}, IMAGES, Fusion())
    assert only["score"] == 0.8 and only["members"] == {A: 0.8} and only["bbox"] == pytest.approx([10, 10, 20, 20])


def test_scores_stay_what_the_models_said_when_boxes_are_only_picked() -> None:
    (best,) = fused({A: [found(0.8)], B: [found(0.6, at=11)]}, IMAGES, Fusion("nms"))
    assert best["score"] == pytest.approx(0.8)


def test_shards_of_several_teachers_are_fused_one_after_the_other(tmp_path: Path) -> None:
    teachers = []
    plans = []
    for name, score in (("a", 0.8), ("b", 0.4)):
        save_weights(tiny.detector(), tmp_path / f"{name}.pt", {"classes": NAMES, "size_hw": [64, 64]})
        teachers += find_teachers([tmp_path / f"{name}.pt"], truth())
        settings = Settings(name * 64, (64, 64), [3, 7], shard_images=1)
        plans.append(make_plan(tmp_path / name, "w.pt", settings, IMAGES))
        work(plans[-1], lambda images, tell, score=score: {
            "whole": [found(score) | {"image_id": image["id"]} for image in images]
        })  # fmt: skip
    shards = list(fused_shards(plans, teachers, Fusion()))
    assert [[image["id"] for image in images] for images, _ in shards] == [[1], [2]]
    assert [each["score"] for _, boxes in shards for each in boxes] == pytest.approx([0.6, 0.6])
    assert voice_names(plans, teachers) == ["a", "b"]
    other = make_plan(tmp_path / "c", "w.pt", settings, IMAGES[:1])
    with pytest.raises(ValueError, match="expected plans of the same images"):
        next(fused_shards([plans[0], other], teachers, Fusion()))


# --- rules ---


def test_the_rules_decide_by_class_and_place_and_the_label_tells_which() -> None:
    boxes = [box(1, 7, 0.5), box(1, 3, 0.5, at=60), box(2, 7, 0.3), box(1, 7, 0.3, at=120)]
    result = sifted(boxes, ["0.4", "Bus: 0.7", "night: 0.2"])
    assert [(each["score"], each["pseudo"]["rule"]) for each in result.labels] == [(0.5, "0.4"), (0.3, "night: 0.2")]
    assert result.labels[0]["pseudo"] == {"models": ["a"], "scores": [0.5], "rule": "0.4"}
    assert "members" not in result.labels[0]
    table = rules_table(parse_rules(["0.4", "Bus: 0.7", "night: 0.2"], NAMES), result)
    assert table.to_numpy().tolist() == [["0.4", 2, 1], ["Bus: 0.7", 1, 0], ["night: 0.2", 1, 1]]


def test_a_score_that_just_reaches_the_threshold_is_enough() -> None:
    assert len(sifted([box(1, 7, 0.4)], ["0.4"]).labels) == 1 and sifted([box(1, 7, 0.3999)], ["0.4"]).labels == []
    assert sifted([box(1, 7, 1.0)], ["Car: never"]).labels == []


def test_a_box_that_no_rule_fits_is_no_label() -> None:
    result = sifted([box(1, 7, 0.9)], ["Bus: 0.1"])
    assert result.labels == [] and result.judged.tolist() == [0, 1]
    assert rules_table(parse_rules(["Bus: 0.1"], NAMES), result)["rule"].tolist() == ["Bus: 0.1", "(no rule fits)"]


def test_a_second_voice_has_to_be_another_model_and_sure_by_itself() -> None:
    flipped = {Voice("a", "flip", 1.0): 0.6, A: 0.6}
    boxes = [
        box(1, 7, 0.5, a=0.6, b=0.4),
        box(1, 7, 0.5, at=60, a=0.6, b=0.3),
        box(1, 7, 0.5, at=120) | {"members": flipped},
    ]
    assert [each["bbox"][0] for each in sifted(boxes, ["0.4 by 2"]).labels] == [10]
    assert len(sifted(boxes, ["0.4"]).labels) == 3


def test_of_two_classes_on_one_place_the_surer_stays() -> None:
    result = sifted([box(1, 7, 0.5), box(1, 3, 0.6, at=10.5), box(1, 7, 0.5, at=16), box(2, 7, 0.9)], ["0.4"])
    assert [(each["category_id"], each["bbox"][0]) for each in result.labels] == [(3, 10.5), (7, 16), (7, 10)]
    assert result.rivals == 1 and result.kept.tolist() == [3]


def test_every_box_is_counted_once_as_kept_or_not() -> None:
    result = sifted([box(1, 7, 0.5), box(1, 3, 1.0, at=60), box(2, 7, 0.1)], ["0.4"], watch=frozenset({2}))
    assert result.counts.sum() == 3 and result.counts[:, 1].sum() == 2
    assert result.counts[1, 1, 25] == 1 and result.counts[0, 1, 49] == 1 and result.counts[1, 0, 5] == 1
    assert [(each["image_id"], each["threshold"]) for each in result.watched] == [(2, 0.4)]


def test_voices_agree_on_a_label_where_each_reaches_its_rule_s_threshold() -> None:
    result = sifted([box(1, 7, 0.5, a=0.7, b=0.3), box(2, 7, 0.5, b=0.5)], ["0.4", "night: 0.2"])
    table = agreement(result.labels, ["a", "b"], parse_rules(["0.4", "night: 0.2"], NAMES))
    assert table.tolist() == [[True, False], [False, True]]


def test_no_boxes_make_no_labels() -> None:
    result = sifted([], ["0.4"])
    assert result.labels == [] and result.counts.sum() == 0
    assert agreement([], ["a"], parse_rules(["0.4"], NAMES)).shape == (0, 1)


# --- worth ---


def test_labels_are_right_where_the_truth_has_an_object_of_their_class() -> None:
    boxes = [box(10, 7, 0.9), box(10, 3, 0.8, at=60), box(10, 7, 0.2, at=150)]
    worth = worth_of(boxes, boxes[:2], truth())
    assert worth.table.loc["Car", ["objects", "labels", "right", "precision", "recall"]].tolist() == [1, 1, 1, 1, 1]
    assert worth.table.loc["Bus", ["labels", "right"]].tolist() == [1, 0]
    assert worth.precision == 0.5 and worth.recall == 0.5 and len(worth.boxes.score) == 3
    assert worth_of([], [], truth()).precision is None


# --- joined with the truth ---


def listing(*images: dict[str, Any], twins: dict[int, int] | None = None) -> Listing:
    return Listing(list(images or IMAGES), {}, twins or {})


def label(image_id: int, at: float = 10.0, category_id: int = 7, score: float = 0.5) -> dict[str, Any]:
    return sifted([box(image_id, category_id, score, at)], ["0"]).labels[0]


def test_ground_truth_stays_and_labels_follow_under_new_ids(tmp_path: Path) -> None:
    joined = join(truth(), "data/train", listing(), [label(2), label(2, at=100)], 0.5)
    assert [(each["id"], each["file_name"]) for each in joined.images] == [
        (10, "data/train/camera1_M_10.png"), (20, "data/train/camera1_M_20.png"), (21, "x/camera2_N_11.png"),
    ]  # fmt: skip
    assert [each["id"] for each in joined.annotations] == [1, 2, 3, 4]
    assert [each["image_id"] for each in joined.annotations] == [10, 10, 21, 21]
    added = joined.annotations[2]
    assert added["score"] == 0.5 and added["area"] == 400 and added["pseudo"]["models"] == ["a"]
    assert joined.counts["images added"] == 1 and joined.counts["images without a label"] == 1
    path = write_coco(tmp_path / "instances_train.json", joined.images, joined.annotations, joined.categories)
    assert not check_dataset(path, None).fatal and len(read_coco(path).records) == 3


def test_images_without_a_label_come_in_as_background_only_when_asked_for() -> None:
    assert len(join(truth(), "t", listing(), [], 0.5).images) == 2
    joined = join(truth(), "t", listing(), [], 0.5, keep_empty=True)
    assert [each["id"] for each in joined.images] == [10, 20, 21, 22] and len(joined.annotations) == 2


def test_a_labelled_image_under_another_name_gets_only_what_its_truth_has_not() -> None:
    labels = [label(1, at=11), label(1, at=60), label(1, at=12, category_id=3)]
    joined = join(truth(), "t", listing(twins={1: 10}), labels, 0.5)
    assert len(joined.images) == 2 and joined.counts["labels on ground truth"] == 2
    assert [(each["image_id"], each["bbox"][0]) for each in joined.labels] == [(10, 60)]


def test_overlap_counts_from_above_the_limit_on() -> None:
    labels = [label(1, at=20)]  # 20 px wide boxes, 10 px apart: IoU 1/3
    kept = join(truth(), "t", listing(twins={1: 10}), labels, 1 / 3 + 1e-9)
    dropped = join(truth(), "t", listing(twins={1: 10}), labels, 1 / 3 - 1e-9)
    assert (len(kept.labels), len(dropped.labels)) == (1, 0)


def test_a_label_inside_a_crowd_is_none() -> None:
    crowd = truth([(10, 7, [0, 0, 150, 100])], crowds=(0,))
    joined = join(crowd, "t", listing(twins={1: 10}), [label(1), label(1, at=160)], 0.5)
    assert [each["bbox"][0] for each in joined.labels] == [160]


spots = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([3, 7]), st.floats(0, 180), st.floats(0.01, 1)), max_size=12
)


@given(spots=spots, twin=st.sampled_from([None, 10, 20]), keep_empty=st.booleans())
def test_whatever_is_joined_the_truth_is_unharmed_and_ids_are_unique(
    spots: list[tuple[int, int, float, float]], twin: int | None, keep_empty: bool
) -> None:
    labels = sifted([box(image_id, kind, score, at) for image_id, kind, at, score in spots], ["0.3"]).labels
    joined = join(truth(), "t", listing(twins={} if twin is None else {1: twin}), labels, 0.5, keep_empty)
    before = as_coco(truth())["annotations"]
    after = joined.annotations[: len(before)]
    assert [{**each, "id": 0} for each in after] == [{**each, "id": 0} for each in before]
    assert [each["id"] for each in joined.annotations] == list(range(1, len(joined.annotations) + 1))
    image_ids = [each["id"] for each in joined.images]
    assert len(set(image_ids)) == len(image_ids) and {each["image_id"] for each in joined.annotations} <= set(image_ids)
    names = [each["file_name"] for each in joined.images]
    assert len(set(names)) == len(names)
    assert len(joined.labels) + joined.counts["labels on ground truth"] == len(labels)
    assert np.isfinite([each["score"] for each in joined.labels]).all()
