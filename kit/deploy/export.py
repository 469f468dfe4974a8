"""A checkpoint to an ONNX file: the detector with its post-processing in one graph.

Inputs
    images     float32 (B, C, H, W) in [0, 1], RGB; with input="uint8": uint8 (B, H, W, C) as decoded
    sizes_hw   float32 (B, 2), height and width that the boxes are to be told in, such as those of the original image
Outputs
    boxes      float32 (B, top_k, 4), x and y of the upper left and the lower right corner, in units of sizes_hw
    scores     float32 (B, top_k) in [0, 1], falling
    labels     int32 (B, top_k), 0 to K - 1

These names, types and shapes hold for every file, half precision and INT8 too. B is any number unless `batch` fixes
it, H and W are size_hw unless `dynamic_size` frees them, top_k is what About says. Metadata `kit`: About, as JSON.
Nodes are called `layer/Operator`; see graph.layer_of.

The opset is 18: from 17 on LayerNorm is one node, 18 is what torch's exporter writes by itself, so that nothing is
converted, and TensorRT 10.3 of JetPack 6 and all later ones read it.
"""

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from torch import nn
from torch.export import Dim

from kit.deploy.about import INPUTS, KEY, OUTPUTS, About, Input, Precision, read_checkpoint
from kit.deploy.graph import Deployed, token_count
from kit.deploy.precision import ISLANDS, mixed_precision
from kit.deploy.tidy import tidied
from kit.dfine.detector import STRIDE, Size
from kit.files import read_bytes, write_bytes

OPSET = 18
LARGEST_SIDE_PX = 8192  # of a dynamic size; the exporter wants to know one


def export_onnx(
    checkpoint: Path | str,
    path: Path | str,
    *,
    size_hw: tuple[int, int] | None = None,
    batch: int | None = None,
    dynamic_size: bool = False,
    input: Input = "float",
    top_k: int = 300,
    precision: Precision = "fp32",
    islands: Sequence[str] = ISLANDS,
) -> Path:
    """The detector of one of our own weights files as an ONNX file; names, types and shapes stand at the top here.

    size_hw: None takes that of the training; batch: None takes any; dynamic_size: other multiples of 32 too, down to
    About.min_area_px; precision, islands: fp16 computes all but the islands in half precision, see mixed_precision.
    """
    check_options(size_hw, batch, input, top_k, precision)
    detector, about = read_checkpoint(checkpoint, top_k)
    about = replace(about, batch=batch, dynamic_size=dynamic_size, input=input)
    about = sized(about, detector.size, size_hw or about.size_hw, top_k)
    model = tidied(traced(Deployed(detector, top_k, input == "uint8"), about))
    if precision == "fp16":
        model = mixed_precision(model, islands)
    return write_onnx(model, path, replace(about, precision=precision))


def check_options(size_hw: tuple[int, int] | None, batch: int | None, input: str, top_k: int, precision: str) -> None:
    if size_hw is not None and (len(size_hw) != 2 or any(side < STRIDE or side % STRIDE for side in size_hw)):
        raise ValueError(f"size_hw must be height and width, positive multiples of {STRIDE}, got {size_hw}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, or None for any, got {batch}")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if input not in ("float", "uint8"):
        raise ValueError(f"input must be float or uint8, got {input!r}")
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"precision must be fp32 or fp16, got {precision!r}; for int8 see kit.deploy.int8")


def sized(about: About, size: Size, size_hw: tuple[int, int], top_k: int) -> About:
    """About for an input of this size: a small one has fewer tokens than the detector has queries."""
    height, width = size_hw
    tokens = token_count(size, size_hw)
    if about.dynamic_size:
        area_px = math.ceil(size.queries / token_count(size, (STRIDE, STRIDE))) * STRIDE**2
        about = replace(about, min_area_px=area_px, height_px=height, width_px=width)
        about.check_size_hw(size_hw)
    answers = min(top_k, min(size.queries, tokens) * len(about.names))
    return replace(about, height_px=height, width_px=width, top_k=answers)


def traced(module: Deployed, about: About) -> onnx.ModelProto:
    """As the exporter leaves it; it takes a fifth longer over operations in place, which a graph does not have."""
    images, sizes_hw = example(about)
    for layer in module.modules():
        if isinstance(layer, nn.SiLU | nn.Hardtanh | nn.ReLU):
            layer.inplace = False
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            (images, sizes_hw),
            None,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=free_dimensions(about),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def example(about: About) -> tuple[torch.Tensor, torch.Tensor]:
    """images and sizes_hw to trace with; a free batch of 1 would be taken for fixed."""
    count, (height, width) = about.batch or 2, about.size_hw
    shape = (count, about.channels, height, width) if about.input == "float" else (count, height, width, about.channels)
    images = torch.zeros(shape, dtype=torch.float32 if about.input == "float" else torch.uint8)
    return images, torch.tensor([about.size_hw] * count, dtype=torch.float32)


def free_dimensions(about: About) -> dict[str, dict[int, Any]] | None:
    images: dict[int, Any] = {}
    sizes_hw: dict[int, Any] = {}
    if about.batch is None:
        images[0] = sizes_hw[0] = Dim("batch", min=1, max=2**16)
    if about.dynamic_size:
        shortest = math.isqrt(about.min_area_px // STRIDE**2 - 1) + 1  # so that it sees that all queries have tokens
        place = 2 if about.input == "float" else 1
        for offset, name in enumerate(("height_by_32", "width_by_32")):
            images[place + offset] = STRIDE * Dim(name, min=shortest, max=LARGEST_SIDE_PX // STRIDE)
    return {"images": images, "sizes_hw": sizes_hw} if images else None


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporter says about itself is of no use to who exports."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_onnx(model: onnx.ModelProto, path: Path | str, about: About) -> Path:
    """Checked, with what it says of itself, in one file; the name appears when all of it is written."""
    onnx.helper.set_model_props(model, {KEY: about.as_json()})
    onnx.checker.check_model(model, full_check=True)
    return write_bytes(path, model.SerializeToString(deterministic=True))


def read_onnx(path: Path | str) -> tuple[onnx.ModelProto, About]:
    """A file of export_onnx or write_onnx; ValueError, which names the file, where it is another."""
    try:
        model = onnx.load_model_from_string(read_bytes(path))
    except DecodeError as error:
        raise ValueError(f"{path}: expected an ONNX file, cannot read it: {error}; is it cut off?") from error
    return model, About.from_json(next((each.value for each in model.metadata_props if each.key == KEY), None), path)
