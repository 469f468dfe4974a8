"""What an exported file says of itself: all that is needed to feed it and to read its answers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from kit.dfine.detector import STRIDE, Detector
from kit.dfine.weights import load_detector
from kit.files import sha256

FORMAT = "kit-export-1"
KEY = "kit"  # under which it stands in ONNX metadata, in OpenVINO's rt_info and in the file beside an engine
INPUTS = ("images", "sizes_hw")
OUTPUTS = ("boxes", "scores", "labels")

Input = Literal["float", "uint8"]  # (B, C, H, W) in [0, 1], or (B, H, W, C) as stored
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True)
class About:
    """Of one exported file, or of a checkpoint that is run as it is."""

    size: str  # of the detector: n, s, m, l, x
    names: list[str]  # of the classes, label 0 first
    category_ids: list[int]  # of the data it was trained on, in the same order
    channels: int
    height_px: int  # of the input; where the size is dynamic: of the training
    width_px: int
    top_k: int
    batch: int | None = None  # the only one the file takes; None: any
    dynamic_size: bool = False  # other heights and widths too, multiples of 32
    min_area_px: int = 0  # of a dynamic size: height x width at least, so that there are enough tokens for all queries
    input: Input = "float"
    precision: Precision = "fp32"
    source: str = ""  # sha256 of the checkpoint
    notes: dict[str, Any] = field(default_factory=dict)  # what a step wants to remember: the gate's figures, versions

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height_px, self.width_px

    def check_size_hw(self, size_hw: tuple[int, int]) -> None:
        """ValueError where the file cannot take an input of this size."""
        if self.dynamic_size:
            fits = not any(side % STRIDE or side < STRIDE for side in size_hw)
            fits = fits and size_hw[0] * size_hw[1] >= self.min_area_px
            expected = f"multiples of {STRIDE}, height x width at least {self.min_area_px} px"
        else:
            fits, expected = tuple(size_hw) == self.size_hw, f"{self.height_px} x {self.width_px} (height x width)"
        if not fits:
            raise ValueError(
                f"input of {size_hw[0]} x {size_hw[1]} px: expected {expected}; resize the images, or export for them"
            )

    def as_json(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str | None, source: Path | str) -> "About":
        """ValueError, which names the file, where the text is not one of as_json."""
        try:
            values = json.loads(text or "")
        except ValueError:
            values = None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(
                f"{source}: expected a file that kit has exported (metadata {KEY!r} of {FORMAT}), found another; "
                "export it again with kit.deploy.export_onnx"
            )
        if set(values) - {each.name for each in fields(cls)}:
            raise ValueError(f"{source}: written by a newer kit; update this one, or export it again")
        return cls(**values)


def about_of(detector: Detector, info: Mapping[str, Any], source: str = "", top_k: int = 300) -> About:
    """info: what a checkpoint says of itself; without classes they are named by their number."""
    count = detector.num_classes
    height, width = info.get("size_hw") or (640, 640)
    return About(
        size=detector.size.name,
        names=list(info.get("classes") or map(str, range(count))),
        category_ids=list(info.get("category_ids") or range(count)),
        channels=detector.channels,
        height_px=height,
        width_px=width,
        top_k=min(top_k, detector.size.queries * count),
        source=source,
    )


def read_checkpoint(path: Path | str, top_k: int = 300) -> tuple[Detector, About]:
    """The detector of one of our own weights files, in eval mode, and what is known of it."""
    detector, info = load_detector(path)
    return detector, about_of(detector, info, sha256(path) if Path(path).is_file() else "", top_k)
