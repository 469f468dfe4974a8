"""The check of a data set before training: one report that names every problem, with examples and what to do.

    python -m kit.data.check DIR [--json FILE]

Problems stop the training. Told to go on, it goes on with what `clean` leaves. Crowds, repeated boxes, images without
boxes and files that the annotations do not mention are information only.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.data.coco import UNKNOWN, CocoFile, Record, Split, find_dataset, parse_coco
from kit.data.image_files import FileState, Progress, read_states
from kit.files import read_json, write_json

EXAMPLES = 5  # of each problem in the report
EDGE_PX = 1.0  # boxes may leave the image by so much: labels of inclusive pixels do. What is outside is cut anyway
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Mask = NDArray[np.bool_]  # (N,), one for each annotation of a record


@dataclass(frozen=True)
class Problem:
    """One kind of problem."""

    kind: str
    count: int
    examples: list[str]  # file, annotation, and what was found
    mend: str
    is_fatal: bool = True
    image_ids: tuple[int, ...] = ()  # images that cannot be used


@dataclass(frozen=True)
class Report:
    """All that was found in one COCO file and its images."""

    path: Path
    images: int
    annotations: int
    problems: list[Problem]

    @property
    def fatal(self) -> bool:
        return any(problem.is_fatal for problem in self.problems)

    def table(self) -> str:
        """For reading: the problems first, then the information."""
        fatal = sum(problem.is_fatal for problem in self.problems)
        found = f"{fatal} kind{'s' * (fatal != 1)} of problem" if fatal else "no problems"
        lines = [f"{self.path}: {self.images} images, {self.annotations} annotations, {found}"]
        for problem in sorted(self.problems, key=lambda problem: not problem.is_fatal):
            lines.append(f"{'!' if problem.is_fatal else ' '} {problem.count:>7}  {problem.kind}: {problem.mend}")
            lines += [f"{'':12}{example}" for example in problem.examples]
            lines += [f"{'':12}..."] * (problem.count > len(problem.examples))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path), "fatal": self.fatal}


def read_checked(
    annotations: Path | str, images: Path | str | None, allow_problems: bool = False, progress: Progress | None = None
) -> tuple[CocoFile, Report]:
    """The door of the training: what is left without the problems, or ValueError with the report. None as images
    checks the annotations alone."""
    coco, report = inspected(Path(annotations), None if images is None else Path(images), progress)
    if report.fatal and not allow_problems:
        raise ValueError(f"{report.table()}\nmend these, or go on without them by allow_problems = True")
    return clean(coco, report), report


def check_dataset(annotations: Path | str, images: Path | str | None, progress: Progress | None = None) -> Report:
    """Everything that is wrong with one COCO file and its image folder; None checks the file alone."""
    return inspected(Path(annotations), None if images is None else Path(images), progress)[1]


def inspected(path: Path, images: Path | None, progress: Progress | None) -> tuple[CocoFile, Report]:
    content = read_json(path)
    coco = parse_coco(content, path)
    problems = [*problems_of_ids(content), *problems_of_boxes(coco)]
    if images is not None:
        problems += problems_of_images(coco, images, progress)
    annotations = len(content.get("annotations") or [])
    return coco, Report(path, len(content["images"]), annotations, [each for each in problems if each.count])


def problem(
    kind: str, found: Iterable[str], mend: str, is_fatal: bool = True, image_ids: Sequence[int] = ()
) -> Problem:
    found = list(found)
    return Problem(kind, len(found), found[:EXAMPLES], mend, is_fatal, tuple(image_ids))


# --- ids ---


def problems_of_ids(content: dict[str, Any]) -> list[Problem]:
    """What only the raw lists show."""
    images, annotations = content["images"], content.get("annotations") or []
    categories = content.get("categories") or []
    known = {image["id"] for image in images}
    numbered = [each for each in annotations if each.get("id")]
    number_them = "number the annotations 1, 2, ..."
    return [
        problem(
            "duplicate image id",
            (f"{each['file_name']}: image {each['id']}" for each in repeats(images, ids(images))),
            "give every image its own id; only the first of each is used",
        ),
        problem(
            "duplicate category id",
            (f"category {each['id']}, {each.get('name')}" for each in repeats(categories, ids(categories))),
            "give every category its own id",
        ),
        problem(
            "image missing from the list",
            (
                f"annotation {each.get('id')}: image {each['image_id']}"
                for each in annotations
                if each["image_id"] not in known
            ),
            "add the image to the list or delete its annotations",
        ),
        problem(
            "duplicate annotation id",
            (f"annotation {each['id']} of image {each['image_id']}" for each in repeats(numbered, ids(numbered))),
            number_them,
        ),
        problem(
            "annotation id 0 or none",
            (f"an annotation of image {each['image_id']}" for each in annotations if not each.get("id")),
            f"{number_them}: with an id of 0 the official F1 and AP come out wrong",
        ),
    ]


def ids(entries: Iterable[dict[str, Any]]) -> list[Any]:
    return [entry["id"] for entry in entries]


def repeats(entries: Sequence[Any], keys: Sequence[Any]) -> list[Any]:
    """The entries whose key has been there before."""
    return [entry for entry, again in zip(entries, been_before(keys), strict=True) if again]


def been_before(keys: Sequence[Any]) -> list[bool]:
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    return [first[key] != position for position, key in enumerate(keys)]


# --- boxes: each rule tells the annotations of one image it holds for, as (N,) bool ---


@dataclass(frozen=True)
class Rule:
    kind: str
    finds: Callable[[Record], Mask]
    mend: str
    is_fatal: bool = True


def is_malformed(record: Record) -> Mask:
    return ~np.asarray(np.isfinite(record.boxes_xywh_px).all(axis=1), np.bool_)


def is_without_area(record: Record) -> Mask:
    return np.asarray((record.boxes_xywh_px[:, 2:] <= 0).any(axis=1), np.bool_)


def is_unknown(record: Record) -> Mask:
    return np.asarray(record.labels == UNKNOWN, np.bool_)


def is_outside(record: Record) -> Mask:
    """Nothing of the box lies in the image."""
    low, high = corners_px(record)
    return is_judged(record) & ((high <= 0) | (low >= record.size_hw[::-1])).any(axis=1)


def is_over_the_edge(record: Record) -> Mask:
    """More than EDGE_PX of the box lie outside, but not all of it."""
    low, high = corners_px(record)
    leaves = ((low < -EDGE_PX) | (high > np.array(record.size_hw[::-1]) + EDGE_PX)).any(axis=1)
    return is_judged(record) & leaves & ~is_outside(record)


def is_judged(record: Record) -> Mask:
    """Boxes and an image with a size: only these can lie in or out."""
    return ~is_malformed(record) & ~is_without_area(record) & all(record.size_hw)


def is_repeated(record: Record) -> Mask:
    """The same box of the same class has been there before."""
    boxes = map(tuple, record.boxes_xywh_px.tolist())
    rows = list(zip(record.labels.tolist(), record.is_crowd.tolist(), boxes, strict=True))
    return np.array(been_before(rows), bool)


def is_crowd(record: Record) -> Mask:
    return record.is_crowd


def corners_px(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) low, (N, 2) high, as x, y."""
    return record.boxes_xywh_px[:, :2], record.boxes_xywh_px[:, :2] + record.boxes_xywh_px[:, 2:]


LEFT_OUT = (
    Rule("malformed box", is_malformed, "write bbox as four finite numbers x, y, width, height"),
    Rule("box without area", is_without_area, "delete it, or give it a width and a height above 0"),
    Rule("box outside the image", is_outside, "delete it; if there are many, boxes may belong to another image size"),
    Rule("unknown category", is_unknown, "add the category to the list or delete the annotation"),
    Rule("repeated box", is_repeated, "of the same class and place; one of them is used", is_fatal=False),
)
MENDED = (
    Rule("box over the edge", is_over_the_edge, "cut it at the image; boxes are x, y, width, height, not corners"),
)
INFORMATION = (Rule("crowd", is_crowd, "no target in training, ignored in evaluation", is_fatal=False),)


def problems_of_boxes(coco: CocoFile) -> list[Problem]:
    rules = (*LEFT_OUT, *MENDED, *INFORMATION)
    problems = [problem(rule.kind, found_by(rule, coco.records), rule.mend, rule.is_fatal) for rule in rules]
    empty = (record.file_name for record in coco.records if not len(record.labels))
    return [*problems, problem("image without boxes", empty, "used as background", is_fatal=False)]


def found_by(rule: Rule, records: Iterable[Record]) -> Iterable[str]:
    for record in records:
        for row in np.flatnonzero(rule.finds(record)):
            box = ", ".join(f"{value:g}" for value in record.boxes_xywh_px[row])
            annotation = f"{record.file_name}: annotation {record.annotation_ids[row]}"
            yield f"{annotation}, [{box}], image {size_text(record.size_hw)}"


# --- image files ---


def problems_of_images(coco: CocoFile, images: Path, progress: Progress | None) -> list[Problem]:
    records = coco.records
    states = read_states([images / record.file_name for record in records], progress)
    pairs = list(zip(records, states, strict=True))
    mends = {
        "missing image": f"copy it to {images}, or correct file_name",
        "unreadable image": "replace the file; it is empty, no image, or of a kind that OpenCV cannot read",
        "truncated image": "copy or download it again; its end is missing or broken",
    }
    problems = []
    for kind, mend in mends.items():
        hit = [(record, state) for record, state in pairs if state.fault == kind]
        found = (f"{record.file_name}: image {record.image_id} {state.detail}".rstrip() for record, state in hit)
        problems.append(problem(kind, found, mend, image_ids=[record.image_id for record, _ in hit]))
    return [*problems, size_problem(pairs), name_problem(records), unlisted(records, images)]


def size_problem(pairs: Iterable[tuple[Record, FileState]]) -> Problem:
    wrong = [(record, state) for record, state in pairs if not state.fault and state.size_hw != record.size_hw]
    found = []
    for record, state in wrong:
        turned = " (its EXIF turns it)" * (state.is_turned and state.size_hw == record.size_hw[::-1])
        sizes = f"file {size_text(state.size_hw)}{turned}, annotations {size_text(record.size_hw)}"
        found.append(f"{record.file_name}: {sizes}")
    mend = "correct width and height if the boxes fit the file; EXIF orientation is not applied: store pixels upright"
    return problem("size mismatch", found, mend, image_ids=[record.image_id for record, _ in wrong])


def name_problem(records: Sequence[Record]) -> Problem:
    again = repeats(records, [record.file_name for record in records])
    found = (f"{record.file_name}: image {record.image_id}" for record in again)
    image_ids = [record.image_id for record in again]
    return problem("duplicate file name", found, "keep one entry for each file", image_ids=image_ids)


def unlisted(records: Iterable[Record], images: Path) -> Problem:
    names = {record.file_name for record in records}
    files = (file for file in sorted(images.rglob("*")) if file.suffix.lower() in IMAGE_ENDINGS)
    found = (name for name in (file.relative_to(images).as_posix() for file in files) if name not in names)
    return problem("file without an entry", found, "not used", is_fatal=False)


def size_text(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}" if all(size_hw) else "of no size"


# --- what is left ---


def clean(coco: CocoFile, report: Report) -> CocoFile:
    """Without the images and annotations that the report names; boxes over the edge are cut."""
    dropped = {image_id for problem in report.problems for image_id in problem.image_ids}
    records = [clean_record(record) for record in coco.records if record.image_id not in dropped]
    counts = Counter(int(each) for record in records for each in record.annotation_ids)
    if any(count > 1 or annotation_id == 0 for annotation_id, count in counts.items()):
        records = renumbered(records)
    return replace(coco, records=records)


def clean_record(record: Record) -> Record:
    record = record.only(~np.logical_or.reduce([rule.finds(record) for rule in LEFT_OUT]))
    height, width = record.size_hw
    corner, size = record.boxes_xywh_px[:, :2], record.boxes_xywh_px[:, 2:]
    low, high = (xy.clip(0, [width, height]) for xy in (corner, corner + size))
    inside = ((low == corner) & (high == corner + size)).all(axis=1, keepdims=True)  # these keep their exact numbers
    boxes = np.where(inside, record.boxes_xywh_px, np.concatenate([low, high - low], axis=1))
    areas = np.minimum(record.areas_px2, np.where(inside[:, 0], np.inf, boxes[:, 2] * boxes[:, 3]))
    return replace(record, boxes_xywh_px=boxes, areas_px2=areas)


def renumbered(records: Iterable[Record]) -> list[Record]:
    """Annotation ids 1, 2, ... in order."""
    result, first = [], 1
    for record in records:
        ids = np.arange(first, first + len(record.labels), dtype=np.int64)
        result.append(replace(record, annotation_ids=ids))
        first += len(ids)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks every part of a data set folder; 1 if there is a problem, 2 if there is no data set."""
    parser = argparse.ArgumentParser(prog="python -m kit.data.check", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with images/{train,val} and annotations/instances_{train,val}.json")
    parser.add_argument("--json", type=Path, help="also write the reports here")
    options = parser.parse_args(arguments)
    try:
        splits = find_dataset(options.folder)
        parts: list[Split] = [splits.train, *([splits.val] if splits.val else []), *splits.others.values()]
        reports = [check_dataset(part.annotations, part.images) for part in parts]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(report.table() for report in reports))
    if options.json:
        write_json(options.json, [report.to_json() for report in reports], indent=1)
    return int(any(report.fatal for report in reports))


if __name__ == "__main__":
    sys.exit(main())
