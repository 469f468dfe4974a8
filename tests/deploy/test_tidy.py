from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.deploy.tidy import layer_in, numbered, tidied

Constants = dict[str, np.ndarray]


def scoped(kind: str, inputs: Sequence[str], output: str, scopes: str | None, **attributes: object) -> onnx.NodeProto:
    """A node as torch's exporter leaves it."""
    node = helper.make_node(kind, inputs, [output], doc_string="File /home/someone/x.py", **attributes)
    if scopes is not None:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    return node


def model_of(
    nodes: list[onnx.NodeProto], constants: Constants, shape: tuple[int, ...], kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "main", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_nodes_are_named_after_layers_and_tensors_after_nodes() -> None:
    nodes = [
        scoped("MatMul", ["x", "val_1"], "a", "['', 'detector', 'detector.head', 'linear']"),
        scoped("Add", ["a", "detector.head.bias"], "b", "['', 'detector', 'detector.head', 'linear']"),
        scoped("Relu", ["b"], "c", None),  # of the exporter's own
        scoped("Add", ["c", "c"], "y", "['', 'add']"),
    ]
    constants = {"val_1": np.eye(2, dtype=np.float32), "detector.head.bias": np.ones(2, np.float32)}
    model = tidied(model_of(nodes, constants, (1, 2)))
    assert [node.name for node in model.graph.node] == ["head/MatMul", "head/Add", "head/Relu", "Add"]
    assert [each.name for each in model.graph.initializer] == ["head/MatMul.constant", "head.bias"]
    assert list(model.graph.node[2].input) == ["head/Add"] and list(model.graph.node[3].output) == ["y"]
    assert b"someone" not in model.SerializeToString() and b"pkg.torch" not in model.SerializeToString()
    assert answer(model, np.array([[1, -3]], np.float32)).tolist() == [[4, 0]]


def test_moved_constants_are_constants_and_expansions_to_the_same_go() -> None:
    nodes = [
        scoped("Transpose", ["w"], "t", "['', 't']", perm=[1, 0]),
        scoped("Reshape", ["t", "shape"], "r", "['', 'r']"),
        scoped("Expand", ["x", "ones"], "e", "['', 'e']"),
        scoped("MatMul", ["e", "r"], "y", "['', 'm']"),
    ]
    constants = {
        "w": np.array([[1, 2, 3]], np.float32), "shape": np.array([3, 1]), "ones": np.array([1, 1]),
    }  # fmt: skip
    model = tidied(model_of(nodes, constants, (1, 3)))
    assert [node.op_type for node in model.graph.node] == ["MatMul"] and len(model.graph.initializer) == 1
    assert answer(model, np.array([[1, 1, 2]], np.float32)).tolist() == [[9]]


def test_zeros_around_negative_numbers_win_the_pooling() -> None:
    nodes = [
        scoped("Pad", ["x", "pads"], "p", "['', 'pad']"),
        scoped("MaxPool", ["p"], "y", "['', 'pool']", kernel_shape=[2, 2]),
    ]
    model = model_of(nodes, {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1])}, (1, 1, 2, 2))
    x = np.full((1, 1, 2, 2), -1, np.float32)
    assert answer(tidied(model), x)[0, 0] == pytest.approx(np.array([[-1, 0], [0, 0]]), abs=1e-7)


def test_the_shape_of_bytes_is_asked_of_their_cast() -> None:
    nodes = [
        scoped("Shape", ["x"], "s", "['', 's']"),
        scoped("Cast", ["x"], "f", "['', 'f']", to=TensorProto.FLOAT),
        scoped("Expand", ["f", "s"], "y", "['', 'y']"),
    ]
    model = tidied(model_of(nodes, {}, (1, 2), TensorProto.UINT8))
    assert [node.op_type for node in model.graph.node if "x" in node.input] == ["Cast"]
    assert answer(model, np.array([[3, 4]], np.uint8)).tolist() == [[3, 4]]


def test_the_hooks_of_the_exporter_are_no_layers() -> None:
    assert layer_in(scoped("Shape", ["x"], "y", "['_empty_nn_module_stack_from_metadata_hook', 'size']")) == ""
    assert layer_in(scoped("Relu", ["x"], "y", "['', 'answers', 'relu']")) == "answers"
    assert layer_in(scoped("Relu", ["x"], "y", None)) is None


def test_names_that_come_again_are_numbered() -> None:
    assert numbered(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]
