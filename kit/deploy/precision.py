"""Mixed precision: an ONNX file in half precision, with islands of fp32 as explicit casts in the graph.

TensorRT builds such a file strongly typed, so that what is written here is what is computed; ONNX Runtime runs it too.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from kit.deploy.graph import layer_of
from kit.deploy.tidy import drop_unused

ISLANDS = (
    "LayerNormalization",
    "position",  # the encoder's position embedding, sines of pixels
    "anchors",
    "best",  # the top-k of the encoder's tokens
    "proposals",  # anchors and their corrections to the first boxes
    "points",  # sampling grid and what lies there
    "reference",  # the inverse sigmoid, and the boxes that edges move
    "bins",  # the edges' distributions over bins, their integral, and the boxes decoded from it
    "sharpness",  # of these distributions
    "scores",  # of classes
    "answers",  # the top-k of the scores, boxes in pixels
)
MOVING = {
    "Concat",
    "Expand",
    "Gather",
    "GatherElements",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}  # fmt: skip  (operators that compute nothing: they carry what they get)
UNTYPED = {"Shape", "Size"}  # they take any type, and give integers
FIXED = {"Resize": (1, 2)}  # inputs that ONNX wants in fp32, whatever the others are
LARGEST = 65504.0  # in half precision
FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
SHORT = {FLOAT: "fp32", HALF: "fp16"}


def mixed_precision(model: onnx.ModelProto, islands: Sequence[str] = ISLANDS) -> onnx.ModelProto:
    """A copy of an fp32 model of export_onnx, in which everything but the islands computes in half precision.

    islands: each an operator, a node's name, or a part of a layer's path (`bins`, `decoder.layers.1`, `backbone`), with
    all that is below it. What takes a constant beyond the range of half precision stays in fp32 as well.
    Inputs and outputs keep their types.
    """
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    graph = mixed.graph
    types = tensor_types(mixed)
    refuse_others(graph, types)
    full = island_nodes(graph, islands) | beyond_range(graph)
    full |= carried_between(graph, types, full)
    convert(graph, types, full)
    del graph.value_info[:]
    return shape_inference.infer_shapes(mixed, check_type=True, strict_mode=True, data_prop=True)


def node_types(model: onnx.ModelProto) -> dict[str, str]:
    """For each node, by name, what it computes in: fp32, fp16, int64, bool, ...; of a Cast: `fp32 to fp16`."""
    types = tensor_types(model)
    return {node.name: node_type(node, types) for node in model.graph.node}


def node_type(node: onnx.NodeProto, types: dict[str, int]) -> str:
    known = [types[name] for name in (*data_inputs(node), *node.output) if name in types]
    if node.op_type == "Cast":
        return f"{type_name(known[0])} to {type_name(known[-1])}"
    return next((SHORT[each] for each in known if each in SHORT), type_name(known[-1]) if known else "")


def type_name(number: int) -> str:
    return SHORT.get(number) or TensorProto.DataType.Name(number).lower()


def type_counts(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes compute in each type, most first; casts by themselves."""
    return dict(Counter(node_types(model).values()).most_common())


def matches(node: onnx.NodeProto, island: str) -> bool:
    return island in (node.op_type, node.name) or f".{island}." in f".{layer_of(node)}."


def island_nodes(graph: onnx.GraphProto, islands: Sequence[str]) -> set[str]:
    """The names of the nodes that belong to any island; ValueError for one of the caller's that is nowhere."""
    if isinstance(islands, str):
        raise TypeError(f"islands must be a sequence of names, got the string {islands!r}")
    for island in islands:
        if island not in ISLANDS and not any(matches(node, island) for node in graph.node):
            raise ValueError(
                f"islands: expected operators, layers or nodes of the graph, got {island!r}{hint(graph, island)}"
            )
    return {node.name for node in graph.node if any(matches(node, island) for island in islands)}


def hint(graph: onnx.GraphProto, island: str) -> str:
    known = {node.op_type for node in graph.node} | {node.name for node in graph.node}
    for node in graph.node:
        parts = layer_of(node).split(".")
        known |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    near = difflib.get_close_matches(island, sorted(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor."""
    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    described = (*graph.input, *graph.value_info, *graph.output)
    types = {each.name: each.type.tensor_type.elem_type for each in described}
    return types | {each.name: each.data_type for each in graph.initializer}


def refuse_others(graph: onnx.GraphProto, types: dict[str, int]) -> None:
    if HALF in types.values() or any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ValueError("expected a model in fp32, got one in half precision or INT8; give the file that it came from")
    lacking = [output for node in graph.node for output in node.output if output and not types.get(output)]
    if lacking or len({node.name for node in graph.node}) < len(graph.node):
        raise ValueError("expected a graph of export_onnx (every node named, every type known); export it again")


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs whose type has to be that of the node."""
    fixed = FIXED.get(node.op_type, ())
    return [name for place, name in enumerate(node.input) if name and place not in fixed]


def beyond_range(graph: onnx.GraphProto) -> set[str]:
    """Nodes that take a finite constant half precision has no number for; the bounds of a Clip may be infinite."""
    large = {
        each.name
        for each in graph.initializer
        if each.data_type == FLOAT and (np.abs(finite(numpy_helper.to_array(each))) > LARGEST).any()
    }
    return {node.name for node in graph.node if node.op_type != "Clip" and large & set(data_inputs(node))}


def finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def carried_between(graph: onnx.GraphProto, types: dict[str, int], full: set[str]) -> set[str]:
    """Nodes that only carry fp32 from one island to another: they stay in fp32, so that nothing is rounded between."""
    constant = {each.name for each in graph.initializer}
    full_so_far = {each.name for each in graph.input if types[each.name] == FLOAT}  # tensors
    given: set[str] = set()
    for node in graph.node:
        carried = {name for name in data_inputs(node) if types[name] == FLOAT} - constant
        if node.name not in full and node.op_type in MOVING and carried and carried <= full_so_far:
            given.add(node.name)
        if node.name in full | given:
            full_so_far |= set(node.output)
    wanted = {each.name for each in graph.output if types[each.name] == FLOAT}  # tensors that are read in fp32
    between: set[str] = set()
    for node in reversed(graph.node):
        if node.name in given and wanted & set(node.output):
            between.add(node.name)
        if node.name in full | between:
            wanted |= set(data_inputs(node))
    return between


@dataclass(frozen=True)
class Casts:
    """The float tensors of a graph, and what they are called in a type other than that of the node that makes them."""

    made: dict[str, int]  # tensor: its type
    constants: dict[str, onnx.TensorProto]
    names: dict[tuple[str, int], str] = field(default_factory=dict)  # (tensor, another type): its name there

    def read_as(self, name: str, wanted: int) -> tuple[str, list[onnx.NodeProto]]:
        """What a node has to read for a tensor in the wanted type, and the Cast, where that is the first to need it."""
        if self.made.get(name, wanted) == wanted:
            return name, []
        key, new = (name, wanted), f"{name}.{SHORT[wanted]}"
        if key in self.names or name in self.constants:
            return self.names.setdefault(key, new), []
        self.names[key] = new
        return new, [helper.make_node("Cast", [name], [new], f"{name}_to_{SHORT[wanted]}", to=wanted)]


def convert(graph: onnx.GraphProto, types: dict[str, int], full: set[str]) -> None:
    """Every node that is not in full to half precision, in place, with casts between."""
    constants = {each.name: each for each in graph.initializer if each.data_type == FLOAT}
    made = {name: FLOAT for name in (*constants, *(each.name for each in graph.input)) if types[name] == FLOAT}
    for node in graph.node:
        made |= {name: FLOAT if node.name in full else HALF for name in node.output if types.get(name) == FLOAT}
    casts, nodes = Casts(made, constants), list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.extend(converted(node, FLOAT if node.name in full else HALF, casts))
    cast_outputs(graph, made)
    halved = [half_constant(constants[name], new) for (name, _), new in casts.names.items() if name in constants]
    graph.initializer.extend(halved)
    drop_unused(graph)


def converted(node: onnx.NodeProto, wanted: int, casts: Casts) -> list[onnx.NodeProto]:
    """The node in the wanted type, after the casts that it is the first to need."""
    before = []
    for place, name in enumerate(node.input):
        if node.op_type not in UNTYPED and place not in FIXED.get(node.op_type, ()):
            node.input[place], cast = casts.read_as(name, wanted)
            before += cast
    for attribute in node.attribute if wanted == HALF else ():
        if attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(half_constant(attribute.t, attribute.t.name))
    return [*before, node]


def half_constant(constant: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Finite values stay finite: beyond the range of half precision there are only bounds of Clip here."""
    values = numpy_helper.to_array(constant)
    held = np.where(np.isfinite(values), values.clip(-LARGEST, LARGEST), values)
    return numpy_helper.from_array(held.astype(np.float16), name)


def cast_outputs(graph: onnx.GraphProto, made: dict[str, int]) -> None:
    """The graph's own outputs stay fp32."""
    for name in [each.name for each in graph.output if made.get(each.name) == HALF]:
        for node in graph.node:
            for names in (node.input, node.output):
                for place, each in enumerate(names):
                    if each == name:
                        names[place] = f"{name}.fp16"
        graph.node.append(helper.make_node("Cast", [f"{name}.fp16"], [name], f"{name}_to_fp32", to=FLOAT))
