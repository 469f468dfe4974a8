"""A checkpoint to an ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from kit.deploy.about import INPUTS, KEY, OUTPUTS, About, Input, read_checkpoint
from kit.deploy.graph import Deployed
from kit.files import atomic

OPSET = 18  # the exporter's own; LayerNorm is one node from 17 on


def export_onnx(
    checkpoint: Path | str,
    path: Path | str,
    *,
    size_hw: tuple[int, int] | None = None,
    batch: int | None = None,
    dynamic_size: bool = False,
    input: Input = "float",
    top_k: int = 300,
) -> Path:
    """The detector with its post-processing as one ONNX file; see graph.Deployed for inputs and outputs.

    size_hw: None takes that of the training; batch: None takes any.
    """
    detector, about = read_checkpoint(checkpoint, top_k)
    height, width = size_hw or about.size_hw
    about = replace(about, height_px=height, width_px=width, batch=batch, dynamic_size=dynamic_size, input=input)
    model = traced(Deployed(detector, top_k, input == "uint8"), about)
    model.metadata_props.add(key=KEY, value=about.as_json())
    with atomic(path) as temporary:
        onnx.save(model, str(temporary))
    return Path(path)


def traced(module: Deployed, about: About) -> onnx.ModelProto:
    count = about.batch or 2  # an example of 1 would make 1 of it
    shape = (
        (count, about.channels, *about.size_hw) if about.input == "float" else (count, *about.size_hw, about.channels)
    )
    images = torch.zeros(shape, dtype=torch.float32 if about.input == "float" else torch.uint8)
    sizes_hw = torch.tensor([about.size_hw] * count, dtype=torch.float32)
    dynamic = None if about.batch else {"images": {0: "batch"}, "sizes_hw": {0: "batch"}}
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            (images, sizes_hw),
            None,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporter says about itself is of no use to who exports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)
