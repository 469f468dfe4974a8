"""The entries of COCO files as types, decoded straight from text; plain objects made into them; and arrays of them.

A type takes what files mostly hold. What it does not take is read as tolerantly as the check of a data set wants, and
an entry that both ways can read is the same by both.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from kit.data.columns import in_bytes
from kit.data.record import finite

LEAST_ID, MOST_ID = 1 - (1 << 63), (1 << 63) - 1
NO_CATEGORY = LEAST_ID - 1  # of an annotation that names none, or none that is a whole number
NO_BOX = (float("nan"),) * 4
NOTHING = msgspec.Raw(b"")
UNTYPED = (msgspec.MsgspecError, ValueError, RecursionError)  # raised by what does not fit a type

Whole = Annotated[int, msgspec.Meta(ge=LEAST_ID, le=MOST_ID)]
Block = tuple[dict[str, np.ndarray], list[bytes]]  # columns, and a text of each row


class Image(msgspec.Struct, gc=False):
    id: Whole
    file_name: str
    height: Whole | None = 0
    width: Whole | None = 0


class Annotation(msgspec.Struct, gc=False):
    image_id: Whole
    category_id: Whole | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: bool | int | None = 0
    id: Whole | float | str | None = None
    segmentation: msgspec.Raw = NOTHING


class File(msgspec.Struct):
    """A small file, in one go."""

    images: list[Image]
    annotations: list[Annotation] | None = None
    categories: list[dict[str, Any]] | None = None
    info: Any = None


def typed_image(entry: Mapping[str, Any]) -> Image:
    return Image(int(entry["id"]), str(entry["file_name"]), side(entry.get("height")), side(entry.get("width")))


def typed_annotation(entry: Mapping[str, Any]) -> Annotation:
    area = entry.get("area")
    return Annotation(
        int(entry["image_id"]),
        category_of(entry.get("category_id")),
        four_numbers(entry.get("bbox")),
        finite(area) if isinstance(area, int | float) else None,
        bool(entry.get("iscrowd", 0)),
        int(entry["id"]) if isinstance(entry.get("id"), int) else None,
        msgspec.Raw(text_of(entry.get("segmentation"))),
    )


def side(value: Any) -> int:
    """A height or width as it stands; 0 where it is no number."""
    try:
        length = int(value or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
    return length if LEAST_ID <= length <= MOST_ID else 0


def category_of(value: object) -> int | None:
    """A number that may be one of the file's categories."""
    if not isinstance(value, int | float) or (isinstance(value, float) and not value.is_integer()):
        return None
    return int(value) if LEAST_ID <= value <= MOST_ID else None


def four_numbers(box: object) -> tuple[float, float, float, float]:
    """A bbox entry as it stands, or four NaN where it is no list of four numbers."""
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        return finite(box[0]), finite(box[1]), finite(box[2]), finite(box[3])
    return NO_BOX


def text_of(segmentation: object) -> bytes:
    """Polygons or run lengths in JSON; nothing for what is neither."""
    return json.dumps(segmentation, default=plain).encode() if isinstance(segmentation, list | dict) else b""


def plain(value: object) -> object:
    """What stands in memory and not in files: compressed run lengths as pycocotools makes them, arrays."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise ValueError(f"segmentation: expected numbers or text, got {type(value).__name__}")


# --- arrays of them ---


def image_block(images: Sequence[Image]) -> Block:
    sizes = [(each.height or 0, each.width or 0) for each in images]
    columns = {
        "image_ids": np.array([each.id for each in images], np.int64),
        "sizes_hw": np.array(sizes, np.int64).reshape(-1, 2),
    }
    return columns, [in_bytes(each.file_name) for each in images]


def annotation_block(entries: Sequence[Annotation]) -> Block:
    count = len(entries)
    numbers = chain.from_iterable([each.bbox or NO_BOX for each in entries])
    boxes = np.fromiter(numbers, np.float64, 4 * count).reshape(-1, 4)
    categories = [NO_CATEGORY if each.category_id is None else each.category_id for each in entries]
    columns = {
        "image_ids": np.fromiter([each.image_id for each in entries], np.int64, count),
        "category_ids": np.fromiter(categories, np.int64, count),
        "boxes_xywh_px": boxes,
        "is_crowd": np.fromiter([bool(each.iscrowd) for each in entries], bool, count),
        "annotation_ids": np.fromiter([each.id if type(each.id) is int else 0 for each in entries], np.int64, count),
        "areas_px2": areas_of([each.area for each in entries], boxes),
    }
    return columns, [raw_text(each.segmentation) for each in entries]


def areas_of(areas_px2: list[float | None], boxes_xywh_px: np.ndarray) -> np.ndarray:
    """As they stand, of the boxes where there is none."""
    found = np.array(areas_px2, np.float64)  # NaN for None
    if None in areas_px2:
        is_missing = np.array([area is None for area in areas_px2], bool)
        with np.errstate(invalid="ignore", over="ignore"):  # boxes of no numbers
            found[is_missing] = boxes_xywh_px[is_missing, 2] * boxes_xywh_px[is_missing, 3]
    return found


def raw_text(segmentation: msgspec.Raw) -> bytes:
    if segmentation is NOTHING:
        return b""
    text = bytes(segmentation)
    return text if text not in (b"[]", b"null", b"{}") else b""


@dataclass(frozen=True)
class Kind:
    """One of the lists of a file."""

    many: Any  # decoder of a list of entries
    one: Any  # decoder of an entry
    of_plain: Callable[[Mapping[str, Any]], Any]
    block: Callable[[Sequence[Any]], Block]


KINDS = {
    "images": Kind(msgspec.json.Decoder(list[Image]), msgspec.json.Decoder(Image), typed_image, image_block),
    "annotations": Kind(
        msgspec.json.Decoder(list[Annotation]), msgspec.json.Decoder(Annotation), typed_annotation, annotation_block
    ),
}
TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
ANYTHING = msgspec.json.Decoder(msgspec.Raw)
