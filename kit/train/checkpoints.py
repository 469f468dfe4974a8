"""Checkpoints of a training: two generations, each with its digest; what is damaged or of another run is refused.

`last.pt` is the newest, `previous.pt` the one before it. A kill at any moment leaves both whole, or `last.pt` alone.
"""

import errno
import hashlib
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kit.files import atomic, link

CHECKPOINT, PREVIOUS, FORGOTTEN = "last.pt", "previous.pt", "forgotten.pt"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREADABLE = (  # what zipfile, pickle and torch make of bytes that are not theirs
    zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError,
    OSError, EOFError, RuntimeError, ValueError, OverflowError, LookupError,
)  # fmt: skip
Say = Callable[[str], None]


class DamagedError(ValueError):
    """A file that is not what was written: cut short, changed, or of another kind."""


def write_state(path: Path, state: dict[str, Any]) -> None:
    """All of it or nothing, with a digest of what it holds."""
    with atomic(path) as temporary:
        save_state(temporary, state)


def write_generation(out: Path, state: dict[str, Any], keep: bool) -> None:
    """out/last.pt; with `keep` the one before stays as out/previous.pt. last.pt is there at every moment."""
    last = out / CHECKPOINT
    with atomic(last) as temporary:
        save_state(temporary, state)
        if keep and last.exists():
            with atomic(out / PREVIOUS) as name:
                link(last, name)


def save_state(path: Path, state: dict[str, Any]) -> None:
    with disk_errors_told(path.parent), path.open("wb") as file:
        torch.save(state | {"digest": digest_of(state)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path, device: torch.device | str) -> dict[str, Any]:
    """What write_state has written. DamagedError where it is not that any more; those of old have no digest."""
    if not path.is_file():
        raise DamagedError(f"{path}: expected a checkpoint, found nothing")
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip()
        state: dict[str, Any] = {} if bad else torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise damaged(path, str(error).partition("\n")[0]) from error
    if bad:
        raise damaged(path, f"a wrong checksum in {bad}")
    if not isinstance(state, dict) or state.pop("digest", None) not in (None, digest_of(state)):
        raise damaged(path, "content of another digest")
    return state


def damaged(path: Path, found: str) -> DamagedError:
    return DamagedError(f"{path}: expected a checkpoint as it was written, found {found}; it was cut short or changed")


def read_newest(out: Path, device: torch.device | str, say: Say) -> tuple[dict[str, Any], bool] | None:
    """The state of last.pt, or of previous.pt where that is damaged, and whether last.pt is whole; None: no last.pt."""
    last, previous = out / CHECKPOINT, out / PREVIOUS
    if not last.exists():
        return None
    try:
        return read_run(last, device), True
    except DamagedError as error:
        if not previous.exists():
            raise DamagedError(f"{error}; there is no {PREVIOUS}: begin again with resume=False (--force)") from error
        state = read_run(previous, device)
        say(f"{error}; going on from {PREVIOUS}, step {state['run']['step']}")
        return state, False


def read_run(path: Path, device: torch.device | str) -> dict[str, Any]:
    state = read_state(path, device)
    if not {"fingerprint", "run"} <= set(state):
        raise damaged(path, f"the keys {', '.join(map(str, state))}")
    return state


def clear_remains(out: Path, say: Say) -> None:
    """What a killed writer has left half written goes; a previous.pt whose last.pt was taken away is put aside."""
    for name in (CHECKPOINT, PREVIOUS, "best.pt", "best_state.pt", "history.json", "progress.json", "epoch_*.pt"):
        stem, suffix = name.rsplit(".", 1)
        for path in out.glob(f".{stem}.*.{suffix}"):
            path.unlink(missing_ok=True)
    if (out / PREVIOUS).exists() and not (out / CHECKPOINT).exists():
        (out / PREVIOUS).replace(out / FORGOTTEN)
        say(f"{out}: {CHECKPOINT} was taken away, so the run begins anew; {PREVIOUS} is now {FORGOTTEN}")


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """A full disk, also where torch hides it, becomes one line that tells what is free and what stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError) or reason.errno not in NO_SPACE:
            raise
        free_mib = shutil.disk_usage(folder).free / 2**20
        text = (
            f"cannot write into {folder}, {os.strerror(reason.errno)} ({free_mib:.0f} MiB free); what was there stays"
        )
        raise OSError(reason.errno, f"{text}: make room and start again, it goes on from {CHECKPOINT}") from error


def digest_of(value: Any) -> str:
    """SHA-256 of nested dicts, lists, tensors and plain values: names, types, shapes and every bit of the numbers."""
    mark = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            mark.update(f"tensor {plain.dtype} {tuple(plain.shape)};".encode())
            mark.update(plain.flatten().view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            mark.update(f"dict {len(value)};".encode())
            for key, each in value.items():
                add(key)
                add(each)
        elif isinstance(value, list | tuple):
            mark.update(f"{type(value).__name__} {len(value)};".encode())
            for each in value:
                add(each)
        else:
            mark.update(f"{type(value).__name__} {value!r};".encode())

    add(value)
    return mark.hexdigest()


# --- the same run? ---


@dataclass(frozen=True)
class Stride:
    """How a run walks through its images: what moves when the batch or the number of processes does."""

    steps_per_epoch: int
    images_per_step: int

    def step_at(self, step: int, other: "Stride") -> int:
        """Where this run is when the other was at `step`: the same epoch, as many of its images seen, or just fewer.

        An epoch that was begun is never taken for ended: its last step is left to do.
        """
        epoch, in_epoch = divmod(step, other.steps_per_epoch)
        seen = in_epoch * other.images_per_step
        return epoch * self.steps_per_epoch + min(seen // self.images_per_step, self.steps_per_epoch - 1)


def stride(images: int, batch_size: int, accumulate: int, world: int) -> Stride:
    """Forward passes take whole batches of every process; an epoch's odd passes at the end are left out."""
    pass_images = max(1, batch_size // accumulate // world) * world
    return Stride(images // pass_images // accumulate, pass_images * accumulate)


ADAPTABLE = ("batch_size", "accumulate", "world", "recipe", "amp", "clip_norm")  # the recipe follows the batch


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """By name: what two identities say, where they differ."""
    names = sorted(old | new)
    return {name: f"{old.get(name)}, now {new.get(name)}" for name in names if old.get(name) != new.get(name)}


def refuse_other_run(path: Path, differing: dict[str, str], adapt: bool) -> None:
    """ValueError where a checkpoint cannot be gone on from, or only by choice."""
    fixed = [name for name in differing if name not in ADAPTABLE]
    if not differing or (adapt and not fixed):
        return
    shown = ", ".join(f"{name} ({text})" for name, text in differing.items() if name in fixed or not fixed)
    way = "" if fixed else "; adapt=True goes on with the images seen so far, else"
    raise ValueError(
        f"{path}: expected a checkpoint of this run, found one that differs in {shown}{way or ';'} "
        "use another run name, or resume=False (of the pipeline: --force) to begin again"
    )
