import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations
import pytest
import torch

from kit.data.augment import train_policy
from kit.data.cache import open_cache
from kit.data.dataset import CocoDataset
from kit.files import read_json, write_json
from kit.launch import LAUNCHER
from kit.optimisation import freeze
from kit.stage2 import control_file
from kit.train.job_file import opened, read_job, told, write_job
from kit.train.store import mark_of
from tests import tiny


def test_a_job_comes_back_from_its_file_as_it_was_written(tmp_path: Path) -> None:
    detector, plan = tiny.detector(seed=4), tiny.plan(sizes=((64, 64), (96, 96)), keep_epochs=True)
    freeze(detector, "backbone")
    policy = train_policy(2, 1, photometric=0.3, mosaic=0.5, fisheye=0.2)
    whole = tiny.dataset(tmp_path / "train", images=4)
    train_set = CocoDataset(whole.coco, whole.images, policy, seed=7)
    val_set = tiny.dataset(tmp_path / "val", images=2, seed=1)
    found = read_job(write_job(tmp_path / "out", detector, train_set, val_set, plan))
    assert found.plan == plan and found.policy == policy and (found.seed, found.channels) == (7, 3)
    assert mark_of(found.train_set().coco) == mark_of(train_set.coco)
    val = found.val_set()
    assert val is not None and mark_of(val.coco) == mark_of(val_set.coco) and val.images == val_set.images
    again = found.detector()
    assert [each.requires_grad for each in again.parameters()] == [each.requires_grad for each in detector.parameters()]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in detector.state_dict().items())


def test_images_that_come_round_more_often_do_so_again(tmp_path: Path) -> None:
    whole = tiny.dataset(tmp_path / "train", images=4)
    control = CocoDataset(control_file(whole.coco, 6, 0), whole.images, whole.policy)
    found = read_job(write_job(tmp_path / "out", tiny.detector(), control, None, tiny.plan()))
    assert len(found.train_set()) == 6 and mark_of(found.train_set().coco) == mark_of(control.coco)
    assert found.val_set() is None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_the_pixels_that_are_kept_are_those_of_the_one_that_started_the_job(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = tiny.dataset(tmp_path / "train", images=2).coco
    cache = open_cache(kind, coco, 3, 1 << 20, tmp_path / "cache")
    assert cache is not None
    monkeypatch.setenv(LAUNCHER, str(os.getpid()))
    shared = opened(told(cache), coco, 3)
    assert shared is not None and shared.path.samefile(cache.path)
    monkeypatch.delenv(LAUNCHER)  # started from a shell, perhaps when that process is gone
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    own = opened(told(cache), coco, 3)
    assert own is not None and own.path.samefile(cache.path) == (kind == "disk")
    assert own.most_bytes == (1 << 20 if kind == "disk" else 1 << 19)
    assert opened(told(None), coco, 3) is None


def test_colours_that_no_file_can_tell_are_refused(tmp_path: Path) -> None:
    dataset = tiny.dataset(tmp_path / "train", images=2)
    policy = replace(dataset.policy, strong=replace(dataset.policy.strong, distort=albumentations.Compose([])))
    other = CocoDataset(dataset.coco, dataset.images, policy)
    with pytest.raises(ValueError, match=r"expected kit.data.colours.Colours as the colours .* got Compose"):
        write_job(tmp_path / "out", tiny.detector(), other, None, tiny.plan())


def test_another_file_is_no_job(tmp_path: Path) -> None:
    path = write_job(tmp_path / "out", tiny.detector(), tiny.dataset(tmp_path / "t", images=2), None, tiny.plan())
    values = read_json(path)
    without = {name: value for name, value in values.items() if name != "seed"}
    for changed in (without, values | {"sede": 1}, values | {"plan": values["plan"] | {"epcohs": 3}}):
        with pytest.raises(ValueError, match=r"wrong\.json: expected a job as fit_in_processes writes it, found"):
            read_job(write_json(tmp_path / "wrong.json", changed))
