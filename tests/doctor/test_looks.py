"""Labels that say something of the pictures, shuffled ones, and classes counted from another number."""

from dataclasses import replace

import numpy as np
import pytest

from kit.data.dataset import CocoDataset
from kit.doctor.looks import check_looks, features_of_box, mean_recall
from tests import tiny


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looks")
    return [tiny.dataset(folder / name, images=60, seed=seed) for seed, name in enumerate(("train", "val"))]


def relabelled(dataset, change):
    records = [replace(record, labels=change(record.labels)) for record in dataset.coco.records]
    return CocoDataset(replace(dataset.coco, records=records), dataset.images, dataset.policy)


def test_bright_and_dark_are_told_apart_and_both_parts_mean_the_same(parts):
    verdicts = check_looks(*parts, 200, 0, None)
    assert [verdict.mark for verdict in verdicts] == ["well", "well"]


def test_shuffled_labels_are_wrong(parts):
    rng = np.random.default_rng(3)
    shuffled = relabelled(parts[0], lambda labels: rng.integers(2, size=len(labels)))
    (verdict,) = check_looks(shuffled, parts[1], 200, 0, None)
    assert verdict.mark == "wrong" and "shuffled" in verdict.mend


def test_classes_off_by_one_in_one_part_are_wrong(parts):
    _, across = check_looks(parts[0], relabelled(parts[1], lambda labels: (labels + 1) % 2), 200, 0, None)
    assert across.mark == "wrong" and "from 0" in across.mend


def test_one_class_is_well_and_too_few_boxes_are_told(parts, tmp_path):
    one = relabelled(parts[0], np.zeros_like)
    assert [verdict.mark for verdict in check_looks(one, None, 200, 0, None)] == ["well"]
    (few,) = check_looks(tiny.dataset(tmp_path, images=4), None, 200, 0, None)
    assert few.mark == "look" and "too few" in few.mend


def test_recall_counts_each_class_alike():
    assert mean_recall(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == 0.75
    assert mean_recall(np.zeros(10, int), np.array([0] * 9 + [1])) == 0.5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels_gives_the_same_features(channels):
    image = np.full((20, 30, channels), 100, np.uint8)
    inside, outside = ([5.0, 5.0, 9.0, 9.0], [28.0, 18.0, 31.0, 21.0])
    assert len(features_of_box(image, np.array(inside))) == len(features_of_box(image, np.array(outside))) == 228
