"""Whether TensorRT has every operator of an ONNX file, in the types it is used with: known before anything is built.

The facts are those of onnx-tensorrt's published support table (docs/operators.md at TensorRT 10.15, opset 9 to 24) for
the versions from 10.13 to 11.4; where 11 has more, the older table holds. What kit's files never use is left out, and
counts as unsupported: control flow, recurrent layers, bfloat16, sequences, strings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSETS = (9, 24)
MOST_DIMENSIONS = 8
TOP_K_LIMIT = 3840  # K stays below it

TABLE = """
FLOAT FLOAT16: AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos CumSum Dropout Einsum Elu Erf Exp
    Floor Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid HardSwish InstanceNormalization
    IsInf LayerNormalization LeakyRelu Log LogSoftmax MatMul MaxPool Mish NonMaxSuppression PRelu QuantizeLinear
    Reciprocal Resize Round Selu Sigmoid Sin Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
FLOAT FLOAT16 INT32 INT64: Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less
    LessOrEqual Max Mean Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Sign SpaceToDepth Sub Sum
    TopK
FLOAT FLOAT16 INT32 INT64 BOOL: Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND
    Identity OneHot Reshape Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where
FLOAT FLOAT16 INT32 INT64 BOOL UINT8: Cast
BOOL: And Not Or Xor
INT8: DequantizeLinear
"""  # types: operators that take data of these types


def read_table(text: str) -> dict[str, frozenset[str]]:
    rows = [row.split(":") for row in text.replace("\n    ", " ").strip().splitlines()]
    return {name: frozenset(types.split()) for types, names in rows for name in names.split()}


FLOATS = frozenset({"FLOAT", "FLOAT16"})
SUPPORTED = read_table(TABLE)
RESIZE: dict[str, tuple[object, set[object]]] = {  # attribute: (what it is where it is not given, what is supported)
    "coordinate_transformation_mode": (
        "half_pixel",
        {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"},
    ),
    "mode": ("nearest", {"nearest", "linear"}),
    "nearest_mode": ("round_prefer_floor", {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}),
    "keep_aspect_ratio_policy": ("stretch", {"stretch"}),
    "antialias": (0, {0}),
}


@dataclass(frozen=True)
class Graph:
    """A model with the types, ranks and constants that its nodes are checked by."""

    opset: int
    nodes: list[onnx.NodeProto]
    types: dict[str, str]  # of each tensor: FLOAT, INT64, ...
    ranks: dict[str, int]
    constants: dict[str, np.ndarray]
    inputs: frozenset[str]


def check_operators(model: onnx.ModelProto) -> list[str]:
    """What TensorRT would not take, one line for each node; empty where it takes all."""
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        return [f"operators from outside ONNX: {', '.join(foreign)}"]
    try:
        graph = read_graph(model)
    except shape_inference.InferenceError as error:
        return [f"types and shapes do not fit together: {str(error).splitlines()[0][:300]}"]
    if not OPSETS[0] <= graph.opset <= OPSETS[1]:
        return [f"opset {graph.opset}: expected one from {OPSETS[0]} to {OPSETS[1]}; export it again"]
    return [
        f"{node.name or node.output[0]} ({node.op_type}): {problem}"
        for node in graph.nodes
        for problem in node_problems(node, graph)
    ]


def read_graph(model: onnx.ModelProto) -> Graph:
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    tensors = [*inferred.value_info, *inferred.input, *inferred.output]
    constants = {each.name: each for each in inferred.initializer} | dict(constant_nodes(inferred))
    return Graph(
        opset=max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0),
        nodes=list(inferred.node),
        types={each.name: type_name(each.type.tensor_type.elem_type) for each in tensors}
        | {name: type_name(each.data_type) for name, each in constants.items()},
        ranks={each.name: len(each.type.tensor_type.shape.dim) for each in tensors if has_shape(each)}
        | {name: len(each.dims) for name, each in constants.items()},
        constants={name: numpy_helper.to_array(each) for name, each in constants.items()},
        inputs=frozenset(each.name for each in inferred.input),
    )


def constant_nodes(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if isinstance(value, TensorProto):
            yield node.output[0], value


def type_name(number: int) -> str:
    return TensorProto.DataType.Name(number)


def has_shape(tensor: onnx.ValueInfoProto) -> bool:
    return bool(tensor.type.tensor_type.HasField("shape"))


def node_problems(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    if node.op_type not in SUPPORTED:
        yield "TensorRT has no such operator"
        return
    yield from type_problems(node, graph)
    yield from (
        f"{name} has {graph.ranks[name]} dimensions, at most {MOST_DIMENSIONS} are possible"
        for name in node.output
        if graph.ranks.get(name, 0) > MOST_DIMENSIONS
    )
    restriction = RESTRICTIONS.get(node.op_type)
    if restriction:
        yield from restriction(node, graph)


def type_problems(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    """Types of the data that the operator works on: not those of indices, shapes and conditions."""
    names = data_tensors(node, graph.opset)
    types = {name: graph.types.get(name, "of unknown type") for name in names}
    wrong = {name: kind for name, kind in types.items() if kind not in SUPPORTED[node.op_type]}
    for name, kind in wrong.items():
        yield f"{name} is {kind}, expected {' or '.join(sorted(SUPPORTED[node.op_type]))}"
    for name in node.input:
        if graph.types.get(name) == "UINT8" and (node.op_type != "Cast" or name not in graph.inputs):
            yield f"{name} is UINT8, which only an input of the network may be, with a Cast right after it"
    floats = {kind for name, kind in types.items() if name in node.input} & FLOATS
    if len(floats) > 1:
        yield f"its inputs are {' and '.join(sorted(floats))}; give them one type, for TensorRT will not cast by itself"


def data_tensors(node: onnx.NodeProto, opset: int) -> list[str]:
    """Those whose type is the operator's own, by ONNX's definition of it."""
    schema = onnx.defs.get_schema(node.op_type, opset)
    if node.op_type in ("Constant", "ConstantOfShape", "EyeLike", "Range"):
        return [node.output[0]]
    if node.op_type == "Cast":
        return [node.input[0], node.output[0]]
    if node.op_type == "GridSample":
        return list(node.input)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return [node.input[0]]
    letter = schema.inputs[1 if node.op_type == "Where" else 0].type_str
    slots = [schema.inputs[min(index, len(schema.inputs) - 1)].type_str for index in range(len(node.input))]
    return [name for name, slot in zip(node.input, slots, strict=True) if name and slot == letter]


# Restrictions of single operators. Each takes (node, graph) and tells what is wrong.


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    found = next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
    return found.decode() if isinstance(found, bytes) else found


def constant_input(position: int, what: str) -> Callable[[onnx.NodeProto, Graph], Iterator[str]]:
    def check(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
        if len(node.input) > position and node.input[position] and node.input[position] not in graph.constants:
            yield f"{what} must be a constant, {node.input[position]} is computed"

    return check


def top_k(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    count = graph.constants.get(node.input[1])
    if count is None:
        yield f"K must be a constant, {node.input[1]} is computed"
    elif int(count.reshape(-1)[0]) >= TOP_K_LIMIT:
        yield f"K must be below {TOP_K_LIMIT}, got {int(count.reshape(-1)[0])}; export with a smaller top_k"
    if not attribute(node, "sorted", 1):
        yield "sorted must be 1"


def grid_sample(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    if graph.ranks.get(node.input[0]) != 4:
        yield f"{node.input[0]} must have 4 dimensions, got {graph.ranks.get(node.input[0])}"


def first_output(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    if any(node.output[1:]):
        yield "only its first output is supported"


def pooling(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    yield from first_output(node, graph)
    if graph.ranks.get(node.input[0]) not in (4, 5):
        yield "2-D or 3-D pooling only"
    dilations = attribute(node, "dilations", [])
    if isinstance(dilations, list) and set(dilations) - {1}:
        yield "dilations other than 1 are not supported"


def scatter(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    if attribute(node, "reduction", "none") != "none":
        yield "a reduction is not supported"


def resize(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    for name, (default, allowed) in RESIZE.items():
        if attribute(node, name, default) not in allowed:
            yield f"{name} {attribute(node, name, default)} is not supported"


def quantised(node: onnx.NodeProto, graph: Graph) -> Iterator[str]:
    """Symmetric INT8 by constant scales is what TensorRT takes; its weights may have a scale for each channel."""
    scale = graph.constants.get(node.input[1])
    narrow, wide = node.output[0], node.input[0]
    if node.op_type == "DequantizeLinear":
        narrow, wide = wide, narrow
    elif graph.types.get(narrow) != "INT8":
        yield f"{narrow} is {graph.types.get(narrow)}, expected INT8; give it a zero point of that type"
    if scale is None:
        yield f"the scale must be a constant, {node.input[1]} is computed"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "scales must be positive and finite"
    elif scale.size > 1 and node.op_type == "QuantizeLinear" and wide not in graph.constants:
        yield f"{wide} is no constant and must have one scale, got {scale.size}"
    if graph.types.get(node.input[1]) != graph.types.get(wide):
        yield f"the scale is {graph.types.get(node.input[1])}, the data {graph.types.get(wide)}; expected one type"
    if len(node.input) > 2 and node.input[2] and np.any(graph.constants.get(node.input[2], np.ones(1))):
        yield "the zero point must be 0"


axes = constant_input(1, "axes")
RESTRICTIONS: dict[str, Callable[[onnx.NodeProto, Graph], Iterator[str]]] = {
    "TopK": top_k,
    "GridSample": grid_sample,
    "LayerNormalization": first_output,
    "MaxPool": pooling,
    "AveragePool": pooling,
    "ScatterND": scatter,
    "Resize": resize,
    "QuantizeLinear": quantised,
    "DequantizeLinear": quantised,
    "CumSum": constant_input(1, "axis"),
    "OneHot": constant_input(1, "depth"),
    **{name: axes for name in SUPPORTED if name.startswith("Reduce") or name in ("Squeeze", "Unsqueeze")},
}
