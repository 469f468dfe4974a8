"""What is odd about labels: outliers in size, shape and place, classes of too few boxes, parts that do not match."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.data.census import UNKNOWN_CAMERA
from kit.data.check_labels import class_counts, corners_px, is_learnt, is_repeated
from kit.data.check_report import ClassCount, Finding, Found, Problem
from kit.data.check_table import Table
from kit.data.label_sanity import suspects
from kit.data.views import view_of

FEWEST = 20  # boxes from which a class can be learnt
TIMES = 100  # so many boxes more of the most frequent class are an imbalance
MOST_BOXES = 3000  # of an image whose boxes are compared with each other

OUTLIERS = {  # kind of kit.data.label_sanity: mend
    "odd size": "look whether the box or the class is right",
    "odd shape": "look whether the box or the class is right",
    "two classes at one place": "look which of them is right; delete the other",
    "twice at one place": "look whether these are two objects; delete one if not",
    "tiny": "look whether it can be seen at all; delete it if not",
    "huge": "look whether it is one object",
}


# --- outliers ---


def problems_of_outliers(table: Table, view_pattern: str | None = None) -> list[Problem]:
    """view_pattern: what tells the camera of a file name; boxes are compared at one place of one camera then."""
    is_own = is_learnt(table) & ~is_repeated(table.rows)
    counts = np.bincount(table.image_rows[is_own], minlength=len(table.image_ids))
    is_full = counts > MOST_BOXES
    is_own &= ~np.append(is_full, False)[table.image_rows]
    odd = suspects(objects_of(table, np.flatnonzero(is_own), view_pattern))
    problems = [outliers(table, kind, mend, odd[odd["kind"] == kind]) for kind, mend in OUTLIERS.items()]
    kind, told = "image with very many boxes", f"more than {MOST_BOXES}; they are not compared with each other"
    mend = "look whether it is right"
    return [*problems, Problem(kind, table.found_images(kind, is_full, told), mend, is_fatal=False)]


def outliers(table: Table, kind: str, mend: str, odd: pd.DataFrame) -> Problem:
    """The strongest first."""
    names, why, labels = table.names, odd["why"].tolist(), odd["label"].tolist()
    rows = odd["row"].to_numpy(np.int64)

    def finding_of(place: int) -> Finding:
        return table.about_annotation(kind, int(rows[place]), f"{names[labels[place]]}: {why[place]}")

    return Problem(kind, Found(np.arange(len(rows)), finding_of), mend, is_fatal=False)


def objects_of(table: Table, rows: np.ndarray, view_pattern: str | None) -> pd.DataFrame:
    """The columns of kit.data.census.objects_table that tell outliers, and the rows (n,) of the table."""
    own, images = table.rows.only(rows), table.image_rows[rows]
    low, high = corners_px(own)
    sizes_hw = np.where(own.sizes_hw > 0, own.sizes_hw, np.nan)  # no share of what has no size
    sides, names = own.boxes_xywh_px[:, 2:], np.array(table.names, dtype=object)
    columns = {"row": rows, "part": table.part, "image_id": images, "label": own.labels, "name": names[own.labels]}
    columns |= {"camera": cameras(table, view_pattern)[images], "height": sizes_hw[:, 0], "width": sizes_hw[:, 1]}
    columns |= {"x1": low[:, 0], "y1": low[:, 1], "x2": high[:, 0], "y2": high[:, 1]}
    columns |= {"side_px": np.sqrt(sides.prod(axis=1)), "aspect": sides[:, 0] / sides[:, 1]}
    return pd.DataFrame(columns)


def cameras(table: Table, view_pattern: str | None) -> np.ndarray:
    """(I,) object: of each image."""
    if view_pattern is None:
        return np.full(len(table.image_ids), UNKNOWN_CAMERA, object)
    views = [view_of(name, view_pattern) for name in table.file_names]
    return np.array([view.camera if view else UNKNOWN_CAMERA for view in views], object)


# --- classes ---


def problems_of_classes(part: str, classes: Sequence[ClassCount]) -> list[Problem]:
    """Classes that cannot be learnt, or hardly."""
    most = max(classes, key=lambda each: each.boxes, default=None)
    if most is None or not most.boxes:  # images without labels
        return []
    none = [Finding("class without boxes", part, detail=each.name) for each in classes if not each.boxes]
    rare = sorted((each for each in classes if is_rare(each, most)), key=lambda each: each.boxes)
    told = [Finding("class imbalance", part, detail=imbalance(each, most)) for each in rare]
    rare_mend = (
        "label more of it, repeat its images, or use kit.data.cutouts; weigh the classes in the choice of a model"
    )
    return [
        Problem("class without boxes", none, "label some, or take the class out", is_fatal=False),
        Problem("class imbalance", told, rare_mend, is_fatal=False),
    ]


def is_rare(one: ClassCount, most: ClassCount) -> bool:
    """Too few in itself, or beside the most frequent."""
    return 0 < one.boxes < FEWEST or 0 < one.boxes * TIMES <= most.boxes


def imbalance(one: ClassCount, most: ClassCount) -> str:
    times = most.boxes / one.boxes
    beside = f"; {times:.0f} times as many of {most.name}" if times >= 2 else ""
    return f"{one.name}: {boxes_text(one)} in {one.images} image{'s' * (one.images != 1)}{beside}"


def boxes_text(one: ClassCount) -> str:
    return f"{one.boxes} box{'es' * (one.boxes != 1)}"


def problems_across(tables: Sequence[Table]) -> list[Problem]:
    """Categories that are not the same in all parts, and classes that the first part, mostly train, does not show."""
    different, unseen = list[Finding](), list[Finding]()
    kinds = ("categories differ between parts", "class without boxes in the first part")
    for table in tables[1:]:
        first = tables[0]
        one, other = (dict(reversed(each.listed_categories)) for each in (first, table))
        for category_id in sorted(one.keys() | other.keys()):
            names = one.get(category_id, "not listed"), other.get(category_id, "not listed")
            if names[0] != names[1]:
                detail = f"category {category_id} is {names[1]} in {table.part}, {names[0]} in {first.part}"
                different.append(Finding(kinds[0], table.part, detail=detail))
        learnt = {each.name for each in class_counts(first) if each.boxes}
        own = [each for each in class_counts(table) if each.boxes and each.name not in learnt]
        unseen += [Finding(kinds[1], table.part, detail=f"{each.name}: {boxes_text(each)}") for each in own]
    mend = "give all parts one list of categories: kit.data.merge maps them by name"
    return [
        Problem(kinds[0], different, mend),
        Problem(kinds[1], unseen, "it cannot be learnt: split anew with kit.data.split", is_fatal=False),
    ]
