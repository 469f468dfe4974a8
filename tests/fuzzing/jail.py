"""Runs one reader on one file in a process of its own, with hard limits, and says what became of it.

The process is forked, so that nothing has to be loaded anew, and is killed where it takes too long. The limits are the
system's: of memory beyond what was there before, of the processor's time, and of the size of files that it writes.
"""

import math
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

MIB = 2**20
LARGEST_FILE_MIB = 512
WAITING = 8  # times the limit of seconds that may go by on the clock: the machine may be busy
LATE = "hang: killed when its time was over"

How = Literal["answer", "told", "error", "fault"]


class Told(Exception):
    """What a report says is wrong with a file: kit has answered, and the answer is that it is not sound."""


class Refused(ValueError):
    """What a command of kit writes before it ends with the status 2."""


@dataclass(frozen=True)
class Limits:
    seconds: float = 20.0  # of the processor
    memory_mib: int = 1536


@dataclass(frozen=True)
class Outcome:
    """answer: of the reader; error: a ValueError or the like; fault: a crash, a hang, or another exception."""

    how: How
    text: str  # of the error, or of the fault
    answer: Any
    seconds: float
    peak_mib: float  # beyond what the process had at its start


def confined(work: Callable[[], Any], limits: Limits, noise: Path) -> Outcome:
    """noise: takes what is printed, by libraries too."""
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run_child(work, limits, writing, noise)
    os.close(writing)
    message, is_late = received(reading, began + WAITING * limits.seconds)
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    (how, text, answer), at_start_mib = ending_of(message, is_late, status)
    return Outcome(how, text, answer, time.monotonic() - began, max(0.0, usage.ru_maxrss / 1024 - at_start_mib))


def run_child(work: Callable[[], Any], limits: Limits, writing: int, noise: Path) -> None:
    """Never returns, whatever happens."""
    try:
        log = os.open(noise, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        torch.set_num_threads(1)  # threads of the process before are not in this one: it would wait for them for ever
        cv2.setNumThreads(0)
        limit(limits)
        at_start_mib = resident_mib()
        message = pickle.dumps((said(work), at_start_mib))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(message)
        os._exit(0)
    finally:
        os._exit(70)


def limit(limits: Limits) -> None:
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = address_space + limits.memory_mib * MIB
    pairs = {
        resource.RLIMIT_AS: most,
        resource.RLIMIT_FSIZE: LARGEST_FILE_MIB * MIB,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in pairs.items():
        resource.setrlimit(what, (value, value))
    seconds = math.ceil(limits.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # a signal that can be told from others comes first


def said(work: Callable[[], Any]) -> tuple[How, str, Any]:
    """What the work has come to. Only what kit says in its own words is an error; all else is a fault."""
    try:
        return "answer", "", work()
    except Told as told:
        return "told", str(told), None
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # what they hold may be all of the memory
        name = type(error).__name__
        if isinstance(error, Refused | FileNotFoundError) or is_in_kits_words(error):
            return "error", str(error), None
        return "fault", f"{name}: {str(error)[:300]} ({place_of(error)})", None


def is_in_kits_words(error: BaseException) -> bool:
    """ValueError, TypeError, or kit's own kinds of them, raised by a line of kit and not by what lies below it."""
    is_own = type(error) in (ValueError, TypeError) or type(error).__module__.startswith("kit.")
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    return is_own and "/kit/" in last.filename and (last.line or "").lstrip().startswith("raise ")


def place_of(error: BaseException) -> str:
    """The lines of kit and the last one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if "/kit/" in each.filename][-2:]
    return ", ".join(dict.fromkeys(f"{Path(each.filename).name}:{each.lineno}" for each in [*own, frames[-1]]))


def received(reading: int, deadline: float) -> tuple[bytes, bool]:
    """All that comes through the pipe, and whether the time was over before it closed."""
    parts = []
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return b"", True
            part = pipe.read(1 << 20)
            if not part:
                return b"".join(parts), False
            parts.append(part)


def ending_of(message: bytes, is_late: bool, status: int) -> tuple[tuple[How, str, Any], float]:
    """What was said, and the memory that the process had at its start, MiB."""
    if is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return ("fault", LATE, None), 0.0
    if os.WIFSIGNALED(status):
        return ("fault", f"crash: {signal.Signals(os.WTERMSIG(status)).name}", None), 0.0
    if not message or os.WEXITSTATUS(status):
        return ("fault", f"crash: ended with status {os.WEXITSTATUS(status)} and without a word", None), 0.0
    said, at_start_mib = pickle.loads(message)  # of our own process
    return said, at_start_mib


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def threads() -> int:
    """Of this process: a fork takes only one of them along."""
    return len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 1
