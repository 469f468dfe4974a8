"""From a checkpoint to the files that run elsewhere, and proof that they find the same."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.deploy.export import export_onnx
    from kit.deploy.int8 import quantise_onnx, quantise_openvino
    from kit.deploy.openvino import export_openvino
    from kit.deploy.precision import mixed_precision
    from kit.deploy.runtimes import open_runner
    from kit.deploy.tensorrt import build_tensorrt

__all__ = [
    "build_tensorrt",
    "export_onnx",
    "export_openvino",
    "mixed_precision",
    "open_runner",
    "quantise_onnx",
    "quantise_openvino",
]

HOMES = {
    "build_tensorrt": "kit.deploy.tensorrt",
    "export_onnx": "kit.deploy.export",
    "export_openvino": "kit.deploy.openvino",
    "mixed_precision": "kit.deploy.precision",
    "open_runner": "kit.deploy.runtimes",
    "quantise_onnx": "kit.deploy.int8",
    "quantise_openvino": "kit.deploy.int8",
}


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562): each needs a library that not every machine has."""
    if name not in HOMES:
        raise AttributeError(f"kit.deploy has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
