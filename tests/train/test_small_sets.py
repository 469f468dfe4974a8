"""What small and odd sets bring: one image, one class, hundreds of objects, huge images, background, long tails."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kit.boxes import Target
from kit.data.augment import train_policy
from kit.data.coco import read_coco, write_coco
from kit.data.dataset import CocoDataset
from kit.dfine.denoising import make_denoising
from kit.dfine.losses import losses
from kit.presets import PRESETS, plan_of, policy_of
from kit.train import History, fit
from tests import tiny


def drawn_set(folder: Path, counts: list[int], classes: int = 1, size_hw: tuple[int, int] = (64, 64)) -> CocoDataset:
    """An image for each count, with so many objects of one class after another."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size_hw
    images, boxes = [], []
    for image_id, count in enumerate(counts, 1):
        cv2.imwrite(str(folder / f"{image_id}.png"), random.integers(0, 255, (height, width, 3), dtype=np.uint8))
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": width, "height": height})
        for index in range(count):
            x, y = (random.random(2) * (width - 12, height - 12)).tolist()
            box = {"bbox": [x, y, 10.0, 8.0], "area": 80.0, "iscrowd": 0}
            boxes.append({"image_id": image_id, "category_id": 1 + index % classes} | box)
    write_coco(folder / "a.json", images, boxes, [{"id": 1 + k, "name": f"c{k}"} for k in range(classes)])
    return CocoDataset(read_coco(folder / "a.json"), folder, train_policy(1))


def trained(folder: Path, dataset: CocoDataset, classes: int = 1, batch_size: int = 1, **changes: Any) -> History:
    changes = {"epochs": 2, "strong_until_epoch": 1, "batch_size": batch_size} | changes
    return fit(tiny.detector(classes), dataset, dataset, out=folder / "run", plan=tiny.plan(**changes))


def figures_are_finite(history: History) -> bool:
    return history.finished and all(math.isfinite(value) for row in history.epochs for value in row.values())


def test_one_image_of_one_class_and_a_batch_of_one(tmp_path: Path) -> None:
    history = trained(tmp_path, drawn_set(tmp_path / "data", [2]))
    assert figures_are_finite(history) and len(history.epochs) == 2


def test_images_of_background_alone_fill_a_batch(tmp_path: Path) -> None:
    history = trained(tmp_path, drawn_set(tmp_path / "data", [0, 0, 2, 1]), batch_size=2)
    assert figures_are_finite(history)


def test_a_batch_without_any_object_still_teaches_what_background_is() -> None:
    detector = tiny.detector().train()
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    output = detector(torch.rand(2, 3, 64, 64), make_denoising([empty, empty], 2))
    found = losses(output, [empty, empty])
    found.total.backward()
    figures = found.figures()
    assert figures["vfl"] > 0 and figures["l1"] == figures["giou"] == figures["fgl"] == 0
    assert detector.decoder.score[0].weight.grad.abs().sum() > 0


def test_more_objects_than_queries_in_an_image(tmp_path: Path) -> None:
    assert tiny.SIZE.queries < 500
    assert figures_are_finite(trained(tmp_path, drawn_set(tmp_path / "data", [500, 1]), batch_size=2, epochs=1))


@pytest.mark.parametrize("size_hw", [(5000, 40), (30, 3000)])
def test_huge_and_narrow_images(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    dataset = drawn_set(tmp_path / "data", [3, 2], size_hw=size_hw)
    assert figures_are_finite(trained(tmp_path, dataset, batch_size=2, epochs=1))


def test_a_batch_larger_than_the_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower batch_size"):
        trained(tmp_path, drawn_set(tmp_path / "data", [1, 1]), batch_size=4)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_a_set_of_four_images(tmp_path: Path, name: str) -> None:
    dataset = drawn_set(tmp_path / "data", [1, 2, 0, 3], classes=2)
    how: dict[str, Any] = {"images": 4, "epochs": 2, "batch_size": 2, "size_hw": (64, 64)}
    dataset.policy = policy_of(PRESETS[name], 2)
    plan = replace(plan_of(PRESETS[name], "n", **how), workers=0)
    assert figures_are_finite(fit(tiny.detector(2), dataset, None, out=tmp_path / "run", plan=plan))


def test_an_object_of_a_heavy_class_counts_so_much_more_in_its_score_alone() -> None:
    torch.manual_seed(0)
    detector = tiny.detector().train()
    target = Target(torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([1]))
    with torch.no_grad():
        output = detector(torch.rand(1, 3, 64, 64))
    plain, light, heavy = (
        losses(output, [target], classification="mal", class_weights=weights).figures()
        for weights in (None, torch.tensor([5.0, 1.0]), torch.tensor([1.0, 3.0]))
    )
    assert light == pytest.approx(plain)  # the object is not of that class
    assert heavy["vfl"] > plain["vfl"] and all(heavy[name] == plain[name] for name in ("l1", "giou", "fgl", "ddf"))


@pytest.mark.slow
def test_long_tails_are_evened_out_the_same_way_when_a_run_goes_on(tmp_path: Path) -> None:
    dataset = drawn_set(tmp_path / "data", [1, 1, 1, 2], classes=2)
    changes: dict[str, Any] = {"repeat_below": 0.9, "class_balance": 0.9, "batch_size": 2}
    whole = trained(tmp_path / "whole", dataset, 2, **changes)
    trained(tmp_path / "stopped", dataset, 2, max_minutes=0.0, **changes)
    again = trained(tmp_path / "stopped", dataset, 2, **changes)
    plain = trained(tmp_path / "plain", dataset, 2, batch_size=2, epochs=1)
    assert [row["loss"] for row in again.epochs] == [row["loss"] for row in whole.epochs]
    assert plain.epochs[0]["loss"] != whole.epochs[0]["loss"]
