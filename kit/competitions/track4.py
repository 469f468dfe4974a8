"""AI City Challenge, Track 4 (2024, 2025): road users in fisheye cameras, judged by the official F1.

The file is that of COCO results, zipped; image ids follow from the file names, and the classes are fixed.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

from kit.competitions.coco import read, write
from kit.data.views import TRACK4_VIEW
from kit.metrics import TRACK4_AREAS
from kit.submission import Competition, Images, Rules, rules_of

FILE_NAME = re.compile(TRACK4_VIEW + r"\.(?:png|jpg|jpeg)")
CATEGORY_IDS = (0, 1, 2, 3, 4)  # Bus, Bike, Car, Pedestrian, Truck


def rules(images: Images, category_ids: Sequence[int], **limits: Any) -> Rules:
    """As rules_of, and each image id must be the one its file name gives."""
    if not set(category_ids) <= set(CATEGORY_IDS):
        raise ValueError(
            f"category ids must be 0 Bus, 1 Bike, 2 Car, 3 Pedestrian, 4 Truck on Track 4, got {sorted(category_ids)}; "
            "renumber the data, or set competition: coco"
        )
    ids = track4_image_ids([image["file_name"] for image in images])
    wrong = [image for image in images if image["id"] != ids[image["file_name"]]]
    if wrong:
        name, got = wrong[0]["file_name"], wrong[0]["id"]
        raise ValueError(
            f"{len(wrong)} image ids are not those of Track 4: {name} must have {ids[name]}, got {got}; "
            "number the images with track4_image_ids"
        )
    return rules_of(images, CATEGORY_IDS, **limits)


def track4_image_id(file_name: str) -> int:
    """camera{C}_{S}_{F}.png -> the numbers of camera, scene (M 0, A 1, E 2, N 3) and frame, written in a row."""
    found = FILE_NAME.fullmatch(PurePath(file_name).name)
    if not found:
        raise ValueError(f"file name must be camera<C>_<M, A, E or N>_<F>.png, got {file_name!r}")
    camera, scene, frame = found.groups()
    return int(f"{int(camera)}{'MAEN'.index(scene)}{int(frame)}")  # numbers: leading zeros go, as the organisers' do


def track4_image_ids(file_names: Iterable[str]) -> dict[str, int]:
    """The id of each file; the rule gives some pairs of names one id, and such a list is refused."""
    ids: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for file_name in file_names:
        image_id = ids[file_name] = track4_image_id(file_name)
        other = name_of.setdefault(image_id, file_name)
        if other != file_name:
            raise ValueError(
                f"image ids must be unique: {other} and {file_name} both give {image_id} under the Track-4 rule; "
                "leave one out, or ask the organisers"
            )
    return ids


TRACK4 = Competition(
    name="track4",
    areas=TRACK4_AREAS,
    view_pattern=TRACK4_VIEW,
    select_by="f1",
    file_ending=".zip",
    rules=rules,
    write=write,
    read=read,
)
