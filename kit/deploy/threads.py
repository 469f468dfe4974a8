"""How many threads each library takes, and that those which wait sleep: on shared cores this decides the speed.

A thread that waits busily takes the core from one that works; OpenMP does so unless OMP_WAIT_POLICY is PASSIVE when
torch is loaded (kit sets it where it comes first), and ONNX Runtime unless it is told not to. Libraries count the
cores of the machine, not those that this process may use.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from kit.limits import ROOT, group_folders

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h has them
KEPT_BYTES = 256 * 2**20


def available_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: not counting a core's second thread, nor more than the container's share."""
    allowed = os.sched_getaffinity(0)
    cores = {core_of(number, root) for number in allowed}
    return max(1, int(min(len(cores), cpu_quota(root))))


def core_of(number: int, root: Path = ROOT) -> str:
    """What tells the core of a logical processor from others: the list of those that share it."""
    siblings = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    return siblings.read_text().strip() if siblings.is_file() else str(number)


def cpu_quota(root: Path = ROOT) -> float:
    """Cores that the control groups of this process leave it, version 2 or 1; infinite where they set no limit."""
    places = group_folders(root)
    shares = [share_of((place / "cpu.max").read_text()) for place in places if (place / "cpu.max").is_file()]
    old = [root / "sys/fs/cgroup/cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
    if all(each.is_file() for each in old):
        shares.append(share_of(" ".join(each.read_text().strip() for each in old)))
    return min(shares, default=float("inf"))


def share_of(text: str) -> float:
    """`quota period` in microseconds -> cores; `max` or -1 is no limit."""
    quota, period = text.split()
    return float("inf") if quota == "max" or float(quota) <= 0 else float(quota) / float(period)


def thread_count(threads: int | None = None) -> int:
    """threads where given, else what OMP_NUM_THREADS says, else the cores that this process may use."""
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}; None lets kit choose")
        return threads
    return wished() or available_cores()


def wished() -> int | None:
    """The first number of OMP_NUM_THREADS."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else None


def describe(threads: int | None = None) -> str:
    """One line: how many threads, why, and how they wait."""
    count, cores = thread_count(threads), available_cores()
    source = "as asked" if threads is not None else "as OMP_NUM_THREADS says" if wished() else "one a core"
    line = f"{count} thread{'s' * (count > 1)} on {cores} core{'s' * (cores > 1)} ({source}); {waiting()}"
    return line + (", and more threads than cores make each slower" if count > cores else "")


def waiting() -> str:
    """How OpenMP's threads wait, as far as it can still be told."""
    policy = os.environ.get("OMP_WAIT_POLICY", "").upper()
    if policy == "PASSIVE":
        return "threads that wait sleep"
    reason = f"OMP_WAIT_POLICY={policy}" if policy else "torch was loaded before kit"
    return f"torch's threads wait busily ({reason}): on shared cores set OMP_WAIT_POLICY=PASSIVE before Python starts"


def settle(threads: int | None = None) -> str:
    """For a command, which owns its process: torch and OpenCV take this many threads from now on -> describe.

    And freed memory is kept for what comes next.
    """
    count = thread_count(threads)
    keep_freed_memory()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    return describe(threads)


def keep_freed_memory() -> None:
    """A picture of some MiB need not get fresh pages from the kernel, which costs a fifth of decoding and resizing it.

    glibc alone knows these settings; elsewhere nothing changes.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch, as the calling thread uses it, with this many threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)
