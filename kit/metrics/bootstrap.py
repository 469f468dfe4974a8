"""How sure a difference of two detectors is: the images are drawn anew, many times, for both alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kit.metrics.f1 import class_f1, mean_defined, mean_f1
from kit.metrics.matches import Matches
from kit.metrics.result import COCO_MAX, interpolated_precision


@dataclass(frozen=True)
class Difference:
    """What the second has above the first on all images, and the span that 95 % of the draws give."""

    value: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_difference(
    first: Matches, second: Matches, figure: Callable[[Matches], float], draws: int = 200, seed: int = 0
) -> Difference:
    """figure(second) - figure(first), both on the same images in every draw.

    Images of one camera are alike, and new cameras differ more than new images: the true span is rather wider.
    """
    if first.image_ids != second.image_ids:
        raise ValueError(
            f"expected matches of the same images, got {len(first.image_ids)} and {len(second.image_ids)} images; "
            "match both with the same annotations"
        )
    value = figure(second) - figure(first)
    images, rng = len(first.image_ids), np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(images, size=images), minlength=images)
        found.append(figure(repeated(second, times)) - figure(repeated(first, times)))
    low, high = np.quantile(found, [0.025, 0.975])
    return Difference(value, float(low), float(high))


def repeated(matches: Matches, times: np.ndarray) -> Matches:
    """As if each image were there so many times: times (images,) int."""
    rows = np.repeat(np.arange(len(matches.score)), times[matches.image])
    return replace(matches.keep(rows), ground_truths=matches.ground_truths * times[:, None])


def average_precision(matches: Matches) -> float:
    """COCO's AP of all classes together."""
    return mean_defined(interpolated_precision(matches.keep(matches.rank < COCO_MAX)))


def official_f1(matches: Matches) -> float:
    """Of all detections that are there; keep those above a threshold first."""
    return mean_f1(class_f1(matches))
