from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from kit.data.coco import find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy import runtimes
from kit.deploy.about import KEY
from kit.deploy.openvino_runner import MOST_COMPILED, OpenVinoRunner
from kit.deploy.results import find
from kit.deploy.runtimes import (
    OnnxRunner,
    TorchRunner,
    installed_runtimes,
    onnx_session,
    open_runner,
    tensorrt,
)
from tests.deploy.small import small_onnx

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="looks at a machine without a GPU")
on_cpu = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])


def doubling(path: Path) -> Path:
    """An ONNX file that is none of ours."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def of_value(value: int, batch: int, height: int = 64, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images of one grey each, darker by one from image to image, and made-up sizes."""
    greys = np.arange(value, value - batch, -1).astype(np.uint8)
    images = np.tile(greys[:, None, None, None], (1, height, width, 3))
    return images, np.array([[7, 9]] * batch, np.float32)


# --- answers ---


@on_cpu
@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_a_file_gets_images_as_it_wants_them_in_batches_of_any_size(tmp_path: Path, runtime: str, kind: str):
    runner = open_runner(small_onnx(tmp_path / "small.onnx", input=kind), runtime)
    for batch in (1, 3, 2, 1):
        found = runner(*of_value(51, batch))
        assert found.scores[:, 0] == pytest.approx(np.arange(51, 51 - batch, -1) / 255, abs=1e-5)
        assert found.boxes_xyxy.tolist() == [[[7, 9, 7, 9]]] * batch
        assert found.labels.dtype == np.int32 and found.labels.shape == (batch, 1)


@on_cpu
def test_answers_stay_as_they_are_when_the_runner_is_asked_again(tmp_path: Path, runtime: str):
    runner = open_runner(small_onnx(tmp_path / "small.onnx"), runtime)
    first = runner(*of_value(0, 1))
    runner(*of_value(255, 1))
    assert first.scores.tolist() == [[0.0]]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_every_runtime_finds_the_same_on_scenes(checkpoint: Path, exported: Path, scenes: Path, runtime: str):
    split = find_split(scenes, "val")
    images = [read_image(split.images / record.file_name) for record in read_coco(split.annotations).records[:3]]
    reference = find(open_runner(checkpoint), images)
    runner = open_runner(checkpoint if runtime == "torch" else exported, runtime)
    one_by_one = [find(runner, [image])[0] for image in images]
    for expected, found in zip(reference, one_by_one, strict=True):
        sure = expected.scores > 0.3
        assert sure.any() and torch.equal(found.labels[: len(sure)][sure], expected.labels[sure])
        assert (found.scores - expected.scores).abs().max() < 1e-5
        assert (found.boxes_xyxy_px[sure] - expected.boxes_xyxy_px[sure]).abs().max() < 1e-2


def test_a_checkpoint_takes_another_size_and_fewer_answers(checkpoint: Path):
    runner = open_runner(checkpoint, size_hw=(256, 352), top_k=20)
    assert runner.about.size_hw == (256, 352) and runner.about.top_k == 20
    found = runner(np.zeros((2, 256, 352, 3), np.uint8), np.ones((2, 2), np.float32))
    assert found.boxes_xyxy.shape == (2, 20, 4) and found.scores.shape == found.labels.shape == (2, 20)


@pytest.mark.slow
def test_compiled_finds_what_torch_finds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    compile_really, asked = torch.compile, []

    def traced_alone(module: torch.nn.Module, **how: object) -> object:  # machine code would take a minute
        asked.append(how)
        return compile_really(module, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", traced_alone)
    compiled, plain = (open_runner(checkpoint, each, "cpu", size_hw=(256, 256)) for each in ("compiled", "torch"))
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8), np.ones((1, 2), np.float32)
    assert compiled.runtime == "compiled" and asked == [{"dynamic": False, "options": {"freezing": True}}]
    assert compiled(*images).scores == pytest.approx(plain(*images).scores, abs=1e-6)


def test_a_failed_compilation_is_told_in_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*images: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda module, **how: failing)
    runner = open_runner(checkpoint, "compiled", "cpu")
    with pytest.raises(RuntimeError, match=r"^torch.compile failed: no compiler; it needs") as error:
        runner(np.zeros((1, 320, 320, 3), np.uint8), np.ones((1, 2), np.float32))
    assert "\n" not in str(error.value)


GPU_WAYS = [("torch", False, 2e-3), ("torch", True, 0.05), ("compiled", False, 2e-3)]


@pytest.mark.gpu
@pytest.mark.parametrize(("runtime", "half", "close"), GPU_WAYS)
def test_a_gpu_finds_what_the_cpu_finds(checkpoint: Path, scenes: Path, runtime: str, half: bool, close: float):
    split = find_split(scenes, "val")
    image = read_image(split.images / read_coco(split.annotations).records[0].file_name)
    expected = find(open_runner(checkpoint, "torch", "cpu"), [image])[0]
    runner = open_runner(checkpoint, runtime, "cuda", half=half)
    for _ in range(3):  # CUDA graphs are recorded in the first calls
        found = find(runner, [image])[0]
    assert (found.scores - expected.scores)[:10].abs().max() < close


# --- threads ---


def test_onnx_runtime_sleeps_while_it_waits_and_takes_the_threads_it_is_given(tmp_path: Path):
    options = onnx_session(small_onnx(tmp_path / "small.onnx"), "cpu", threads=3).get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_openvino_compiles_once_a_batch_size_with_the_threads_it_is_given(tmp_path: Path):
    runner = OpenVinoRunner(small_onnx(tmp_path / "small.onnx"), threads=1)
    for batch in (2, 1, 2):
        runner(*of_value(0, batch))
    assert sorted(shape[0] for shape in runner.compiled) == [1, 2]
    assert runner.compiled[2, 64, 32, 3].get_property("INFERENCE_NUM_THREADS") == 1
    assert str(runner.compiled[2, 64, 32, 3].get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"


def test_openvino_keeps_a_few_compiled_models_and_lets_the_oldest_go(tmp_path: Path):
    runner = OpenVinoRunner(small_onnx(tmp_path / "small.onnx"))
    for batch in range(1, MOST_COMPILED + 3):
        runner(*of_value(0, batch))
    assert [shape[0] for shape in runner.compiled] == list(range(3, MOST_COMPILED + 3))


def test_openvino_gives_the_same_for_batches_that_it_computes_in_the_background(tmp_path: Path):
    runner = OpenVinoRunner(small_onnx(tmp_path / "small.onnx"), threads=2)
    values = [3, 200, 90, 17, 255]
    expected = [runner(*of_value(value, 2)) for value in values]
    begun = [runner.begin(*of_value(value, 2)) for value in values]  # more than are computed at once
    for each, wait in zip(expected, begun, strict=True):
        found = wait()
        assert np.array_equal(found.scores, each.scores) and np.array_equal(found.boxes_xyxy, each.boxes_xyxy)
    assert len({float(each.scores.sum()) + float(each.boxes_xyxy.sum()) for each in expected}) == len(values)
    assert len(runner.idle[2, 64, 32, 3]) == len(values)
    assert runner.shared[2, 64, 32, 3].get_property("INFERENCE_NUM_THREADS") == 2


def test_torch_takes_its_threads_for_the_call_alone(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    runner, before, during = TorchRunner(checkpoint, "cpu", threads=3), torch.get_num_threads(), []
    module = runner.module
    runner.module = lambda *images: during.append(torch.get_num_threads()) or module(*images)
    runner(np.zeros((1, 320, 320, 3), np.uint8), np.ones((1, 2), np.float32))
    assert during == [3] and torch.get_num_threads() == before


# --- what cannot be opened ---


@pytest.mark.parametrize(
    ("name", "runtime", "message"),
    [
        ("a.onnx", "torch", r"a\.onnx: a file \.onnx is run by onnxruntime or openvino, not by torch; export it again"),
        ("a.xml", "onnxruntime", r"a file \.xml is run by openvino, not by onnxruntime"),
        ("a.engine", "openvino", r"a file \.engine is run by tensorrt, not by openvino"),
        (
            "a.pt",
            "openvino",
            r"a checkpoint is run by torch or compiled, not by openvino; kit\.deploy\.choice",
        ),
        ("a.pt", "tensor", "runtime must be one of torch, compiled, onnxruntime, openvino, tensorrt, got 'tensor'"),
    ],
)
def test_a_runtime_that_cannot_run_the_file_is_refused(name: str, runtime: str, message: str):
    with pytest.raises(ValueError, match=message):
        open_runner(name, runtime)


@on_cpu
def test_a_file_of_others_is_refused(tmp_path: Path, runtime: str):
    with pytest.raises(ValueError, match=r"other\.onnx: expected a file that kit has exported"):
        open_runner(doubling(tmp_path / "other.onnx"), runtime)


@on_cpu
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, runtime: str):
    path = tmp_path / "cut.onnx"
    path.write_bytes(b"\x08\x0a garbage" * 9)
    with pytest.raises(ValueError, match=r"cut\.onnx: expected .*; export it again") as error:
        open_runner(path, runtime)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"none\.onnx: expected .*, found nothing; check the path"):
        open_runner(tmp_path / "none.onnx", runtime)


def test_openvino_files_of_others_and_halves_are_refused(tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.Core().read_model(str(doubling(tmp_path / "other.onnx"))), tmp_path / "other.xml")
    with pytest.raises(ValueError, match=r"other\.xml: expected a file that kit has exported"):
        open_runner(tmp_path / "other.xml")
    (tmp_path / "other.bin").unlink()
    with pytest.raises(ValueError, match=r"other\.bin: expected a file, found nothing"):
        open_runner(tmp_path / "other.xml")


def test_an_openvino_file_tells_about_itself(tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(str(small_onnx(tmp_path / "small.onnx")))
    model.set_rt_info(OnnxRunner(tmp_path / "small.onnx").about.as_json(), [KEY])
    openvino.save_model(model, tmp_path / "small.xml")
    runner = open_runner(tmp_path / "small.xml")
    assert runner.about.names == ["a", "b"] and runner(*of_value(255, 2)).scores[:, 0] == pytest.approx([1, 254 / 255])


def test_an_int8_graph_is_not_for_openvino(tmp_path: Path):
    path = small_onnx(tmp_path / "small.onnx", precision="int8")
    with pytest.raises(ValueError, match=r"found int8, .*; make one for OpenVINO with kit\.deploy\.int8"):
        open_runner(path, "openvino")
    assert open_runner(path).runtime == "onnxruntime"


def test_openvino_that_is_not_installed_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("kit.deploy.runtimes.import_module", missing)
    with pytest.raises(ImportError, match=r"^OpenVINO is not installed: pip install -e '\.\[openvino\]'$"):
        open_runner(small_onnx(tmp_path / "small.onnx"), "openvino")


@pytest.mark.parametrize(
    ("images", "sizes_hw", "message"),
    [
        (np.zeros((1, 64, 32, 3), np.float32), np.ones((1, 2)), r"must be uint8 \(1, 64, 32, 3\), got float32"),
        (
            np.zeros((1, 3, 64, 32), np.uint8),
            np.ones((1, 2)),
            r"\(1, 64, 32, 3\), got uint8 \(1, 3, 64, 32\)",
        ),
        (np.zeros((64, 32, 3), np.uint8), np.ones((1, 2)), r"got uint8 \(64, 32, 3\); resize, or pad the batch"),
        (np.zeros((0, 64, 32, 3), np.uint8), np.ones((0, 2)), r"must be uint8 \(1, 64, 32, 3\), got uint8 \(0, "),
        (np.zeros((2, 64, 32, 3), np.uint8), np.ones((1, 2)), r"sizes_hw must be \(2, 2\), .* got \(1, 2\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path: Path, images: np.ndarray, sizes_hw: np.ndarray, message: str):
    runner = open_runner(small_onnx(tmp_path / "small.onnx"))
    with pytest.raises(ValueError, match=message):
        runner(images, sizes_hw)


@on_cpu
def test_a_file_of_fixed_batch_takes_that_batch_alone(tmp_path: Path, runtime: str):
    runner = open_runner(small_onnx(tmp_path / "small.onnx", batch=2), runtime)
    assert runner(*of_value(0, 2)).scores.shape == (2, 1)
    with pytest.raises(ValueError, match=r"must be uint8 \(2, 64, 32, 3\), got uint8 \(3, 64, 32, 3\); .* pad"):
        runner(*of_value(0, 3))


@on_cpu
def test_another_size_is_for_files_that_leave_it_open(tmp_path: Path, runtime: str):
    fixed, open_size = small_onnx(tmp_path / "fixed.onnx"), small_onnx(tmp_path / "open.onnx", dynamic_size=True)
    with pytest.raises(ValueError, match=r"fixed\.onnx: input of 96 x 96 px: expected 64 x 32"):
        open_runner(fixed, runtime, size_hw=(96, 96))
    runner = open_runner(open_size, runtime, size_hw=(96, 96))
    assert runner.about.size_hw == (96, 96)
    assert runner(*of_value(255, 1, 96, 96)).scores.tolist() == [[1.0]]
    with pytest.raises(ValueError, match="input of 65 x 96 px: expected multiples of 32"):
        runner(*of_value(255, 1, 65, 96))


# --- devices ---


@without_gpu
def test_without_a_gpu_the_cpu_is_taken_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = onnx_session(doubling(tmp_path / "model.onnx"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.run(None, {"x": np.array([1, 2], np.float32)})[0].tolist() == [2, 4]
    assert capfd.readouterr() == ("", "")


@without_gpu
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path, checkpoint: Path) -> None:
    for path in (doubling(tmp_path / "model.onnx"), checkpoint):
        with pytest.raises(ValueError, match="torch finds no GPU; take cpu"):
            open_runner(path, device="cuda")
    with pytest.raises(ValueError, match="device must be cuda or cpu, got 'gpu'"):
        onnx_session(tmp_path / "model.onnx", "gpu")
    with pytest.raises(ValueError, match="half precision is for a GPU, here the device is cpu"):
        open_runner(checkpoint, half=True)
    with pytest.raises(ValueError, match="OpenVINO runs on the cpu here, got device 'cuda'"):
        open_runner(tmp_path / "model.onnx", "openvino", "cuda")


def test_what_is_installed_is_told_by_kind_of_file_and_device(monkeypatch: pytest.MonkeyPatch):
    assert installed_runtimes("a.pt", "cpu") == ["torch", "compiled"]
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    assert installed_runtimes("a.onnx", "cpu") == ["onnxruntime", "openvino"]
    assert installed_runtimes("a.engine", "cpu") == []
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert installed_runtimes("a.onnx", "cpu") == ["onnxruntime"] and installed_runtimes("a.xml", "cpu") == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    assert installed_runtimes("a.plan") == ["tensorrt"] and installed_runtimes("a.xml") == []


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: expected an ONNX file, found nothing"):
        onnx_session(tmp_path / "model.onnx", "cpu")


def test_the_absence_of_tensorrt_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("kit.deploy.runtimes.import_module", missing)
    with pytest.raises(ImportError, match="TensorRT is not installed: pip install") as error:
        tensorrt()
    assert "\n" not in str(error.value)
