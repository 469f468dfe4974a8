"""Shared fixtures. The environment is set before anything imports torch."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.params import ROOT
from kit.pipeline import ENVIRONMENT

for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)

os.environ["KIT_CACHE"] = tempfile.mkdtemp(prefix="kit-cache-")  # nothing of a test stays in the user's cache
atexit.register(shutil.rmtree, os.environ["KIT_CACHE"], ignore_errors=True)

SHARED = Path(os.environ.get("KIT_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A path under the folder of shared data (beside the repository, or KIT_SHARED); the test is skipped without it."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared data; set KIT_SHARED to the folder that holds it")
        return path

    return find


# --- one detector that finds something, its export, and images that it was made for; all made once ---


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter weights as a training would have left them: size n, 5 classes, 320 x 320 px."""
    from kit import Detector, load_weights, save_weights

    names = ["Bus", "Bike", "Car", "Pedestrian", "Truck"]
    detector = Detector("n", len(names)).eval()
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    about = {"classes": names, "category_ids": list(range(len(names))), "size_hw": [320, 320]}
    return save_weights(detector, tmp_path_factory.mktemp("weights") / "scenes.pt", about)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file: fp32, any batch, 320 x 320 px, float input. Not to be changed; see onnx_file."""
    from kit.deploy import export_onnx

    return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "scenes.onnx")


@pytest.fixture
def onnx_file(exported: Path, tmp_path: Path) -> Path:
    """A copy to play with."""
    return Path(shutil.copy(exported, tmp_path / "scenes.onnx"))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set in COCO layout: 6 images in train, 8 in val, of 480 x 480 px."""
    from kit.data.scenes import write_scenes

    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    return write_scenes(folder, train=6, val=8, size_px=480, cameras=2, seed=11, workers=1)
