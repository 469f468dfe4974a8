"""The final score of Track 4: the F1 of a detector and its frames a second on the judges' device, in one number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

FULL_FPS = 25.0  # a faster one earns nothing more
LEAST_FPS = 10.0  # a slower one is disqualified
HERE: Final = "this machine"  # where a rate comes from
GIVEN: Final = "given"
GIVEN_LINE = re.compile(r"\s*(?P<name>[^:]*\S)\s*:\s*(?P<fps>\d+(?:\.\d+)?)\s*FPS\s*,\s*F1\s+(?P<f1>[01](?:\.\d+)?)\s*")


def normalised_fps(fps: Any) -> Any:
    """N: what counts of a rate, 1 from 25 FPS on; a number or an array."""
    return np.minimum(fps, FULL_FPS) / FULL_FPS


def final_score(f1: Any, fps: Any) -> Any:
    """2 F1 N / (F1 + N), the harmonic mean; 0 where F1 is, and under 10 FPS. Numbers, or arrays that broadcast."""
    f1, fps = np.broadcast_arrays(np.asarray(f1, dtype=np.float64), np.asarray(fps, dtype=np.float64))
    counted = normalised_fps(fps)
    score = 2 * f1 * counted / np.where(f1 + counted > 0, f1 + counted, 1.0)
    score = np.where(fps < LEAST_FPS, 0.0, score)
    return float(score) if score.ndim == 0 else score


@dataclass(frozen=True)
class Candidate:
    """A detector at one input size, as it could be sent."""

    name: str  # such as s@960 fp16, onnxruntime
    fps: float  # one image at a time, as kit.deploy.fps takes it
    f1: float  # the official one, with thresholds that have not seen the images
    where: Literal["this machine", "given"] = HERE  # the rate was measured

    def __post_init__(self) -> None:
        if not (self.fps > 0 and 0 <= self.f1 <= 1):
            raise ValueError(f"{self.name}: expected FPS above 0 and F1 from 0 to 1, got {self.fps:g} and {self.f1:g}")

    @property
    def is_disqualified(self) -> bool:
        return self.fps < LEAST_FPS

    @property
    def score(self) -> float:
        return float(final_score(self.f1, self.fps))


def read_given(line: str) -> Candidate:
    """A candidate that was measured elsewhere, on the judges' device for one: `l@960: 31.5 FPS, F1 0.62`."""
    found = GIVEN_LINE.fullmatch(line)
    if not found:
        raise ValueError(f"given: expected a line like `l@960: 31.5 FPS, F1 0.62`, got {line!r}")
    return Candidate(found["name"], float(found["fps"]), float(found["f1"]), GIVEN)


def compared(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose rates can be compared: the given ones where there are any, for this machine is not the judges'."""
    return [each for each in candidates if each.where == GIVEN] or list(candidates)


def chosen(candidates: Sequence[Candidate]) -> Candidate | None:
    """The one to submit; None where all of them are too slow."""
    fast_enough = [each for each in compared(candidates) if not each.is_disqualified]
    return max(fast_enough, key=lambda each: (each.score, each.fps), default=None)


def score_table(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """One row each, the best first: name, fps, n, f1, score, where, verdict."""
    best, rows = chosen(candidates), []
    for each in sorted(candidates, key=lambda each: (-each.score, -each.f1)):
        verdict = "submit" if each is best else f"disqualified: under {LEAST_FPS:g} FPS" if each.is_disqualified else ""
        n = float(normalised_fps(each.fps))
        rows.append([each.name, each.fps, n, each.f1, each.score, each.where, verdict])
    return pd.DataFrame(rows, columns=["name", "fps", "n", "f1", "score", "where", "verdict"])


def advice(candidates: Sequence[Candidate]) -> str:
    """Which to submit, and what would raise its score most, in a sentence or two."""
    if not candidates:
        return "Nothing was measured and nothing given."
    best, where = chosen(candidates), compared(candidates)[0].where
    if best is None:
        return f"None reaches {LEAST_FPS:g} FPS ({where}): all would be disqualified; take a smaller size or input."
    text = f"Submit {best.name}: {best.fps:.1f} FPS ({where}), F1 {best.f1:.3f}, final score {best.score:.3f}."
    by_f1 = final_score(min(best.f1 + 0.01, 1.0), best.fps) - best.score
    by_fps = final_score(best.f1, best.fps + 1) - best.score
    text += f" A hundredth of F1 more would give {by_f1:+.4f}, a frame a second more {by_fps:+.4f}."
    if where == HERE:
        text += " These rates are of this machine: measure on the judges' device and hand them in as `given`."
    return text
