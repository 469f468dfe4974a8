"""What comes at a training from outside: signals to stop, images that cannot be read, reading processes that die."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from kit.data.augment import Draw
from kit.data.dataset import Batch, CocoDataset, Sample

ONE_WISH_S = 1.0
STAND_INS = 8  # images tried in the place of one that cannot be read
UNREADABLE_SHARE = 0.01  # of a data set's images (and one at least) may be unreadable in an epoch
CALMER = "lower lr (adapt=True goes on with another), or take amp bf16, or no amp"
DIED = "DataLoader worker"  # how torch begins to say that a reading process died


class StopSignals:
    """While entered, the first SIGTERM or SIGINT is only noted, for the loop to end at a good place; the next acts.

    What comes within ONE_WISH_S is the same wish: a scheduler signals every process of a job, and the launcher among
    them passes it on to those that it started.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.received_s = 0.0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # others cannot be told of signals
            heard = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) != signal.SIG_IGN]
            self.before = {each: signal.signal(each, self.note) for each in heard}  # nohup wants SIGINT ignored
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler or signal.SIG_DFL)

    def note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self.received_s = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self.received_s > ONE_WISH_S:
            signal.signal(number, self.before[number] or signal.SIG_DFL)
            signal.raise_signal(number)

    def stop(self, message: str) -> None:
        """Ends the program as the signal asks: KeyboardInterrupt, or the status 143 that schedulers know."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def deaths_told_at_the_next_batch() -> Iterator[None]:
    """Torch reports a dead reading process wherever the program is, in a step even; here when it is waited for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


class StandIns(Dataset[Sample]):
    """A data set in which the next image that can be read stands in for one that cannot."""

    def __init__(self, dataset: CocoDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Sample:
        """The same for the same draw and files. ValueError of the first image where none of the next can be read."""
        try:
            return self.dataset[draw]
        except ValueError as error:
            for further in range(1, min(STAND_INS + 1, len(self))):
                sample = self.read(Draw((draw.index + further) % len(self), draw.epoch, draw.size_hw))
                if sample is not None:
                    return sample
            raise error

    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """As the data set's own, which decodes each image once a batch; one by one where an image cannot be read."""
        try:
            return self.dataset.__getitems__(draws)
        except ValueError:
            return [self[draw] for draw in draws]

    def read(self, draw: Draw) -> Sample | None:
        try:
            return self.dataset[draw]
        except ValueError:
            return None


def unreadable(dataset: CocoDataset, draws: list[Draw], image_ids: list[int]) -> dict[str, str]:
    """By file: why other images stand in a batch in the place of those that were drawn with it."""
    found = {}
    for draw, image_id in zip(draws, image_ids, strict=True):
        record = dataset.coco.records[draw.index]
        if record.image_id != image_id:
            text = reason(dataset, draw)
            found[text.partition(": ")[0]] = text
    return found


def reason(dataset: CocoDataset, draw: Draw) -> str:
    try:
        dataset[draw]
    except ValueError as error:
        return str(error)
    return f"{dataset.images / dataset.coco.records[draw.index].file_name}: could not be read, and now it can"


def refuse_too_many(names: list[str], of: int) -> None:
    allowed = max(1, int(UNREADABLE_SHARE * of))
    if len(names) > allowed:
        raise ValueError(
            f"expected at most {allowed} unreadable of {of} training images in an epoch, found {len(names)}: "
            f"{', '.join(names[:5])}; mend them or take them out, then start again: it goes on from the checkpoint"
        )


# --- figures that are none ---


def broken_targets(batch: Batch) -> list[int]:
    """Ids of the images whose boxes are not finite."""
    targets = zip(batch.image_ids, batch.targets, strict=True)
    return [image_id for image_id, target in targets if not bool(target.boxes.isfinite().all())]


def why_not_finite(batch: Batch, detector: nn.Module, step: int, images_before: list[int]) -> str:
    """Of a loss that is not finite; images_before: ids in the step before, if there was one in this sitting."""
    wrong = broken_targets(batch)
    if wrong:
        return f"the boxes of image {wrong} are not finite, mend its labels"
    if are_finite(detector):
        return CALMER
    if not images_before:
        return "the weights are not finite already, take others"
    return f"a gradient of step {step - 1}, on images {images_before}, has spoilt the weights; {CALMER}"


def are_finite(*modules: nn.Module) -> bool:
    """All weights and statistics, with one transfer from the device."""
    values = [value for module in modules for value in module.state_dict().values() if value.is_floating_point()]
    return bool(nn.utils.get_total_norm(values).isfinite())
