"""The runner on a stand-in of TensorRT and of a GPU; and, on a machine that has both, on the real ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.data.augment import resized
from kit.deploy import tensorrt as builder
from kit.deploy import tensorrt_runner as subject
from kit.deploy.about import About
from kit.deploy.runtimes import OnnxRunner, TorchRunner
from kit.deploy.tensorrt import build_tensorrt
from kit.deploy.tensorrt_runner import MOST_FRAMES, TensorRtRunner, fill_input
from tests.deploy import fake_tensorrt
from tests.deploy.fake_tensorrt import DETECTOR, FakeGpu, write_detector

SIZES_HW = np.array([[100, 200], [30, 40], [1080, 1920]], np.float32)
DYNAMIC = dataclasses.replace(DETECTOR, dynamic_size=True)


@pytest.fixture
def calls() -> list[tuple]:
    return []


@pytest.fixture
def runner(monkeypatch, calls, tmp_path):
    """Builds an engine of a file with these properties and opens it; both are stand-ins that ONNX Runtime drives."""
    fake_tensorrt.pretend_gpu(monkeypatch)

    def opened(about: About = DETECTOR, faults=None, **arguments) -> TensorRtRunner:
        memory: dict[int, np.ndarray] = {}
        cuda_graph = arguments.pop("cuda_graph", True)
        fake = fake_tensorrt.module(calls, memory, faults=faults)
        for module in (builder, subject):
            monkeypatch.setattr(module, "tensorrt", lambda: fake)
        source = write_detector(tmp_path / "model.onnx", about)
        path = build_tensorrt(source, tmp_path / "model.engine", **arguments)
        calls.clear()
        return TensorRtRunner(path, FakeGpu(calls, memory), cuda_graph)

    return opened


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def same(found, expected) -> None:
    for name in ("boxes_xyxy", "scores", "labels"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_it_finds_what_onnx_runtime_finds(runner, tmp_path, kind, count):
    ours = runner(dataclasses.replace(DETECTOR, input=kind), batch=(1, 2, 2))  # so that 3 are two batches
    images = noise(count, 64, 96, 3)
    same(ours(images, SIZES_HW[:count]), OnnxRunner(tmp_path / "model.onnx", "cpu")(images, SIZES_HW[:count]))
    assert (ours.runtime, ours.device, ours.about.names) == ("tensorrt", "cuda", ["Bus"])


def test_answers_do_not_change_with_the_next_batch(runner):
    ours = runner()
    first = ours(noise(1, 64, 96, 3), SIZES_HW[:1])
    before = first.scores.copy()
    ours(np.zeros((1, 64, 96, 3), np.uint8), SIZES_HW[:1])
    assert np.array_equal(first.scores, before) and before[0, 0] > 0.4


def test_a_batch_is_one_graph_that_is_recorded_once_after_a_first_run(runner, calls):
    ours = runner()
    assert calls == []
    for _ in range(3):
        ours(noise(2, 64, 96, 3), SIZES_HW[:2])
    run = ("execute_async_v3", FakeGpu.stream)
    sent = [("sent",), run, ("wait",)]
    assert calls == [("create_execution_context",), run, ("wait",), ("recorded",), run, *sent * 3]


def test_without_graphs_each_step_is_sent(runner, calls):
    ours = runner(cuda_graph=False)
    ours(noise(1, 64, 96, 3), SIZES_HW[:1])
    assert calls == [("create_execution_context",), ("execute_async_v3", FakeGpu.stream), ("wait",)]


def test_a_batch_below_the_smallest_is_filled_up(runner, calls):
    ours = runner(batch=(4, 4, 4))
    assert ours.about.batch == 4
    found = ours(noise(1, 64, 96, 3), SIZES_HW[:1])
    assert found.scores.shape == (1, 2) and found.boxes_xyxy.tolist() == [[[0, 0, 200, 100]] * 2]


def test_an_image_of_any_size_is_resized_on_the_way(runner, tmp_path):
    ours, image = runner(), noise(200, 130, 3)
    theirs = OnnxRunner(tmp_path / "model.onnx", "cpu")
    expected = theirs(resized(image, (64, 96))[None], np.array([[200, 130]], np.float32))
    np.testing.assert_allclose(ours.frame(image).scores, expected.scores, atol=1 / 255)
    np.testing.assert_allclose(ours.frame(image).boxes_xyxy, expected.boxes_xyxy)


def test_shapes_have_buffers_of_their_own_and_only_the_last_are_kept(runner, calls):
    ours = runner(DYNAMIC, sizes_hw=((32, 32), (64, 96), (96, 96)))
    for side in (32, 64, 96, 32, 64):
        ours(noise(1, side, side, 3), SIZES_HW[:1])
    assert calls.count(("create_execution_context",)) == 3
    for height in range(100, 100 + MOST_FRAMES):
        ours.frame(noise(height, 90, 3))
    assert len(ours.frames) == MOST_FRAMES and {key[0][1] for key in ours.frames} == {100, 101, 102, 103}


def test_other_sizes_than_the_engine_takes_are_refused(runner):
    with pytest.raises(ValueError, match=r"takes images from \(64, 96\) to \(64, 96\) px, got \(64, 64\); resize"):
        runner()(noise(1, 64, 64, 3), SIZES_HW[:1])


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        ({"runtime": ["bad magic"]}, ValueError, r"model.engine: TensorRT 10.13.2.6 cannot open it: bad magic"),
        ({"context": []}, RuntimeError, "no memory for a batch of 1"),
        ({"execution": []}, RuntimeError, "could not run the engine"),
    ],
)
def test_what_tensorrt_refuses_is_told(runner, faults, error, message):
    with pytest.raises(error, match=message):
        runner(faults=faults)(noise(1, 64, 96, 3), SIZES_HW[:1])


def test_an_engine_with_other_tensors_is_refused(runner, monkeypatch):
    monkeypatch.setattr(subject, "INPUTS", ("pictures", "sizes_hw"))
    with pytest.raises(ValueError, match=r"expected the tensors .*pictures.*found .*images"):
        runner()


def test_an_engine_of_another_machine_is_refused(runner, monkeypatch, tmp_path):
    runner()
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Fake 2")
    with pytest.raises(ValueError, match=r"built for .*Fake 1.*this is .*Fake 2"):
        TensorRtRunner(tmp_path / "model.engine", FakeGpu([], {}))


@pytest.mark.parametrize("size_hw", [(40, 50), (20, 25), (64, 96)])
def test_the_input_is_filled_as_the_cpu_would(size_hw: tuple[int, int]):
    image = noise(40, 50, 3)
    expected = torch.from_numpy(resized(image, size_hw)).float()  # (h, w, C)
    floats, stored = torch.zeros(1, 3, *size_hw), torch.zeros(1, *size_hw, 3, dtype=torch.uint8)
    for target in (floats, stored):
        fill_input(target, torch.from_numpy(image)[None])
    assert (floats[0].permute(1, 2, 0) * 255 - expected).abs().max() < 1.001
    assert (stored[0] - expected).abs().max() <= 1
    assert floats.max() <= 1 and (size_hw != (40, 50) or torch.equal(stored[0], expected.byte()))


@pytest.mark.gpu
def test_a_real_engine_finds_what_torch_finds(checkpoint: Path, exported: Path, tmp_path: Path):
    pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    path = build_tensorrt(exported, tmp_path / "model.engine", timing_cache=tmp_path / "timings")
    images = noise(3, 320, 320, 3)
    expected = TorchRunner(checkpoint)(images, SIZES_HW)
    for cuda_graph in (False, True):
        found = TensorRtRunner(path, cuda_graph=cuda_graph)(images, SIZES_HW)
        assert np.abs(found.scores - expected.scores).max() < 1e-3
