"""An fp16 ONNX file on a CPU, rounded as a GPU rounds it.

ONNX Runtime has few fp16 kernels for a CPU: it computes such a node in fp32, and leaves out the casts between two of
them. What overflows or underflows on a GPU is then faultless here. `rounded` makes a model of fp32 operations in which
every result that the file holds in fp16 is really rounded to fp16, so that a file can be judged without a GPU.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from kit.deploy.about import INPUTS, KEY, About
from kit.deploy.runtimes import Found, Runtime, as_input

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
# They hand numbers on as they are: what was rounded stays so.
MOVERS = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max", "MaxPool",
    "Min", "Neg", "Pad", "Relu", "Reshape", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "TopK",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


class RoundedRunner:
    """A file with fp16 nodes in ONNX Runtime on the CPU, every fp16 result rounded. For judging, not for speed."""

    runtime: Runtime = "onnxruntime"
    device = "cpu"

    def __init__(self, path: Path | str):
        model = onnx.load(str(path))
        text = next((each.value for each in model.metadata_props if each.key == KEY), None)
        self.about = About.from_json(text, path)
        self.session = plain_session(rounded(model))

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        return Found(*self.session.run(None, dict(zip(INPUTS, (as_input(images, self.about), sizes_hw), strict=True))))


def plain_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU that runs the nodes as they stand: nothing fused, no cast left out."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors alone
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def has_half(model: onnx.ModelProto) -> bool:
    """Whether anything in it is held in fp16."""
    return any(each.data_type == HALF for each in model.graph.initializer) or any(
        node.op_type == "Cast" and attribute_of(node, "to") == HALF for node in model.graph.node
    )


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """fp32 operations throughout, the results of fp16 ones rounded; all tensors keep their names."""
    halves = half_tensors(model)
    graph = onnx.GraphProto(name=model.graph.name, input=model.graph.input, output=model.graph.output)
    if outside := halves & {each.name for each in (*graph.input, *graph.output)}:
        raise ValueError(f"expected inputs and outputs in fp32, got fp16 for {', '.join(sorted(outside))}")
    graph.initializer.extend(map(as_float, model.graph.initializer))
    for node in model.graph.node:
        graph.node.extend(rounded_node(node, halves))
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def half_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all that is held in fp16."""
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ValueError("expected a graph without If, Loop and Scan, got one with them; export it with kit.deploy")
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # may tell what held before a conversion
    try:
        known = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(f"the types of the graph do not fit: {str(error).splitlines()[0]}; export it again") from error
    types = {each.name: each.type.tensor_type.elem_type for each in (*known.value_info, *known.input, *known.output)}
    weights = {each.name: each.data_type for each in known.initializer}
    return {name for name, kind in (types | weights).items() if kind == HALF}


def rounded_node(node: NodeProto, halves: set[str]) -> Iterable[NodeProto]:
    """The node in fp32 and, where it can make new numbers, a cast of each result to fp16 and back."""
    exact = onnx.NodeProto()
    exact.CopyFrom(node)
    for attribute in exact.attribute:
        if attribute.name == "to" and attribute.i == HALF:
            attribute.i = FLOAT
        elif attribute.HasField("t"):
            attribute.t.CopyFrom(as_float(attribute.t))
    after = []
    for place, name in enumerate(node.output):
        if name in halves and node.op_type not in MOVERS:
            exact.output[place] = f"{name}/exact"
            after += [
                helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], to=HALF),
                helper.make_node("Cast", [f"{name}/half"], [name], to=FLOAT),
            ]
    return [exact, *after]


def as_float(tensor: TensorProto) -> TensorProto:
    """An fp16 constant in fp32, any other as it is."""
    if tensor.data_type != HALF:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def attribute_of(node: NodeProto, name: str) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), None)
