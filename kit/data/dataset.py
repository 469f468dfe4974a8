"""Data sets, samplers and loaders: from a COCO file and its images to batches.

Images are read as they are stored: an EXIF orientation is NOT applied, because COCO sizes and boxes refer to the stored
pixels; the check reports files whose annotations think otherwise. Pixels stay uint8 until they are on the device.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from kit.boxes import Target
from kit.data.augment import Draw, Load, Policy, plain_policy
from kit.data.cache import PixelCache
from kit.data.coco import CocoFile, Record
from kit.data.outlines import Outline, hull
from kit.data.picture import Picture, Size, areas
from kit.data.pixels import read_image
from kit.data.sampling import drawn_order, repeat_numbers
from kit.data.workers import settle_worker

KEPT_BYTES = 256 << 20  # of a batch's decoded images, a worker
SAME_BOX = 0.9  # IoU with its box from which an outline is believed


@dataclass(frozen=True)
class Sample:
    """One image, ready for the batch."""

    image: Tensor  # (C, H, W) uint8, RGB
    boxes: Tensor  # (N, 4) float32, cxcywh in [0, 1]
    labels: Tensor  # (N,) int64, 0..K-1
    image_id: int
    original_hw: Size


@dataclass(frozen=True)
class Batch:
    """Images of one size, and what is known of each."""

    images: Tensor  # (B, C, H, W) uint8
    targets: list[Target]
    image_ids: list[int]
    original_hw: list[Size]

    def to(self, device: torch.device | str) -> "Batch":
        images = self.images.to(device, non_blocking=True)
        return Batch(images, [target.to(device) for target in self.targets], self.image_ids, self.original_hw)

    def pin_memory(self) -> "Batch":
        """Called by the loader, so that `.to` can copy while the device computes."""
        targets = [Target(target.boxes.pin_memory(), target.labels.pin_memory()) for target in self.targets]
        return Batch(self.images.pin_memory(), targets, self.image_ids, self.original_hw)


class CocoDataset(Dataset[Sample]):
    """One COCO file and its image folder, seen through an augmentation policy."""

    def __init__(
        self,
        coco: CocoFile,
        images: Path,
        policy: Policy,
        seed: int = 0,
        channels: int = 3,
        cache: PixelCache | None = None,
    ):
        if cache and cache.channels != channels:
            raise ValueError(f"cache: expected pixels of {channels} channels, got {cache.channels}; open it with these")
        self.coco = coco
        self.images = Path(images)
        self.policy = policy
        self.seed = seed
        self.channels = channels
        self.cache = cache

    def __len__(self) -> int:
        return len(self.coco.records)

    def __getitem__(self, draw: Draw) -> Sample:
        """The same for the same draw, always."""
        return self.sample(draw, self.load)

    def __getitems__(self, draws: Sequence[Draw]) -> list[Sample]:
        """What the loader asks for: the same samples, each image decoded once for all of them."""
        again = any(self.policy.takes_from_pool(draw) for draw in draws)
        load = kept(self.load, KEPT_BYTES) if again else self.load
        return [self.sample(draw, load) for draw in draws]

    def sample(self, draw: Draw, load: Load) -> Sample:
        picture = self.policy(load, len(self), draw, self.seed)
        record = self.coco.records[draw.index]
        boxes = normalised(picture.boxes_xyxy_px, picture.size_hw)
        return Sample(
            to_tensor(picture.image), boxes, torch.from_numpy(picture.labels), record.image_id, record.size_hw
        )

    def load(self, index: int) -> Picture:
        """The image as stored, with the boxes that can be targets."""
        record = self.coco.records[index]
        return picture_of(record, self.pixels(index, self.images / record.file_name))

    def pixels(self, index: int, file: Path) -> np.ndarray:
        decode = partial(read_indexed, self.coco, self.images, index, self.channels)
        return self.cache.read(index, file, decode) if self.cache else decode()


def kept(load: Load, most_bytes: int) -> Load:
    """The same, and what it gave is kept for the next time, as far as there is room."""
    pictures: dict[int, Picture] = {}
    room = most_bytes

    def load_once(index: int) -> Picture:
        nonlocal room
        if index in pictures:
            return pictures[index]
        picture = load(index)
        if picture.image.nbytes <= room:
            pictures[index] = picture
            room -= picture.image.nbytes
        return picture

    return load_once


def read_indexed(coco: CocoFile, images: Path, index: int, channels: int = 3) -> np.ndarray:
    """The image of a record, (H, W, C) uint8; ValueError where it has not the size that the file tells."""
    record = coco.records[index]
    image = read_image(images / record.file_name, channels)
    if image.shape[:2] != record.size_hw:
        raise ValueError(
            f"{images / record.file_name}: expected height, width {record.size_hw} as in {coco.path}, "
            f"got {image.shape[:2]}; run the check of the data set"
        )
    return image


def targets_of(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that a detector can learn, cut at the image: no crowd, no unknown class -> (N, 4) xyxy px, (N,)."""
    boxes_xyxy_px, stays = _targets(record)
    return boxes_xyxy_px[stays], record.labels[stays]


def picture_of(record: Record, image: np.ndarray) -> Picture:
    """The image with the same objects as `targets_of`, and the outlines of those whose outline tells the same box."""
    boxes_xyxy_px, stays = _targets(record)
    outlines = [
        outline if stay and outline and tells_box(outline, box, record.size_hw) else None
        for outline, box, stay in zip(record.outlines or [], boxes_xyxy_px, stays, strict=bool(record.outlines))
    ]
    return Picture(image, boxes_xyxy_px, record.labels, outlines if any(outlines) else None).only(stays)


def _targets(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """All boxes, cut at the image (N, 4) xyxy px, and which of them are targets (N,) bool."""
    height, width = record.size_hw
    corner, size = record.boxes_xywh_px[:, :2], record.boxes_xywh_px[:, 2:]
    boxes_xyxy_px = np.concatenate([corner, corner + size], axis=1).clip(0, [width, height, width, height])  # (N, 4)
    has_area = (boxes_xyxy_px[:, 2:] > boxes_xyxy_px[:, :2]).all(axis=1)  # False for NaN too
    return boxes_xyxy_px, has_area & ~record.is_crowd & (record.labels >= 0)


def tells_box(outline: Outline, box_xyxy_px: np.ndarray, size_hw: Size) -> bool:
    """Whether the hull of an outline, as far as it lies in the image, is the box, in the main.

    Where boxes were drawn around whole objects and outlines only around what is to be seen of them, an outline that
    told the box of a turned picture would change what a box means; then the box itself is turned.
    """
    around = hull(outline).clip(0, [size_hw[1], size_hw[0]] * 2)
    overlap = np.minimum(around[2:], box_xyxy_px[2:]) - np.maximum(around[:2], box_xyxy_px[:2])
    intersection = overlap.clip(min=0).prod()
    union = areas(around) + areas(box_xyxy_px) - intersection
    return bool(intersection >= SAME_BOX * union)


def normalised(boxes_xyxy_px: np.ndarray, size_hw: Size) -> Tensor:
    """Computed in float64, cut to float32 at the end: (N, 4) -> (N, 4) cxcywh in [0, 1]."""
    low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1) / [size_hw[1], size_hw[0], size_hw[1], size_hw[0]]
    return torch.from_numpy(boxes.astype(np.float32))


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) -> (C, H, W)."""
    planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
    cv2.split(np.ascontiguousarray(image), list(planes))  # 3 times as fast as a transposing copy
    return torch.from_numpy(planes)


class TrainSampler(Sampler[list[Draw]]):
    """The batches of a whole run, from any step on. Which images a step gets depends on nothing but the arguments.

    sizes: one is drawn for each step; from sizes_until_epoch on every step has size_hw. batch_size: of one rank.
    repeats: (length,) how often an image comes beside the others, as of `repeat_factors`; None: each once an epoch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        epochs: int,
        seed: int,
        sizes: Sequence[Size],
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        sizes_until_epoch: int | None = None,
        size_hw: Size | None = None,
        repeats: np.ndarray | None = None,
    ):
        if repeats is not None and len(repeats) != length:
            raise ValueError(f"repeats: expected one number for each of {length} images, got {len(repeats)}")
        if sizes_until_epoch is not None and size_hw is None:
            raise ValueError("size_hw: expected the size from sizes_until_epoch on, got None; give both or neither")
        if drop_last and length < batch_size * world:
            raise ValueError(
                f"expected at least {batch_size * world} images for one step, got {length}; "
                f"lower batch_size to {max(1, length // world)} or less"
            )
        self.length, self.batch_size, self.epochs, self.seed = length, batch_size, epochs, seed
        self.sizes, self.sizes_until_epoch, self.size_hw = list(sizes), sizes_until_epoch, size_hw
        self.start_step, self.rank, self.world, self.drop_last = start_step, rank, world, drop_last
        self.repeats = repeats

    @property
    def steps_per_epoch(self) -> int:
        images_per_step = self.batch_size * self.world
        return self.length // images_per_step if self.drop_last else -(-self.length // images_per_step)

    def __len__(self) -> int:
        return max(0, self.epochs * self.steps_per_epoch - self.start_step)

    def __iter__(self) -> Iterator[list[Draw]]:
        first_epoch, first_batch = divmod(self.start_step, self.steps_per_epoch)
        for epoch in range(first_epoch, self.epochs):
            order = drawn_order(np.random.default_rng([self.seed, epoch]), self.length, self.repeats)
            for batch in range(first_batch if epoch == first_epoch else 0, self.steps_per_epoch):
                yield self.draws(order, epoch, batch)

    def draws(self, order: np.ndarray, epoch: int, batch: int) -> list[Draw]:
        """Every world-th image of this step; a short last step is filled up so that no rank is left waiting."""
        images_per_step = self.batch_size * self.world
        places = np.arange(batch * images_per_step, min((batch + 1) * images_per_step, len(order)))
        missing = -len(places) % self.world
        places = np.concatenate([places, np.arange(missing) % len(order)])[self.rank :: self.world]
        size_hw = self.size_of(epoch, batch)
        own = tuple(order[places].tolist())
        if self.repeats is None:
            return [Draw(index, epoch, size_hw, own) for index in own]
        times = repeat_numbers(order, places)
        return [Draw(index, epoch, size_hw, own, before) for index, before in zip(own, times, strict=True)]

    def size_of(self, epoch: int, batch: int) -> Size:
        """The same on every rank."""
        if self.size_hw is not None and (self.sizes_until_epoch is None or epoch >= self.sizes_until_epoch):
            return self.size_hw
        rng = np.random.default_rng([self.seed, epoch, batch, 1])
        return self.sizes[int(rng.integers(len(self.sizes)))]


def collate(samples: Sequence[Sample]) -> Batch:
    """Images of one size -> one batch."""
    first = samples[0].image
    images = empty_batch((len(samples), *first.shape))
    return Batch(
        images=torch.stack([sample.image for sample in samples], out=images),  # (B, C, H, W)
        targets=[Target(sample.boxes, sample.labels) for sample in samples],
        image_ids=[sample.image_id for sample in samples],
        original_hw=[sample.original_hw for sample in samples],
    )


def empty_batch(shape: tuple[int, ...]) -> Tensor:
    """Bytes to be filled; a worker takes them where the main process finds them too, which saves a copy on the way."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collate does
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]


def train_loader(dataset: CocoDataset, sampler: TrainSampler, workers: int = 0) -> DataLoader[Sample]:
    """Batches of the sampler, in its order, the same with any number of workers."""
    return loader(dataset, sampler, workers)


def val_loader(
    dataset: CocoDataset, size_hw: Size, batch_size: int, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Sample]:
    """Every image once over all ranks, plainly resized (the aspect is not kept), whatever the policy of the set."""
    plain = CocoDataset(dataset.coco, dataset.images, plain_policy(), dataset.seed, dataset.channels)
    draws = [Draw(index, 0, size_hw) for index in range(rank, len(dataset), world)]
    return loader(plain, [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)], workers)


def loader(dataset: CocoDataset, batches: Sampler[list[Draw]] | list[list[Draw]], workers: int) -> DataLoader[Sample]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=settle_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: making a loader must not move the random state of the training
    )
