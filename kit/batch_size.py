"""How many images a step may hold: trial steps with a growing batch, until the memory is used as far as it should be.

On a GPU its own memory is looked at; on a CPU the trial steps run in a process of their own, whose highest resident
size is read, so that nothing of them stays, and a trial that is killed for memory is one that did not fit. The images
are drawn and hold as many objects as the fullest image of the set: what is measured is the worst case.

    python -m kit.batch_size --model n --side 640 [--most 64] [--share 0.8] [--classes 80] [--objects 50]
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import nn

from kit.boxes import Target
from kit.dfine.denoising import make_denoising
from kit.dfine.detector import Detector, Size
from kit.dfine.losses import losses
from kit.files import one_line
from kit.limits import free_bytes, resident_bytes
from kit.optimisation import RECIPES, Average, make_optimizer
from kit.predict import to_unit

STEPS = 3  # after the second a process is as large as it gets, but for fragments
SHARE = 0.8  # of the memory that is free

Peak = Callable[[int], int | None]  # images a step -> the bytes they take at the highest; None: they do not fit


@dataclass(frozen=True)
class Kind:
    """What takes the memory of a step. amp: as in Plan; objects: in every image."""

    size: Size
    num_classes: int
    size_hw: tuple[int, int]
    channels: int = 3
    objects: int = 50
    amp: str = "no"


@dataclass(frozen=True)
class Choice:
    """A batch size, and a line that tells why."""

    batch_size: int
    why: str


def largest_batch(peak: Peak, free: float, most: int = 64, share: float = SHARE) -> Choice:
    """Doubled from 1 while the next one is expected to fit, and does."""
    limit, batch, taken = share * free, 0, list[int]()
    for trial in powers(most):
        if len(taken) > 1 and 2 * taken[-1] - taken[0] > limit:  # what one step of 1 holds is not doubled
            break
        found = peak(trial)
        if found is None or found > limit:
            break
        batch, taken = trial, [*taken, found]
    free_gib = free / 2**30
    if not batch:
        raise ValueError(
            f"batch_size: expected memory for one image a step, found {free_gib:.1f} GiB free, of which {share:.0%} "
            "may be taken; take a smaller input or model, amp bf16, or more memory"
        )
    used = f"{batch} images a step took {taken[-1] / 2**30:.2f} GiB of {free_gib:.1f} GiB free"
    end = "more were not asked for" if batch == most else f"{min(most, 2 * batch)} would take more than {share:.0%}"
    return Choice(batch, f"batch_size {batch}: {used}; {end}")


def powers(most: int) -> list[int]:
    """1, 2, 4, ... and most itself."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def probed_batch_size(kind: Kind, device: torch.device | str, most: int = 64, share: float = SHARE) -> Choice:
    """For this machine as it is now."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return largest_batch(lambda batch: peak_on_gpu(kind, device, batch), free, most, share)
    return largest_batch(lambda batch: peak_in_child(kind, batch), free_bytes(), most, share)


def peak_on_gpu(kind: Kind, device: torch.device, batch: int) -> int | None:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    try:
        train_some_steps(kind, device, batch)
        return torch.cuda.max_memory_reserved(device) - before
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()


def peak_in_child(kind: Kind, batch: int) -> int | None:
    """None also where the child was killed, as by a system that runs out of memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_peak, args=(sender, kind, batch, torch.get_num_threads()))
    child.start()
    sender.close()
    try:
        return int(receiver.recv())
    except EOFError:
        return None
    finally:
        child.join()
        receiver.close()


def send_peak(sender: Connection, kind: Kind, batch: int, threads: int) -> None:
    """What the steps add to a process that has loaded everything else."""
    torch.set_num_threads(threads)
    before = resident_bytes("VmRSS")
    try:
        train_some_steps(kind, torch.device("cpu"), batch)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return  # the pipe closes without an answer
    sender.send(resident_bytes("VmHWM") - before)


def train_some_steps(kind: Kind, device: torch.device, batch: int) -> None:
    """All that a step of `fit` keeps: activations, gradients, the optimizer's moments and the average."""
    detector = Detector(kind.size, kind.num_classes, kind.channels).to(device).train()
    optimizer, average = make_optimizer(detector, RECIPES["s"]), Average(detector, 0.99, 1)
    images = torch.zeros(batch, kind.channels, *kind.size_hw, dtype=torch.uint8, device=device)
    targets = [drawn_target(kind, device) for _ in range(batch)]
    half = torch.float16 if kind.amp == "fp16" else torch.bfloat16
    for _ in range(STEPS):
        with torch.autocast(device.type, half, enabled=kind.amp != "no"):
            noise = make_denoising(targets, kind.num_classes, num_matching=kind.size.queries)
            output = detector(to_unit(images), noise)
        losses(output, targets, reg_scale=kind.size.reg_scale).total.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(detector)


def drawn_target(kind: Kind, device: torch.device) -> Target:
    centres = torch.linspace(0.2, 0.8, kind.objects)
    boxes = torch.stack([centres, centres.flip(0), *[torch.full_like(centres, 0.1)] * 2], dim=1)  # (N, 4)
    labels = torch.arange(kind.objects) % kind.num_classes
    return Target(boxes.to(device), labels.to(device))


def main(arguments: list[str] | None = None) -> int:
    from kit.dfine.detector import published_size, unfrozen

    parser = argparse.ArgumentParser(prog="python -m kit.batch_size", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="s", help="n, s, m, l or x")
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--most", type=int, default=64)
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=50, help="in the fullest image")
    parser.add_argument("--amp", choices=["no", "bf16", "fp16"], default="no")
    given = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        size = unfrozen(published_size(given.model))
        kind = Kind(size, given.classes, (given.side, given.side), objects=given.objects, amp=given.amp)
        print(probed_batch_size(kind, device, given.most, given.share).why)
    except ValueError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
