"""Labels turned with their pixels, where an EXIF orientation is applied: boxes, polygons, masks, exactly."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from kit.data.mask_boxes import box_numbers, has_mask
from kit.data.mask_shapes import checked_rings, compressed_entry, mask_of_entry, uncompressed_entry

Labels = Literal["stored", "shown"]

MASKS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # orientation of EXIF: what is shown of what is stored
    1: lambda mask: mask,
    2: lambda mask: mask[:, ::-1],
    3: lambda mask: mask[::-1, ::-1],
    4: lambda mask: mask[::-1],
    5: lambda mask: mask.T,
    6: lambda mask: np.rot90(mask, -1),
    7: lambda mask: mask[::-1, ::-1].T,
    8: lambda mask: np.rot90(mask),
}
UNTURNED = ("keypoints", "obb", "rotation", "bbox_rotated", "densepose", "attributes_px")


def turned_points(points_px: np.ndarray, orientation: int, stored_hw: tuple[int, int]) -> np.ndarray:
    """(..., 2) of the stored picture -> (..., 2) of what is shown."""
    height, width = stored_hw
    x, y = points_px[..., 0], points_px[..., 1]
    left, up = width - x, height - y
    shown = {1: (x, y), 2: (left, y), 3: (left, up), 4: (x, up), 5: (y, x), 6: (up, x), 7: (up, left), 8: (y, left)}
    return np.stack(shown[orientation], axis=-1)


def turned_box(box_xywh_px: np.ndarray, orientation: int, stored_hw: tuple[int, int]) -> np.ndarray:
    """(4,) -> (4,); the sides keep their lengths to the last digit."""
    corners = np.stack([box_xywh_px[:2], box_xywh_px[:2] + box_xywh_px[2:]])  # (2, 2)
    sides = box_xywh_px[:1:-1] if orientation >= 5 else box_xywh_px[2:]
    return np.concatenate([turned_points(corners, orientation, stored_hw).min(axis=0), sides])


def turned_annotation(
    annotation: Mapping[str, Any], orientation: int, stored_hw: tuple[int, int]
) -> tuple[dict[str, Any], list[str]]:
    """The annotation in the shown picture, and what of it could not be turned and stays."""
    result, faults = dict(annotation), [f"{key} not turned" for key in UNTURNED if annotation.get(key)]
    box = box_numbers(annotation.get("bbox"))
    if box is not None:
        result["bbox"] = turned_box(box, orientation, stored_hw).tolist()
    elif annotation.get("bbox") is not None:
        faults.append("bbox is no box, not turned")
    if has_mask(annotation):
        try:
            result["segmentation"] = turned_mask(annotation["segmentation"], orientation, stored_hw)
        except ValueError as error:
            faults.append(f"mask not turned: {error}")
    return result, faults


def turned_mask(segmentation: Any, orientation: int, stored_hw: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        rings = checked_rings(segmentation)
        return [turned_points(ring, orientation, stored_hw).reshape(-1).tolist() for ring in rings]
    mask = mask_of_entry(segmentation, stored_hw)
    if mask.shape != stored_hw:
        raise ValueError(f"it is of {mask.shape[0]} x {mask.shape[1]}, the image of {stored_hw[0]} x {stored_hw[1]}")
    write = compressed_entry if isinstance(segmentation["counts"], str) else uncompressed_entry
    return write(np.ascontiguousarray(MASKS[orientation](mask)))
