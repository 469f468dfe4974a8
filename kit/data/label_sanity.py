"""Annotations that are worth a second look, found without a detector: of an odd size or shape, or two at one place.

A fixed camera shows a car at one place always at about one size, whatever the lens does. So where a camera has enough
boxes of a class, each is compared with the nearest ones of its class in the images of that camera; elsewhere, with its
class as a whole.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from kit.data.census import UNKNOWN_CAMERA, paired_overlap, rows_by

NEIGHBOURS = 20  # boxes of the class around the same place
LEAST_BOXES = 60  # of a class in a camera; with fewer the neighbours are too far
FACTOR = 2.5  # as large, small, wide or narrow as the neighbours
SPREADS = 5.0  # the same where there is no place: in robust standard deviations of the class
SAME_PLACE_IOU = 0.7
TINY_PX = 4.0  # shorter side
HUGE_SHARE = 0.5  # of the image
MOST_HUGE = 0.02  # of all boxes; in a set of close-ups a huge one is nothing odd
LEAST_OF_CLASS = 20  # boxes that tell what is usual in a class
COLUMNS = ["kind", "strength", "why"]


def suspects(objects: pd.DataFrame) -> pd.DataFrame:
    """Rows of objects_table with kind, strength (comparable within a kind) and why, strongest first within each kind.
    A box may be there for several reasons."""
    found = [of_an_odd_size(objects), of_an_odd_shape(objects), *at_one_place(objects), tiny(objects), huge(objects)]
    table = pd.concat([each for each in found if len(each)] or found[:1])
    return table.sort_values(["kind", "strength"], ascending=[True, False], kind="stable").reset_index(drop=True)


def marked(
    objects: pd.DataFrame, rows: np.ndarray, kind: str, strength: np.ndarray, why: Sequence[str]
) -> pd.DataFrame:
    return objects.iloc[rows].assign(kind=kind, strength=strength, why=list(why))


def of_an_odd_size(objects: pd.DataFrame) -> pd.DataFrame:
    return unlike_others(objects, np.log(objects["side_px"].to_numpy()), "odd size", ("larger", "smaller"))


def of_an_odd_shape(objects: pd.DataFrame) -> pd.DataFrame:
    return unlike_others(objects, np.log(objects["aspect"].to_numpy()), "odd shape", ("wider", "narrower"))


def unlike_others(objects: pd.DataFrame, values: np.ndarray, kind: str, words: tuple[str, str]) -> pd.DataFrame:
    """values: (M,), logarithms."""
    difference, limit, has_place = np.zeros(len(objects)), np.full(len(objects), np.inf), np.zeros(len(objects), bool)
    centres = objects[["x1", "y1"]].to_numpy() / 2 + objects[["x2", "y2"]].to_numpy() / 2  # (M, 2)
    for rows in rows_by(objects, ["label"]).values():
        difference[rows] = values[rows] - np.median(values[rows])
        if len(rows) >= LEAST_OF_CLASS:
            limit[rows] = max(SPREADS * 1.4826 * float(np.median(np.abs(difference[rows]))), np.log(FACTOR))
    for (camera, _), rows in rows_by(objects, ["camera", "label"]).items():
        if camera != UNKNOWN_CAMERA and len(rows) >= LEAST_BOXES:
            _, around = cKDTree(centres[rows]).query(centres[rows], k=NEIGHBOURS + 1)  # (n, NEIGHBOURS + 1)
            difference[rows] = values[rows] - np.median(values[rows][np.asarray(around)[:, 1:]], axis=1)
            limit[rows], has_place[rows] = np.log(FACTOR), True
    hit = np.flatnonzero(np.abs(difference) > limit)
    why = [
        f"{np.exp(abs(difference[row])):.1f} x {words[int(difference[row] < 0)]} than "
        + ("its class is here" if has_place[row] else "usual in its class")
        for row in hit
    ]
    return marked(objects, hit, kind, np.abs(difference[hit]), why)


def at_one_place(objects: pd.DataFrame) -> list[pd.DataFrame]:
    """Boxes of two classes nearly on each other, and the same box twice; the later one of each pair is marked."""
    boxes_xyxy_px = objects[["x1", "y1", "x2", "y2"]].to_numpy()
    boxes_xywh_px = np.concatenate([boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]], axis=1)
    labels, names = objects["label"].to_numpy(), objects["name"].to_numpy(object)
    pairs = []
    for rows in rows_by(objects, ["part", "image_id"]).values():
        overlap = np.triu(paired_overlap(boxes_xywh_px[rows]))
        pairs += [(rows[b], rows[a], overlap[a, b]) for a, b in np.argwhere(overlap >= SAME_PLACE_IOU)]
    kinds: list[tuple[str, Callable[[int, int], bool]]] = [
        ("two classes at one place", lambda one, other: labels[one] != labels[other]),
        ("twice at one place", lambda one, other: labels[one] == labels[other]),
    ]
    tables = []
    for kind, belongs in kinds:
        own = [pair for pair in pairs if belongs(pair[0], pair[1])]
        why = [f"IoU {iou:.2f} with a {names[other]}" for _, other, iou in own]
        rows, strength = np.array([pair[0] for pair in own], int), np.array([pair[2] for pair in own], float)
        tables.append(marked(objects, rows, kind, strength, why))
    return tables


def tiny(objects: pd.DataFrame) -> pd.DataFrame:
    shorter = np.minimum((objects["x2"] - objects["x1"]).to_numpy(), (objects["y2"] - objects["y1"]).to_numpy())
    hit = np.flatnonzero(shorter < TINY_PX)
    return marked(objects, hit, "tiny", 1 / shorter[hit], [f"{shorter[row]:.1f} px at its shorter side" for row in hit])


def huge(objects: pd.DataFrame) -> pd.DataFrame:
    share = (objects["side_px"] ** 2 / (objects["height"] * objects["width"])).to_numpy()
    is_huge = share > HUGE_SHARE
    hit = np.flatnonzero(is_huge & (is_huge.mean() <= MOST_HUGE if len(share) else False))
    return marked(objects, hit, "huge", share[hit], [f"covers {share[row]:.0%} of the image" for row in hit])
