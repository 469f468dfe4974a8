"""Pictures of ordinary cameras as a fisheye camera on a pole would have seen them, with the classes of another set.

What camera a picture was taken with is seldom known, so its field of view is drawn anew each time. A street camera
sees things lean away from its centre: the view is tilted towards the top, and then turned about the centre.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.data.check import read_checked
from kit.data.coco import UNKNOWN, CocoFile, find_split
from kit.data.fisheye import FISHEYES, RECTILINEAR, Lens, fisheye_lens, tilted
from kit.data.outlines import Window
from kit.data.picture import Picture, Size
from kit.data.warps import Shape, Warp, between_lenses, warp_picture

LONGEST = 1.5  # of the window the axis goes through, in the image's shorter side: a strip would leave much of it black
SOURCE_FIELD_DEG = (95.0, 125.0)  # across the window's longer side
FIELD_DEG = (100.0, 160.0)  # of the fisheye lens, across the shorter side
TILT_DEG = (0.0, 30.0)
ROLL_DEG = 30.0  # to either side
CIRCLE = 0.5  # probability that the image circle is seen, black around it


@dataclass(frozen=True)
class Perspective:
    """A perspective data set with the classes of the training set it is to join. Use `make_perspective`."""

    coco: CocoFile  # only images with an object of these classes
    images: Path
    copies: int  # fisheye pictures of each image
    size_hw: Size  # of these
    table: list[tuple[str, str, int]]  # class of the source, what it becomes, its objects


def find_perspective(
    folder: Path, rules: Sequence[str], target: CocoFile, copies: int = 1, allow_problems: bool = False
) -> Perspective:
    """The train part of a COCO folder, checked."""
    split = find_split(folder, "train")
    return make_perspective(
        read_checked(split.annotations, split.images, allow_problems)[0], split.images, rules, target, copies
    )


def make_perspective(
    coco: CocoFile, images: Path, rules: Sequence[str], target: CocoFile, copies: int = 1
) -> Perspective:
    """rules: such as "Tram -> Bus"; classes of one name need none, and classes without a rule are left out.

    Left out as well are images with a crowd of a wanted class, whose members have no boxes of their own. The pictures
    get the size that most images of the target have.
    """
    labels = class_labels(rules, coco, target)
    new_of = np.array([*labels, UNKNOWN])  # the last entry is for UNKNOWN, -1, itself
    records = []
    for record in coco.records:
        wanted = new_of[record.labels] != UNKNOWN
        if wanted.any() and not (wanted & record.is_crowd).any():
            kept = record.only(wanted)
            records.append(replace(kept, labels=new_of[kept.labels]))
    if not records:
        raise ValueError(
            f"{coco.path}: expected objects of the classes {', '.join(target.names)}, got none of them; name which of "
            f'{", ".join(coco.names)} they are, as in perspective_classes = ["Tram -> Bus"]'
        )
    sizes = Counter(record.size_hw for record in target.records)
    mapped = replace(coco, records=records, category_ids=target.category_ids, names=target.names)
    table = counted(coco, labels, target.names)
    return Perspective(mapped, Path(images), copies, sizes.most_common(1)[0][0], table)


def class_labels(rules: Sequence[str], source: CocoFile, target: CocoFile) -> list[int]:
    """The target's label for each class of the source, UNKNOWN for those that are left out."""
    label_of = {name.lower(): label for label, name in enumerate(target.names)}
    labels = [label_of.get(name.lower(), UNKNOWN) for name in source.names]
    for rule in rules:
        old, arrow, new = (part.strip() for part in rule.partition("->"))
        if not (old and arrow and new):
            raise ValueError(f'perspective_classes: expected a rule such as "Tram -> Bus", got {rule!r}')
        labels[named(old, source.names, rule)] = named(new, target.names, rule)
    return labels


def named(name: str, names: Sequence[str], rule: str) -> int:
    """The label of a name."""
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        mend = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
        raise ValueError(f"perspective_classes: {rule!r}: there is no class {name}, {mend}")
    return list(names).index(name)


def counted(coco: CocoFile, labels: Sequence[int], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """For reading: each class that occurs, what it becomes, and its number of objects."""
    found = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in coco.records)])
    counts = np.bincount(found[found != UNKNOWN], minlength=len(coco.names)).tolist()
    becomes = ["left out" if label == UNKNOWN else names[label] for label in labels]
    return [row for row in zip(coco.names, becomes, counts, strict=True) if row[2]]


def fisheye_view(picture: Picture, size_hw: Size, rng: np.random.Generator, shape: Shape = "rectangle") -> Picture:
    """An ordinary picture through a random fisheye lens. shape: of objects without an outline."""
    height, width = picture.size_hw
    x, y = width / 2, height / 2
    if len(picture.labels):
        x0, y0, x1, y1 = picture.boxes_xyxy_px[rng.integers(len(picture.labels))]
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return warp_picture(picture, random_view(window_at((x, y), picture.size_hw, rng), size_hw, rng), shape)


def window_at(place_px: tuple[float, float], size_hw: Size, rng: np.random.Generator) -> Window:
    """All of the image, or the part around a place of it that is no longer than LONGEST of its shorter side."""
    corners, ends = [], []
    for place, side in zip(place_px, size_hw[::-1], strict=True):
        length = min(side, round(LONGEST * min(size_hw)))
        corners.append(int(np.clip(place - length * rng.uniform(0.2, 0.8), 0, side - length)))
        ends.append(corners[-1] + length)
    return corners[0], corners[1], ends[0], ends[1]


def random_view(window: Window, size_hw: Size, rng: np.random.Generator) -> Warp:
    """From the camera that took the picture, its axis in the middle of the window, to a fisheye camera."""
    x0, y0, x1, y1 = window
    focal_px = max(x1 - x0, y1 - y0) / 2 / np.tan(np.deg2rad(rng.uniform(*SOURCE_FIELD_DEG)) / 2)
    source = Lens(RECTILINEAR, float(focal_px), ((x0 + x1) / 2, (y0 + y1) / 2), RECTILINEAR.widest_rad)
    field_deg = rng.uniform(*FIELD_DEG)
    lens = fisheye_lens(FISHEYES[rng.integers(len(FISHEYES))], size_hw, field_deg)
    if rng.random() < CIRCLE:
        lens = replace(lens, field_rad=np.deg2rad(field_deg) / 2)
    tilt, roll = np.deg2rad(rng.uniform(*TILT_DEG)), np.deg2rad(rng.uniform(-ROLL_DEG, ROLL_DEG))
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return between_lenses(source, lens, size_hw, turn @ tilted(tilt, -np.pi / 2))  # up, then about the centre
