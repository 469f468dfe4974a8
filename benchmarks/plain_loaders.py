"""What benchmarks/loader.py compares with: the same training pipeline, written plainly in two libraries.

Steps and probabilities are those of `kit.data.augment.train_policy`; each step takes the quickest way the library has:
JPEG through its fastest decoder, everything in uint8, colours last on the small picture, mosaic tiles cut before they
are resized. In albumentations the resize is its default, which is not anti-aliased and costs less than one that is.
"""

import random

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.augmentations.crops.transforms import BaseCrop
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image

from kit.data.augment import iou_crop, tile_window
from kit.data.coco import CocoFile
from kit.data.dataset import targets_of

Plain = tuple[Tensor, Tensor, Tensor]  # (3, H, W) uint8, (N, 4) xyxy px, (N,)
Quarter = tuple[int, int, int, int]

MOSAIC, SCALE = 0.5, (0.5, 1.0)
BRIGHTNESS, CONTRAST, SATURATION, HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)


class PlainDataset(Dataset[Plain]):
    """Mosaic or one picture, by chance; how is said below."""

    def __init__(self, coco: CocoFile, images: str, side: int):
        self.paths = [f"{images}/{record.file_name}" for record in coco.records]
        self.sizes_hw = [record.size_hw for record in coco.records]
        self.targets = [targets_of(record) for record in coco.records]
        self.side = side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Plain:
        if random.random() >= MOSAIC:
            return self.single(index)
        return self.mosaic([index, *random.choices(range(len(self)), k=3)])

    def quarters(self) -> list[Quarter]:
        side = self.side
        row, column = (int(side * random.uniform(0.3, 0.7)) for _ in range(2))
        return [(0, 0, column, row), (column, 0, side, row), (0, row, column, side), (column, row, side, side)]

    def window(self, index: int, quarter: Quarter) -> Quarter:
        x0, y0, x1, y1 = quarter
        rng = np.random.default_rng(random.getrandbits(32))
        return tile_window(self.sizes_hw[index], (y1 - y0, x1 - x0), (self.side, self.side), SCALE, rng)


class TorchvisionDataset(PlainDataset):
    """torchvision.transforms.v2."""

    def __init__(self, coco: CocoFile, images: str, side: int):
        super().__init__(coco, images, side)
        self.colours = v2.RandomPhotometricDistort(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=0.5)
        self.clean = v2.Compose(
            [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1, labels_getter=labels_in)]
        )
        self.all = v2.Compose(
            [
                v2.RandomZoomOut(fill=0, side_range=(1, 4), p=0.5),
                v2.RandomApply([v2.RandomIoUCrop()], p=0.8),
                v2.Resize((side, side)),
                v2.RandomHorizontalFlip(0.5),
                self.colours,
                self.clean,
            ]
        )

    def load(self, index: int) -> tuple[Image, BoundingBoxes, Tensor]:
        boxes, labels = self.targets[index]
        image = Image(decode_image(self.paths[index], ImageReadMode.RGB))
        xyxy = BoundingBoxes(boxes.astype(np.float32), format="XYXY", canvas_size=self.sizes_hw[index])
        return image, xyxy, torch.from_numpy(labels)

    def single(self, index: int) -> Plain:
        return self.all(*self.load(index))

    def mosaic(self, indices: list[int]) -> Plain:
        canvas = torch.empty(3, self.side, self.side, dtype=torch.uint8)
        boxes, labels = [], []
        for index, (x0, y0, x1, y1) in zip(indices, self.quarters(), strict=True):
            image, own, own_labels = self.load(index)
            left, top, right, bottom = self.window(index, (x0, y0, x1, y1))
            where = (top, left, bottom - top, right - left, [y1 - y0, x1 - x0])
            tile, own = F.resized_crop(image, *where), F.resized_crop(own, *where)
            if random.random() < 0.5:
                tile, own = F.horizontal_flip(tile), F.horizontal_flip(own)
            own, own_labels = self.clean(own, own_labels)
            canvas[:, y0:y1, x0:x1] = tile
            boxes.append(own + torch.tensor([x0, y0, x0, y0]))
            labels.append(own_labels)
        return self.colours(Image(canvas)), torch.cat(boxes), torch.cat(labels)


def labels_in(sample: tuple[Tensor, ...]) -> Tensor:
    return sample[-1]


class IouCrop(BaseCrop):
    """albumentations has no SSD crop: its own class for crops, with kit's choice of the window."""

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:
        height, width = params["shape"][:2]
        boxes = data["bboxes"][:, :4] * [width, height, width, height]
        rng = np.random.default_rng(self.py_random.getrandbits(32))
        return {"crop_coords": iou_crop((0, 0, width, height), boxes, rng)}


class AlbumentationsDataset(PlainDataset):
    """albumentations, with cv2 for decoding and for the mosaic's tiles: its own Mosaic resizes whole pictures."""

    def __init__(self, coco: CocoFile, images: str, side: int):
        super().__init__(coco, images, side)
        self.boxes = A.BboxParams("pascal_voc", label_fields=["labels"], min_width=1, min_height=1, min_visibility=0.25)
        still = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
        low, high = (each - 1 for each in BRIGHTNESS)
        colours = [
            A.RandomBrightnessContrast((low, high), (0, 0), p=0.5),
            A.RandomBrightnessContrast((0, 0), (CONTRAST[0] - 1, CONTRAST[1] - 1), p=0.5),
            A.ColorJitter(**(still | {"saturation": SATURATION}), p=0.5),
            A.ColorJitter(**(still | {"hue": HUE}), p=0.5),
            A.ChannelShuffle(p=0.5),
        ]
        self.colours = A.Compose(colours)
        zoom_out = A.CropAndPad(percent=(0, 1.5), keep_size=False, p=0.5)  # 1 to 4 times as wide and high
        geometry = [zoom_out, IouCrop(p=0.8), A.Resize(side, side), A.HorizontalFlip(p=0.5)]
        self.all = A.Compose([*geometry, *colours], bbox_params=self.boxes)
        self.flip = A.Compose([A.HorizontalFlip(p=0.5)], bbox_params=self.boxes)

    def load(self, index: int) -> np.ndarray:
        return cv2.imread(self.paths[index], cv2.IMREAD_COLOR_RGB)

    def single(self, index: int) -> Plain:
        boxes, labels = self.targets[index]
        made = self.all(image=self.load(index), bboxes=boxes, labels=labels)
        return as_tensors(made["image"], made["bboxes"], made["labels"])

    def mosaic(self, indices: list[int]) -> Plain:
        canvas = np.empty((self.side, self.side, 3), np.uint8)
        all_boxes, all_labels = [], []
        for index, (x0, y0, x1, y1) in zip(indices, self.quarters(), strict=True):
            left, top, right, bottom = self.window(index, (x0, y0, x1, y1))
            tile = cv2.resize(self.load(index)[top:bottom, left:right], (x1 - x0, y1 - y0))
            boxes, labels = self.targets[index]
            scale = np.array([(x1 - x0) / (right - left), (y1 - y0) / (bottom - top)] * 2)
            boxes = ((boxes - [left, top, left, top]) * scale).clip(0, [x1 - x0, y1 - y0] * 2)
            kept = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= 1
            made = self.flip(image=tile, bboxes=boxes[kept], labels=labels[kept])
            canvas[y0:y1, x0:x1] = made["image"]
            all_boxes.append(np.asarray(made["bboxes"]).reshape(-1, 4) + np.array([x0, y0, x0, y0]))
            all_labels.append(made["labels"])
        image = self.colours(image=canvas)["image"]
        return as_tensors(image, np.concatenate(all_boxes), np.concatenate(all_labels))


def as_tensors(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> Plain:
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    return planes, torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(np.asarray(labels), dtype=torch.int64)


def stacked(samples: list[Plain]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """One batch: (B, 3, H, W), and the boxes and labels of each image."""
    images, boxes, labels = zip(*samples, strict=True)
    return torch.stack(images), list(boxes), list(labels)
