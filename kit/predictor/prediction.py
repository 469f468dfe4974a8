"""What comes out: a prediction for each picture, and the summary of a whole run."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit.media.frame import Kind
from kit.predict import Detections

MOST_FAULTS = 100  # that a summary lists; all are counted


@dataclass(frozen=True)
class Prediction:
    """Of one picture, with its pixels; with a fault it has neither pixels nor detections."""

    name: str  # of its file, from the folder that all files of the source share
    kind: Kind
    image: np.ndarray | None  # (H, W, C) uint8
    detections: Detections
    path: Path | None = None
    index: int = 0  # of the frame in its video, or the page in its PDF
    time_s: float | None = None  # in its video
    fault: str = ""

    @property
    def size_hw(self) -> tuple[int, int]:
        return (0, 0) if self.image is None else (self.image.shape[0], self.image.shape[1])


@dataclass(frozen=True)
class Summary:
    """Of a run over a source. stage_s: seconds that each stage worked, which together may be more than `seconds`."""

    images: int  # pictures that were looked at, without the faulty
    detections: int
    faulty: int
    faults: list[str]  # the first of them
    seconds: float
    stage_s: dict[str, float]
    files: list[Path] = field(default_factory=list)

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def status(self) -> int:
        """Of a command: 2 where some of the input could not be read."""
        return 2 if self.faulty else 0

    @property
    def table(self) -> str:
        """For reading."""
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.stage_s.items())
        lines = [
            f"{self.images} images, {self.detections} detections, {self.images_per_s:.1f} images/s ({stages})",
            *(f"wrote {file}" for file in self.files),
        ]
        if self.faulty:
            lines += [f"{self.faulty} could not be read:", *(f"  {fault}" for fault in self.faults)]
            lines += [f"  and {self.faulty - len(self.faults)} more"] if self.faulty > len(self.faults) else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"images_per_s": self.images_per_s, "files": [str(file) for file in self.files]}


def nothing_found() -> Detections:
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
