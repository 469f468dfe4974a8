"""TensorRT is a stand-in here, whose engines run in ONNX Runtime; the memory of the GPU is memory of this machine."""

import ctypes
import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from kit.deploy.engine import Machine, read_engine
from kit.files import read_json, write_json
from tests.deploy import fake_tensorrt
from tests.deploy.jetson import FOLDER, detect, engine, model, with_uint8_input

ORIN = {"tensorrt": fake_tensorrt.VERSION, "gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6"}
ORIN |= {"platform": "Linux-aarch64"}


class HostCuda(engine.Cuda):
    """The same calls, on numpy. A graph is the work, put down while it is recorded and done when it is launched."""

    def __init__(self, memory, takes_graphs=True):
        self.stream, self.memory, self.takes_graphs = ctypes.c_void_p(77), memory, takes_graphs
        self.launches, self.gpu_name = 0, "Orin"

    def pinned_array(self, shape, kind):
        self.latest = np.zeros(shape, kind)
        return self.latest

    def device_memory(self, size):
        """Of the shape of the array that was asked for just before, for the stand-in looks at shapes."""
        buffer = np.zeros_like(self.latest)
        assert size == buffer.nbytes
        self.memory[buffer.ctypes.data] = buffer
        return ctypes.c_void_p(buffer.ctypes.data)

    def copy(self, target, source, size, direction):
        ctypes.memmove(target.value, source.value, size)

    def wait(self):
        pass

    def recorded(self, work):
        if not self.takes_graphs:
            raise RuntimeError("cudaStreamBeginCapture: operation not permitted")

        def launch():
            self.launches += 1
            work()

        return launch

    def machine(self, tensorrt_version):
        return ORIN | {"tensorrt": tensorrt_version, "gpu": self.gpu_name}


class Quiet:
    """TensorRT's own logger."""

    def __init__(self, severity):
        assert severity == self.WARNING

    def log(self, severity, text):
        pass


@pytest.fixture
def device(monkeypatch):
    """calls: what TensorRT was asked for; cuda: the GPU."""

    def make(takes_graphs=True, **how):
        calls, memory = [], {}
        cuda = HostCuda(memory, takes_graphs)
        trt = fake_tensorrt.module(calls, memory, **how)
        trt.Logger = type("Logger", (Quiet, trt.ILogger), {})
        monkeypatch.setattr(engine, "module", lambda name, mend: trt)
        monkeypatch.setattr(engine, "Cuda", lambda: cuda)
        return calls, cuda

    return make


def opened(path, **how):
    return engine.tensorrt_runner(path, how.get("cache"), 1024, lambda text: None)


def builds(calls) -> int:
    return sum(call[0] == "build_serialized_network" for call in calls)


def frame(about, seed=0):
    height, width = about["height_px"], about["width_px"]
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return detect.preprocessed(image, about)


# --- a frame ---


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_an_engine_finds_what_its_file_finds_by_one_graph_a_frame(onnx_file, device, kind):
    calls, cuda = device()
    path = onnx_file if kind == "float" else with_uint8_input(onnx_file, onnx_file.with_name("uint8.onnx"))
    runner, fresh = opened(path)
    assert fresh == path.with_suffix(".engine") and "a CUDA graph a frame" in runner.note
    for seed in (0, 1):
        inputs = frame(runner.about, seed)
        for ours, theirs in zip(runner(*inputs), model.OnnxRunner(path)(*inputs), strict=True):
            assert ours.shape == theirs.shape and np.allclose(ours, theirs, atol=1e-3)
    assert cuda.launches == 2 and ("execute_async_v3", 77) in calls


def test_where_no_graph_can_be_recorded_it_says_so_and_works_all_the_same(onnx_file, device):
    device(takes_graphs=False)
    runner, _ = opened(onnx_file)
    assert "without a CUDA graph (cudaStreamBeginCapture: operation not permitted)" in runner.note
    assert runner(*frame(runner.about))[1].max() > 0


def test_a_frame_that_tensorrt_refuses_is_an_error(onnx_file, device):
    device(faults={"execution": [""]})
    with pytest.raises(RuntimeError, match="TensorRT refused the frame"):
        opened(onnx_file)


# --- building ---


def test_the_network_is_strongly_typed_and_takes_one_image(onnx_file, device):
    calls, _ = device()
    opened(onnx_file)
    asked = dict(call[:2] for call in calls if call[0] == "create_network")
    assert asked == {"create_network": 2}  # 1 << STRONGLY_TYPED
    shapes = {call[1]: call[2:] for call in calls if call[0] == "set_shape"}
    assert shapes == {"images": ((1, 3, 320, 320),) * 3, "sizes_hw": ((1, 2),) * 3}
    assert ("set_memory_pool_limit", "WORKSPACE", 1024 * 2**20) in calls


def test_what_stands_beside_an_engine_is_what_kit_reads(onnx_file, device):
    device()
    _, fresh = opened(onnx_file)
    told = read_engine(fresh, Machine(**ORIN))
    assert told.about.names[0] == "Bus" and told.about.batch == 1 and told.onnx == onnx_file.name
    assert told.ranges.batch == (1, 1, 1) and told.ranges.sizes_hw == ((320, 320),) * 3


def test_the_second_start_builds_nothing_and_the_times_of_the_first_are_kept(onnx_file, device):
    device()
    opened(onnx_file)
    timing = onnx_file.with_suffix(".timing").read_bytes()
    calls, _ = device()
    assert opened(onnx_file)[1] is None and builds(calls) == 0
    (onnx_file.with_suffix(".engine")).unlink()
    calls, _ = device()
    assert opened(onnx_file)[1] and ("set_timing_cache", timing, False) in calls


@pytest.mark.parametrize("what", ["another file", "another GPU", "another TensorRT", "a damaged engine", "no sidecar"])
def test_an_engine_that_does_not_fit_is_built_anew(onnx_file, device, what, capsys):
    device()
    _, path = opened(onnx_file)
    calls, cuda = device()
    if what == "another file":
        content = onnx.load(onnx_file)
        content.doc_string = "new"
        onnx.save(content, onnx_file)
    elif what == "another GPU":
        cuda.gpu_name = "Thor"
    elif what == "another TensorRT":
        told = read_json(engine.sidecar(path))
        write_json(engine.sidecar(path), told | {"machine": told["machine"] | {"tensorrt": "10.3.0"}})
    elif what == "a damaged engine":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        engine.sidecar(path).unlink()
    assert engine.tensorrt_runner(onnx_file, None, 1024, print)[1] == path and builds(calls) == 1
    assert "building" in capsys.readouterr().out and opened(onnx_file)[1] is None


def test_an_engine_alone_is_used_where_it_fits_and_refused_where_not(onnx_file, device):
    device()
    _, path = opened(onnx_file)
    onnx_file.unlink()
    assert opened(path)[1] is None
    _, cuda = device()
    cuda.gpu_name = "Thor"
    with pytest.raises(model.Refused, match="built for gpu Orin, here is Thor; give the ONNX file instead"):
        opened(path)


def test_the_engine_can_lie_elsewhere(onnx_file, device, tmp_path):
    device()
    assert opened(onnx_file, cache=tmp_path / "cache")[1] == tmp_path / "cache" / "scenes.engine"
    assert not onnx_file.with_suffix(".engine").exists()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"faults": {"parser": ["no Mod", "no Tile"]}}, "cannot read it: no Mod; no Tile"),
        ({"faults": {"profile": [""]}}, "TensorRT refused one image of 320 x 320 px"),
        ({"gives_plan": False}, "could not build an engine"),
        ({"faults": {"runtime": ["bad"]}}, r"cannot read it; delete it, and it is built anew"),
    ],
)
def test_a_file_that_tensorrt_does_not_take_is_told(onnx_file, device, how, text):
    device(**how)
    with pytest.raises(model.Refused, match=text):
        opened(onnx_file)
    if "runtime" not in how.get("faults", {}):
        assert not onnx_file.with_suffix(".engine").exists() and not list(onnx_file.parent.glob("*.json"))


# --- the whole command ---


def test_a_new_engine_that_finds_nothing_is_refused_and_never_taken_for_a_good_one(
    onnx_file, device, scenes, monkeypatch, capsys
):
    """As TensorRT 10.3 does with some fp16 graphs."""
    arguments = ["--runtime", "tensorrt", "--model", str(onnx_file), "--images", str(scenes / "images" / "val")]
    arguments += ["--out", str(onnx_file.with_name("found.json")), "--warm-up", "1", "--check-images", "2"]
    device()
    with monkeypatch.context() as broken:
        broken.setattr(engine.TensorRtRunner, "__call__", blind(engine.TensorRtRunner.__call__))
        assert detect.main(arguments) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "does not find what the file does" in captured.err
    assert not engine.sidecar(onnx_file.with_suffix(".engine")).exists()
    calls, _ = device()
    assert detect.main(arguments) == 0 and builds(calls) == 1
    out = capsys.readouterr().out
    assert ": passed" in out and "TensorRT 10.13.2.6, a CUDA graph a frame" in out and re.search(r"FPS: \d", out)
    assert len(read_json(onnx_file.with_name("found.json"))) > 10


def blind(call):
    def found(self, images, sizes_hw):
        boxes, scores, labels = call(self, images, sizes_hw)
        return boxes, scores * 0, labels

    return found


# --- CUDA's own library ---


@pytest.fixture(scope="module")
def library() -> Path:
    """The CUDA runtime that torch brings."""
    found = importlib.util.find_spec("nvidia")
    for folder in found.submodule_search_locations if found and found.submodule_search_locations else ():
        for path in sorted(Path(folder).glob("*/lib/libcudart.so.1[23]")):
            return path
    pytest.skip("no CUDA runtime among the packages")


def test_every_function_that_is_called_is_in_cudas_library(library):
    names = set(re.findall(r'"(cuda[A-Z]\w+)"', (FOLDER / "engine.py").read_text()))
    runtime = ctypes.CDLL(str(library))
    assert len(names) > 10 and [name for name in names if not hasattr(runtime, name)] == []


def test_without_a_gpu_cudas_own_words_are_told(library, monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("looks at a machine without a GPU")
    monkeypatch.setattr(engine, "CUDA_LIBRARIES", [str(library)])
    with pytest.raises(model.Refused, match=r"expected a GPU, found none \(cudaStreamCreateWithFlags: .*(CUDA|device)"):
        engine.Cuda()


def test_without_cuda_the_way_to_start_the_container_is_told(monkeypatch):
    monkeypatch.setattr(engine, "CUDA_LIBRARIES", ["libcudart.so.99"])
    with pytest.raises(model.Refused, match=r"expected libcudart\.so\.99 of CUDA, found none .*--runtime=nvidia"):
        engine.Cuda()
