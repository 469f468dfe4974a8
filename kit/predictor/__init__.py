"""One detector for every kind of picture: `Predictor` takes arrays, files, folders, videos and PDFs."""

from kit.predictor.prediction import Prediction, Summary
from kit.predictor.predictor import Predictor

__all__ = ["Prediction", "Predictor", "Summary"]
