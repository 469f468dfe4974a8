"""Models that find what a test wants, and files to show them."""

import asyncio
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
import torch

from kit.demo.models import Model
from kit.deploy.about import About
from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights, save_weights
from kit.media import VideoWriter
from kit.params import ROOT
from kit.predict import Detections

NAMES = ["Bus", "Car"]
T = TypeVar("T")


class Finds:
    """A predictor that gives the same boxes for every image, and counts how often it is asked."""

    def __init__(self, boxes_xyxy_px: list[list[float]], scores: list[float], labels: list[int], names: list[str]):
        self.detections = Detections(
            torch.tensor(boxes_xyxy_px).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
        )
        self.about = About(
            size="n", names=names, category_ids=list(range(len(names))), channels=3, height_px=32, width_px=64, top_k=9
        )
        self.runtime, self.device = "torch", "cpu"
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, image: np.ndarray) -> Detections:
        self.shapes.append(image.shape)
        return self.detections


@pytest.fixture
def model() -> Callable[..., Model]:
    """Without arguments: a car of score 0.9 and a bus of score 0.3."""

    def make(
        name: str = "first.pt",
        boxes_xyxy_px: list[list[float]] | None = None,
        scores: list[float] | None = None,
        labels: list[int] | None = None,
        names: list[str] | None = None,
    ) -> Model:
        boxes = [[10.0, 10.0, 30.0, 20.0], [40.0, 10.0, 60.0, 30.0]] if boxes_xyxy_px is None else boxes_xyxy_px
        finds: Any = Finds(boxes, scores or [0.9, 0.3][: len(boxes)], labels or [1, 0][: len(boxes)], names or NAMES)
        return Model(name, finds)

    return make


@pytest.fixture
def in_loop(tmp_path_factory, monkeypatch) -> Callable[[Callable[[], T]], T]:
    """Calls a function inside an event loop: outside of one, Gradio makes loops that nobody closes."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))

    def call(make: Callable[[], T]) -> T:
        async def inside() -> T:
            return make()

        return asyncio.run(inside())

    return call


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = np.full((48, 80, 3), 90, np.uint8)
    image[10:20, 10:30] = (30, 120, 250)
    path = tmp_path / "street.png"
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Six frames of 80 x 48 px, 10 a second."""
    pytest.importorskip("av", reason="PyAV is not installed: pip install -e '.[media]'")
    path = tmp_path / "street.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for shade in range(40, 100, 10):
            writer.write(np.full((48, 80, 3), shade, np.uint8))
    return path


@pytest.fixture(scope="session")
def starter_at(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """The start weights as a training at side x side px would have left them."""
    detector = Detector("n", 5).eval()
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    about = {"classes": ["Bus", "Bike", "Car", "Pedestrian", "Truck"], "category_ids": [0, 1, 2, 3, 4]}
    folder = tmp_path_factory.mktemp("weights")
    return lambda side, name: save_weights(detector, folder / name, about | {"size_hw": [side, side]})
