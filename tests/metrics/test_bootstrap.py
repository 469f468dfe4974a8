import numpy as np
import pytest

from kit.metrics import evaluate, match
from kit.metrics.bootstrap import Difference, average_precision, official_f1, paired_difference, repeated


def data(images: int) -> dict[str, list[dict[str, object]]]:
    """One object of class 1 + (image modulo 2) in each image."""
    entries = [{"id": image, "width": 100, "height": 100} for image in range(1, images + 1)]
    truths = [
        {"id": image, "image_id": image, "category_id": 1 + image % 2, "bbox": [10, 10, 20, 20], "area": 400}
        for image in range(1, images + 1)
    ]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    return {"images": entries, "annotations": truths, "categories": categories}


def found(images: list[int], x: float = 10, score: float = 0.9) -> list[dict[str, object]]:
    return [
        {"image_id": image, "category_id": 1 + image % 2, "bbox": [x, 10, 20, 20], "score": score} for image in images
    ]


def test_the_figures_are_those_of_the_evaluation():
    truth, predictions = data(9), found([1, 2, 5], x=12) + found([1, 3, 4], x=40, score=0.5)
    result, matches = evaluate(predictions, truth), match(predictions, truth)
    assert average_precision(matches) == result.ap and official_f1(matches) == result.f1


def test_repeating_an_image_is_having_it_twice():
    truth, predictions = data(2), found([1], x=12) + found([1, 2], x=40, score=0.5)
    twice = {name: list(entries) for name, entries in truth.items()}
    twice["images"].append({"id": 3, "width": 100, "height": 100})
    twice["annotations"].append(dict(truth["annotations"][0], id=3, image_id=3))
    copies = [dict(entry, image_id=3) for entry in predictions if entry["image_id"] == 1]
    expected = evaluate(predictions + copies, twice)
    matches = repeated(match(predictions, truth), np.array([2, 1]))
    assert average_precision(matches) == expected.ap and official_f1(matches) == expected.f1


def test_an_image_that_is_not_drawn_is_gone():
    truth, predictions = data(3), found([1, 2, 3])
    matches = repeated(match(predictions, truth), np.array([1, 0, 2]))
    assert matches.ground_truths.sum() == 3 and len(matches.score) == 3 and average_precision(matches) == 1


def test_a_gain_on_every_image_is_sure_and_one_on_a_single_image_is_not():
    truth = data(40)
    worse, better = match(found(list(range(1, 21))), truth), match(found(list(range(1, 41))), truth)
    gain = paired_difference(worse, better, average_precision)
    assert gain.value == pytest.approx(average_precision(better) - average_precision(worse)) and gain.is_sure
    assert gain.low < gain.value < gain.high
    one_more = match(found(list(range(1, 22))), truth)
    assert not paired_difference(worse, one_more, official_f1).is_sure


def test_equal_detectors_differ_by_nothing_and_the_seed_decides_the_rest():
    truth = data(10)
    one, other = match(found([1, 2, 3]), truth), match(found([4, 5]), truth)
    assert paired_difference(one, one, official_f1) == Difference(0.0, 0.0, 0.0)
    assert paired_difference(one, other, official_f1) == paired_difference(one, other, official_f1)
    assert paired_difference(one, other, official_f1, seed=1) != paired_difference(one, other, official_f1)


def test_matches_of_other_images_are_refused():
    with pytest.raises(ValueError, match="matches of the same images, got 2 and 3 images"):
        paired_difference(match([], data(2)), match([], data(3)), official_f1)


def test_a_difference_reads_with_its_span():
    assert str(Difference(0.01, -0.0021, 0.03)) == "+0.010 (-0.002 to +0.030)"
