import dataclasses
from pathlib import Path

import pytest

from kit.deploy.engine import Engine, Machine, Ranges, of_ranges, read_engine, sidecar, this_machine
from kit.files import read_json, sha256, write_json
from tests.deploy.fake_tensorrt import DETECTOR, module, pretend_gpu

HERE = Machine("10.13.2.6", "Orin", "8.7", "12.6", "Linux-aarch64")
RANGES = Ranges((1, 2, 8), ((32, 32), (64, 96), (96, 96)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of an engine that was built here."""
    path = tmp_path / "model.engine"
    path.write_bytes(b"machine code")
    Engine(DETECTOR, RANGES, HERE, "model.onnx", "a" * 64, sha256(path)).write(path)
    return path


def test_what_is_written_is_read(path: Path):
    assert read_engine(path, HERE) == Engine(DETECTOR, RANGES, HERE, "model.onnx", "a" * 64, sha256(path))
    assert sidecar(path).name == "model.engine.json"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tensorrt": "11.4.0.106"}, "this is TensorRT 11.4.0.106 on Orin"),
        ({"gpu": "NVIDIA H200"}, "on NVIDIA H200"),
        ({"compute_capability": "9.0"}, r"\(9.0\)"),
        ({"platform": "Linux-x86_64"}, "Linux-x86_64"),
    ],
)
def test_another_machine_is_refused_in_one_line_that_says_what_to_do(path: Path, change: dict[str, str], told: str):
    with pytest.raises(ValueError, match=told) as error:
        read_engine(path, dataclasses.replace(HERE, **change))
    message = str(error.value)
    assert "\n" not in message and "built for TensorRT 10.13.2.6 on Orin (8.7), Linux-aarch64" in message
    assert f"build it here: kit.deploy.build_tensorrt('model.onnx', '{path}')" in message


def test_another_cuda_is_no_obstacle(path: Path):
    assert read_engine(path, dataclasses.replace(HERE, cuda="13.2")).machine.cuda == "12.6"


def test_an_engine_that_was_changed_or_exchanged_is_refused(path: Path):
    path.write_bytes(b"other code")
    with pytest.raises(ValueError, match=r"is not the engine that model.engine.json tells of; build it here"):
        read_engine(path, HERE)


def test_an_engine_without_its_file_is_refused(path: Path):
    sidecar(path).unlink()
    with pytest.raises(ValueError, match=r"model.engine.json is missing beside it; build it with"):
        read_engine(path, HERE)


def test_a_missing_engine_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match="expected a TensorRT engine, found nothing"):
        read_engine(tmp_path / "model.engine", HERE)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"format": "another"}, "expected kit-engine-1"), ({"batch": None}, "incomplete"), ({"about": {}}, "incomplete")],
)
def test_a_file_that_is_not_whole_is_refused(path: Path, change: dict, told: str):
    write_json(sidecar(path), read_json(sidecar(path)) | change)
    with pytest.raises(ValueError, match=told):
        read_engine(path, HERE)


def test_shapes_of_the_inputs():
    assert RANGES.shapes(DETECTOR) == {
        "images": [(1, 3, 32, 32), (2, 3, 64, 96), (8, 3, 96, 96)],
        "sizes_hw": [(1, 2), (2, 2), (8, 2)],
    }
    assert RANGES.shapes(dataclasses.replace(DETECTOR, input="uint8"))["images"][2] == (8, 96, 96, 3)


def test_an_engine_may_be_less_free_than_its_file():
    free = dataclasses.replace(DETECTOR, dynamic_size=True)
    assert of_ranges(free, RANGES) == free
    bound = of_ranges(free, Ranges((4, 4, 4), ((96, 96),) * 3))
    assert (bound.batch, bound.dynamic_size, bound.size_hw) == (4, False, (96, 96))


def test_this_machine_is_known_by_its_gpu(monkeypatch):
    pretend_gpu(monkeypatch)
    machine = this_machine(module([], {}))
    assert (machine.tensorrt, machine.gpu, machine.compute_capability) == ("10.13.2.6", "Fake 1", "8.7")


def test_a_machine_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="TensorRT needs an NVIDIA GPU, torch finds none"):
        this_machine(module([], {}))
