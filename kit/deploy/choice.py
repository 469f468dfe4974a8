"""Which runtime a checkpoint is run by, unless the user says: the quickest that is installed, measured once.

The export and what was measured are kept in a cache folder (KIT_CACHE, else ~/.cache/kit), which may be deleted at any
time. torch.compile is measured only where it is asked for: it takes a minute in every process that uses it.
"""

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kit.deploy.about import About, read_checkpoint
from kit.deploy.export import export_onnx
from kit.deploy.runtimes import CHECKPOINT, Runner, Runtime, Size, chosen_device, installed_runtimes, open_runner
from kit.deploy.threads import thread_count
from kit.files import read_json, sha256, write_json

ROUNDS = 7
SAME_SCORE = 0.01  # a runtime whose best scores differ by more from torch's is not taken
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "openvino")
KIT = Path(__file__).resolve().parents[1]
SOURCES = (
    "boxes.py",
    "dfine/*.py",
    *(
        f"deploy/{name}.py"
        for name in ("about", "graph", "folding", "folded_layers", "folded_decoder", "tidy", "export")
    ),
)  # an export of other code is another export
Say = Callable[[str], None]
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Choice:
    """What was chosen for a checkpoint, and on which grounds."""

    runtime: Runtime
    device: str
    file: Path  # what the runtime opens: the export in the cache, or the checkpoint
    size_hw: Size
    top_k: int
    times_ms: Mapping[str, float]  # of one batch, medians; empty where there was nothing to choose between
    why: str
    remembered: bool  # measured before, not now

    def open(self, threads: int | None = None) -> Runner:
        size: dict[str, Any] = {"size_hw": self.size_hw, "top_k": self.top_k} if self.runtime in CHECKPOINT else {}
        return open_runner(self.file, self.runtime, self.device, threads=threads, **size)

    def because(self, why: str, times_ms: Mapping[str, float], remembered: bool = False) -> "Choice":
        return replace(self, why=why, times_ms=times_ms, remembered=remembered)


def open_fastest(checkpoint: Path | str, *, threads: int | None = None, **wishes: Any) -> Runner:
    """A checkpoint in the runtime that is quickest here; takes what `choose` takes, which tells why."""
    return choose(checkpoint, threads=threads, **wishes).open(threads)


def choose(
    checkpoint: Path | str,
    *,
    size_hw: Size | None = None,
    batch: int = 1,
    top_k: int = 300,
    device: str | None = None,
    threads: int | None = None,
    runtimes: Sequence[Runtime] | None = None,
    say: Say | None = None,
) -> Choice:
    """Measures what is installed with batches of this size, or remembers what was measured before.

    runtimes: those to choose from; None: ONNX Runtime and OpenVINO on a CPU, torch on a GPU; one alone is taken as it
    is. say: is told what takes time.
    """
    say = say or silent
    _, about = read_checkpoint(checkpoint, top_k)
    size_hw, device = size_hw or about.size_hw, chosen_device(device)
    candidates = list(runtimes or default_runtimes(device))

    def of(runtime: Runtime) -> Choice:
        file = Path(checkpoint)
        if runtime not in CHECKPOINT:
            file = cached_export(checkpoint, size_hw=size_hw, top_k=top_k, say=say)
        return Choice(runtime, device, file, size_hw, about.top_k, {}, "", False)

    if len(candidates) == 1:
        return of(candidates[0]).because("asked for" if runtimes else "nothing else to choose from", {})
    facts = facts_of(about, size_hw, batch, thread_count(threads), device, candidates)
    memory = cache_folder() / "choices" / f"{digest(facts)}.json"
    times_ms = remembered_times(memory)
    if times_ms:
        return of(quickest(times_ms)).because(f"{told(times_ms)}, measured before", times_ms, True)
    runners = {each: of(each).open(threads) for each in candidates}
    say(f"measuring {' and '.join(candidates)}, once")
    times_ms, refused = measured(runners, of("torch").open(threads), batch)
    if not times_ms:
        return of("torch").because("; ".join(refused), {})
    write_json(memory, {"facts": facts, "times_ms": times_ms}, indent=1)
    return of(quickest(times_ms)).because("; ".join([told(times_ms), *refused]), times_ms)


def silent(text: str) -> None:
    """Who listens to nothing."""


def default_runtimes(device: str) -> list[Runtime]:
    """What a checkpoint is run by unless the user says: an export's runtimes on a CPU, torch on a GPU."""
    return ["torch"] if device == "cuda" else installed_runtimes("export.onnx", device)


# --- the cache ---


def cache_folder() -> Path:
    """KIT_CACHE, else kit's part of the user's cache; made where it is missing, ValueError where that cannot be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("KIT_CACHE") or Path(base) / "kit")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_open = os.access(folder, os.W_OK)
    except OSError:
        is_open = False
    if not is_open:
        raise ValueError(
            f"{folder}: expected a folder to keep exports in, cannot write there; set KIT_CACHE to another"
        )
    return folder


def cached_export(
    checkpoint: Path | str,
    *,
    size_hw: Size | None = None,
    batch: int | None = None,
    top_k: int = 300,
    say: Say | None = None,
) -> Path:
    """The checkpoint as an ONNX file that takes uint8 images; exported when first asked for.

    Two processes that want it at once both export it, and the last one's file, which is the same, stays.
    """
    if not Path(checkpoint).is_file():
        raise ValueError(f"{checkpoint}: expected a checkpoint, found no file; check the path")
    facts = {
        "checkpoint": sha256(checkpoint),
        "wishes": [size_hw, batch, top_k],
        "versions": versions(),
        "code": code_digest(),
    }
    path = cache_folder() / "exports" / f"{Path(checkpoint).stem}-{digest(facts)}.onnx"
    if not path.is_file():
        if say:
            say(f"exporting {Path(checkpoint).name} to ONNX, once")
        export_onnx(checkpoint, path, size_hw=size_hw, batch=batch, input="uint8", top_k=top_k)
    return path


def digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def code_digest() -> str:
    """Of the code that an export depends on."""
    files = sorted(path for pattern in SOURCES for path in KIT.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that make and run exports; those that are not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# --- the measurement ---


def facts_of(
    about: About, size_hw: Size, batch: int, threads: int, device: str, candidates: Sequence[Runtime]
) -> dict[str, Any]:
    """All that the times depend on: another checkpoint of the same kind is not measured again."""
    return {
        "detector": [about.size, len(about.names), about.channels, about.top_k],
        "images": [batch, *size_hw],
        "threads": threads,
        "device": device,
        "processor": processor(),
        "candidates": list(candidates),
        "versions": versions(),
        "code": code_digest(),
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name, and a digest of what it can do: one name stands for many."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    values = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}
    able = values.get("flags") or values.get("Features") or ""
    return f"{values.get('model name', 'unknown')} {hashlib.sha256(able.encode()).hexdigest()[:8]}"


def remembered_times(memory: Path) -> dict[str, float] | None:
    """Of an earlier measurement; None where there is none that can be read."""
    if not memory.is_file():
        return None
    try:
        times_ms: dict[str, float] = read_json(memory)["times_ms"]
    except (ValueError, KeyError, TypeError):
        return None  # measured anew, and written again
    return times_ms


def measured(runners: Mapping[Runtime, Runner], reference: Runner, batch: int) -> tuple[dict[str, float], list[str]]:
    """Median times of those that find what the reference finds, taken in turn; and what is wrong with the others."""
    about = reference.about
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, *about.size_hw, about.channels), dtype=np.uint8)
    sizes_hw = np.array([about.size_hw] * batch, np.float32)
    expected = reference(images, sizes_hw).scores
    works: dict[str, Callable[[], object]] = {}
    refused = []
    for name, runner in runners.items():
        difference = float(np.abs(runner(images, sizes_hw).scores - expected).max())
        if difference <= SAME_SCORE:
            works[name] = partial(runner, images, sizes_hw)
        else:
            refused.append(f"{name} is not taken: its scores differ from torch's by {difference:.3g}")
    return {name: 1e3 * statistics.median(times_s) for name, times_s in in_turn(works, ROUNDS).items()}, refused


def in_turn(works: Mapping[K, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[K, list[float]]:
    """Seconds of each, round by round, so that whatever else the machine does strikes all alike; the rounds to warm up
    come on top and do not count."""
    times_s: dict[K, list[float]] = {name: [] for name in works}
    for _ in range(warm_up + rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times_s[name].append(time.perf_counter() - began)
    return {name: times[warm_up:] for name, times in times_s.items()}


def quickest(times_ms: Mapping[str, float]) -> Runtime:
    best: Any = min(times_ms, key=lambda name: times_ms[name])
    return best


def told(times_ms: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(times_ms.items(), key=lambda each: each[1]))
