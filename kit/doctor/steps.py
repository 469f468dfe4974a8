"""Training steps on a copy of the detector, for the checks that train a little: its own weights are never touched."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kit.data.augment import Draw
from kit.data.dataset import Batch, CocoDataset, collate
from kit.data.picture import Size
from kit.dfine.decoder import TrainOutput
from kit.dfine.denoising import Denoising, make_denoising
from kit.dfine.detector import Detector
from kit.dfine.layers import Mlp
from kit.dfine.losses import Losses, losses
from kit.doctor.labels import expected_targets, plain_view
from kit.doctor.loader import UNREADABLE
from kit.predict import to_unit

MOST_TRIED = 500  # images that are opened to find a few
MOST_OBJECTS, LEAST_SIDE_PX = 30, 8.0  # of an image that a few steps can learn by heart
Classification = Literal["vfl", "mal"]


@dataclass(frozen=True)
class Setting:
    """What the checks that train have in common. seed: of the denoising noise, and of what is drawn by chance."""

    classification: Classification
    seed: int
    size_hw: Size
    clip_norm: float | None = None


@dataclass
class Trial:
    """A copy of a detector in training."""

    detector: Detector
    setting: Setting

    @classmethod
    def of(cls, detector: Detector, setting: Setting) -> "Trial":
        return cls(copy.deepcopy(detector).train(), setting)

    @property
    def device(self) -> torch.device:
        return next(self.detector.parameters()).device

    def noise(self, batch: Batch, step: int) -> Denoising:
        detector = self.detector
        seed = random.Random(f"{self.setting.seed} {step}").getrandbits(63)
        generator = torch.Generator(self.device).manual_seed(seed)
        queries = detector.size.queries
        return make_denoising(batch.targets, detector.num_classes, num_matching=queries, generator=generator)

    def losses(self, batch: Batch, step: int) -> Losses:
        """batch: on the detector's device."""
        output: TrainOutput = self.detector.train()(to_unit(batch.images), self.noise(batch, step))
        return self.losses_of(output, batch)

    def losses_of(self, output: TrainOutput, batch: Batch) -> Losses:
        size = self.detector.size
        return losses(output, batch.targets, reg_scale=size.reg_scale, classification=self.setting.classification)

    def learn(self, optimizer: torch.optim.Optimizer, batch: Batch, step: int) -> float:
        """One step of the weights -> the loss before it; of a loss that is not finite nothing moves."""
        result = self.losses(batch, step)
        loss = float(result.total.detach())
        optimizer.zero_grad(set_to_none=True)
        if loss - loss == 0:  # neither infinite nor NaN
            result.total.backward()
            if self.setting.clip_norm:
                nn.utils.clip_grad_norm_(self.detector.parameters(), self.setting.clip_norm)
            optimizer.step()
        return loss


def trained(detector: Detector) -> dict[str, Tensor]:
    """The weights that a training would move."""
    return {name: weight for name, weight in detector.named_parameters() if weight.requires_grad}


def few_images(train_set: CocoDataset, count: int, size_hw: Size, seed: int) -> list[int]:
    """Readable images with objects, drawn by chance; hard ones only where there are no others."""
    easy: list[int] = []
    hard: list[int] = []
    order = random.Random(seed).sample(range(len(train_set)), len(train_set))
    for index in order[:MOST_TRIED]:
        if len(easy) == count:
            break
        boxes, _ = expected_targets(train_set, index)
        if len(boxes) and opens(train_set, index):
            sides_px = boxes[:, 2:] * np.array(size_hw[::-1])
            is_easy = len(boxes) <= MOST_OBJECTS and sides_px.min() >= LEAST_SIDE_PX
            (easy if is_easy else hard).append(index)
    return sorted((easy + hard)[:count])


def opens(train_set: CocoDataset, index: int) -> bool:
    try:
        train_set.load(index)
    except UNREADABLE:
        return False  # named by the check of the files
    return True


def plain_batch(train_set: CocoDataset, indices: list[int], size_hw: Size) -> Batch:
    """These images without augmentation."""
    plain = plain_view(train_set)
    return collate([plain.sample(Draw(index, 0, size_hw), plain.load) for index in indices])


def batches_of(train_set: CocoDataset, indices: list[int], size: int, size_hw: Size) -> Iterator[Batch]:
    """Round and round, each image decoded once."""
    size = min(size, len(indices))
    parts = [indices[start : start + size] for start in range(0, len(indices) - size + 1, size)]
    ready = [plain_batch(train_set, part, size_hw) for part in parts]
    while True:
        yield from ready


def is_untrained(detector: Detector) -> bool:
    """The head of the first box begins at zero, and leaves it with the first step."""
    head: Mlp = detector.decoder.first_box
    return not any(bool(weight.any()) for weight in head.layers[-1].parameters())
