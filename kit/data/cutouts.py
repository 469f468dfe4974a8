"""Objects cut out of their images along their masks, as a data set of their own, for copy-paste.

One PNG an object: RGB as the model sees the image, alpha 255 on the mask and 0 off it. The pixels of the margin keep
their colours under alpha 0, so that an edge can be softened. The annotation file tells of each where it comes from
(`provenance` of its image: file and its checksum, ids, window), and its own mask and box in the crop.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from kit.data.copy_paste import intersections
from kit.data.formats.images import inside
from kit.data.mask_boxes import Content, box_numbers, has_mask, read_content
from kit.data.mask_shapes import box_of_entry, compressed_entry, mask_of_entry
from kit.data.outlines import Window
from kit.data.pixels import read_image
from kit.files import sha256, whole_folder, write_bytes, write_json

PART = "train"  # of the data set that is made


@dataclass(frozen=True)
class Extraction:
    """What has been cut out. left_out: reason: names of image and annotation."""

    objects: int
    left_out: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cutout:
    """One object. alpha: (H, W) uint8, of the crop, as its pixels."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    alpha: np.ndarray
    window_xyxy_px: Window  # of the image it is from


def extract_objects(
    annotations: Path,
    images: Path,
    out: Path,
    margin_px: int = 8,
    least_side_px: float = 10.0,
    progress: Callable[[int, int], object] | None = None,
) -> Extraction:
    """Makes the folder `out` with images/train and annotations/instances_train.json. Crowds have no mask of one object
    and are left out, like masks that are broken or too small; each is named."""
    content = read_content(annotations)
    names = {each["id"]: str(each.get("name", each["id"])) for each in content.get("categories") or []}
    left_out: dict[str, list[str]] = defaultdict(list)
    entries: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    with whole_folder(out) as made:
        for image, annotation, cutout, origin in cutouts(content, images, margin_px, least_side_px, left_out, progress):
            number = len(own) + 1
            folder = folder_of(annotation["category_id"], names)
            file_name = f"{folder}/{clean(PurePosixPath(image['file_name']).stem)}_{number:06d}.png"
            write_bytes(made / "images" / PART / file_name, png(cutout))
            entry = {"id": number, "file_name": file_name, "height": cutout.alpha.shape[0]}
            origin = {"annotations": str(annotations), **origin}
            entries.append(entry | {"width": cutout.alpha.shape[1], "provenance": origin})
            own.append(annotation | {"id": number, "image_id": number, "iscrowd": 0} | mask_entries(cutout))
        lists = {"images": entries, "annotations": own, "categories": content.get("categories") or []}
        write_json(made / "annotations" / f"instances_{PART}.json", lists)
    return Extraction(len(own), dict(left_out))


def cutouts(
    content: Content,
    images: Path,
    margin_px: int,
    least_side_px: float,
    left_out: dict[str, list[str]],
    progress: Callable[[int, int], object] | None,
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any], Cutout, dict[str, Any]]]:
    """Image, annotation, the object and where it comes from; adds to left_out."""
    annotations_of = defaultdict(list)
    for annotation in content.get("annotations") or []:
        annotations_of[annotation["image_id"]].append(annotation)
    for done, image in enumerate(content["images"], 1):
        rows = [each for each in annotations_of.pop(image["id"], []) if is_wanted(each, image, left_out)]
        pixels = None
        if rows:
            path = inside(images, str(image["file_name"]), f"image {image['id']}")
            pixels, fault = pixels_of(path, image)
            left_out[fault] += [name_of(image, each) for each in rows] if fault else []
        if pixels is not None:
            origin = {"image": image["file_name"], "image_sha256": sha256(path), "image_id": image["id"]}
            for annotation in rows:
                fault, cutout = cutout_of(annotation, pixels, margin_px, least_side_px)
                if cutout is None:
                    left_out[fault].append(name_of(image, annotation))
                else:
                    yield image, annotation, cutout, origin | about(annotation, rows, cutout, pixels)
        if progress:
            progress(done, len(content["images"]))
    for fault in [fault for fault, names in left_out.items() if not names]:
        del left_out[fault]


def is_wanted(annotation: Mapping[str, Any], image: Mapping[str, Any], left_out: dict[str, list[str]]) -> bool:
    fault = "crowd" if annotation.get("iscrowd") else "" if has_mask(annotation) else "without a mask"
    fault = fault or ("" if type(annotation.get("category_id")) is int else "without a category")
    if fault:
        left_out[fault].append(name_of(image, annotation))
    return not fault


def name_of(image: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    return f"{image['file_name']}, annotation {annotation.get('id')}"


def pixels_of(path: Path, image: Mapping[str, Any]) -> tuple[np.ndarray | None, str]:
    """(H, W, 3) uint8, or why not."""
    try:
        pixels = read_image(path)
    except ValueError:
        return None, "image missing or not readable"
    fits = pixels.shape[:2] == (image.get("height"), image.get("width"))
    return (pixels, "") if fits else (None, "image file of another size than its entry")


def cutout_of(
    annotation: Mapping[str, Any], pixels: np.ndarray, margin_px: int, least_side_px: float
) -> tuple[str, Cutout | None]:
    """Why not, or the object. pixels: (H, W, 3)."""
    size_hw = pixels.shape[0], pixels.shape[1]
    try:
        mask = mask_of_entry(annotation["segmentation"], size_hw)
    except ValueError:
        return "broken mask", None
    if mask.shape != size_hw:
        return "mask of another size than the image", None
    box = box_of_entry(compressed_entry(mask), size_hw)
    if box is None:
        return "mask without a pixel", None
    if box[2:].min() < least_side_px:
        return f"side under {least_side_px:g} px", None
    low, high = box[:2].astype(int), (box[:2] + box[2:]).astype(int)
    x0, y0 = (low - margin_px).clip(0).tolist()
    x1, y1 = (high + margin_px).clip(0, size_hw[::-1]).tolist()
    return "", Cutout(pixels[y0:y1, x0:x1], mask[y0:y1, x0:x1] * np.uint8(255), (x0, y0, x1, y1))


def about(
    annotation: Mapping[str, Any], rows: list[dict[str, Any]], cutout: Cutout, pixels: np.ndarray
) -> dict[str, Any]:
    """What one wants to know before pasting it: is it cut by the image's edge, do others cover it?"""
    box = np.array(mask_box(cutout)) + np.tile(cutout.window_xyxy_px[:2], 2)  # (4,) xyxy
    others = [
        numbers for row in rows if row is not annotation and (numbers := box_numbers(row.get("bbox"))) is not None
    ]
    covered = 0.0
    if others:
        xywh = np.stack(others)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        covered = float(intersections(box[None], xyxy).max() / (box[2:] - box[:2]).prod())
    is_cut = bool((box[:2] <= 0).any() or (box[2:] >= pixels.shape[1::-1]).any())
    told = {"annotation_id": annotation.get("id"), "window_xyxy_px": list(cutout.window_xyxy_px)}
    return told | {"touches_edge": is_cut, "covered_by_another_box": round(covered, 4)}


def mask_box(cutout: Cutout) -> list[int]:
    """xyxy px in the crop."""
    rows, columns = (np.flatnonzero(cutout.alpha.any(axis=axis)) for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def mask_entries(cutout: Cutout) -> dict[str, Any]:
    x0, y0, x1, y1 = mask_box(cutout)
    area = int((cutout.alpha > 0).sum())
    return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area, "segmentation": compressed_entry(cutout.alpha)}


def png(cutout: Cutout) -> bytes:
    bgra = np.dstack([cutout.pixels[..., ::-1], cutout.alpha])
    _, data = cv2.imencode(".png", np.ascontiguousarray(bgra), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return bytes(data.tobytes())


def folder_of(category_id: int, names: Mapping[int, str]) -> str:
    return f"{category_id}_{clean(names.get(category_id, 'unknown'))}"


def clean(name: str) -> str:
    """Any text as a part of a file name."""
    return re.sub(r"[^\w-]+", "_", name)[:60] or "_"
