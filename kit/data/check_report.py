"""What a check has found: findings, the problems they add up to, and the report, as a table and as data."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from kit.files import one_line

EXAMPLES = 5  # of each problem in the table
MOST_LETTERS = 300  # of a file name, and of what was found of it
LISTED = 1000  # of each problem in the data; all are counted
SIDE_EDGES_PX = tuple(float(2**power) for power in range(13))  # 1 ... 4096, of the square root of the area

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd, and where."""

    kind: str
    part: str  # such as train; empty for what lies across parts
    image_id: int | None = None  # None: of no listed image, such as a category
    file_name: str = ""  # below the image folder of the part; empty where there is none
    annotation_ids: tuple[int, ...] = ()  # as the file has them; 0 where it has none
    box_xywh_px: Box | None = None  # may hold NaN: malformed
    detail: str = ""  # what was found, in words
    partner: tuple[str, str] | None = None  # part and file name of the image that it is like

    def text(self) -> str:
        """One line: file, annotations, box, and what was found."""
        ids, box = self.annotation_ids, self.box_xywh_px
        told = [f"annotation{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}"] if ids else []
        told += [f"[{', '.join(f'{value:g}' for value in box)}]"] if box else []
        told = [shown(self.file_name), ", ".join([*told, *filter(None, [shown(self.detail)])])]
        return ": ".join(filter(None, told))

    def to_json(self) -> dict[str, Any]:
        """Numbers that are none become null."""
        box = self.box_xywh_px and [value if np.isfinite(value) else None for value in self.box_xywh_px]
        partner = self.partner and list(self.partner)
        return vars(self) | {"annotation_ids": list(self.annotation_ids), "box_xywh_px": box, "partner": partner}


def shown(text: str) -> str:
    """Names may be very long, and hold line ends, commands to a terminal, and halves of characters."""
    line = one_line(text)
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 4]} ..."


class Found(Sequence[Finding]):
    """Findings that are made when they are looked at: rows of arrays, and what makes a finding of a row."""

    def __init__(self, rows: np.ndarray, finding_of: Callable[[int], Finding]):
        self.rows = rows  # (n,) int64
        self.finding_of = finding_of

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> "Found": ...
    def __getitem__(self, index: int | slice) -> "Finding | Found":
        if isinstance(index, slice):
            return Found(self.rows[index], self.finding_of)
        return self.finding_of(int(self.rows[index]))


@dataclass(frozen=True)
class Problem:
    """All findings of one kind."""

    kind: str
    findings: Sequence[Finding]
    mend: str
    is_fatal: bool = True  # stops a training
    bars_images: bool = False  # the images cannot be used

    @property
    def count(self) -> int:
        return len(self.findings)

    @property
    def examples(self) -> list[str]:
        return [finding.text() for finding in self.findings[:EXAMPLES]]

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Images that cannot be used."""
        ids = (finding.image_id for finding in self.findings if self.bars_images)
        return tuple(image_id for image_id in ids if image_id is not None)

    def to_json(self) -> dict[str, Any]:
        about = {"kind": self.kind, "count": self.count, "mend": self.mend, "is_fatal": self.is_fatal}
        listed = [finding.to_json() for finding in self.findings[:LISTED]]
        return about | {"examples": self.examples, "findings": listed}


@dataclass(frozen=True)
class ClassCount:
    """What there is of one class. sides: its boxes by size, between SIDE_EDGES_PX; the ends hold what is beyond."""

    name: str
    boxes: int
    images: int
    sides: list[int]


@dataclass(frozen=True)
class Report:
    """All that was found in one part of a data set, or across its parts (part is empty then)."""

    path: Path  # of the annotation file, or of the whole data set
    images: int
    annotations: int
    problems: list[Problem]
    part: str = ""
    folder: Path | None = None  # of the images
    classes: list[ClassCount] = field(default_factory=list)

    @property
    def fatal(self) -> bool:
        return any(problem.is_fatal for problem in self.problems)

    def findings(self) -> Iterator[Finding]:
        for problem in self.problems:
            yield from problem.findings

    def by_image(self) -> dict[tuple[str, int], list[Finding]]:
        """Part and image id: all that was found of it."""
        found = defaultdict(list)
        for finding in self.findings():
            if finding.image_id is not None:
                found[finding.part, finding.image_id].append(finding)
        return dict(found)

    def table(self) -> str:
        """For reading: the problems first, then what is odd or good to know."""
        fatal = sum(problem.is_fatal for problem in self.problems)
        odd = len(self.problems) - fatal
        found = f"{fatal} kind{'s' * (fatal != 1)} of problem" if fatal else "no problems"
        found += f", {odd} of what is odd or good to know" * bool(odd)
        lines = [f"{one_line(self.path)}: {self.images} images, {self.annotations} annotations, {found}"]
        for problem in sorted(self.problems, key=lambda problem: not problem.is_fatal):
            lines.append(
                f"{'!' if problem.is_fatal else ' '} {problem.count:>7}  {problem.kind}: {one_line(problem.mend)}"
            )
            lines += [f"{'':12}{example}" for example in problem.examples]
            lines += [f"{'':12}..."] * (problem.count > len(problem.examples))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        about = {"path": str(self.path), "part": self.part, "folder": self.folder and str(self.folder)}
        counts = {"images": self.images, "annotations": self.annotations, "fatal": self.fatal}
        problems = {"problems": [problem.to_json() for problem in self.problems]}
        classes = {"side_edges_px": list(SIDE_EDGES_PX), "classes": [vars(each) for each in self.classes]}
        return about | counts | problems | classes
