"""Reads every image, in another order each epoch, and the same again for the same draw."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.data.dataset import CocoDataset, Sample
from kit.doctor.loader import Loaded, check_batches, check_files, check_order, check_rate, load
from tests import tiny


def marks(verdicts):
    return [verdict.mark for verdict in verdicts]


@pytest.fixture
def train_set(tmp_path):
    return tiny.dataset(tmp_path / "data", images=9)


def test_a_sound_loader_is_well(train_set):
    plan = tiny.plan(batch_size=2)
    loaded = load(train_set, plan, 60.0, 3, None)
    assert len(loaded.batches) == 3 and loaded.images > 0 and loaded.rate > 0
    assert marks([*check_order(train_set, plan), check_files(train_set, 100, 0, None)]) == ["well"] * 3
    assert marks(check_batches(loaded, train_set, plan)) == ["well", "well"]


def test_an_epoch_is_told_that_leaves_out_a_large_part_of_the_set(train_set):
    once, _ = check_order(train_set, tiny.plan(batch_size=6))
    assert once.mark == "look" and "3 left out" in once.found and "batch_size" in once.mend


def test_an_image_that_does_not_open_is_named(train_set, tmp_path):
    (tmp_path / "data" / "3.png").write_bytes(b"no image")
    verdict = check_files(train_set, 100, 0, None)
    assert verdict.mark == "wrong" and "3.png" in verdict.found and "1 do not open" in verdict.found
    loaded = load(train_set, tiny.plan(), 60.0, 9, None)
    assert "3.png" in loaded.error
    assert check_batches(loaded, train_set, tiny.plan())[0].mark == "wrong"


def test_an_image_of_another_size_than_the_file_tells_is_wrong(train_set):
    records = [replace(record, size_hw=(32, 32)) for record in train_set.coco.records]
    train_set.coco = replace(train_set.coco, records=records)
    assert "9 do not open" in check_files(train_set, 100, 0, None).found


class Restless(CocoDataset):
    """Chance that does not come from the draw."""

    def sample(self, draw, load) -> Sample:
        sample = super().sample(draw, load)
        return replace(sample, image=sample.image ^ torch.randint(2, sample.image.shape, dtype=torch.uint8))


def test_a_sample_that_differs_when_drawn_again_is_wrong(train_set):
    restless = Restless(train_set.coco, train_set.images, train_set.policy)
    loaded = load(restless, tiny.plan(), 60.0, 2, None)
    assert marks(check_batches(loaded, restless, tiny.plan())) == ["well", "wrong"]


def test_a_batch_of_other_images_than_were_drawn_is_wrong(train_set):
    loaded = load(train_set, tiny.plan(), 60.0, 4, None)
    swapped = replace(loaded, batches=loaded.batches[::-1])
    form, _ = check_batches(swapped, train_set, tiny.plan())
    assert form.mark == "wrong" and "were drawn" in form.found


def test_a_loader_slower_than_the_training_is_told():
    loaded = Loaded(images=10, seconds=1.0)
    assert check_rate(loaded, 8.0, 2).mark == "well" and check_rate(loaded, 9.0, 2).mark == "look"


def test_one_image_has_no_order_to_shuffle(tmp_path):
    alone = tiny.dataset(tmp_path, images=1)
    assert marks(check_order(alone, tiny.plan(batch_size=16))) == ["well", "well"]
    assert np.isfinite(load(alone, tiny.plan(batch_size=16), 60.0, 1, None).rate)
