import numpy as np
import pytest

from kit.data.coco import as_coco, find_split, read_coco
from kit.data.scenes import write_scenes
from kit.dfine.weights import load_detector
from kit.label_mistakes import KINDS, find_label_mistakes
from kit.params import ROOT
from kit.predict import predict_dataset

CAR, BUS = 3, 8  # ids of the file


def truth(box, category_id=CAR, image_id=1, **fields):
    return {"image_id": image_id, "category_id": category_id, "bbox": box} | fields


def found(box, score=0.9, category_id=CAR, image_id=1):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def dataset(truths):
    return {
        "images": [{"id": i, "width": 200, "height": 100, "file_name": f"{i}.png"} for i in (1, 2)],
        "categories": [{"id": CAR, "name": "Car"}, {"id": BUS, "name": "Bus"}],
        "annotations": [{"id": number} | entry for number, entry in enumerate(truths, start=1)],
    }


SOUND = [truth([20 * i, 80, 10, 10], image_id=2) for i in range(8)]  # all found, so that the detector is to be trusted
SURE = [found(each["bbox"], image_id=2) for each in SOUND]


def suspects(predictions, *truths, least_suspicion=0.3):
    table = find_label_mistakes([*SURE, *predictions], dataset([*SOUND, *truths]), least_suspicion=least_suspicion)
    return table.to_dict("records")


def kinds(predictions, *truths, **limits):
    return [each["kind"] for each in suspects(predictions, *truths, **limits)]


def test_labels_that_are_all_found_are_not_suspected():
    assert suspects([]) == []
    assert suspects([found([10, 10, 30, 30])], truth([10, 10, 30, 30])) == []


def test_a_sure_detection_without_a_label_is_a_missing_one():
    (suspect,) = suspects([found([10, 10, 30, 30])])
    assert (suspect["kind"], suspect["suggestion"], suspect["category"]) == ("missing", "Car", "")
    assert (suspect["annotation_id"], suspect["row"], suspect["file_name"]) == (0, 8, "1.png")
    assert [suspect[side] for side in ("x_px", "y_px", "w_px", "h_px")] == [10, 10, 30, 30]
    assert np.isnan(suspect["label_x_px"]) and suspect["suspicion"] == 1


def test_an_unsure_detection_accuses_nobody():
    assert kinds([found([10, 10, 30, 30], 0.2)]) == []
    assert kinds([found([10, 10, 30, 30], 0.2)], least_suspicion=0.2) == ["missing"]


def test_scores_are_read_in_shares_of_a_sure_one():
    half = [{**each, "score": each["score"] / 2} for each in SURE]
    table = find_label_mistakes([*half, found([10, 10, 30, 30], 0.36)], dataset(SOUND))
    assert table["suspicion"].tolist() == pytest.approx([0.36 / 0.45])


def test_several_detections_of_one_missing_object_are_one_suspect_of_the_surest_class():
    predictions = [found([10, 10, 30, 30], 0.6), found([11, 10, 30, 30], 0.8, BUS), found([100, 10, 30, 30], 0.7)]
    assert [(each["suggestion"], each["score"]) for each in suspects(predictions)] == [("Bus", 0.8), ("Car", 0.7)]


def test_another_class_on_a_label_is_suspicious_unless_its_own_is_seen_as_well():
    (suspect,) = suspects([found([10, 10, 30, 30], category_id=BUS)], truth([10, 10, 30, 30]))
    assert (suspect["kind"], suspect["category"], suspect["suggestion"]) == ("class", "Car", "Bus")
    assert suspect["annotation_id"] == 9 and suspect["label_w_px"] == 30
    assert kinds([found([10, 10, 30, 30], 0.9, BUS), found([10, 10, 30, 30], 0.8)], truth([10, 10, 30, 30])) == []


def test_a_second_detection_of_a_found_object_is_no_suspect():
    assert kinds([found([10, 10, 30, 30]), found([12, 10, 30, 30], 0.8)], truth([10, 10, 30, 30])) == []


def test_a_rider_on_a_bike_is_two_objects_of_two_classes():
    rider, bike = truth([10, 10, 30, 30]), truth([10, 12, 30, 30], BUS)
    assert kinds([found(rider["bbox"]), found(bike["bbox"], category_id=BUS)], rider, bike) == []


def test_a_label_beside_its_detection_is_badly_placed_the_more_the_farther():
    near, far = (suspects([found([10, 10, 30, 30])], truth([10 + shift, 10, 30, 30])) for shift in (8, 15))
    assert [near, [each["kind"] for each in far]] == [[], ["place"]]  # IoU 0.58 and 1/3
    assert far[0]["suspicion"] == pytest.approx((0.7 - 1 / 3) / 0.6) and far[0]["iou"] == pytest.approx(1 / 3)


def test_a_badly_placed_label_is_not_told_a_second_time_as_missing():
    assert kinds([found([10, 10, 30, 30])], truth([25, 10, 30, 30])) == ["place"]


def test_a_neighbour_of_a_found_object_that_has_no_label_is_missing():
    both = [found([10, 10, 30, 30]), found([25, 10, 30, 30], 0.8)]
    assert kinds(both, truth([10, 10, 30, 30])) == ["missing"]


def test_a_label_without_any_detection_is_spurious_where_such_labels_are_found():
    (suspect,) = suspects([], truth([150, 10, 10, 10]))
    assert (suspect["kind"], suspect["annotation_id"], suspect["row"]) == ("spurious", 9, -1)
    assert [suspect["x_px"], suspect["label_x_px"]] == [150, 150] and np.isnan(suspect["score"])


def test_a_label_of_a_kind_that_is_never_found_is_not_suspected():
    assert kinds([], *(truth([20 * i, 10, 10, 10], BUS) for i in range(8))) == []


def test_crowds_are_neither_labels_nor_empty_ground():
    crowd = truth([100, 10, 60, 60], iscrowd=1)
    assert kinds([found([110, 20, 10, 10]), found([110, 30, 10, 10], category_id=BUS)], crowd) == []


def test_an_empty_file_and_no_detections_have_no_suspects():
    for predictions, truths in (([], []), ([], SOUND), (SURE[:0], [])):
        table = find_label_mistakes(predictions, dataset(truths))
        assert table.empty and {"suspicion", "kind", "annotation_id", "row"} <= set(table.columns)
    assert find_label_mistakes(SURE, dataset([]))["kind"].tolist() == ["missing"] * 8


# Planted mistakes.


def overlap(a, b):
    """IoU of two xywh boxes."""
    w, h = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h) if min(w, h) > 0 else 0.0


def plant(coco, each, rng):
    """As many mistakes of each kind -> the file with them, and (kind, image id, box, annotation id) of each."""
    order = rng.permutation(len(coco["annotations"]))
    names = dict(zip(order.tolist(), np.repeat(KINDS, each).tolist(), strict=False))
    annotations, planted = [], []
    for row, annotation in enumerate(coco["annotations"]):
        kind, box = names.get(row), annotation["bbox"]
        if kind == "class":
            others = [one["id"] for one in coco["categories"] if one["id"] != annotation["category_id"]]
            annotation = annotation | {"category_id": int(rng.choice(others))}
        if kind == "place":
            annotation = annotation | {"bbox": [box[0] + 0.5 * box[2], box[1] + 0.1 * box[3], *box[2:]]}
        if kind == "spurious":  # beside the label that is there, a second one on empty ground
            w, h = box[2:]
            image = next(one for one in coco["images"] if one["id"] == annotation["image_id"])
            spots = [
                [float(x), float(y), w, h]
                for x, y in rng.uniform(0, [image["width"] - w, image["height"] - h], (99, 2))
            ]
            own = [one["bbox"] for one in coco["annotations"] if one["image_id"] == annotation["image_id"]]
            free = next(spot for spot in spots if not any(overlap(spot, one) for one in own))
            annotations.append(annotation)
            annotation = annotation | {"bbox": free, "id": 10_000 + row}
        if kind:
            planted.append((kind, annotation["image_id"], box, annotation["id"]))
        if kind != "missing":
            annotations.append(annotation)
    return coco | {"annotations": annotations}, planted


def named(table, planted):
    """Of each suspect the place of the planted mistake that it names, or -1."""

    def fits(suspect, mistake):
        kind, image_id, box, annotation_id = mistake
        if kind != "missing":
            return suspect["annotation_id"] == annotation_id
        seen = [suspect[side] for side in ("x_px", "y_px", "w_px", "h_px")]
        return suspect["kind"] == kind and suspect["image_id"] == image_id and overlap(seen, box) > 0.5

    return [
        next((place for place, mistake in enumerate(planted) if fits(suspect, mistake)), -1)
        for suspect in table.to_dict("records")
    ]


def street(rng, images=30, objects=10):
    """Boxes on a grid, and what a good detector would find: 99 of 100, a little off, and false ones of low score."""
    annotations, predictions = [], []
    for image_id in range(images):
        for cell in rng.permutation(64)[: objects + 3].tolist():
            category_id, score = int(rng.choice([CAR, BUS])), float(rng.uniform(0.6, 0.95))
            box = [100.0 * (cell % 8) + 20, 100.0 * (cell // 8) + 20, *rng.uniform(20, 60, 2).tolist()]
            entry = {"image_id": image_id, "category_id": category_id, "bbox": box}
            is_false, is_missed = cell % 13 == 0, rng.random() < 0.01
            if not is_false:
                annotations.append(entry | {"id": len(annotations) + 1})
            if is_false or not is_missed:
                seen = (np.array(box) + rng.normal(0, 1.5, 4)).tolist()
                predictions.append(entry | {"bbox": seen, "score": score / 3 if is_false else score})
    content = dataset([]) | {
        "images": [{"id": i, "width": 800, "height": 800, "file_name": f"{i}.png"} for i in range(images)]
    }
    return content | {"annotations": annotations}, predictions


@pytest.mark.parametrize("seed", range(4))
def test_every_planted_mistake_is_found_and_few_others_are_suspected(seed):
    content, predictions = street(np.random.default_rng(seed))
    wrong, planted = plant(content, 5, np.random.default_rng(seed + 1))
    places = named(find_label_mistakes(predictions, wrong), planted)
    assert set(places) - {-1} == set(range(20)) and places.count(-1) <= 6
    assert len(find_label_mistakes(predictions, content)) <= 6  # of 360 labels


@pytest.mark.slow
def test_mistakes_planted_in_scenes_are_named_by_a_real_detector(tmp_path):
    """A weak one (AP50 0.5), on a fifth of wrong labels: chance would name 20 of 100."""
    val = find_split(write_scenes(tmp_path / "scenes", train=0, val=16, size_px=320, cameras=4, workers=1), "val")
    coco = read_coco(val.annotations)
    detector, _ = load_detector(ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    predictions = predict_dataset(detector, coco, val.images, size_hw=(320, 320))
    wrong, planted = plant(as_coco(coco), len(as_coco(coco)["annotations"]) // 20, np.random.default_rng(0))
    places = named(find_label_mistakes(predictions, wrong), planted)[: len(planted) // 2]
    assert 1 - places.count(-1) / len(places) >= 0.5
