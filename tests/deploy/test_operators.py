from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.deploy.export import export_onnx
from kit.deploy.operators import SUPPORTED, check_operators
from kit.deploy.precision import mixed_precision
from kit.dfine.detector import Detector
from kit.dfine.weights import save_weights

FLOAT, HALF, INT8, UINT8, INT32, INT64, BOOL, DOUBLE = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64,
    TensorProto.BOOL, TensorProto.DOUBLE,
)  # fmt: skip
IMAGE = [1, 3, 8, 8]


def model_of(nodes, inputs, outputs, constants=(), opset=18) -> onnx.ModelProto:
    """inputs, outputs: {name: (type, shape)}; constants: {name: array}."""
    tensors = [
        [helper.make_tensor_value_info(name, *form) for name, form in each.items()] for each in (inputs, outputs)
    ]
    arrays = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "graph", *tensors, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def one(operator, inputs, outputs, constants=(), opset=18, **attributes) -> list[str]:
    """What is found about a graph of one node called `it`; inputs and constants in the order of their names."""
    names = sorted([*inputs, *dict(constants)])
    node = helper.make_node(operator, names, list(outputs), name="it", **attributes)
    return check_operators(model_of([node], inputs, outputs, constants, opset))


def test_the_exported_file_has_only_what_tensorrt_has_in_both_precisions(exported: Path):
    model = onnx.load(exported)
    half = mixed_precision(model)
    assert check_operators(model) == check_operators(half) == []
    assert sum(node.op_type == "Cast" for node in half.graph.node) > sum(
        node.op_type == "Cast" for node in model.graph.node
    )


@pytest.mark.slow
def test_so_has_the_file_of_another_size_that_takes_bytes(tmp_path: Path):
    checkpoint = save_weights(Detector("s", 4), tmp_path / "s.pt", {"size_hw": [96, 96]})
    path = export_onnx(checkpoint, tmp_path / "s.onnx", input="uint8", precision="fp16")
    assert check_operators(onnx.load(path)) == []


def test_the_table_has_the_operators_of_a_detector_and_not_those_that_tensorrt_refuses():
    assert {"Conv", "GridSample", "LayerNormalization", "QuantizeLinear", "TopK"} <= set(SUPPORTED)
    assert {"BitShift", "Det", "Unique", "SequenceAt", "DynamicQuantizeLinear", "QLinearConv"} & set(SUPPORTED) == set()
    assert "INT64" in SUPPORTED["Div"] and "INT64" not in SUPPORTED["Conv"] and "BOOL" not in SUPPORTED["Equal"]


def test_an_unknown_operator_is_named_with_its_node():
    assert one("Det", {"x": (FLOAT, [2, 2])}, {"y": (FLOAT, [])}) == ["it (Det): TensorRT has no such operator"]


def test_an_operator_from_outside_onnx_is_named():
    node = helper.make_node("FusedMatMul", ["x"], ["y"], domain="com.microsoft")
    model = model_of([node], {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])})
    assert check_operators(model) == ["operators from outside ONNX: com.microsoft.FusedMatMul"]


@pytest.mark.parametrize(("opset", "known"), [(8, False), (18, True), (24, True), (25, False)])
def test_opsets_9_to_24_are_read(opset: int, known: bool):
    found = one("Relu", {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])}, opset=opset)
    assert (found == []) == known and (known or f"opset {opset}: expected one from 9 to 24" in found[0])


@pytest.mark.parametrize(
    ("kind", "problem"), [(FLOAT, ""), (INT64, ""), (BOOL, "a is BOOL, expected FLOAT or FLOAT16")]
)
def test_a_type_that_the_operator_does_not_take_is_told(kind: int, problem: str):
    found = one("Equal", {"a": (kind, [2]), "b": (kind, [2])}, {"y": (BOOL, [2])})
    assert bool(found) == bool(problem) and problem in "".join(found)


def test_double_precision_is_refused():
    assert "x is DOUBLE" in one("Sqrt", {"x": (DOUBLE, [2])}, {"y": (DOUBLE, [2])})[0]


def test_indices_and_conditions_are_not_data():
    assert one("Gather", {"a": (FLOAT, [4]), "b": (INT64, [2])}, {"y": (FLOAT, [2])}) == []
    where = {"a": (BOOL, [2]), "b": (HALF, [2]), "c": (HALF, [2])}
    assert one("Where", where, {"y": (HALF, [2])}) == []


@pytest.mark.parametrize(("grid", "problems"), [(FLOAT, 0), (HALF, 1)])
def test_what_is_sampled_and_where_are_of_one_type(grid: int, problems: int):
    found = one("GridSample", {"a": (FLOAT, IMAGE), "b": (grid, [1, 2, 2, 2])}, {"y": (FLOAT, [1, 3, 2, 2])})
    assert len(found) == problems and all("give them one type" in line for line in found)


@pytest.mark.parametrize("rank", [4, 5])
def test_sampling_is_of_images_only(rank: int):
    inputs = {"a": (FLOAT, [1] * rank), "b": (FLOAT, [1] * (rank - 1) + [rank - 2])}
    found = one("GridSample", inputs, {"y": (FLOAT, [1] * rank)}, opset=20)
    assert bool(found) == (rank == 5)


@pytest.mark.parametrize(("count", "problem"), [(3839, ""), (3840, "K must be below 3840, got 3840")])
def test_top_k_has_a_limit(count: int, problem: str):
    outputs = {"y": (FLOAT, [1, count]), "z": (INT64, [1, count])}
    found = one("TopK", {"a": (FLOAT, [1, 9999])}, outputs, {"k": np.array([count])})
    assert bool(found) == bool(problem) and problem in "".join(found)


def test_a_computed_k_is_refused_and_so_is_an_unsorted_answer():
    outputs = {"y": (FLOAT, [1, 2]), "z": (INT64, [1, 2])}
    found = one("TopK", {"a": (FLOAT, [1, 9]), "k": (INT64, [1])}, outputs, sorted=0)
    assert found == ["it (TopK): K must be a constant, k is computed", "it (TopK): sorted must be 1"]


@pytest.mark.parametrize(("transposed_first", "lines"), [(False, 0), (True, 2)])
def test_bytes_come_in_and_are_cast_at_once(transposed_first: bool, lines: int):
    turn = helper.make_node("Transpose", ["x" if transposed_first else "f"], ["t"], name="turn", perm=[0, 3, 1, 2])
    cast = helper.make_node("Cast", ["t" if transposed_first else "x"], ["f"], name="cast", to=FLOAT)
    nodes, last = ([turn, cast], "f") if transposed_first else ([cast, turn], "t")
    found = check_operators(model_of(nodes, {"x": (UINT8, [1, 8, 8, 3])}, {last: (FLOAT, IMAGE)}))
    assert sum("UINT8, which only an input of the network" in line for line in found) == lines


def test_only_the_first_output_of_a_normalisation_is_there():
    node = helper.make_node("LayerNormalization", ["x", "scale"], ["y", "mean"], name="it")
    model = model_of([node], {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}, {"scale": np.ones(4, np.float32)})
    assert check_operators(model) == ["it (LayerNormalization): only its first output is supported"]


def test_axes_that_are_computed_are_refused():
    found = one("Unsqueeze", {"a": (FLOAT, [2]), "b": (INT64, [1])}, {"y": (FLOAT, [1, 2])})
    assert found == ["it (Unsqueeze): axes must be a constant, b is computed"]


@pytest.mark.parametrize(("attributes", "fine"), [({}, True), ({"mode": "cubic"}, False), ({"antialias": 1}, False)])
def test_ways_to_resize(attributes: dict, fine: bool):
    constants = {"b": np.zeros(0, np.float32), "c": np.array([1, 1, 2, 2], np.float32)}
    found = one("Resize", {"a": (FLOAT, IMAGE)}, {"y": (FLOAT, [1, 3, 16, 16])}, constants, **attributes)
    assert (found == []) == fine


def test_pooling_with_gaps_is_refused():
    found = one("MaxPool", {"x": (FLOAT, IMAGE)}, {"y": (FLOAT, [1, 3, 6, 6])}, kernel_shape=[2, 2], dilations=[2, 2])
    assert found == ["it (MaxPool): dilations other than 1 are not supported"]


def test_a_scatter_that_adds_is_refused():
    inputs = {"a": (FLOAT, [4]), "b": (INT64, [2, 1]), "c": (FLOAT, [2])}
    assert one("ScatterND", inputs, {"y": (FLOAT, [4])}) == []
    assert "reduction" in one("ScatterND", inputs, {"y": (FLOAT, [4])}, reduction="add")[0]


def test_more_than_eight_dimensions_are_refused():
    found = one("Relu", {"x": (FLOAT, [1] * 9)}, {"y": (FLOAT, [1] * 9)})
    assert found == ["it (Relu): y has 9 dimensions, at most 8 are possible"]


def quantised(scale, zero_point, data: int = FLOAT) -> list[str]:
    """Of an image that goes through Q and DQ."""
    down = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="Q")
    up = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="DQ")
    constants = {"scale": scale, "zero": zero_point}
    return check_operators(model_of([down, up], {"x": (data, IMAGE)}, {"y": (data, IMAGE)}, constants, opset=19))


@pytest.mark.parametrize(
    ("scale", "zero_point", "problem"),
    [
        (np.float32(0.1), np.int8(0), ""),
        (np.float32(0.1), np.int8(3), "the zero point must be 0"),
        (np.float32(0.1), np.uint8(0), "q is UINT8, expected INT8"),
        (np.float32(0), np.int8(0), "scales must be positive and finite"),
        (np.float32("nan"), np.int8(0), "scales must be positive and finite"),
        (np.full(3, 0.1, np.float32), np.zeros(3, np.int8), "x is no constant and must have one scale, got 3"),
    ],
)  # fmt: skip
def test_quantisation_is_symmetric_and_signed(scale: np.ndarray, zero_point: np.ndarray, problem: str):
    found = quantised(np.asarray(scale), np.asarray(zero_point))
    assert bool(found) == bool(problem) and problem in " ".join(found)


def test_weights_may_have_a_scale_for_each_channel_and_biases_stay_float():
    constants = {"a": np.zeros((4, 3), np.int8), "b": np.full(4, 0.1, np.float32), "c": np.zeros(4, np.int8)}
    assert one("DequantizeLinear", {}, {"y": (FLOAT, [4, 3])}, constants, axis=0) == []
    bias = {"a": np.zeros(4, np.int32), "b": np.float32(0.1).reshape(())}
    assert "a is INT32, expected INT8" in one("DequantizeLinear", {}, {"y": (FLOAT, [4])}, bias)[0]


def test_shapes_that_do_not_fit_are_told():
    found = one("MatMul", {"a": (FLOAT, [2, 3]), "b": (FLOAT, [4, 5])}, {"y": (FLOAT, [2, 5])})
    assert "types and shapes do not fit together" in found[0]
