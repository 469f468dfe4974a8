"""Detection competitions on D-FINE. What most users need is here; the rest is in the file that its name says.

Letters of tensor shapes, everywhere in kit: B images, Q queries, N objects of one image, M matched pairs, K classes,
C channels, H, W height and width, S tokens of all levels, P sampling points, R bins.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:  # it reads this when it is loaded; busy waiting on shared cores slows it up to 25 times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from kit.dfine.detector import SIZES, Detector
    from kit.dfine.weights import load_detector, load_weights, save_weights
    from kit.metrics import evaluate
    from kit.predict import predict_dataset
    from kit.predictor import Predictor
    from kit.train import fit

__all__ = [
    "SIZES",
    "Detector",
    "Predictor",
    "evaluate",
    "fit",
    "load_detector",
    "load_weights",
    "predict_dataset",
    "save_weights",
]

HOMES = {
    "SIZES": "kit.dfine.detector",
    "Detector": "kit.dfine.detector",
    "Predictor": "kit.predictor",
    "evaluate": "kit.metrics",
    "fit": "kit.train",
    "load_detector": "kit.dfine.weights",
    "load_weights": "kit.dfine.weights",
    "predict_dataset": "kit.predict",
    "save_weights": "kit.dfine.weights",
}


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562), so that `kit.params` starts without torch."""
    if name not in HOMES:
        raise AttributeError(f"kit has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
