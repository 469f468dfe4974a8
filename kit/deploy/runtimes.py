"""Which runtimes this machine has: ONNX Runtime on the GPU or, quietly, on the CPU; TensorRT where it is installed."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import onnxruntime
import torch


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
