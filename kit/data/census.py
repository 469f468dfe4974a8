"""Tables of what a data set holds: one row an image or an object, and counts by camera, time of day and class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kit.data.coco import CocoFile, Record
from kit.data.near_duplicates import NEAR_BITS, Nearest
from kit.data.views import view_of

UNKNOWN_CAMERA = "-"  # where the file name tells none
NEIGHBOUR_FRAMES = 5  # frames of one camera and scene so near in number show the same vehicles
FIRST = ("train", "val", "M", "A", "E", "N")
SCENES = {"M": "morning", "A": "afternoon", "E": "evening", "N": "night"}


def images_table(files: Mapping[str, CocoFile], view_pattern: str | None) -> pd.DataFrame:
    """One row an image: part, image_id, file_name, camera, scene, frame, height, width, boxes."""
    rows = []
    for part, coco in files.items():
        for record in coco.records:
            view = view_of(record.file_name, view_pattern)
            told = (view.camera, view.scene, view.frame) if view else (UNKNOWN_CAMERA, "", -1)
            boxes = int(is_object(record).sum())
            rows.append((part, record.image_id, record.file_name, *told, *record.size_hw, boxes))
    columns = ["part", "image_id", "file_name", "camera", "scene", "frame", "height", "width", "boxes"]
    return pd.DataFrame(rows, columns=columns)


def objects_table(files: Mapping[str, CocoFile], view_pattern: str | None) -> pd.DataFrame:
    """One row an object that a detector can learn, with what is known of its image.

    x1, y1, x2, y2, side_px (square root of the area); aspect: width / height; radius: of the box centre from the image
    centre, 1 = the nearest edge; overlap: largest IoU with another object of its class in its image.
    """
    images = images_table(files, view_pattern)
    records = [record for coco in files.values() for record in coco.records]
    stays = [is_object(record) for record in records]
    boxes_xywh_px = stacked([record.boxes_xywh_px[own] for record, own in zip(records, stays, strict=True)], (0, 4))
    own_labels = [record.labels[own] for record, own in zip(records, stays, strict=True)]
    annotation_ids = [record.annotation_ids[own] for record, own in zip(records, stays, strict=True)]
    overlaps = [
        overlap_in_class(record.boxes_xywh_px[own], record.labels[own])
        for record, own in zip(records, stays, strict=True)
    ]
    labels = stacked(own_labels, (0,)).astype(np.int64)
    names = np.array(next(iter(files.values())).names, dtype=object)

    table = images.loc[images.index.repeat(images["boxes"])].reset_index(drop=True)
    corner, size = boxes_xywh_px[:, :2], boxes_xywh_px[:, 2:]
    sizes_wh = table[["width", "height"]].to_numpy(float)
    table = table.assign(
        annotation_id=stacked(annotation_ids, (0,)).astype(np.int64),
        label=labels,
        name=names[labels],
        overlap=stacked(overlaps, (0,)),
    )
    table[["x1", "y1"]], table[["x2", "y2"]] = corner, corner + size
    table["side_px"], table["aspect"] = np.sqrt(size.prod(axis=1)), size[:, 0] / size[:, 1]
    table["radius"] = np.linalg.norm(corner + size / 2 - sizes_wh / 2, axis=1) / (sizes_wh.min(axis=1) / 2)
    return table.drop(columns="boxes")


def is_object(record: Record) -> np.ndarray:
    """(N,) bool: of a known class, no crowd, with an area."""
    has_area = (record.boxes_xywh_px[:, 2:] > 0).all(axis=1)  # False for NaN too
    result: np.ndarray = has_area & ~record.is_crowd & (record.labels >= 0)
    return result


def stacked(arrays: Sequence[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.zeros(empty), *arrays])


def paired_overlap(boxes_xywh_px: np.ndarray) -> np.ndarray:
    """IoU of all boxes of one image with each other, 0 with themselves: (N, 4) -> (N, N)."""
    low, high = boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]
    sides = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0)  # (N, N, 2)
    overlap, areas = sides.prod(axis=2), boxes_xywh_px[:, 2:].prod(axis=1)
    result: np.ndarray = overlap / (areas[:, None] + areas - overlap)
    np.fill_diagonal(result, 0)
    return result


def overlap_in_class(boxes_xywh_px: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The largest IoU of each box with another one of its class: (N, 4), (N,) -> (N,)."""
    same = labels[:, None] == labels
    result: np.ndarray = np.where(same, paired_overlap(boxes_xywh_px), 0).max(axis=1, initial=0)
    return result


def scene_name(letter: str) -> str:
    return SCENES.get(letter, letter or "-")


def counts_by(images: pd.DataFrame, objects: pd.DataFrame, by: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """One row a group, such as by=["camera"]: images, boxes, boxes in an image, their median side, the share of small
    ones (under 64 px, Track 4's limit), and the boxes of each class."""
    by = list(by)
    groups = images.groupby(by, sort=False)
    table = pd.DataFrame({"images": groups.size(), "boxes": groups["boxes"].sum()})
    table["boxes per image"] = table["boxes"] / table["images"]
    own = objects.groupby(by, sort=False)
    table["median side px"] = own["side_px"].median()
    table["under 64 px"] = (objects["side_px"] < 64).groupby([objects[each] for each in by], sort=False).mean()
    classes = objects.groupby([*by, "label"]).size().unstack("label", fill_value=0)
    for label, name in enumerate(names):
        table[name] = classes.get(label, 0)
    table[list(names)] = table[list(names)].fillna(0).astype(int)
    return table.loc[sorted(table.index, key=natural)]


def rows_by(table: pd.DataFrame, by: Sequence[str]) -> dict[tuple[Any, ...], np.ndarray]:
    """Positions of the rows of each group, by its values."""
    groups = table.groupby(list(by), sort=False).indices.items()
    return {key if isinstance(key, tuple) else (key,): np.asarray(rows) for key, rows in groups}


def natural(key: object) -> list[tuple[int, int, str]]:
    """For the keys of a table: train before val, morning before night, 2 before 10."""
    parts = [str(part) for part in (key if isinstance(key, tuple) else (key,))]
    return [(FIRST.index(part) if part in FIRST else len(FIRST), len(part), part) for part in parts]


# --- what two parts share ---


def leaks(images: pd.DataFrame, nearest: Nearest | None, most_bits: int = NEAR_BITS) -> pd.DataFrame:
    """What val shares with train, one row a kind: how many images of val, their share, an example.

    images: of images_table, parts train and val; nearest: the image of train nearest to each of val, None without
    pixels.
    """
    train, val = images[images["part"] == "train"], images[images["part"] == "val"]
    known = val["camera"] != UNKNOWN_CAMERA
    is_next, gaps = next_to(train, val)
    found = {
        "file name in train": val["file_name"].isin(train["file_name"]),
        "camera in train": known & val["camera"].isin(train["camera"]),
        f"frame within {NEIGHBOUR_FRAMES} of one in train": is_next,
    }
    notes = {name: val["file_name"] for name in found} | {
        f"frame within {NEIGHBOUR_FRAMES} of one in train": val["file_name"] + gaps
    }
    if nearest is not None:
        name = f"picture within {most_bits} bits of one in train"
        partners = np.append(train["file_name"].to_numpy(object), "nothing")[nearest.index]
        found[name] = pd.Series(nearest.bits <= most_bits, index=val.index)
        notes[name] = val["file_name"] + " is like " + pd.Series(partners, index=val.index)
    rows = [
        (name, int(mask.sum()), float(mask.mean()) if len(val) else 0.0, next(iter(notes[name][mask]), ""))
        for name, mask in found.items()
    ]
    return pd.DataFrame(rows, columns=["val shares with train", "images", "share of val", "example"])


def next_to(train: pd.DataFrame, val: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which images of val have a frame of train right before or after them, and the words for it."""
    frames = {key: np.sort(own["frame"].to_numpy()) for key, own in train.groupby(["camera", "scene"])}
    gaps = np.full(len(val), np.inf)
    for row, (camera, scene, frame) in enumerate(zip(val["camera"], val["scene"], val["frame"], strict=True)):
        others = frames.get((camera, scene), np.zeros(0))
        if frame >= 0 and len(others):
            gaps[row] = np.abs(others - frame).min()
    words = pd.Series([f", a gap of {gap:.0f}" for gap in gaps], index=val.index, dtype=object)
    return pd.Series(gaps <= NEIGHBOUR_FRAMES, index=val.index), words


def frozen(coco: CocoFile) -> list[list[str]]:
    """File names of images whose annotations are equal to the last digit, largest group first: the video stood still,
    or labels were copied."""
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for record in coco.records:
        rows = np.column_stack([record.labels, record.boxes_xywh_px])
        if len(rows):
            groups.setdefault(tuple(sorted(map(tuple, rows.tolist()))), []).append(record.file_name)
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)
