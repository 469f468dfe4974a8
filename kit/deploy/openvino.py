"""An exported ONNX file as OpenVINO's own pair of files: `.xml`, the graph, and `.bin`, the weights."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kit.deploy.about import KEY, About
from kit.deploy.export import read_onnx
from kit.deploy.runtimes import openvino


def export_openvino(onnx_file: Path | str, path: Path | str, *, precision: Literal["fp32", "fp16"] = "fp32") -> Path:
    """The same detector, inputs and outputs, any batch where the ONNX file takes any; returns the `.xml`.

    onnx_file: of precision fp32. fp16 stores the weights in half the space; a CPU computes in float32 all the same.
    """
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"precision must be fp32 or fp16, got {precision!r}; for int8 see kit.deploy.int8")
    model, about = read_model(onnx_file)
    return write_openvino(model, path, replace(about, precision=precision))


def read_model(onnx_file: Path | str) -> tuple[Any, About]:
    """An fp32 ONNX file of ours as an openvino.Model, and what it says of itself."""
    core = openvino().Core()
    _, about = read_onnx(onnx_file)
    if about.precision != "fp32":
        raise ValueError(
            f"{onnx_file}: expected an ONNX file of precision fp32, found {about.precision}; export it again with "
            "kit.deploy.export_onnx, and let OpenVINO round"
        )
    return core.read_model(str(onnx_file)), about


def write_openvino(model: Any, path: Path | str, about: About) -> Path:
    """Both files or neither: the `.xml`, without which the weights are nothing, comes last. model: openvino.Model."""
    path = Path(path)
    if path.suffix != ".xml":
        raise ValueError(f"{path}: OpenVINO's files must end in .xml (the weights lie beside it in .bin); name it so")
    model.set_rt_info(about.as_json(), KEY)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        written = Path(folder) / path.name
        openvino().save_model(model, str(written), compress_to_fp16=about.precision == "fp16")
        move_pair(written, path)
    return path


def move_pair(written: Path, path: Path) -> None:
    """Never the graph of one with the weights of the other: the old graph goes first, the new one comes last."""
    for file in (written, written.with_suffix(".bin")):
        with file.open("rb") as content:
            os.fsync(content.fileno())
    path.unlink(missing_ok=True)
    written.with_suffix(".bin").replace(path.with_suffix(".bin"))
    written.replace(path)
