"""Runtimes: what runs an exported file or a checkpoint, all of them behind one call."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
import torch

from kit.deploy.about import INPUTS, KEY, About, read_checkpoint
from kit.deploy.graph import Deployed

Runtime = Literal["torch", "compiled", "onnxruntime", "openvino", "tensorrt"]


@dataclass(frozen=True)
class Found:
    """Of one batch, best first: boxes_xyxy (B, top_k, 4), scores (B, top_k), both float32, labels (B, top_k) int32."""

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Runner(Protocol):
    """A detector that is ready to run. Not to be called from two threads at once."""

    about: About
    runtime: Runtime
    device: str

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        """images: (B, H, W, C) uint8 of the input size; sizes_hw: (B, 2) float32 that boxes are told in -> Found."""
        ...


def open_runner(source: Path | str, runtime: Runtime | None = None, device: str | None = None) -> Runner:
    """A runner for a file: .onnx, .xml (OpenVINO), .engine (TensorRT), or a checkpoint, which torch runs.

    runtime: None takes the file's own; device: None takes the GPU where there is one.
    """
    ending = Path(source).suffix
    if ending == ".onnx" and runtime in (None, "onnxruntime"):
        return OnnxRunner(source, device)
    if ending in (".xml", ".onnx") and runtime in (None, "openvino"):
        return OpenVinoRunner(source)
    return TorchRunner(source, device)


class TorchRunner:
    """A checkpoint in torch, norms folded, channels last."""

    runtime: Runtime = "torch"

    def __init__(self, source: Path | str, device: str | None = None):
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        detector, self.about = read_checkpoint(source)
        module = Deployed(detector, self.about.top_k)
        self.module = module.to(self.device).to(memory_format=torch.channels_last).eval()

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255  # channels last already
        with torch.inference_mode():
            boxes, scores, labels = self.module(batch, torch.from_numpy(sizes_hw).to(self.device))
        return Found(boxes.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy())


class OnnxRunner:
    """An ONNX file in ONNX Runtime."""

    runtime: Runtime = "onnxruntime"

    def __init__(self, path: Path | str, device: str | None = None):
        self.session = onnx_session(path, device)
        self.device = "cuda" if self.session.get_providers()[0].startswith("CUDA") else "cpu"
        self.about = About.from_json(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        return Found(*self.session.run(None, dict(zip(INPUTS, (as_input(images, self.about), sizes_hw), strict=True))))


class OpenVinoRunner:
    """An ONNX file or OpenVINO's own .xml on the CPU, computed in the precision that the file has."""

    runtime: Runtime = "openvino"
    device = "cpu"

    def __init__(self, path: Path | str):
        core = openvino().Core()
        model = core.read_model(str(path))
        text = onnx_about(path) if Path(path).suffix == ".onnx" else model.get_rt_info([KEY]).astype(str)
        self.about = About.from_json(text, path)
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = core.compile_model(model, "CPU", hints)

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        answers = self.compiled([as_input(images, self.about), sizes_hw])
        return Found(*(np.array(answers[index]) for index in range(3)))


def as_input(images: np.ndarray, about: About) -> np.ndarray:
    """(B, H, W, C) uint8 -> what the file takes."""
    if about.input == "uint8":
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def onnx_about(path: Path | str) -> str | None:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return next((each.value for each in model.metadata_props if each.key == KEY), None)


def openvino() -> Any:
    """The OpenVINO module; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("openvino")
    except ImportError as error:
        raise ImportError("OpenVINO is not installed: pip install -e '.[openvino]'") from error


def onnx_session(path: Path | str, device: str | None = None) -> onnxruntime.InferenceSession:
    """A session for an ONNX file, on `cuda` or `cpu`; None takes the GPU where there is one.

    onnxruntime-gpu names CUDA among its providers on every machine, and on one without a GPU it complains and takes the
    CPU; so torch is asked what there really is.
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    providers = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    if wanted not in providers:
        raise ValueError(f"device must be cuda or cpu, got {wanted!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch finds no GPU; take cpu, or None to let kit choose")
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected an ONNX file, found nothing; check the path")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=[providers[wanted]])
    if session.get_providers()[0] != providers[wanted]:
        raise RuntimeError(f"{path}: expected {providers[wanted]}, ONNX Runtime took {session.get_providers()[0]}")
    return session


def tensorrt() -> ModuleType:
    """The TensorRT module; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise ImportError(
            "TensorRT is not installed: pip install -e '.[tensorrt]' on a machine with an NVIDIA GPU; "
            "on a Jetson it comes with JetPack"
        ) from error
