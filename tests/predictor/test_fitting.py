import numpy as np
import pytest

from kit.data.augment import resized
from kit.predictor.fitting import Fitted, finished, fitted, thresholds_of

THRESHOLDS = np.array([0.4, 0.6])


def found(
    boxes: list[list[float]], scores: list[float], labels: list[int], place: Fitted, nms_iou: float | None = None
):
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    return finished(*arrays, place, THRESHOLDS, nms_iou)


def plain(size_hw: tuple[int, int] = (100, 200)) -> Fitted:
    return fitted(np.zeros((*size_hw, 3), np.uint8), (64, 64), "plain")


def test_plain_is_the_resize_of_the_training():
    image = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    place = fitted(image, (64, 96), "plain")
    assert np.array_equal(place.image, resized(image, (64, 96)))
    assert (place.told_hw, place.corner_xy_px) == ((100, 200), (0.0, 0.0))


@pytest.mark.parametrize("size_hw", [(100, 200), (200, 100), (37, 411), (64, 64), (1, 500), (7, 5)])
def test_letterbox_keeps_the_aspect_and_boxes_come_back(size_hw: tuple[int, int]):
    image = np.full((*size_hw, 3), 255, np.uint8)
    place = fitted(image, (64, 96), "letterbox")
    assert place.image.shape == (64, 96, 3)
    rows, columns = (np.flatnonzero((place.image == 255).all(axis=2).any(axis=axis)) for axis in (1, 0))
    assert len(rows) == 64 or len(columns) == 96
    inner = [columns[0] / 96, rows[0] / 64, (columns[-1] + 1) / 96, (rows[-1] + 1) / 64]
    told = [edge * side for edge, side in zip(inner, [*place.told_hw[::-1]] * 2, strict=True)]
    box = found([told], [0.9], [0], place).boxes_xyxy_px[0].tolist()
    assert box == pytest.approx([0, 0, size_hw[1], size_hw[0]], abs=1e-3)


def test_letterbox_of_a_square_is_plain():
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    plainly, kept = (fitted(image, (64, 64), resize) for resize in ("plain", "letterbox"))
    assert np.array_equal(plainly.image, kept.image)
    assert kept.told_hw == (90, 90) and kept.corner_xy_px == (0, 0)


def test_each_class_has_its_own_threshold_which_counts_as_reached():
    box = [1.0, 2.0, 3.0, 4.0]
    result = found([box] * 4, [0.7, 0.6001, 0.5, 0.3999], [0, 1, 1, 0], plain())
    assert result.labels.tolist() == [0, 1]
    one = np.array([box], np.float32), np.array([0.5], np.float32), np.array([0])
    assert len(finished(*one, plain(), np.array([0.5]), None).scores) == 1


def test_boxes_are_cut_at_the_rim_and_those_outside_are_left_out():
    boxes = [[-5.0, -5.0, 10.0, 10.0], [190.0, 90.0, 999.0, 999.0], [-9.0, 0.0, -1.0, 9.0], [5.0, 5.0, 5.0, 9.0]]
    result = found([*boxes, [float("nan")] * 4], [0.9] * 5, [0] * 5, plain())
    assert result.boxes_xyxy_px.tolist() == [[0, 0, 10, 10], [190, 90, 200, 100]]


def test_nothing_found_is_empty():
    result = found([], [], [], plain())
    assert result.boxes_xyxy_px.shape == (0, 4) and len(result.scores) == len(result.labels) == 0


def test_of_two_boxes_of_one_class_the_weaker_goes_where_asked():
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 10.0]]  # IoU 0.9 with the second
    arguments = (boxes, [0.9, 0.8, 0.7], [0, 0, 1], plain())
    assert len(found(*arguments).scores) == 3
    assert found(*arguments, nms_iou=0.85).scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(found(*arguments, nms_iou=0.95).scores) == 3


def test_thresholds_by_name_with_one_for_all_others():
    names = ["lamp", "sun", "moon"]
    assert thresholds_of(0.3, names).tolist() == [0.3, 0.3, 0.3]
    assert thresholds_of({"sun": 0.7}, names).tolist() == [0.4, 0.7, 0.4]
    assert thresholds_of({"": 0.1, "moon": 0}, names).tolist() == [0.1, 0.1, 0.0]


def test_a_threshold_of_no_class_is_refused():
    with pytest.raises(ValueError, match="no class 'snu', did you mean sun"):
        thresholds_of({"snu": 0.5}, ["lamp", "sun"])
    with pytest.raises(ValueError, match=r"of sun must lie in 0\.\.1, got 40"):
        thresholds_of({"sun": 40}, ["lamp", "sun"])
    with pytest.raises(ValueError, match=r"threshold must lie in 0\.\.1, got nan"):
        thresholds_of(float("nan"), ["lamp"])
