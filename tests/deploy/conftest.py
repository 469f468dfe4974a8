"""One detector that finds something, its export, and images that it was made for; all made once."""

import shutil
from pathlib import Path

import pytest

from kit.data.scenes import write_scenes
from kit.deploy.export import export_onnx
from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights, save_weights
from kit.params import ROOT

NAMES = ["Bus", "Bike", "Car", "Pedestrian", "Truck"]
SIDE = 320


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter weights as a training would have left them: size n, 5 classes, 320 x 320 px."""
    detector = Detector("n", len(NAMES)).eval()
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    about = {"classes": NAMES, "category_ids": list(range(len(NAMES))), "size_hw": [SIDE, SIDE]}
    return save_weights(detector, tmp_path_factory.mktemp("weights") / "scenes.pt", about)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file: fp32, any batch, 320 x 320 px, float input. Not to be changed; see onnx_file."""
    return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "scenes.onnx")


@pytest.fixture
def onnx_file(exported: Path, tmp_path: Path) -> Path:
    """A copy to play with."""
    return Path(shutil.copy(exported, tmp_path / "scenes.onnx"))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set in COCO layout: 6 images in train, 8 in val, of 480 x 480 px."""
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    return write_scenes(folder, train=6, val=8, size_px=480, cameras=2, seed=11, workers=1)
