"""What the doctor says: a verdict on each question, and the curves and images that show why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.files import atomic, one_line, read_json, write_json

Mark = Literal["well", "look", "wrong"]
WORST_FIRST: tuple[Mark, ...] = ("wrong", "look", "well")


@dataclass(frozen=True)
class Verdict:
    """The answer to one question. mend: what to do, empty where all is well."""

    part: str  # such as loader, labels, loss
    question: str
    mark: Mark
    expected: str
    found: str
    mend: str = ""

    def line(self) -> str:
        mend = f"; {self.mend}" if self.mend and self.mark != "well" else ""
        return f"{self.mark:<5}  {self.question} expected {self.expected}, found {self.found}{mend}"


@dataclass(frozen=True)
class Curve:
    """Values over steps or rates, with a level to compare them with and a place on them worth a mark."""

    x: list[float]
    y: list[float]
    label_x: str
    label_y: str
    level: float | None = None  # on y
    marked_x: float | None = None
    is_log_x: bool = False


@dataclass(frozen=True)
class Images:
    """What the model was given: images (B, H, W, C) uint8, and of each its boxes (N, 4) xyxy px and labels (N,)."""

    images: np.ndarray
    boxes_xyxy_px: list[np.ndarray]
    labels: list[np.ndarray]


@dataclass
class Report:
    """All verdicts in the order of the questions; curves, tables and images by their part."""

    about: str
    names: list[str]
    verdicts: list[Verdict] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    tables: dict[str, list[dict[str, float | str]]] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, Images] = field(default_factory=dict)

    @property
    def mark(self) -> Mark:
        """The worst of all."""
        return next((mark for mark in WORST_FIRST if any(each.mark == mark for each in self.verdicts)), "well")

    def of(self, part: str) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.part == part]

    def table(self) -> str:
        """One line a verdict, the worst first, for reading."""
        ordered = sorted(self.verdicts, key=lambda verdict: WORST_FIRST.index(verdict.mark))
        counts = ", ".join(f"{sum(v.mark == mark for v in self.verdicts)} {mark}" for mark in WORST_FIRST)
        return "\n".join([f"{self.about}: {counts}", *(one_line(verdict.line()) for verdict in ordered)])

    def to_json(self) -> dict[str, Any]:
        """Everything but maps and images."""
        return {
            "about": self.about,
            "mark": self.mark,
            "names": self.names,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "tables": self.tables,
        }


# --- on its way to another process, which draws it ---


def write_report(report: Report, folder: Path) -> None:
    """report.json, and the arrays in arrays.npz."""
    arrays = {f"map {name}": values for name, values in report.maps.items()}
    for name, each in report.images.items():
        arrays[f"images {name}"] = each.images
        for row, (boxes, labels) in enumerate(zip(each.boxes_xyxy_px, each.labels, strict=True)):
            arrays[f"boxes {name} {row}"], arrays[f"labels {name} {row}"] = boxes, labels
    with atomic(folder / "arrays.npz") as path:
        np.savez(path, allow_pickle=False, **arrays)
    write_json(folder / "report.json", report.to_json())


def read_report(folder: Path) -> Report:
    content = read_json(folder / "report.json")
    report = Report(content["about"], content["names"], [Verdict(**each) for each in content["verdicts"]])
    report.curves = {name: Curve(**each) for name, each in content["curves"].items()}
    report.tables = content["tables"]
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        kinds = [name.split(" ", 1) for name in arrays.files]
        report.maps = {name: arrays[f"map {name}"] for kind, name in kinds if kind == "map"}
        for name in (name for kind, name in kinds if kind == "images"):
            images = arrays[f"images {name}"]
            boxes, labels = ([arrays[f"{kind} {name} {row}"] for row in range(len(images))] for kind in KINDS)
            report.images[name] = Images(images, boxes, labels)
    return report


KINDS = ("boxes", "labels")


def judged(part: str, question: str, wrong: bool, look: bool, expected: str, found: str, mend: str) -> Verdict:
    """The mark from two claims; the mend is told only where there is something to mend."""
    mark: Mark = "wrong" if wrong else "look" if look else "well"
    return Verdict(part, question, mark, expected, found, "" if mark == "well" else mend)


def few(names: Sequence[object], most: int = 3) -> str:
    """The first names of many."""
    shown = ", ".join(one_line(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
