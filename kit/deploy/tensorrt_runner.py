"""A TensorRT engine as a runner: upload, preparation, detection and download of a batch are one CUDA graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kit.deploy.about import INPUTS, OUTPUTS, About
from kit.deploy.engine import ignore, new_listener, read_engine, this_machine
from kit.deploy.runtimes import Found, Runtime, tensorrt

MOST_FRAMES = 4  # shapes whose buffers and graphs are kept
Shape = tuple[int, ...]
Buffer = Any  # what a Gpu hands out


class Gpu(Protocol):
    """Memory, one stream, and graphs of what was sent to it. Everything but `wait` returns before it is done."""

    stream: int  # handle of the CUDA stream

    def host(self, shape: Shape, kind: type[np.generic]) -> np.ndarray:
        """Page-locked memory: both a numpy array and a buffer."""
        ...

    def device(self, shape: Shape, kind: type[np.generic]) -> Buffer: ...

    def address(self, buffer: Buffer) -> int: ...

    def upload(self, target: Buffer, source: np.ndarray) -> None: ...

    def download(self, target: np.ndarray, source: Buffer) -> None: ...

    def prepare(self, target: Buffer, source: Buffer) -> None:
        """As fill_input."""
        ...

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        """work as one graph, which the callable sends."""
        ...

    def wait(self) -> None: ...


class TensorRtRunner:
    """An engine that build_tensorrt has built here. Takes any batch: split and filled up to what the engine takes.

    gpu: None takes torch's. cuda_graph: False sends each step on its own, for a debugger or a profiler.
    """

    runtime: Runtime = "tensorrt"
    device = "cuda"

    def __init__(self, path: Path | str, gpu: Gpu | None = None, cuda_graph: bool = True):
        trt = tensorrt()
        self.described = read_engine(path, this_machine(trt))
        self.about = self.described.about
        self.listener = new_listener(trt, ignore)  # TensorRT wants it as long as the engine lives
        self.trt_runtime = trt.Runtime(self.listener)
        self.engine = self.trt_runtime.deserialize_cuda_engine(Path(path).read_bytes())
        if self.engine is None:
            raise ValueError(f"{path}: TensorRT {trt.__version__} cannot open it: {'; '.join(self.listener.errors)}")
        check_tensors(trt, self.engine, self.about, path)
        self.gpu = gpu or TorchGpu()
        self.cuda_graph = cuda_graph
        self.frames: dict[tuple[Shape, tuple[int, int]], Frame] = {}

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        """images: (B, H, W, C) uint8 of the input size; sizes_hw: (B, 2) float32 that boxes are told in -> Found."""
        size_hw = self.checked_size((images.shape[1], images.shape[2]))
        largest = self.described.ranges.batch[2]
        parts = [slice(start, start + largest) for start in range(0, len(images), largest)]
        found = [self.part(images[part], sizes_hw[part], size_hw) for part in parts]
        boxes, scores, labels = ([getattr(each, name) for each in found] for name in ("boxes_xyxy", "scores", "labels"))
        return Found(np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels))

    def frame(self, image: np.ndarray) -> Found:
        """One image (H, W, C) uint8 of any size, resized on the GPU; boxes in its own pixels.

        The result of a resize differs from the CPU's by one grey level at most.
        """
        return self.part(image[None], np.array([image.shape[:2]], np.float32), self.about.size_hw)

    def part(self, images: np.ndarray, sizes_hw: np.ndarray, size_hw: tuple[int, int]) -> Found:
        """At most one batch of the engine."""
        count = max(len(images), self.described.ranges.batch[0])
        key = ((count, *images.shape[1:]), size_hw)
        frame = self.frames.pop(key, None) or Frame(self, *key)
        self.frames[key] = frame  # the last one used is the last to go
        if len(self.frames) > MOST_FRAMES:
            del self.frames[next(iter(self.frames))]
        return frame(images, sizes_hw)

    def checked_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        smallest, _, largest = self.described.ranges.sizes_hw
        if all(low <= side <= high for low, side, high in zip(smallest, size_hw, largest, strict=True)):
            return size_hw
        raise ValueError(f"the engine takes images from {smallest} to {largest} px, got {size_hw}; resize them")


class Frame:
    """One shape of input: its context, its buffers, and the way from host to host. A graph is bound to all of them."""

    def __init__(self, runner: TensorRtRunner, source: Shape, size_hw: tuple[int, int]):
        """source: (B, H, W, C) as uploaded; size_hw: as the engine gets it."""
        gpu, about = runner.gpu, runner.about
        self.gpu, batch = gpu, source[0]
        self.context = runner.engine.create_execution_context()
        if self.context is None:
            raise RuntimeError(f"TensorRT has no memory for a batch of {batch}: {'; '.join(runner.listener.errors)}")
        is_float = about.input == "float"
        shape = (batch, about.channels, *size_hw) if is_float else (batch, *size_hw, about.channels)
        self.images = gpu.device(shape, np.float32 if is_float else np.uint8)
        self.uploaded = gpu.device(source, np.uint8) if shape != source else self.images
        self.sizes_hw = gpu.device((batch, 2), np.float32)
        for name, buffer, each in zip(INPUTS, (self.images, self.sizes_hw), (shape, (batch, 2)), strict=True):
            if not self.context.set_input_shape(name, each):
                raise ValueError(f"the engine does not take {name} as {each}; build it again")
            self.context.set_tensor_address(name, gpu.address(buffer))
        self.outputs = {name: self.output(name, *output_form(name, batch, about.top_k)) for name in OUTPUTS}
        self.sources = gpu.host(source, np.uint8), gpu.host((batch, 2), np.float32)
        self.targets = {name: gpu.host(*output_form(name, batch, about.top_k)) for name in OUTPUTS}
        self.send = self.enqueue
        if runner.cuda_graph:
            self.enqueue()  # TensorRT settles the shapes before it can be recorded
            gpu.wait()
            self.send = gpu.recorded(self.enqueue)

    def output(self, name: str, shape: Shape, kind: type[np.generic]) -> Buffer:
        found = tuple(self.context.get_tensor_shape(name))
        if found != shape:
            raise ValueError(f"the engine gives {name} as {found}, expected {shape}; build it again")
        buffer = self.gpu.device(shape, kind)
        self.context.set_tensor_address(name, self.gpu.address(buffer))
        return buffer

    def enqueue(self) -> None:
        self.gpu.upload(self.uploaded, self.sources[0])
        self.gpu.upload(self.sizes_hw, self.sources[1])
        if self.uploaded is not self.images:
            self.gpu.prepare(self.images, self.uploaded)
        if not self.context.execute_async_v3(self.gpu.stream):
            raise RuntimeError("TensorRT could not run the engine; see its log")
        for name, buffer in self.outputs.items():
            self.gpu.download(self.targets[name], buffer)

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        """images: (b, H, W, C), sizes_hw: (b, 2), where b is at most B; what is above b is left from before."""
        count = len(images)
        self.sources[0][:count], self.sources[1][:count] = images, sizes_hw
        self.send()
        self.gpu.wait()
        return Found(*(self.targets[name][:count].copy() for name in OUTPUTS))


def output_form(name: str, batch: int, top_k: int) -> tuple[Shape, type[np.generic]]:
    forms: dict[str, tuple[Shape, type[np.generic]]] = {
        "boxes": ((batch, top_k, 4), np.float32),
        "scores": ((batch, top_k), np.float32),
        "labels": ((batch, top_k), np.int32),
    }
    return forms[name]


def check_tensors(trt: Any, engine: Any, about: About, path: Path | str) -> None:
    """The contract of every exported file: names, direction and types."""
    images = trt.DataType.FLOAT if about.input == "float" else trt.DataType.UINT8
    kinds = (images, trt.DataType.FLOAT, trt.DataType.FLOAT, trt.DataType.FLOAT, trt.DataType.INT32)
    modes = [trt.TensorIOMode.INPUT] * len(INPUTS) + [trt.TensorIOMode.OUTPUT] * len(OUTPUTS)
    expected = dict(zip((*INPUTS, *OUTPUTS), zip(modes, kinds, strict=True), strict=True))
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names}
    if found != expected:
        raise ValueError(f"{path}: expected the tensors {expected}, found {found}; build it from an ONNX file of kit")


class TorchGpu:
    """Gpu by torch, on the current CUDA device and a stream of its own."""

    def __init__(self) -> None:
        self.side = torch.cuda.Stream()
        self.stream = int(self.side.cuda_stream)

    def host(self, shape: Shape, kind: type[np.generic]) -> np.ndarray:
        return torch.zeros(shape, dtype=torch_type(kind), pin_memory=True).numpy()

    def device(self, shape: Shape, kind: type[np.generic]) -> Tensor:
        with torch.cuda.stream(self.side):  # or the zeros could come after what is uploaded
            return torch.zeros(shape, dtype=torch_type(kind), device="cuda")

    def address(self, buffer: Tensor) -> int:
        return buffer.data_ptr()

    def upload(self, target: Tensor, source: np.ndarray) -> None:
        with torch.cuda.stream(self.side):
            target.copy_(torch.from_numpy(source), non_blocking=True)

    def download(self, target: np.ndarray, source: Tensor) -> None:
        with torch.cuda.stream(self.side):
            torch.from_numpy(target).copy_(source, non_blocking=True)

    def prepare(self, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self.side), torch.inference_mode():
            fill_input(target, source)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.side, capture_error_mode="thread_local"):  # others may use the GPU
            work()

        def send() -> None:
            with torch.cuda.stream(self.side):
                graph.replay()

        return send

    def wait(self) -> None:
        self.side.synchronize()


def torch_type(kind: type[np.generic]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, kind)).dtype


def fill_input(target: Tensor, source: Tensor) -> None:
    """source: (B, H, W, C) uint8; target: (B, C, h, w) float32 in [0, 1] or (B, h, w, C) uint8. Bilinear, anti-aliased.

    Equal to kit.data.augment.resized up to one grey level, which torch's GPU rounds elsewhere than the CPU.
    """
    planes = source.permute(0, 3, 1, 2).float()  # (B, C, H, W)
    size_hw = target.shape[2:] if target.is_floating_point() else target.shape[1:3]
    if planes.shape[2:] != size_hw:
        planes = F.interpolate(planes, size=tuple(size_hw), mode="bilinear", antialias=True).round().clamp(0, 255)
    target.copy_(planes / 255 if target.is_floating_point() else planes.permute(0, 2, 3, 1))
