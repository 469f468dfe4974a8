"""OpenVINO: a file on the CPU, one batch as quickly as can be, or several at once where many come."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kit.deploy.about import INPUTS, KEY, About
from kit.deploy.runtimes import Found, Runtime, checked, openvino
from kit.deploy.threads import thread_count

MOST_COMPILED = 8  # models, one for each shape of the images, of either kind
MOST_STREAMS = 4  # batches that are computed at the same time; each has memory of its own


class OpenVinoRunner:
    """An ONNX file or OpenVINO's own .xml on the CPU, computed in the precision that the file has.

    Compiled anew for each batch size, which is a tenth faster than one model for all. A call gives all threads to its
    batch; what is begun shares them out among a few batches, which need not wait for each other in each layer.
    """

    runtime: Runtime = "openvino"
    device = "cpu"

    def __init__(self, path: Path | str, device: str | None = None, threads: int | None = None):
        if device not in (None, "cpu"):
            raise ValueError(f"{path}: OpenVINO runs on the cpu here, got device {device!r}")
        self.core = openvino().Core()
        model = read_model(self.core, path)
        is_onnx = Path(path).suffix == ".onnx"
        self.about = About.from_json(onnx_about(path) if is_onnx else openvino_about(model), path)
        if is_onnx and self.about.precision == "int8":
            mend = "make one for OpenVINO with kit.deploy.int8.quantise_openvino, or take onnxruntime"
            raise ValueError(
                f"{path}: expected fp32 or fp16, found int8, whose sums saturate on older processors; {mend}"
            )
        self.model = model if self.about.input == "uint8" else with_uint8_input(model)
        self.threads = thread_count(threads)
        self.streams = min(self.threads, MOST_STREAMS)
        self.at_once = self.streams + 1  # batches in the background: the next one waits where the first ends
        self.compiled: dict[tuple[int, ...], Any] = {}  # by the shape of the images
        self.shared: dict[tuple[int, ...], Any] = {}  # for several batches at once
        self.idle: dict[tuple[int, ...], list[Any]] = {}  # requests of these that wait for a batch

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        return Found(*self.answer(*checked(images, sizes_hw, self.about)))

    def answer(self, images: np.ndarray, sizes_hw: np.ndarray) -> list[np.ndarray]:
        """All outputs of the file, in its order."""
        compiled = self.model_for(images.shape, self.compiled, 1)
        answers = compiled([np.ascontiguousarray(images), sizes_hw], share_inputs=True)
        return [np.array(answers[index]) for index in range(len(answers))]

    def begin(self, images: np.ndarray, sizes_hw: np.ndarray) -> Callable[[], Found]:
        """As a call, but it goes on in the background; what comes back waits for the answer.

        Not from two threads at once; waiting may be.
        """
        images, sizes_hw = checked(images, sizes_hw, self.about)
        compiled = self.model_for(images.shape, self.shared, self.streams)
        idle = self.idle.setdefault(images.shape, [])
        request = idle.pop() if idle else compiled.create_infer_request()
        tensors = [openvino().Tensor(each, shared_memory=True) for each in (np.ascontiguousarray(images), sizes_hw)]
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)
        request.start_async()

        def wait() -> Found:
            request.wait()
            del tensors[:]  # until now they had to stay
            found = Found(*(np.array(each.data) for each in request.output_tensors))
            idle.append(request)
            return found

        return wait

    def model_for(self, shape: tuple[int, ...], known: dict[tuple[int, ...], Any], streams: int) -> Any:
        if shape not in known:
            if len(known) >= MOST_COMPILED:  # the oldest goes: memory must not grow with every new size
                oldest = next(iter(known))
                del known[oldest]
                self.idle.pop(oldest, None)
            known[shape] = compiled_for(self.core, self.model, shape, self.threads, streams)
        return known[shape]


def read_model(core: Any, path: Path | str) -> Any:
    """An OpenVINO model of an .onnx or .xml file; ValueError names what is wrong with it."""
    path = Path(path)
    for each in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        if not each.is_file():
            raise ValueError(f"{each}: expected a file, found nothing; check the path, or export it again")
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: expected a model, OpenVINO says: {last}; export it again") from error


def with_uint8_input(model: Any) -> Any:
    """Takes images (B, H, W, C) uint8 in place of (B, C, H, W) float32 in [0, 1]."""
    preprocess = import_module("openvino.preprocess").PrePostProcessor(model)
    images, library = preprocess.input(INPUTS[0]), openvino()
    images.tensor().set_element_type(library.Type.u8).set_layout(library.Layout("NHWC"))
    images.preprocess().convert_element_type(library.Type.f32).scale(255.0)
    images.model().set_layout(library.Layout("NCHW"))
    return preprocess.build()


def compiled_for(core: Any, model: Any, shape: tuple[int, ...], threads: int, streams: int = 1) -> Any:
    """For images of this shape alone, in full precision whatever the processor is fond of.

    streams: requests that are computed at the same time and share the threads.
    """
    model = model.clone()
    model.reshape({INPUTS[0]: list(shape), INPUTS[1]: [shape[0], 2]})
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    hints |= {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}
    return core.compile_model(model, "CPU", hints)


def openvino_about(model: Any) -> str | None:
    """What a model says of itself in its rt_info."""
    return str(model.get_rt_info([KEY]).astype(str)) if model.has_rt_info([KEY]) else None


def onnx_about(path: Path | str) -> str | None:
    """What an ONNX file says of itself in its metadata."""
    model = onnx.load(str(path), load_external_data=False)
    return next((each.value for each in model.metadata_props if each.key == KEY), None)
