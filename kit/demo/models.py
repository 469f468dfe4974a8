"""The models of the demo page, and what they answer for one image."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from kit.boxes import pairwise_giou
from kit.deploy.runtimes import Runtime
from kit.predict import Detections
from kit.predictor import Predictor

LEAST_SCORE, MOST_SCORE = 0.05, 0.95  # the ends of the slider: weaker detections are not kept
MOST_ROUNDS = 5  # an image is predicted so many times, or as often as
MOST_SECONDS = 1.0  # fits into this time: a single measurement says little
SAME_IOU = 0.5  # boxes of two models that overlap as much are one object

Load = Callable[[int], np.ndarray]  # channels -> (H, W, C) uint8


@dataclass(frozen=True)
class Model:
    """One column of the page."""

    name: str
    predictor: Predictor

    @property
    def about(self) -> str:
        """Such as: D-FINE n, 640 x 640 px, onnxruntime fp32 on cpu."""
        file, predictor = self.predictor.about, self.predictor
        size = f"{file.width_px} x {file.height_px} px"
        return f"D-FINE {file.size}, {size}, {predictor.runtime} {file.precision} on {predictor.device}"


@dataclass(frozen=True)
class Answer:
    """Of one model for one image: all detections from LEAST_SCORE up, and the time that each round took."""

    model: Model
    image: np.ndarray  # (H, W, C) uint8, as the model takes it
    detections: Detections
    rounds_ms: list[float]

    @property
    def latency_ms(self) -> float:
        return median(self.rounds_ms)


def open_models(
    sources: Sequence[Path | str], runtime: Runtime | None = None, device: str | None = None
) -> list[Model]:
    """Each opened, and run once, so that nobody's first image pays for the warm-up."""
    models = []
    for name, source in zip(short_names(sources), sources, strict=True):
        model = Model(name, Predictor(source, runtime=runtime, device=device, threshold=LEAST_SCORE))
        height, width = model.predictor.about.size_hw
        model.predictor(np.zeros((height, width, 3), np.uint8))
        models.append(model)
    return models


def short_names(sources: Sequence[Path | str]) -> list[str]:
    """As few trailing parts of each path as tell it from the others: 03_train/best.pt and 05_stage2/best.pt."""
    parts = [Path(source).resolve().parts for source in sources]
    if len(set(parts)) < len(parts):
        raise ValueError(f"every model may be given once, got {', '.join(map(str, sources))}")
    names = []
    for own in parts:
        lengths = range(1, len(own) + 1)
        length = next(n for n in lengths if sum(other[-n:] == own[-n:] for other in parts) == 1)
        names.append(str(Path(*own[-length:])))
    return names


def answers(models: Sequence[Model], load: Load) -> list[Answer]:
    """Of each model for one image, measured in turns, so that a busy moment strikes all of them."""
    images = [load(model.predictor.about.channels) for model in models]
    rounds_ms: list[list[float]] = [[] for _ in models]
    found: list[Detections] = []
    started = time.perf_counter()
    while not found or (len(rounds_ms[0]) < MOST_ROUNDS and time.perf_counter() - started < MOST_SECONDS):
        found = [timed(*each) for each in zip(models, images, rounds_ms, strict=True)]
    return [Answer(*each) for each in zip(models, images, found, rounds_ms, strict=True)]


def timed(model: Model, image: np.ndarray, rounds_ms: list[float]) -> Detections:
    """From the decoded image to its boxes; the time taken is put at the end of rounds_ms."""
    started = time.perf_counter()
    detections = model.predictor(image)
    rounds_ms.append(1000 * (time.perf_counter() - started))
    return detections


def above(detections: Detections, threshold: float) -> Detections:
    kept = detections.scores >= threshold  # (N,)
    return Detections(detections.boxes_xyxy_px[kept], detections.scores[kept], detections.labels[kept])


def counts(detections: Detections, names: Sequence[str]) -> dict[int, int]:
    """How many of each label, the most frequent first."""
    amounts = torch.bincount(detections.labels.long(), minlength=len(names)).tolist()
    return {label: amount for label, amount in sorted(enumerate(amounts), key=lambda each: -each[1]) if amount}


def agreeing(a: Detections, a_names: Sequence[str], b: Detections, b_names: Sequence[str]) -> int:
    """How many boxes the two have in common: same class by name, IoU of SAME_IOU or more, one to one."""
    if not len(a.scores) or not len(b.scores):
        return 0
    iou = pairwise_giou(a.boxes_xyxy_px.double(), b.boxes_xyxy_px.double())[0].numpy()  # (N of a, N of b)
    same_class = np.array([[a_names[i] == b_names[j] for j in b.labels] for i in a.labels])  # (N of a, N of b)
    is_pair = same_class & (iou >= SAME_IOU)
    rows, columns = linear_sum_assignment(is_pair, maximize=True)
    return int(is_pair[rows, columns].sum())
