"""What the gallery shows, in numbers and texts: classes, cameras, findings, and the boxes of each image."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.check_report import LISTED, Finding, Problem, Report
from kit.data.coco import CocoFile, Record, read_coco
from kit.data.formats.coco import coco_files, image_folder
from kit.data.views import view_of
from kit.plots.canvas import class_colour, ink_on

CHUNK = 100  # images whose details are in one file
UNKNOWN = "unknown category"
GREY = "#808080"


@dataclass(frozen=True)
class Part:
    """One part of a data set, such as train."""

    name: str
    coco: CocoFile
    images: Path


def find_parts(source: Path) -> list[Part]:
    """The parts of a data set folder, train first, or the one file; the same as the check's."""
    files = coco_files(source) if source.exists() else {}
    if not files:
        raise ValueError(
            f"{source}: expected a COCO data set with annotations/instances_*.json, found none; "
            "python -m kit.data.convert makes one of other forms"
        )
    order = sorted(files, key=lambda name: (name != "train", name != "val", name))
    return [Part(name, read_coco(files[name]), image_folder(files[name], name)) for name in order]


@dataclass(frozen=True)
class Shown:
    """One image of the gallery. row: of it in its part's file."""

    number: int
    part: int
    row: int
    record: Record


@dataclass(frozen=True)
class Stored:
    """What writing an image's pictures has told. size_wh: of the file; fault: why there is no picture, or empty."""

    size_wh: tuple[int, int]
    fault: str = ""


@dataclass(frozen=True)
class Drawn:
    """One draw of an image as the model gets it: its picture and the objects after augmentation."""

    source: str
    size_wh: tuple[int, int]
    about: str
    boxes_xyxy_px: np.ndarray  # (N, 4)
    labels: np.ndarray  # (N,)


@dataclass(frozen=True)
class Contents:
    """Everything that the page is told. draws: by number of the image."""

    title: str
    parts: Sequence[Part]
    shown: Sequence[Shown]
    stored: Sequence[Stored]
    reports: Sequence[Report] = ()
    draws: Mapping[int, Sequence[Drawn]] = field(default_factory=dict)
    about_draws: str = ""
    view_pattern: str | None = None

    # --- classes, cameras and findings, each by its place in a list ---

    @cached_property
    def names(self) -> list[str]:
        """Of all parts together, one of a name; the last is for categories that a file does not list."""
        return [*dict.fromkeys(name for part in self.parts for name in part.coco.names), UNKNOWN]

    @cached_property
    def classes_of(self) -> list[np.ndarray]:
        """For each part, label -> class of the gallery; an unknown category, as label -1, takes the last entry."""
        place = {name: number for number, name in enumerate(self.names)}
        return [np.array([*(place[name] for name in part.coco.names), len(self.names) - 1]) for part in self.parts]

    def labels(self, each: Shown) -> np.ndarray:
        labels: np.ndarray = self.classes_of[each.part][each.record.labels]
        return labels

    @cached_property
    def camera_of(self) -> list[str | None]:
        views = (view_of(each.record.file_name, self.view_pattern) for each in self.shown)
        return [view.camera if view else None for view in views]

    @cached_property
    def cameras(self) -> list[str]:
        return sorted({camera for camera in self.camera_of if camera is not None}, key=natural)

    @cached_property
    def camera_places(self) -> dict[str, int]:
        return {camera: place for place, camera in enumerate(self.cameras)}

    @cached_property
    def kinds(self) -> dict[str, list[Problem]]:
        """Kind of finding: what the reports say of it."""
        kinds = defaultdict(list)
        for report in self.reports:
            for problem in report.problems:
                kinds[problem.kind].append(problem)
        return dict(kinds)

    @cached_property
    def kind_places(self) -> dict[str, int]:
        return {kind: place for place, kind in enumerate(self.kinds)}

    @cached_property
    def findings_of(self) -> dict[tuple[str, int | None], list[Finding]]:
        """Part and image id: all that was found there."""
        found = defaultdict(list)
        for report in self.reports:
            for finding in report.findings():
                found[finding.part or report.part, finding.image_id].append(finding)
        return dict(found)

    def findings(self, each: Shown) -> list[Finding]:
        return self.findings_of.get((self.parts[each.part].name, each.record.image_id), [])

    # --- for the page ---

    def index(self) -> dict[str, Any]:
        """What filters and tiles need, of all images."""
        rows = [self.index_row(each) for each in self.shown]
        return {
            "title": self.title,
            "chunk": CHUNK,
            "drawn": self.about_draws,
            "draws": len(self.draws),
            "outlines": any(each.record.outlines for each in self.shown),
            "parts": [part.name for part in self.parts],
            "cameras": self.cameras,
            "classes": self.class_entries(),
            "kinds": self.kind_entries(rows),
            "loose": self.loose(),
            "images": rows,
        }

    def index_row(self, each: Shown) -> list[Any]:
        stored, camera = self.stored[each.number], self.camera_of[each.number]
        kinds = {self.kind_places[finding.kind] for finding in self.findings(each)}
        return [
            each.record.file_name,
            each.part,
            None if camera is None else self.camera_places[camera],
            stored.size_wh,
            np.unique(self.labels(each)).tolist(),
            sorted(kinds),
            len(each.record.labels),
            len(self.draws.get(each.number, ())),
            stored.fault,
        ]

    def class_entries(self) -> list[dict[str, Any]]:
        """The class of unknown categories only where there is one."""
        objects, images = Counter[int](), Counter[int]()
        for each in self.shown:
            labels = self.labels(each).tolist()
            objects.update(labels)
            images.update(set(labels))
        known = len(self.names) - 1
        colours = [*map(class_colour, range(known)), GREY]
        return [
            {
                "name": name,
                "colour": colour,
                "ink": ink_on(colour),
                "objects": objects[number],
                "images": images[number],
            }
            for number, (name, colour) in enumerate(zip(self.names, colours, strict=True))
            if number < known or objects[number]
        ]

    def kind_entries(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        images = Counter(kind for row in rows for kind in row[5])
        return [
            {
                "name": kind,
                "count": sum(problem.count for problem in problems),
                "images": images[number],
                "mend": problems[0].mend,
                "problem": any(problem.is_fatal for problem in problems),
            }
            for number, (kind, problems) in enumerate(self.kinds.items())
        ]

    def loose(self) -> list[tuple[str, list[str]]]:
        """Findings of no image that is shown, in words, by kind."""
        shown = {(self.parts[each.part].name, each.record.image_id) for each in self.shown}
        texts = defaultdict(list)
        for place, findings in self.findings_of.items():
            for finding in findings if place not in shown else ():
                texts[finding.kind].append(": ".join(filter(None, [place[0], finding.text()])))
        return [(kind, lines[:LISTED] + ["..."] * (len(lines) > LISTED)) for kind, lines in texts.items()]

    def details(self, each: Shown) -> dict[str, Any]:
        """What one image needs: objects as class, x, y, width, height in pixels, id, crowd."""
        record = each.record
        rows = zip(
            self.labels(each), record.boxes_xywh_px, record.annotation_ids.tolist(), record.is_crowd, strict=True
        )
        return {
            "id": record.image_id,
            "objects": [[int(label), *numbers(box), identity, int(crowd)] for label, box, identity, crowd in rows],
            "outlines": outlines_of(record),
            "findings": [
                [self.kind_places[each.kind], each.detail, list(each.annotation_ids), finite_box(each.box_xywh_px)]
                for each in self.findings(each)
            ],
            "draws": [drawn_entry(draw) for draw in self.draws.get(each.number, ())],
        }

    def chunks(self) -> Iterable[tuple[int, list[dict[str, Any]]]]:
        for first in range(0, len(self.shown), CHUNK):
            yield first // CHUNK, [self.details(each) for each in self.shown[first : first + CHUNK]]


def natural(text: str) -> tuple[int, str]:
    """Cameras 2, 10 in this order."""
    return (int(text), "") if text.isdecimal() else (2**31, text)


def numbers(box: np.ndarray | Sequence[float]) -> list[float | None]:
    """To a hundredth of a pixel; four None where a number is none."""
    return [round(float(value), 2) for value in box] if np.isfinite(box).all() else [None] * 4


def finite_box(box: Sequence[float] | None) -> list[float | None] | None:
    return numbers(box) if box is not None and np.isfinite(box).all() else None


def outlines_of(record: Record) -> dict[int, list[list[float]]]:
    """Row: rings as x, y, x, y, ..."""
    known = enumerate(record.outlines or ())
    return {row: [ring.round(1).reshape(-1).tolist() for ring in outline] for row, outline in known if outline}


def drawn_entry(draw: Drawn) -> dict[str, Any]:
    low, high = draw.boxes_xyxy_px[:, :2], draw.boxes_xyxy_px[:, 2:]
    boxes = zip(draw.labels.tolist(), np.concatenate([low, high - low], axis=1), strict=True)
    objects = [[label, *numbers(box), 0, 0] for label, box in boxes]
    return {"src": draw.source, "size": draw.size_wh, "about": draw.about, "objects": objects}
