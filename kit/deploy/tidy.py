"""What torch's exporter leaves, tidied: constants folded, layers in the names, nothing of the machine that exported.

Every node is called `layer/Operator`, by the module that it comes from (`decoder.layers.1.norm2/LayerNormalization`),
with a running number where a layer has several; every tensor is called after the node that makes it.
"""

import ast
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

NEXT_TO_ZERO = 2.0**-24  # the smallest number of half precision
SCOPES = "pkg.torch.onnx.name_scopes"


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Changes the model in place, and returns it."""
    graph = model.graph
    drop_expansions_to_the_same(graph)
    fold_moves(graph)
    keep_padding_of_zeros(graph)
    ask_the_cast_for_shapes(graph)
    drop_unused(graph)
    name_layers(graph)
    for described in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del described.metadata_props[:]
        described.doc_string = ""
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {each.name: each for each in graph.initializer}


def replace_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def drop_expansions_to_the_same(graph: onnx.GraphProto) -> None:
    """Expand by ones alone changes nothing, as no input of ours has fewer dimensions."""
    known = constants(graph)
    for node in [node for node in graph.node if node.op_type == "Expand" and node.input[1] in known]:
        if (numpy_helper.to_array(known[node.input[1]]) == 1).all():
            replace_input(graph, node.output[0], node.input[0])
            graph.node.remove(node)


def fold_moves(graph: onnx.GraphProto) -> None:
    """Transpose, Reshape and Expand of constants; the exporter folds small ones only."""
    for node in list(graph.node):
        known = constants(graph)
        if node.op_type not in ("Transpose", "Reshape", "Expand") or any(name not in known for name in node.input):
            continue
        value, *shape = (numpy_helper.to_array(known[name]) for name in node.input)
        if node.op_type == "Expand":
            value = value * np.ones(shape[0], value.dtype)
        else:
            value = value.reshape(shape[0]) if shape else value.transpose(node.attribute[0].ints)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), node.output[0]))
        graph.node.remove(node)


def keep_padding_of_zeros(graph: onnx.GraphProto) -> None:
    """ONNX Runtime merges a Pad of zeros into a MaxPool, which pads with minus infinity: wrong where all is negative.

    It leaves another value alone, and 6e-8 is as good as zero.
    """
    for node in graph.node:
        pooled = any(other.op_type == "MaxPool" and node.output[0] in other.input for other in graph.node)
        if node.op_type == "Pad" and pooled:
            value = numpy_helper.from_array(np.array(NEXT_TO_ZERO, np.float32), f"{node.output[0]}_value")
            graph.initializer.append(value)
            node.input[2:] = [value.name]


def ask_the_cast_for_shapes(graph: onnx.GraphProto) -> None:
    """TensorRT takes uint8 images into their Cast alone, so that a Shape has to read what comes out of it."""
    inputs = {each.name for each in graph.input}
    nodes = list(graph.node)
    casts = {node.input[0]: node for node in nodes if node.op_type == "Cast" and node.input[0] in inputs}
    for node in nodes:
        if node.op_type == "Shape" and node.input[0] in casts:
            node.input[0] = casts[node.input[0]].output[0]
    del graph.node[:]
    graph.node.extend([*casts.values(), *(node for node in nodes if node not in casts.values())])


def name_layers(graph: onnx.GraphProto) -> None:
    """Nodes after their layers, tensors after their nodes; inputs and outputs of the graph keep their names."""
    layers: dict[str, str] = {}  # of tensors
    for node in graph.node:
        layer = layer_in(node)
        if layer is None:  # a helper of the exporter's own, such as Split: that of what it helps with
            layer = next((layers[name] for name in node.input if name in layers), "")
        layers |= dict.fromkeys(node.output, layer)
    kinds = [f"{layers[node.output[0]]}/{node.op_type}".removeprefix("/") for node in graph.node]
    names = numbered(kinds)
    renamed = {each.name: each.name for each in (*graph.input, *graph.output)}
    for node, name in zip(graph.node, names, strict=True):
        node.name = name
        for place, output in enumerate(node.output):
            renamed.setdefault(output, f"{name}:{place}" if place else name)
    renamed |= constant_names(graph)
    for each in graph.initializer:
        each.name = renamed[each.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]


def constant_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Weights by their key in the detector, other constants by the first node that reads them."""
    readers = {name: node.name for node in reversed(graph.node) for name in node.input}
    old = [each.name for each in graph.initializer]
    new = [
        name.removeprefix("detector.") if name.startswith("detector.") else f"{readers[name]}.constant" for name in old
    ]
    return dict(zip(old, numbered(new), strict=True))


def layer_in(node: onnx.NodeProto) -> str | None:
    """By what the exporter notes: a list of module paths, from the root to the operation itself."""
    scopes = next((each.value for each in node.metadata_props if each.key == SCOPES), None)
    if scopes is None:
        return None
    path = [part for part in ast.literal_eval(scopes)[:-1] if not part.startswith("_")]
    return path[-1].removeprefix("detector").removeprefix(".") if path else ""


def numbered(names: Sequence[str]) -> list[str]:
    """Those that stand more than once get a number, from the second on."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name}_{seen[name]}" if seen[name] > 1 else name)
    return out


def drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    for each in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(each)
