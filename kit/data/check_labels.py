"""What is wrong with the ids and the boxes of one COCO file, told without its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.data.check_report import SIDE_EDGES_PX as EDGES_PX
from kit.data.check_report import ClassCount, Finding, Found, Problem
from kit.data.check_table import Rows, Table, again
from kit.data.coco import UNKNOWN

EDGE_PX = 1.0  # boxes may leave the image by so much: labels of inclusive pixels do. What is outside is cut anyway

Mask = NDArray[np.bool_]  # (N,), one for each box


def size_text(size_hw: Sequence[int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}" if all(size_hw) else "of no size"


# --- ids ---


def problems_of_ids(table: Table) -> list[Problem]:
    is_zero, is_stray = table.annotation_ids == 0, table.image_rows < 0
    number_them = "number the annotations 1, 2, ..."
    return [
        Problem(
            "duplicate image id",
            table.found_images("duplicate image id", table.image_is_again, "this id was there before"),
            "give every image its own id; only the first of each is used",
        ),
        *problems_of_categories(table),
        Problem(
            "image missing from the list",
            strays(table, "image missing from the list", is_stray),
            "add the image to the list or delete its annotations",
        ),
        Problem(
            "duplicate annotation id",
            table.found("duplicate annotation id", again(table.annotation_ids) & ~is_zero, "this id was there before"),
            number_them,
        ),
        Problem(
            "annotation id 0 or none",
            table.found("annotation id 0 or none", is_zero),
            f"{number_them}: with an id of 0 the official F1 and AP come out wrong",
        ),
    ]


def strays(table: Table, kind: str, is_stray: Mask) -> Sequence[Finding]:
    image_ids = table.entries.annotations.image_ids

    def finding_of(row: int) -> Finding:
        return table.about_annotation(kind, row, f"image {image_ids[row]} is not listed")

    return Found(np.flatnonzero(is_stray), finding_of)


def problems_of_categories(table: Table) -> list[Problem]:
    ids, names = ([each[row] for each in table.listed_categories] for row in (0, 1))
    kinds = {
        "duplicate category id": (again(ids), "give every category its own id", True),
        "duplicate category name": (again(names) & ~again(ids), "merge the two, or name them apart", False),
    }
    return [
        Problem(kind, [of_category(table, kind, row) for row in np.flatnonzero(is_hit).tolist()], mend, is_fatal)
        for kind, (is_hit, mend, is_fatal) in kinds.items()
    ]


def of_category(table: Table, kind: str, row: int) -> Finding:
    return Finding(kind, table.part, detail="category {}, {}".format(*table.listed_categories[row]))


# --- boxes: each rule tells the boxes it holds for, as (N,) bool ---


@dataclass(frozen=True)
class Rule:
    kind: str
    finds: Callable[[Rows], Mask]
    mend: str
    is_fatal: bool = True


def is_malformed(rows: Rows) -> Mask:
    return ~np.asarray(np.isfinite(rows.boxes_xywh_px).all(axis=1), np.bool_)


def is_without_area(rows: Rows) -> Mask:
    return np.asarray((rows.boxes_xywh_px[:, 2:] <= 0).any(axis=1), np.bool_)


def is_unknown(rows: Rows) -> Mask:
    return np.asarray(rows.labels == UNKNOWN, np.bool_)


def is_outside(rows: Rows) -> Mask:
    """Nothing of the box lies in the image."""
    low, high = corners_px(rows)
    return is_judged(rows) & ((high <= 0) | (low >= rows.sizes_hw[:, ::-1])).any(axis=1)


def is_over_the_edge(rows: Rows) -> Mask:
    """More than EDGE_PX of the box lie outside, but not all of it."""
    low, high = corners_px(rows)
    leaves = ((low < -EDGE_PX) | (high > rows.sizes_hw[:, ::-1] + EDGE_PX)).any(axis=1)
    return is_judged(rows) & leaves & ~is_outside(rows)


def is_judged(rows: Rows) -> Mask:
    """Boxes and an image with a size: only these can lie in or out."""
    return ~is_malformed(rows) & ~is_without_area(rows) & (rows.sizes_hw > 0).all(axis=1)


def is_repeated(rows: Rows) -> Mask:
    """The same box of the same class has been there before in its image."""
    keys = {"image": rows.images, "label": rows.labels, "is_crowd": rows.is_crowd}
    keys |= {str(column): rows.boxes_xywh_px[:, column] for column in range(4)}
    return np.asarray(pd.DataFrame(keys).duplicated(), np.bool_) & ~is_malformed(rows)


def is_crowd(rows: Rows) -> Mask:
    return rows.is_crowd


def corners_px(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) low, (N, 2) high, as x, y."""
    return rows.boxes_xywh_px[:, :2], rows.boxes_xywh_px[:, :2] + rows.boxes_xywh_px[:, 2:]


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


def is_left_out(rows: Rows) -> Mask:
    return np.logical_or.reduce([rule.finds(rows) for rule in LEFT_OUT])


def cut_boxes(rows: Rows) -> np.ndarray:
    """Boxes cut at their images; those that lie inside keep their exact numbers -> (N, 4) xywh px."""
    corner, size = rows.boxes_xywh_px[:, :2], rows.boxes_xywh_px[:, 2:]
    limits = np.where(rows.sizes_hw > 0, rows.sizes_hw, np.inf)[:, ::-1]
    low, high = (xy.clip(0, limits) for xy in (corner, corner + size))
    inside_all = ((low == corner) & (high == corner + size)).all(axis=1, keepdims=True)
    result: np.ndarray = np.where(inside_all, rows.boxes_xywh_px, np.concatenate([low, high - low], axis=1))
    return result


def is_learnt(table: Table) -> Mask:
    """(N,) what a detector can learn: of a known class and image, no crowd, with an area."""
    rows = table.rows
    is_box = (rows.boxes_xywh_px[:, 2:] > 0).all(axis=1) & ~is_malformed(rows)
    return np.asarray(is_box & (rows.labels != UNKNOWN) & ~rows.is_crowd & (table.image_rows >= 0), np.bool_)


def problems_of_boxes(table: Table) -> list[Problem]:
    """Of the annotations of listed images."""
    is_listed = table.image_rows >= 0
    own, places = table.rows.only(is_listed), np.flatnonzero(is_listed)
    problems = []
    for rule in (*LEFT_OUT, *MENDED, *INFORMATION):
        is_hit = np.zeros(len(is_listed), bool)
        is_hit[places] = rule.finds(own)
        problems.append(Problem(rule.kind, found_boxes(table, rule.kind, is_hit), rule.mend, rule.is_fatal))
    counts = np.bincount(table.image_rows[is_listed], minlength=len(table.image_ids))
    empty = table.found_images("image without boxes", (counts == 0) & ~table.image_is_again)
    return [*problems, Problem("image without boxes", empty, "used as background", is_fatal=False)]


def found_boxes(table: Table, kind: str, is_hit: Mask) -> Sequence[Finding]:
    """With the size of the image, which tells boxes of another size or form."""

    def finding_of(row: int) -> Finding:
        return table.about_annotation(kind, row, f"image {size_text(table.rows.sizes_hw[row].tolist())}")

    return Found(np.flatnonzero(is_hit), finding_of)


def class_counts(table: Table) -> list[ClassCount]:
    """Of each class, in order of its label."""
    rows, images = table.rows.only(own := is_learnt(table)), table.image_rows[own]
    sides_px = np.sqrt(rows.boxes_xywh_px[:, 2:].prod(axis=1))
    bins = np.digitize(sides_px, EDGES_PX[1:-1])
    places = len(EDGES_PX) - 1
    pairs = np.unique(images * len(table.names) + rows.labels)  # of an image and a class
    sides = np.bincount(rows.labels * places + bins, minlength=places * len(table.names)).reshape(-1, places)
    seen_in = np.bincount(pairs % max(len(table.names), 1), minlength=len(table.names))
    return [
        ClassCount(name, int(own.sum()), int(images), own.tolist())
        for name, own, images in zip(table.names, sides, seen_in, strict=True)
    ]
