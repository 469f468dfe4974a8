"""A detector and a data set small enough to train in a test."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from kit.data.augment import plain_policy, train_policy
from kit.data.coco import read_coco, write_coco
from kit.data.dataset import CocoDataset
from kit.dfine.detector import SIZES, Detector
from kit.optimisation import Plan, Recipe

SIZE = replace(SIZES["n"], name="n", queries=20)
SIDE = 64


def detector(classes: int = 2, seed: int = 0, channels: int = 3) -> Detector:
    torch.manual_seed(seed)
    return Detector(SIZE, classes, channels)


def dataset(folder: Path, images: int = 8, objects: int = 2, strong: bool = True, seed: int = 0) -> CocoDataset:
    """Bright squares (category 7) and dark ones (category 3) on grey, one COCO file with its images."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    entries, annotations = [], []
    for image_id in range(1, images + 1):
        picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
        for _ in range(objects):
            x, y = random.integers(2, 40, 2).tolist()
            side, bright = int(random.integers(12, 22)), bool(random.integers(2))
            picture[y : y + side, x : x + side] = 230 if bright else 20
            box = {"bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            annotations.append({"image_id": image_id, "category_id": 7 if bright else 3} | box)
        cv2.imwrite(str(folder / f"{image_id}.png"), picture)
        entries.append({"id": image_id, "file_name": f"{image_id}.png", "width": SIDE, "height": SIDE})
    write_coco(folder / "all.json", entries, annotations, [{"id": 3, "name": "dark"}, {"id": 7, "name": "bright"}])
    return CocoDataset(read_coco(folder / "all.json"), folder, train_policy(2) if strong else plain_policy(), seed)


def plan(**changes: object) -> Plan:
    """Three epochs, of which the last is stage 2."""
    recipe = Recipe(
        batch_size=2, lr=1e-3, backbone_lr=5e-4, weight_decay=1e-4, warmup_steps=2, ema_decay=0.9, ema_ramp=4
    )
    start = Plan(
        epochs=3, batch_size=2, size_hw=(SIDE, SIDE), recipe=recipe, strong_until_epoch=2, workers=0, save_every_s=0.0
    )
    return replace(start, **changes)  # type: ignore[arg-type]
