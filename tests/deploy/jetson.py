"""The files of jetson/, which is no package: on the device they lie side by side and import each other by name."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from kit.deploy.about import KEY
from kit.params import ROOT

FOLDER = ROOT / "jetson"
ABSENT = ["kit", "torch", "torchvision", "onnx", "tensorrt"]  # on the device, or here
START = "import sys; sys.modules.update(dict.fromkeys({absent})); import detect; sys.exit(detect.main(sys.argv[1:]))"

sys.path.insert(0, str(FOLDER))
model, engine, detect = (importlib.import_module(name) for name in ("model", "engine", "detect"))


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    """detect.py in a Python where neither kit nor torch can be imported."""
    command = [sys.executable, "-c", START.format(absent=ABSENT), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(FOLDER)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")


def with_uint8_input(source: Path, target: Path) -> Path:
    """The same file for images as they are stored, (B, H, W, C) uint8, in place of (B, C, H, W) float."""
    content = onnx.load(source)
    graph = content.graph
    planes = graph.input[0].type.tensor_type.shape.dim  # (B, C, H, W)
    batch, channels, height, width = (dim.dim_param or dim.dim_value for dim in planes)
    first = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, height, width, channels])
    for node in graph.node:
        node.input[:] = ["images_unit" if name == "images" else name for name in node.input]
    nodes = [
        helper.make_node("Cast", ["images"], ["images_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["images_float"], ["images_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["images_planes", "images_full"], ["images_unit"]),
        *graph.node,
    ]
    del graph.node[:], graph.input[0]
    graph.node.extend(nodes)
    graph.input.insert(0, first)
    graph.initializer.append(helper.make_tensor("images_full", TensorProto.FLOAT, [], [255.0]))
    about = next(each for each in content.metadata_props if each.key == KEY)
    about.value = json.dumps(json.loads(about.value) | {"input": "uint8"})
    onnx.save(content, target)
    return target
