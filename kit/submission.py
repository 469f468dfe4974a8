"""The competition's file: checked entry by entry, zipped in one step, and remembered in the log."""

import csv
import datetime
import io
import json
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit.files import atomic, most_unpacked, one_line, read_bytes, read_json, write_text

KEYS = ("image_id", "category_id", "bbox", "score")
TOLERANCE_PX = 0.01  # by which a box may reach over the edge: rounding of x + w
EXAMPLES = 3  # of each kind of problem
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)  # damaged, encrypted
Images = Sequence[Mapping[str, Any]]  # entries of a COCO file: id, file_name, width, height
LOG_COLUMNS = ("date", "commit", "params", "local_score", "public_score", "note")


@dataclass(frozen=True)
class Rules:
    """What a submission must keep to."""

    sizes_hw: Mapping[int, tuple[int, int]]  # of every image of the competition, by image id
    category_ids: Sequence[int]
    max_per_class_image: int | None = 100  # what Track 4 and COCO count
    max_per_image: int | None = None
    allow_missing_images: bool = False  # an image without any detection


@dataclass(frozen=True)
class Competition:
    """All that differs between competitions; kit/competitions/ has one page for each."""

    name: str
    areas: Mapping[str, tuple[float, float]]  # what it calls small, medium and large, in square pixels
    view_pattern: str | None  # how file names tell camera and time of day, as kit.data.views.view_of takes it
    select_by: Literal["ap", "f1"]  # the metric that counts
    file_ending: str  # of the file that is sent
    rules: Callable[..., Rules]  # (images, category_ids of the data, **limits of Rules) -> what the file must keep to
    write: Callable[[Path | str, list[dict[str, Any]], Images, Rules], Path]  # COCO results, checked, to the file
    read: Callable[[Path | str, Images], Any]  # and back


def rules_of(images: Images, category_ids: Sequence[int], **limits: Any) -> Rules:
    """The ids of the data as they are; limits: the last three fields of Rules."""
    return Rules({image["id"]: (image["height"], image["width"]) for image in images}, category_ids, **limits)


def tidy(predictions: Sequence[Mapping[str, Any]], rules: Rules) -> list[dict[str, Any]]:
    """Boxes clipped to their image, those outside it left out, the highest scores up to the caps, no box twice.

    Falling scores within each image and class; the images in their order.
    """
    order = {image_id: row for row, image_id in enumerate(rules.sizes_hw)}
    unknown = sorted({entry["image_id"] for entry in predictions} - set(order))
    if unknown:
        raise ValueError(f"{len(unknown)} image ids are not of the competition, such as {unknown[0]}; leave them out")
    kept: list[dict[str, Any]] = []
    seen: set[tuple[Any, ...]] = set()
    of_image: Counter[int] = Counter()
    of_class: Counter[tuple[int, int]] = Counter()
    for entry in sorted(predictions, key=lambda entry: -entry["score"]):
        image_id, category_id = entry["image_id"], entry["category_id"]
        box = _clip(entry["bbox"], rules.sizes_hw[image_id])
        cell, place = (image_id, category_id), (image_id, category_id, *box)
        is_full = _reaches(of_image[image_id], rules.max_per_image) or _reaches(
            of_class[cell], rules.max_per_class_image
        )
        if min(box[2:]) <= 0 or place in seen or is_full:
            continue
        seen.add(place)
        of_image[image_id] += 1
        of_class[cell] += 1
        kept.append({"image_id": image_id, "category_id": category_id, "bbox": box, "score": entry["score"]})
    return sorted(kept, key=lambda entry: (order[entry["image_id"]], entry["category_id"]))


def _clip(box_xywh_px: Sequence[float], size_hw: tuple[int, int]) -> list[float]:
    """A box inside the image comes back as it is, bit by bit."""
    x, y, w, h = box_xywh_px
    height, width = size_hw
    left, top = max(x, 0.0), max(y, 0.0)
    w = w if x >= 0 and x + w <= width else min(x + w, width) - left
    h = h if y >= 0 and y + h <= height else min(y + h, height) - top
    return [left, top, w, h]


def _reaches(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


# Checking.


def validate(predictions: Any, rules: Rules) -> list[str]:
    """All reasons to refuse these entries, a few of each kind; none: they may be sent."""
    if not isinstance(predictions, list):
        return [f"a submission must be a list of entries, got {type(predictions).__name__}"]
    problems: dict[str, list[str]] = {}
    sound = []
    for row, entry in enumerate(predictions):
        found = list(_entry_problems(entry, rules))
        for kind, detail in found:
            problems.setdefault(kind, []).append(f"entry {row}: {kind}, {detail}")
        if not found:
            sound.append((row, entry))
    for kind, reason in _list_problems(sound, rules):
        problems.setdefault(kind, []).append(reason)
    return [line for reasons in problems.values() for line in _few(reasons)]


def _few(reasons: list[str]) -> list[str]:
    more = len(reasons) - EXAMPLES
    return reasons[:EXAMPLES] + ([f"and {more} more like the last"] if more > 0 else [])


def _entry_problems(entry: Any, rules: Rules) -> Iterator[tuple[str, str]]:
    """Kind and detail of each thing wrong with one entry."""
    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        keys = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        yield f"must be a dict with the keys {', '.join(KEYS)} and no other", f"got {keys}"
        return
    for key, known in (("image_id", rules.sizes_hw), ("category_id", rules.category_ids)):
        value = entry[key]
        if type(value) is not int:
            yield f"{key} must be int", f"got {value!r} ({type(value).__name__})"
        elif value not in known:
            yield f"{key} must be one of the competition", f"got {value}"
    score, box = entry["score"], entry["bbox"]
    if not _is_finite(score):
        yield "score must be a finite number", f"got {score!r} ({type(score).__name__})"
    elif not 0 <= score <= 1:
        yield "score must lie in 0..1", f"got {score}"
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_finite, box)):
        yield "bbox must be four finite numbers x, y, w, h", f"got {box!r}"
        return
    if min(box[2:]) <= 0:
        yield "width and height must be above 0", f"got bbox {list(box)}"
    elif type(entry["image_id"]) is int and entry["image_id"] in rules.sizes_hw:
        height, width = rules.sizes_hw[entry["image_id"]]
        x, y, w, h = box
        over_px = max(-x, -y, x + w - width, y + h - height)
        if over_px > TOLERANCE_PX:
            yield "bbox must lie inside the image", f"got {list(box)}, the image is {width} wide, {height} high"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _list_problems(entries: list[tuple[int, dict[str, Any]]], rules: Rules) -> Iterator[tuple[str, str]]:
    """What is wrong between entries (of rows that are sound in themselves)."""
    first_row: dict[tuple[Any, ...], int] = {}
    for row, entry in entries:
        place = (entry["image_id"], entry["category_id"], *entry["bbox"])
        first = first_row.setdefault(place, row)
        if first != row:
            yield "twice", f"entry {row}: same image, category and bbox as entry {first}"
    of_image = Counter(entry["image_id"] for _, entry in entries)
    of_class = Counter((entry["image_id"], entry["category_id"]) for _, entry in entries)
    for image_id, count in of_image.items():
        if rules.max_per_image is not None and count > rules.max_per_image:
            yield "image cap", f"image {image_id}: {count} entries, at most {rules.max_per_image} allowed"
    for (image_id, category_id), count in of_class.items():
        if rules.max_per_class_image is not None and count > rules.max_per_class_image:
            most = rules.max_per_class_image
            yield "class cap", f"image {image_id}: {count} entries of category {category_id}, at most {most} allowed"
    missing = [] if rules.allow_missing_images else [i for i in rules.sizes_hw if i not in of_image]
    if missing:
        examples = ", ".join(map(str, missing[:EXAMPLES])) + (", ..." if len(missing) > EXAMPLES else "")
        yield (
            "missing",
            f"{len(missing)} of {len(rules.sizes_hw)} images have no valid entry: {examples}; "
            "where nothing was found, say so with allow_missing_images",
        )


def validate_file(path: Path | str, rules: Rules) -> list[str]:
    """As validate, for a .zip, .json or .json.gz that lies somewhere; what cannot be read is a reason, too."""
    try:
        return validate(read_submission(path), rules)
    except ValueError as error:
        return [str(error)]


def read_submission(path: Path | str) -> Any:
    """The JSON value of a submission: a .zip, .json or .json.gz."""
    path = Path(path)
    if path.suffix != ".zip":
        return read_json(path)
    data = read_bytes(path)
    try:
        return json.loads(_unzip(data))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a zip of one JSON, {one_line(error)}; is it cut off, or another format?"
        ) from error


def _unzip(data: bytes) -> bytes:
    """The one member of a zip, in memory: nothing is unpacked to the disk, whatever its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) != 1 or not _is_member_name(members[0].filename):
                raise ValueError(f"it holds {[member.filename for member in members] or 'nothing'}")
            most = most_unpacked(members[0].compress_size)
            if members[0].file_size > most:
                raise ValueError(f"it unpacks to more than {most >> 20} MiB")
            return archive.read(members[0])
    except UNREADABLE as error:
        raise ValueError(str(error)) from error


def _is_member_name(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".") and not set(name) & set("/\\:\0")


# Writing.


def write_submission(
    path: Path | str, predictions: list[dict[str, Any]], rules: Rules, *, member: str | None = None
) -> Path:
    """The zip, or a ValueError with every reason and no file. The same entries give the same bytes.

    member: name of the JSON inside; None: that of the zip.
    """
    path = Path(path)
    member = f"{path.stem}.json" if member is None else member
    if path.suffix != ".zip" or not _is_member_name(member):
        raise ValueError(f"expected a path ending in .zip and a plain .json name inside, got {path} and {member!r}")
    refuse_invalid(path, predictions, rules)
    entries = [{key: entry[key] for key in KEYS} for entry in predictions]
    data = json.dumps(entries, separators=(",", ":"), allow_nan=False).encode()
    information = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))  # no clock in the bytes
    information.compress_type = zipfile.ZIP_DEFLATED
    information.external_attr = 0o644 << 16
    information.create_system = 3  # Unix, wherever it is written
    with atomic(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(information, data)
        if _unzip(temporary.read_bytes()) != data:
            raise OSError(f"{path}: what was written reads back differently; is the disk sound?")
    return path


def refuse_invalid(path: Path | str, predictions: list[dict[str, Any]], rules: Rules) -> None:
    """ValueError with every reason; path only names the file that was to be."""
    reasons = validate(predictions, rules)
    if reasons:
        raise ValueError(f"{path}: not written, {len(reasons)} reasons:\n  " + "\n  ".join(reasons))


def append_log(
    path: Path | str,
    *,
    commit: str,
    params: str,
    local_score: float | None = None,
    public_score: float | None = None,
    note: str = "",
    date: str | None = None,
) -> Path:
    """One more line in submissions/log.csv, which begins with its header; date: None is today."""
    path = Path(path)
    before = read_bytes(path).decode() if path.exists() else ""
    rows: list[Sequence[str]] = [] if before else [LOG_COLUMNS]
    if before and next(csv.reader(io.StringIO(before))) != list(LOG_COLUMNS):
        raise ValueError(f"{path}: the first line must be {','.join(LOG_COLUMNS)}, got {before.splitlines()[0]!r}")
    scores = ["" if score is None else f"{score:.6g}" for score in (local_score, public_score)]
    rows.append((date or datetime.date.today().isoformat(), commit, params, *scores, note))
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return write_text(path, before + ("" if before.endswith("\n") or not before else "\n") + lines.getvalue())
