from pathlib import Path

import pytest

from kit.deploy.memory import memory_of, taken
from tests.deploy.small import small_onnx


def test_larger_batches_never_take_less(tmp_path: Path):
    path = small_onnx(tmp_path / "small.onnx", height_px=1024, width_px=1024)
    wishes = {"source": str(path), "runtime": "onnxruntime", "device": "cpu", "threads": 1, "half": False}
    one, many = taken(wishes | {"batches": [1, 16], "size_hw": None})
    assert (one["batch"], many["batch"]) == (1, 16)
    assert many["peak_mib"] >= one["peak_mib"] > many["model_mib"] >= one["model_mib"] and one["gpu_mib"] == 0


@pytest.mark.slow
def test_a_process_of_its_own_tells_what_it_took_or_why_it_could_not(tmp_path: Path):
    path = small_onnx(tmp_path / "small.onnx")
    (memory,) = memory_of(path, "onnxruntime", "cpu", [2])
    assert memory.batch == 2 and memory.peak_mib > memory.model_mib > 0
    with pytest.raises(
        RuntimeError, match=r"none\.onnx: its memory in onnxruntime could not be measured: ValueError: "
    ):
        memory_of(tmp_path / "none.onnx", "onnxruntime", "cpu", [1])
