"""Stand-ins for TensorRT and a GPU: they write down what is asked of them, and an engine really runs, in ONNX Runtime.

Only names that TensorRT 10.13 and 11.4 both have; test_tensorrt_names.py holds them to it.
"""

import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
from onnx import parser

from kit.deploy.about import KEY, About

VERSION = "10.13.2.6"
OWN: set[str] = set()  # public names of the stand-ins that TensorRT has not

Calls = list[tuple]
Memory = dict[int, np.ndarray]


def pretend_gpu(monkeypatch) -> None:
    """torch then tells of a GPU; none of its functions may be called."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Fake 1")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (8, 7))


class FakeGpu:
    """Gpu in numpy: an upload is a copy, a graph is the work itself."""

    stream = 77

    def __init__(self, calls: Calls, memory: Memory):
        self.calls, self.memory = calls, memory

    def host(self, shape, kind) -> np.ndarray:
        return np.zeros(shape, kind)

    def device(self, shape, kind) -> np.ndarray:
        buffer = np.zeros(shape, kind)
        self.memory[buffer.ctypes.data] = buffer
        return buffer

    def address(self, buffer: np.ndarray) -> int:
        return buffer.ctypes.data

    def upload(self, target: np.ndarray, source: np.ndarray) -> None:
        target[...] = source

    def download(self, target: np.ndarray, source: np.ndarray) -> None:
        target[...] = source

    def prepare(self, target: np.ndarray, source: np.ndarray) -> None:
        import torch

        from kit.deploy.tensorrt_runner import fill_input

        fill_input(torch.from_numpy(target), torch.from_numpy(source))

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        self.calls.append(("recorded",))
        work()

        def send() -> None:
            self.calls.append(("sent",))
            work()

        return send

    def wait(self) -> None:
        self.calls.append(("wait",))


def module(calls: Calls, memory: Memory, *, faults: dict[str, list[str]] | None = None, gives_plan: bool = True):
    """The module `tensorrt`. faults: {"parser": [...], "builder": [...]}, what goes wrong there."""
    faults = faults or {}

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = "internal error", "error", "warning", "info"

    class IProgressMonitor:
        pass

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 1

    class BuilderFlag(enum.Enum):
        TF32 = 1

    class MemoryPoolType(enum.Enum):
        WORKSPACE = 1

    class TensorIOMode(enum.Enum):
        INPUT, OUTPUT = 1, 2

    class DataType(enum.Enum):
        FLOAT, UINT8, INT32 = 1, 2, 10

    def kind_of(tensor: onnx.ValueInfoProto) -> DataType:
        names = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.INT32: "INT32"}
        return DataType[names[tensor.type.tensor_type.elem_type]]

    class Builder:
        def __init__(self, logger):
            self._logger = logger
            calls.append(("Builder",))

        def create_network(self, flags):
            calls.append(("create_network", flags))
            return INetworkDefinition()

        def create_builder_config(self):
            calls.append(("create_builder_config",))
            return IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            calls.append(("build_serialized_network", config.builder_optimization_level))
            for fault in faults.get("builder", []):
                self._logger.log(ILogger.WARNING, f"careful: {fault}")
                self._logger.log(ILogger.ERROR, fault)
            if config.progress_monitor:
                walk(config.progress_monitor)
            shapes = {} if config._profile is None else config._profile._shapes
            return memoryview(json.dumps(shapes).encode() + b"\n" + network._model) if gives_plan else None

    class INetworkDefinition:
        _model = b""

        def _tensors(self, of: str) -> list:
            return list(getattr(onnx.load_from_string(self._model).graph, of))

        @property
        def num_inputs(self):
            return len(self._tensors("input"))

        @property
        def num_outputs(self):
            return len(self._tensors("output"))

        def get_input(self, index):
            tensor = self._tensors("input")[index]
            dims = tensor.type.tensor_type.shape.dim
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
            return SimpleNamespace(name=tensor.name, shape=shape)

        def get_output(self, index):
            return SimpleNamespace(name=self._tensors("output")[index].name)

    class OnnxParser:
        def __init__(self, network, logger):
            self._network = network

        def parse(self, model):
            calls.append(("parse", len(model)))
            self._network._model = model
            return not faults.get("parser")

        @property
        def num_errors(self):
            return len(faults["parser"])

        def get_error(self, index):
            fault = faults["parser"][index]
            return SimpleNamespace(node_name=lambda: f"node {index}", node_operator=lambda: "Mod", desc=lambda: fault)

    class IOptimizationProfile:
        def __init__(self):
            self._shapes = {}

        def set_shape(self, input, min, opt, max):
            calls.append(("set_shape", input, min, opt, max))
            self._shapes[input] = [min, opt, max]

    class ITimingCache:
        def __init__(self, data):
            self._data = data

        def serialize(self):
            return memoryview(self._data + b"+")

    class IBuilderConfig:
        builder_optimization_level = 3
        progress_monitor = None
        _profile = _cache = None

        def clear_flag(self, flag):
            calls.append(("clear_flag", flag.name))

        def set_memory_pool_limit(self, pool, pool_size):
            calls.append(("set_memory_pool_limit", pool.name, pool_size))

        def add_optimization_profile(self, profile):
            calls.append(("add_optimization_profile",))
            self._profile = profile
            return -1 if "profile" in faults else 0

        def create_timing_cache(self, serialized_timing_cache):
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache, ignore_mismatch):
            calls.append(("set_timing_cache", cache._data, ignore_mismatch))
            self._cache = cache
            return cache._data != b"another GPU"

        def get_timing_cache(self):
            return self._cache

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            if "runtime" in faults:
                self._logger.log(ILogger.ERROR, faults["runtime"][0])
                return None
            return ICudaEngine(serialized_engine)

    class ICudaEngine:
        def __init__(self, plan):
            head, _, model = plan.partition(b"\n")
            self._shapes, self._model = json.loads(head), onnx.load_from_string(model)
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            self._kinds = {each.name: kind_of(each) for each in (*self._model.graph.input, *self._model.graph.output)}

        @property
        def num_io_tensors(self):
            return len(self._kinds)

        def get_tensor_name(self, index):
            return list(self._kinds)[index]

        def get_tensor_mode(self, name):
            inputs = [each.name for each in self._model.graph.input]
            return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return self._kinds[name]

        def create_execution_context(self):
            calls.append(("create_execution_context",))
            return None if "context" in faults else IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine):
            self._engine, self._set, self._addresses = engine, {}, {}

        def set_input_shape(self, name, shape):
            low, _, high = self._engine._shapes.get(name, [shape] * 3)
            self._set[name] = tuple(shape)
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def get_tensor_shape(self, name):
            output = next(each for each in self._engine._model.graph.output if each.name == name)
            return (self._set["images"][0], *(dim.dim_value for dim in output.type.tensor_type.shape.dim[1:]))

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle):
            calls.append(("execute_async_v3", stream_handle))
            given = {name: memory[self._addresses[name]] for name in self._set}
            assert {name: array.shape for name, array in given.items()} == self._set
            names = [each.name for each in self._engine._model.graph.output]
            for name, answer in zip(names, self._engine._session.run(names, given), strict=True):
                memory[self._addresses[name]][...] = answer
            return "execution" not in faults

    parts = {name: value for name, value in locals().items() if isinstance(value, type)}
    return SimpleNamespace(__version__=VERSION, **parts)


def walk(monitor) -> None:
    """A build of two steps, of which the second has four of its own."""
    monitor.phase_start("build", None, 2)
    monitor.step_complete("build", 0)
    monitor.phase_start("tactics", "build", 4)
    for step in range(4):
        assert monitor.step_complete("tactics", step)
    monitor.phase_finish("tactics")
    monitor.step_complete("build", 1)
    monitor.phase_finish("build")


DETECTOR = About(size="n", names=["Bus"], category_ids=[0], channels=3, height_px=64, width_px=96, top_k=2)


def write_detector(path: Path, about: About = DETECTOR, extra: str = "") -> Path:
    """An ONNX file with a detector's tensors: top_k times the whole image, scores by the colours of its corner."""
    sides = "h, w" if about.dynamic_size else f"{about.height_px}, {about.width_px}"
    batch, colours, most = about.batch or "batch", about.channels, about.top_k
    is_float = about.input == "float"
    images = f"float[{batch}, {colours}, {sides}]" if is_float else f"uint8[{batch}, {sides}, {colours}]"
    boxes, scores = f"float[{batch}, {most}, 4] boxes", f"float[{batch}, {most}] scores"
    ends, area, grey = (f"{most}, 16, 16", "2, 3", 1) if is_float else (f"16, 16, {most}", "1, 2", 255)
    ones = ", ".join(["1"] * most)
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 18]>
        detector ({images} images, float[{batch}, 2] sizes_hw) => ({boxes}, {scores}, int32[{batch}, {most}] labels)
        <int64[3] starts = {{0, 0, 0}}, int64[3] ends = {{{ends}}}, int64[3] axes = {{1, 2, 3}},
         int64[2] area = {{{area}}}, int64[1] second = {{1}}, float[1, {most}, 1] ones = {{{ones}}},
         float grey = {{{grey}}}, float hundred = {{100}}> {{
            number = Cast<to = 1>(images)
            corner = Slice(number, starts, ends, axes)
            mean = ReduceMean<keepdims = 0>(corner, area)
            scores = Div(mean, grey)
            percent = Mul(scores, hundred)
            labels = Cast<to = 6>(percent)
            zero = Sub(sizes_hw, sizes_hw)
            h, w = Split<axis = 1, num_outputs = 2>(sizes_hw)
            whole = Concat<axis = 1>(zero, w, h)
            rows = Unsqueeze(whole, second)
            boxes = Mul(rows, ones)
            {extra}
        }}""")
    onnx.checker.check_model(model, full_check=True)
    model.metadata_props.add(key=KEY, value=about.as_json())
    onnx.save(model, path)
    return path
