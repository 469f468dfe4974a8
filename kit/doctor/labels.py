"""Are the boxes and labels that the model gets those of the file, and can they be learned at this input size?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kit.boxes import cxcywh_to_xyxy
from kit.data.augment import Draw, plain_policy
from kit.data.coco import columns_of
from kit.data.columns import Columns
from kit.data.dataset import CocoDataset, Sample
from kit.data.picture import Size
from kit.doctor.loader import Loaded, pairs
from kit.doctor.report import Images, Verdict, few, judged

PART = "labels"
ROUNDING = 1e-4  # of the image, of a box in float32
OVER_PX = 1.5  # that a box may reach over the edge: rounding of those who drew it
MOST_OVER = 0.05  # of the boxes
TINY_PX = 4.0  # shorter side at the input size: a cell of the finest level is 8 or 16 px
MOST_TINY = 0.1
MOST_LOST = 0.5  # of the boxes, by augmentation
CORNERS = 0.98  # of the boxes that have to read as corners before it is said that they are


# --- the file ---


def check_annotations(train_set: CocoDataset) -> list[Verdict]:
    columns = columns_of(train_set.coco)
    return [check_categories(train_set, columns), check_edges(columns)]


def check_categories(train_set: CocoDataset, columns: Columns) -> Verdict:
    """Ids counted from 1 where the list counts from 0 leave a class empty at one end, and one unknown at the other."""
    names = train_set.coco.names
    is_known = (columns.labels >= 0) & (columns.labels < len(names))
    counts = np.bincount(columns.labels[is_known], minlength=len(names))
    unknown = int((~is_known).sum())
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    at_an_end = bool(len(names) > 1 and len(columns.labels) and (counts[0] == 0 or counts[-1] == 0))
    off_by_one = unknown > 0 and at_an_end
    found = f"{unknown:,} boxes of no category of the list, {len(empty)} of {len(names)} classes without a box"
    found += f" ({few(empty)})" if empty else ""
    mend = "compare category_id with the list of categories"
    mend += (
        "; ids look one off: one end of the list is empty, and boxes have ids beyond the other" if off_by_one else ""
    )
    mend += "; is it counted from 0 or from 1?" if at_an_end and not unknown else ""
    return judged(
        PART,
        "Does each box have a class, and each class boxes?",
        unknown > 0 or not counts.sum(),
        bool(empty),
        f"{len(columns.labels):,} boxes of {len(names)} classes",
        found,
        mend,
    )


def check_edges(columns: Columns) -> Verdict:
    """Corners taken for sizes reach far over the edge; sizes taken for corners have no area."""
    boxes, sizes_hw = columns.boxes_xywh_px, columns.sizes_hw[columns.image_rows()]  # (N, 4), (N, 2)
    width, height = sizes_hw[:, 1] + OVER_PX, sizes_hw[:, 0] + OVER_PX
    ends = boxes[:, :2] + boxes[:, 2:]
    over = (ends[:, 0] > width) | (ends[:, 1] > height) | (boxes[:, :2] < -OVER_PX).any(axis=1)
    bad = ~((boxes[:, 2:] > 0).all(axis=1))  # NaN too
    reads_as_corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    many = max(1, len(boxes))
    are_corners = over.mean() > MOST_OVER and reads_as_corners.mean() >= CORNERS if len(boxes) else False
    mend = "python -m kit.data.check names them"
    if are_corners:
        mend = "bbox holds corners (x1, y1, x2, y2): COCO wants x, y, width, height; write x2 - x1 and y2 - y1"
    elif bad.sum() > MOST_OVER * many:
        mend = "were x, y, width, height taken for corners when the file was made? a width is what x2 - x1 gives"
    found = f"{over.sum() / many:.1%} reach over it, {bad.sum() / many:.1%} without width or height"
    wrong = bool(max(over.sum(), bad.sum()) > MOST_OVER * many)
    return judged(
        PART,
        "Do the boxes of the file lie in their images?",
        wrong,
        bool(over.any() or bad.any()),
        "all inside, each with a width and a height",
        found,
        mend,
    )


# --- what the model gets ---


def check_plain(train_set: CocoDataset, size_hw: Size, most: int, seed: int) -> Verdict:
    """Without augmentation the boxes are those of the file, to a float's rounding."""
    plain = plain_view(train_set)
    chosen = np.random.default_rng([seed, 3]).permutation(len(train_set))[:most].tolist()
    unlike = [
        train_set.coco.records[index].file_name
        for index in chosen
        if not agrees(train_set, index, plain.sample(Draw(index, 0, size_hw), plain.load))
    ]
    found = f"{len(unlike)} of {len(chosen)} images with others" + (f": {few(unlike)}" if unlike else "")
    return judged(
        PART,
        "Does the model get the boxes and labels of the file?",
        bool(unlike),
        False,
        "cx, cy, w, h of each image as the file tells x, y, width, height",
        found,
        "the data set turns boxes or labels into others: is it xywh taken for xyxy, or an index for an id?",
    )


def plain_view(train_set: CocoDataset) -> CocoDataset:
    """The same set, of its own kind, without augmentation."""
    view = object.__new__(type(train_set))
    view.__dict__.update(train_set.__dict__)
    view.policy = plain_policy()
    return view


def agrees(train_set: CocoDataset, index: int, sample: Sample) -> bool:
    boxes, labels = expected_targets(train_set, index)
    return (
        len(boxes) == len(sample.boxes)
        and bool(np.allclose(boxes, sample.boxes.numpy(), atol=ROUNDING))
        and labels.tolist() == sample.labels.tolist()
    )


def expected_targets(train_set: CocoDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """From the numbers of the file alone -> boxes (N, 4) cxcywh in [0, 1], labels (N,)."""
    record = train_set.coco.records[index]
    height, width = record.size_hw
    x, y, w, h = record.boxes_xywh_px.T
    left, right = np.clip(x, 0, width) / width, np.clip(x + w, 0, width) / width
    top, bottom = np.clip(y, 0, height) / height, np.clip(y + h, 0, height) / height
    stays = (right > left) & (bottom > top) & ~record.is_crowd & (record.labels >= 0)
    boxes = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], axis=1)
    return boxes[stays], record.labels[stays]


def check_targets(loaded: Loaded, num_classes: int, queries: int) -> list[Verdict]:
    """Of the augmented batches: ranges, and whether there are queries enough."""
    targets = [target for batch in loaded.batches for target in batch.targets]
    labels = torch.cat([target.labels for target in targets]) if targets else torch.zeros(0, dtype=torch.int64)
    boxes = torch.cat([target.boxes for target in targets]) if targets else torch.zeros(0, 4)
    outside = int(((labels < 0) | (labels >= num_classes)).sum())
    bad = int((~is_sound(boxes)).sum())
    most = max((len(target.labels) for target in targets), default=0)
    span = f"{int(labels.min())} to {int(labels.max())}" if len(labels) else "none"
    return [
        judged(
            PART,
            "Are the labels classes of the model?",
            outside > 0,
            not len(labels),
            f"0 to {num_classes - 1}",
            f"{span}, {outside:,} of {len(labels):,} outside",
            "labels count from 0: is an id taken for an index, or counted from 1?"
            if outside
            else "none of the batches has a box: are the annotations those of the images?",
        ),
        judged(
            PART,
            "Are the boxes cx, cy, w, h within the image?",
            bad > 0,
            False,
            "all within [0, 1], with an area",
            f"{bad:,} of {len(boxes):,} are not",
            "another format is taken for cx, cy, w, h in [0, 1]: corners, or pixels?",
        ),
        judged(
            PART,
            "Are there queries for all objects of an image?",
            False,
            most > queries,
            f"at most {queries} objects",
            f"{most} in one image",
            "the rest cannot be found: cut images into tiles, or take a Size with more queries",
        ),
    ]


def is_sound(boxes: Tensor) -> Tensor:
    """(N, 4) cxcywh -> (N,) bool."""
    corners = cxcywh_to_xyxy(boxes)
    within = ((corners >= -ROUNDING) & (corners <= 1 + ROUNDING)).all(dim=1)
    return within & (boxes[:, 2:] > 0).all(dim=1)


def check_losses_of_boxes(loaded: Loaded, train_set: CocoDataset) -> Verdict:
    """What the crop cuts away; a mosaic adds the boxes of other images."""
    ids = [draw.index for draws, _ in pairs(loaded) for draw in draws]
    before = sum(len(expected_targets(train_set, index)[0]) for index in ids)
    after = sum(len(target.labels) for batch in loaded.batches for target in batch.targets)
    lost = 1 - after / before if before else 0.0
    found = f"{after:,} of {before:,} left" + (f", {lost:.0%} lost" if lost > 0 else "")
    return judged(
        PART,
        "Does augmentation leave the boxes?",
        before > 0 and after == 0,
        lost > MOST_LOST,
        f"at most {MOST_LOST:.0%} of them cropped away",
        found,
        "lower iou_crop and zoom_out, or raise the input size",
    )


def check_sizes(train_set: CocoDataset, size_hw: Size) -> Verdict:
    """How large objects are once the image has been resized."""
    columns = columns_of(train_set.coco)
    stays = ~columns.is_crowd & (columns.labels >= 0) & (columns.boxes_xywh_px[:, 2:] > 0).all(axis=1)
    sizes_hw = columns.sizes_hw[columns.image_rows()][stays]
    sides = columns.boxes_xywh_px[stays, 2:] * np.array(size_hw[::-1]) / np.maximum(sizes_hw[:, ::-1], 1)  # (N, 2)
    shorter = np.sort(sides.min(axis=1)) if len(sides) else np.zeros(0)
    tiny = float((shorter < TINY_PX).mean()) if len(shorter) else 0.0
    found = "no boxes"
    if len(shorter):
        found = f"smallest {shorter[0]:.1f} px, middle {np.median(shorter):.0f} px, {tiny:.1%} under {TINY_PX:g} px"
    return judged(
        PART,
        "Are objects large enough at the input size?",
        False,
        tiny > MOST_TINY,
        f"at most {MOST_TINY:.0%} with a side under {TINY_PX:g} px at {size_hw[1]} x {size_hw[0]} px",
        found,
        "raise height_px and width_px, or cut images into tiles",
    )


def images_of(loaded: Loaded, most: int = 8) -> Images:
    """The first augmented images with their boxes, to be looked at."""
    found = Images(np.zeros((0, 1, 1, 3), np.uint8), [], [])
    for batch in loaded.batches[:1]:
        images = batch.images[:most].permute(0, 2, 3, 1).numpy()
        found = Images(images, [], [])
        for target in batch.targets[:most]:
            found.boxes_xyxy_px.append(in_pixels(target.boxes, (images.shape[1], images.shape[2])))
            found.labels.append(target.labels.numpy())
    return found


def in_pixels(boxes: Tensor, size_hw: Size) -> np.ndarray:
    """(N, 4) cxcywh in [0, 1] -> (N, 4) xyxy px."""
    height, width = size_hw
    corners: np.ndarray = cxcywh_to_xyxy(boxes).numpy() * np.array([width, height, width, height])
    return corners


def named(label: int, names: Sequence[str]) -> str:
    """The class, or the number that is none."""
    return names[label] if 0 <= label < len(names) else str(label)
