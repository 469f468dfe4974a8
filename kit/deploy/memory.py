"""How much memory a runner takes at most: measured in a process of its own, where nothing else is.

python -m kit.deploy.memory '{"source": "model.onnx", "runtime": "onnxruntime", "batches": [1, 8]}'
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit.deploy.runtimes import Runtime, Size, open_runner
from kit.limits import resident_bytes

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Up to and with one batch size: peak_mib of the whole process, model_mib of it since the libraries were loaded,
    gpu_mib taken from the GPU (0 on a CPU)."""

    batch: int
    peak_mib: float
    model_mib: float
    gpu_mib: float


def memory_of(
    source: Path | str,
    runtime: Runtime,
    device: str,
    batches: Sequence[int],
    *,
    size_hw: Size | None = None,
    threads: int | None = None,
    half: bool = False,
) -> list[Memory]:
    """One for each batch size, which are tried from small to large."""
    wishes: dict[str, Any] = {
        "source": str(source),
        "runtime": runtime,
        "device": device,
        "threads": threads,
        "half": half,
    }
    wishes |= {"batches": sorted(batches), "size_hw": size_hw}
    command = [sys.executable, "-m", "kit.deploy.memory", json.dumps(wishes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise RuntimeError(f"{source}: its memory in {runtime} could not be measured: {last}")
    return [Memory(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def taken(wishes: dict[str, Any]) -> list[dict[str, float]]:
    """Runs each batch twice -> Memory's fields, one a batch size."""
    batches, size_hw = wishes.pop("batches"), wishes.pop("size_hw")
    before, gpu_before = resident_bytes("VmRSS") / MIB, gpu_mib(wishes["device"])
    runner = open_runner(**wishes, size_hw=size_hw and tuple(size_hw))
    rows = []
    for batch in batches:
        images = np.zeros((batch, *runner.about.size_hw, runner.about.channels), np.uint8)
        for _ in range(2):
            runner(images, np.ones((batch, 2), np.float32))
        peak = resident_bytes("VmHWM") / MIB
        gpu = gpu_mib(wishes["device"]) - gpu_before
        rows.append({"batch": batch, "peak_mib": peak, "model_mib": peak - before, "gpu_mib": gpu})
    return rows


def gpu_mib(device: str) -> float:
    """What is taken of the GPU's memory, by whomever."""
    if device != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / MIB


def main() -> int:
    print(json.dumps(taken(json.loads(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
