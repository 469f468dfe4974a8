"""TensorRT on the device: builds the engine of an ONNX file, checks what it is bound to, runs it as one CUDA graph.

The CUDA runtime is called as it is, through ctypes: neither torch nor a further package is needed.
"""

import ctypes
import json
import platform
from pathlib import Path

import numpy as np
from model import INPUTS, OUTPUTS, Refused, module, onnx_about, read_json, sha256, write_whole

ENGINE = "kit-engine-1"  # the format of what stands beside an engine
CUDA_FOLDERS = (
    "",
    *(f"/usr/local/cuda/{each}/" for each in ("lib64", "targets/aarch64-linux/lib", "targets/sbsa-linux/lib")),
)
CUDA_LIBRARIES = [f"{folder}libcudart.so.{version}" for version in (13, 12) for folder in CUDA_FOLDERS]
BOUND_TO = ("tensorrt", "gpu", "compute_capability", "platform")  # an engine runs on no other


class Cuda:
    """The few functions of the CUDA runtime, 12 or later, that a frame takes."""

    TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
    NON_BLOCKING = 1  # flag of a stream
    THREAD_LOCAL = 1  # cudaStreamCaptureMode
    CAPABILITY = (75, 76)  # cudaDeviceAttr: compute capability, major and minor

    def __init__(self):
        self.library = first_library(CUDA_LIBRARIES)
        self.library.cudaGetErrorString.restype = ctypes.c_char_p
        self.stream = ctypes.c_void_p()
        try:
            self.call("cudaStreamCreateWithFlags", ctypes.byref(self.stream), ctypes.c_uint(self.NON_BLOCKING))
        except RuntimeError as error:
            raise Refused(f"expected a GPU, found none ({error}); start the container with --runtime=nvidia") from error

    def call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name}: {self.library.cudaGetErrorString(status).decode()}")

    def device_memory(self, size):
        pointer = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def pinned_array(self, shape, kind):
        """An array in memory that the GPU reads without the processor's help."""
        pointer, size = ctypes.c_void_p(), int(np.prod(shape)) * np.dtype(kind).itemsize
        self.call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(0))
        return np.frombuffer((ctypes.c_ubyte * size).from_address(pointer.value), kind).reshape(shape)

    def copy(self, target, source, size, direction):
        self.call("cudaMemcpyAsync", target, source, ctypes.c_size_t(size), ctypes.c_int(direction), self.stream)

    def wait(self):
        self.call("cudaStreamSynchronize", self.stream)

    def recorded(self, work):
        """What `work` puts on the stream, as one graph that a single call launches."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cudaStreamBeginCapture", self.stream, ctypes.c_int(self.THREAD_LOCAL))
        try:
            work()
        finally:
            self.call("cudaStreamEndCapture", self.stream, ctypes.byref(graph))
        self.call("cudaGraphInstantiate", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        return lambda: self.call("cudaGraphLaunch", ready, self.stream)

    def machine(self, tensorrt_version):
        """What an engine is bound to."""
        capability = []
        for attribute in self.CAPABILITY:
            capability.append(str(self.number("cudaDeviceGetAttribute", ctypes.c_int(attribute), ctypes.c_int(0))))
        version = self.number("cudaRuntimeGetVersion")
        return {
            "tensorrt": tensorrt_version,
            "gpu": self.gpu(),
            "compute_capability": ".".join(capability),
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "platform": f"{platform.system()}-{platform.machine()}",
        }

    def number(self, name, *arguments):
        answer = ctypes.c_int()
        self.call(name, ctypes.byref(answer), *arguments)
        return answer.value

    def gpu(self):
        """Its name, from the driver, whose functions have kept their form."""
        driver, name = first_library(("libcuda.so.1",)), ctypes.create_string_buffer(256)
        if driver.cuInit(0) or driver.cuDeviceGetName(name, 256, 0):
            raise Refused("expected a GPU, the CUDA driver finds none; start the container with --runtime=nvidia")
        return name.value.decode()


def first_library(names):
    faults = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            faults.append(str(error))
    raise Refused(f"expected {names[0]} of CUDA, found none ({faults[0]}); start the container with --runtime=nvidia")


class TensorRtRunner:
    """An engine that takes one image at a time. Upload, detector and download are one CUDA graph."""

    runtime = "tensorrt"

    def __init__(self, path, about, trt, cuda):
        self.about, self.cuda = about, cuda
        self.logger = trt.Logger(trt.Logger.WARNING)
        self.trt_runtime = trt.Runtime(self.logger)  # has to outlive the engine
        self.engine = self.trt_runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise Refused(f"{path}: TensorRT {trt.__version__} cannot read it; delete it, and it is built anew")
        self.context = self.engine.create_execution_context()
        names = {self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)}
        if names != {*INPUTS, *OUTPUTS}:
            raise Refused(f"{path}: expected {', '.join(INPUTS + OUTPUTS)}, found {', '.join(sorted(names))}")
        self.host, self.device = {}, {}
        for name, (shape, kind) in self.tensors().items():
            self.host[name] = cuda.pinned_array(shape, kind)
            self.device[name] = cuda.device_memory(self.host[name].nbytes)
            self.context.set_tensor_address(name, self.device[name].value)
        self.note = f"TensorRT {trt.__version__}, {self.prepared()}"

    def tensors(self):
        """Shape and type of each; the shapes of the outputs follow once those of the inputs are set."""
        inputs = input_tensors(self.about)
        for name, (shape, _) in inputs.items():
            self.context.set_input_shape(name, shape)
        kinds = dict(zip(OUTPUTS, (np.float32, np.float32, np.int32), strict=True))
        return inputs | {name: (tuple(self.context.get_tensor_shape(name)), kinds[name]) for name in OUTPUTS}

    def prepared(self):
        """One frame as it is, then the frame as a graph; where it cannot be recorded, each is put together anew."""
        for name in INPUTS:
            self.host[name][:] = 1
        self.launch = self.frame
        self.frame()
        self.cuda.wait()
        try:
            self.launch = self.cuda.recorded(self.frame)
        except RuntimeError as error:
            return f"without a CUDA graph ({error})"
        return "a CUDA graph a frame"

    def frame(self):
        for name in INPUTS:
            self.copy(name, self.cuda.TO_DEVICE)
        if not self.context.execute_async_v3(self.cuda.stream.value):
            raise RuntimeError("TensorRT refused the frame; its lines above say why")
        for name in OUTPUTS:
            self.copy(name, self.cuda.TO_HOST)

    def copy(self, name, direction):
        host, device = ctypes.c_void_p(self.host[name].ctypes.data), self.device[name]
        target, source = (device, host) if direction == self.cuda.TO_DEVICE else (host, device)
        self.cuda.copy(target, source, self.host[name].nbytes, direction)

    def __call__(self, images, sizes_hw):
        """As OnnxRunner; the arrays are good until the next call."""
        self.host["images"][:], self.host["sizes_hw"][:] = images, sizes_hw
        self.launch()
        self.cuda.wait()
        return tuple(self.host[name][0] for name in OUTPUTS)


def input_tensors(about):
    """Shape and type of the inputs, for one image."""
    height, width, channels = about["height_px"], about["width_px"], about["channels"]
    images = ((1, height, width, channels), np.uint8), ((1, channels, height, width), np.float32)
    return {"images": images[0 if about["input"] == "uint8" else 1], "sizes_hw": ((1, 2), np.float32)}


# --- building ---


def tensorrt_runner(path, cache, workspace_mib, say):
    """path: an .onnx, whose engine is built where there is none that fits, or an .engine.

    -> the runner, and whether the engine is new; cache: folder of the engine, None: that of the file.
    """
    trt, cuda = module("tensorrt", "on a Jetson it comes with JetPack"), Cuda()
    machine = cuda.machine(trt.__version__)
    onnx_file = path if path.suffix == ".onnx" else None
    engine = Path(cache or path.parent) / f"{path.stem}.engine" if onnx_file else path
    fault = why_not(engine, onnx_file, machine)
    if fault and onnx_file is None:
        raise Refused(f"{engine}: {fault}; give the ONNX file instead, and it is built anew")
    if fault:
        say(f"building {engine}: {fault}; some minutes ...")
        build_engine(onnx_file, engine, trt, machine, workspace_mib)
    return TensorRtRunner(engine, read_json(sidecar(engine))["about"], trt, cuda), engine if fault else None


def sidecar(engine):
    return engine.with_name(engine.name + ".json")


def why_not(engine, onnx_file, machine):
    """Why an engine cannot be used here; empty where it can."""
    if not engine.is_file() or not sidecar(engine).is_file():
        return "there is none yet, or no .json beside it"
    told = read_json(sidecar(engine))
    if told.get("format") != ENGINE:
        return f"{sidecar(engine).name} is not of {ENGINE}"
    for key in BOUND_TO:
        if told["machine"].get(key) != machine[key]:
            return f"it was built for {key} {told['machine'].get(key)}, here is {machine[key]}"
    if onnx_file is not None and told["onnx_sha256"] != sha256(onnx_file):
        return f"it was built from another {onnx_file.name}"
    return "" if told["engine_sha256"] == sha256(engine) else "it is not the file that was built"


def build_engine(onnx_file, engine, trt, machine, workspace_mib):
    """Strongly typed: the precision is that of the file. Beside it what it is bound to, and a timing cache."""
    about, logger = onnx_about(onnx_file), trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_file.read_bytes()):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise Refused(f"{onnx_file}: TensorRT {trt.__version__} cannot read it: {reasons}")
    config, cache_file = builder.create_builder_config(), engine.with_suffix(".timing")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    known = cache_file.read_bytes() if cache_file.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known) or config.create_timing_cache(b""), False)
    profile = builder.create_optimization_profile()
    for name, (shape, _) in input_tensors(about).items():
        profile.set_shape(name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise Refused(f"{onnx_file}: TensorRT refused one image of {about['height_px']} x {about['width_px']} px")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused(f"{onnx_file}: TensorRT {trt.__version__} could not build an engine; its lines above say why")
    write_whole(engine, bytes(plan))
    write_whole(cache_file, bytes(config.get_timing_cache().serialize()))
    size = [about["height_px"], about["width_px"]]
    about = {name: value for name, value in about.items() if name != "format"} | {"batch": 1, "dynamic_size": False}
    told = {"format": ENGINE, "about": about, "onnx": onnx_file.name, "onnx_sha256": sha256(onnx_file)}
    told |= {"engine_sha256": sha256(engine), "batch": [1, 1, 1], "sizes_hw": [size] * 3, "machine": machine}
    write_whole(sidecar(engine), json.dumps(told, indent=1).encode())
