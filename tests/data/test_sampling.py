from pathlib import Path

import numpy as np
import pytest

from kit.data.augment import Draw
from kit.data.coco import CocoFile, read_coco, write_coco
from kit.data.dataset import TrainSampler
from kit.data.sampling import class_weights, drawn_order, repeat_factors, repeat_numbers
from tests import tiny


def long_tail(folder: Path) -> CocoFile:
    """100 images: class 1 in all, class 2 in 4, class 3 in one, class 4 in none, class 5 in one, as a crowd."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(1, 101)]
    pairs = [(i, 1) for i in range(1, 101)] + [(i, 2) for i in range(1, 5)] + [(1, 3), (1, 3), (50, 5)]
    boxes = [
        {"image_id": i, "category_id": c, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": int(c == 5)} for i, c in pairs
    ]
    write_coco(folder / "a.json", images, boxes, [{"id": c, "name": f"c{c}"} for c in range(1, 6)])
    return read_coco(folder / "a.json")


def test_an_image_comes_as_often_as_its_rarest_class_asks_for(tmp_path: Path) -> None:
    factors = repeat_factors(long_tail(tmp_path), 0.16)
    assert factors is not None
    assert factors[0] == pytest.approx(4.0)  # (0.16 / 0.01) ** 0.5
    assert factors[1:4] == pytest.approx(2.0)  # (0.16 / 0.04) ** 0.5
    assert (factors[4:] == 1).all()


def test_no_image_is_repeated_where_no_class_is_rare_or_none_is_asked_for(tmp_path: Path) -> None:
    coco = long_tail(tmp_path)
    assert repeat_factors(coco, 0.0) is None and repeat_factors(coco, 0.005) is None


def test_rare_classes_weigh_more_and_an_object_weighs_one_in_the_mean(tmp_path: Path) -> None:
    coco = long_tail(tmp_path)
    weights = class_weights(coco, 0.99)
    assert weights is not None
    assert weights[2] > weights[1] > weights[0] and weights[1] / weights[0] == pytest.approx(
        (1 - 0.99**100) / (1 - 0.99**4)
    )
    assert np.dot(weights[:3], [100, 4, 2]) / 106 == pytest.approx(1.0)
    assert class_weights(coco, 0.0) is None
    with pytest.raises(ValueError, match=r"class_balance: expected at least 0 and less than 1, got 1\.0"):
        class_weights(coco, 1.0)


def test_over_epochs_images_come_in_proportion_to_their_factors() -> None:
    repeats = np.array([3.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    orders = [drawn_order(np.random.default_rng([0, epoch]), 6, repeats) for epoch in range(400)]
    count = np.bincount(np.concatenate(orders), minlength=6)
    assert all(len(order) == 6 for order in orders)
    assert count[0] / count[1:].mean() == pytest.approx(3.5, rel=0.1)


def test_without_factors_an_epoch_is_the_permutation_it_was() -> None:
    order = drawn_order(np.random.default_rng([5, 2]), 9, None)
    assert (order == np.random.default_rng([5, 2]).permutation(9)).all()


def test_how_often_an_image_came_before_is_counted() -> None:
    order = np.array([4, 2, 4, 4, 2])
    assert repeat_numbers(order, np.arange(5)) == [0, 0, 1, 2, 1] and repeat_numbers(order, np.array([3])) == [2]


REPEATS = np.array([4.0] + [1.0] * 11)


def steps(start: int = 0, rank: int = 0, world: int = 1) -> list[list[Draw]]:
    return list(TrainSampler(12, 4 // world, 3, 7, [(64, 64)], start, rank, world, repeats=REPEATS))


def test_repeated_images_are_the_same_again_from_any_step_on() -> None:
    assert steps(4) == steps()[4:] and steps() == steps()


def test_the_ranks_share_each_step_out_among_them() -> None:
    whole, shares = steps(), [steps(rank=rank, world=2) for rank in range(2)]
    for together, *parts in zip(whole, *shares, strict=True):
        key = [(draw.index, draw.repeat) for draw in together]
        assert sorted(key) == sorted((draw.index, draw.repeat) for part in parts for draw in part)
        assert [len(part) for part in parts] == [2, 2]


def test_an_image_that_comes_twice_in_an_epoch_looks_different(tmp_path: Path) -> None:
    dataset = tiny.dataset(tmp_path, images=4)
    first, again = (dataset[Draw(0, 0, (64, 64), repeat=repeat)].image for repeat in (0, 1))
    assert not first.equal(again) and again.equal(dataset[Draw(0, 0, (64, 64), repeat=1)].image)


def test_factors_have_to_be_of_the_set() -> None:
    with pytest.raises(ValueError, match="repeats: expected one number for each of 5 images, got 12"):
        TrainSampler(5, 1, 1, 0, [(64, 64)], repeats=REPEATS)
