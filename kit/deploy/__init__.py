"""From a checkpoint to the files that run elsewhere, and proof that they find the same."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.deploy.export import export_onnx

__all__ = ["export_onnx"]

HOMES = {"export_onnx": "kit.deploy.export"}


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562): each needs a library that not every machine has."""
    if name not in HOMES:
        raise AttributeError(f"kit.deploy has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(HOMES[name]), name)
