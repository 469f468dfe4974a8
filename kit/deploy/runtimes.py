"""Runtimes: what runs an exported file or a checkpoint, all of them behind one call."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

import numpy as np
import onnxruntime
import torch
from torch._dynamo.exc import TorchDynamoException

from kit.deploy.about import INPUTS, KEY, About, read_checkpoint
from kit.deploy.graph import Deployed
from kit.deploy.threads import thread_count, torch_threads

Runtime = Literal["torch", "compiled", "onnxruntime", "openvino", "tensorrt"]
Size = tuple[int, int]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
CHECKPOINT: tuple[Runtime, ...] = (
    "torch",
    "compiled",
)  # what runs a file of any other ending; the first is the default
ENDINGS: dict[str, tuple[Runtime, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
}
PROVIDERS = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}  # fp32 is fp32 on a GPU too
WRONG = "Pad_Fusion"  # of ONNX Runtime: where zeros are padded before a MaxPool it pads with minus infinity


@dataclass(frozen=True)
class Found:
    """Of one batch, best first: boxes_xyxy (B, top_k, 4), scores (B, top_k), both float32, labels (B, top_k) int32."""

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Runner(Protocol):
    """A detector that is ready to run. Not to be called from two threads at once."""

    about: About
    runtime: Runtime
    device: str

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        """images: (B, H, W, C) uint8 of the input size; sizes_hw: (B, 2) float32 that boxes are told in -> Found."""
        ...


def open_runner(
    source: Path | str,
    runtime: Runtime | None = None,
    device: str | None = None,
    *,
    size_hw: Size | None = None,
    top_k: int = 300,
    threads: int | None = None,
    half: bool = False,
) -> Runner:
    """A runner for a file: .onnx, .xml (OpenVINO), .engine or .plan (TensorRT), or a checkpoint, which torch runs.

    runtime: None takes the file's own; device: None takes the GPU where there is one; size_hw: of the input, where the
    file leaves it open; top_k and half (in half precision, on a GPU) are for checkpoints: a file has its own.
    """
    match runtime_for(source, runtime):
        case "onnxruntime":
            runner: Runner = OnnxRunner(source, device, threads)
        case "openvino":
            from kit.deploy.openvino_runner import OpenVinoRunner

            runner = OpenVinoRunner(source, device, threads)
        case "tensorrt":
            runner = import_module("kit.deploy.tensorrt_runner").TensorRtRunner(source)
        case "compiled":
            return CompiledRunner(source, device, size_hw=size_hw, top_k=top_k, threads=threads, half=half)
        case _:
            return TorchRunner(source, device, size_hw=size_hw, top_k=top_k, threads=threads, half=half)
    if size_hw is not None:
        runner.about = of_size(runner.about, size_hw, source)
    return runner


def runtime_for(source: Path | str, runtime: Runtime | None = None) -> Runtime:
    """What runs the file; ValueError where `runtime` cannot."""
    ending = Path(source).suffix.lower()
    able = ENDINGS.get(ending, CHECKPOINT)
    if runtime is not None and runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    if runtime is not None and runtime not in able:
        kind = f"a file {ending}" if ending in ENDINGS else "a checkpoint"
        mend = "kit.deploy.choice.open_fastest exports a checkpoint first" if able == CHECKPOINT else "export it again"
        raise ValueError(f"{source}: {kind} is run by {' or '.join(able)}, not by {runtime}; {mend}")
    return runtime or able[0]


def installed_runtimes(source: Path | str, device: str | None = None) -> list[Runtime]:
    """Those that could run the file here, on `cuda` or `cpu`; None: the GPU where there is one."""
    on_gpu = chosen_device(device) == "cuda"
    present = {
        "torch": True,
        "compiled": True,
        "onnxruntime": not on_gpu or "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
        "openvino": not on_gpu and find_spec("openvino") is not None,
        "tensorrt": on_gpu and find_spec("tensorrt") is not None,
    }
    return [each for each in ENDINGS.get(Path(source).suffix.lower(), CHECKPOINT) if present[each]]


def of_size(about: About, size_hw: Size, source: Path | str) -> About:
    """With another size of the input, where the file leaves it open."""
    try:
        about.check_size_hw(size_hw)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return replace(about, height_px=size_hw[0], width_px=size_hw[1])


def checked(images: np.ndarray, sizes_hw: np.ndarray, about: About) -> tuple[np.ndarray, np.ndarray]:
    """ValueError where a runner cannot take them: images (B, H, W, C) uint8, sizes_hw (B, 2)."""
    height, width = images.shape[1:3] if about.dynamic_size and images.ndim == 4 else about.size_hw
    expected = (about.batch or max(len(images), 1), height, width, about.channels)
    if images.dtype != np.uint8 or images.shape != expected:
        raise ValueError(
            f"images must be uint8 {expected}, got {images.dtype} {images.shape}; resize, or pad the batch"
        )
    about.check_size_hw((height, width))
    if np.shape(sizes_hw) != (len(images), 2):
        raise ValueError(f"sizes_hw must be ({len(images)}, 2), a height and a width each, got {np.shape(sizes_hw)}")
    return images, np.ascontiguousarray(sizes_hw, np.float32)


# --- torch ---


class TorchRunner:
    """A checkpoint in torch, norms folded, channels last."""

    runtime: Runtime = "torch"

    def __init__(
        self,
        source: Path | str,
        device: str | None = None,
        *,
        size_hw: Size | None = None,
        top_k: int = 300,
        threads: int | None = None,
        half: bool = False,
    ):
        self.device, self.threads, self.half = chosen_device(device), thread_count(threads), half
        if half and self.device == "cpu":
            raise ValueError(f"{source}: half precision is for a GPU, here the device is cpu; leave half out")
        detector, about = read_checkpoint(source, top_k)
        about = replace(about, dynamic_size=True)  # torch takes what comes
        self.about = of_size(about, size_hw or about.size_hw, source)
        module = Deployed(detector, self.about.top_k, uint8_input=True)
        self.module: Any = module.to(self.device).to(memory_format=torch.channels_last).eval()

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        return Found(*self.answer(*checked(images, sizes_hw, self.about)))

    def answer(self, images: np.ndarray, sizes_hw: np.ndarray) -> list[np.ndarray]:
        """All that the module gives, in its order."""
        batch, sizes = (torch.from_numpy(np.ascontiguousarray(each)).to(self.device) for each in (images, sizes_hw))
        half = torch.autocast(self.device, torch.float16, enabled=self.half)
        with torch_threads(self.threads), torch.inference_mode(), half:
            return [each.cpu().numpy() for each in self.module(batch, sizes)]


class CompiledRunner(TorchRunner):
    """The same by torch.compile, on a GPU as CUDA graphs: the first call of each batch size takes about a minute."""

    runtime: Runtime = "compiled"

    def __init__(self, source: Path | str, device: str | None = None, **options: Any):
        super().__init__(source, device, **options)
        how: dict[str, Any] = {"mode": "reduce-overhead"} if self.device == "cuda" else {"options": {"freezing": True}}
        self.module = torch.compile(self.module, dynamic=False, **how)

    def answer(self, images: np.ndarray, sizes_hw: np.ndarray) -> list[np.ndarray]:
        torch.compiler.cudagraph_mark_step_begin()  # the answers before have been copied
        try:
            with errors_alone("torch.utils.cpp_extension"):
                return super().answer(images, sizes_hw)
        except TorchDynamoException as error:
            first = str(error).strip().partition("\n")[0]
            raise RuntimeError(
                f"torch.compile failed: {first}; it needs a C++ compiler; or take runtime torch"
            ) from error


@contextmanager
def errors_alone(logger: str) -> Iterator[None]:
    """What a library remarks about machines without a GPU is of no use to who has none."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)


def chosen_device(device: str | None = None) -> str:
    """`cuda` or `cpu`; None takes the GPU where there is one, and one that is not there is refused."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen not in ("cuda", "cpu"):
        raise ValueError(f"device must be cuda or cpu, got {device!r}")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch finds no GPU; take cpu, or None to let kit choose")
    return chosen


# --- ONNX Runtime ---


class OnnxRunner:
    """An ONNX file in ONNX Runtime."""

    runtime: Runtime = "onnxruntime"

    def __init__(self, path: Path | str, device: str | None = None, threads: int | None = None):
        self.session = onnx_session(path, device, threads)
        self.device = "cuda" if self.session.get_providers()[0].startswith("CUDA") else "cpu"
        self.about = About.from_json(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        return Found(*self.answer(*checked(images, sizes_hw, self.about)))

    def answer(self, images: np.ndarray, sizes_hw: np.ndarray) -> list[np.ndarray]:
        """All outputs of the file, in its order."""
        feed = dict(zip(INPUTS, (as_input(images, self.about), sizes_hw), strict=True))
        answers: list[np.ndarray] = self.session.run(None, feed)
        return answers


def as_input(images: np.ndarray, about: About) -> np.ndarray:
    """(B, H, W, C) uint8 -> what the file takes."""
    if about.input == "uint8":
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def onnx_session(
    path: Path | str, device: str | None = None, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session for an ONNX file, on `cuda` or `cpu`; None takes the GPU where there is one.

    onnxruntime-gpu names CUDA among its providers on every machine, and on one without a GPU it complains and takes the
    CPU; so torch is asked what there really is.
    """
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[chosen_device(device)]
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected an ONNX file, found nothing; check the path")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = thread_count(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # who waits sleeps: see threads.py
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, [provider], [PROVIDERS[provider]], disabled_optimizers=[WRONG]
        )
    except Exception as error:  # its kinds of error have no other common ground
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: expected an ONNX file, ONNX Runtime says: {first}; export it again") from error
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{path}: expected {provider}, ONNX Runtime took {session.get_providers()[0]}")
    return session


# --- libraries that may be missing ---


def openvino() -> Any:
    """The OpenVINO module; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("openvino")
    except ImportError as error:
        raise ImportError("OpenVINO is not installed: pip install -e '.[openvino]'") from error


def tensorrt() -> ModuleType:
    """The TensorRT module; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise ImportError(
            "TensorRT is not installed: pip install -e '.[tensorrt]' on a machine with an NVIDIA GPU; "
            "on a Jetson it comes with JetPack"
        ) from error
