from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.deploy.qdq import SMALLEST_SCALE, Histogram, activation_scales, quantisable, weight_scales, with_qdq, within
from kit.deploy.runtimes import onnx_session

WEIGHTS = np.array([[1.27, 0.0, -254.0], [-0.5, 0.0, 127.0]], np.float32)  # (K, N): columns of three sizes


def filled(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def twice_used(type_: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x goes into two products and into a sum; only products can be quantised."""
    x = helper.make_tensor_value_info("x", type_, ["n", 2])
    y, z = (helper.make_tensor_value_info(name, type_, ["n", 3]) for name in "yz")
    weights = WEIGHTS.astype(helper.tensor_dtype_to_np_dtype(type_))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["x", "v"], ["z"], name="second"),
        helper.make_node("Add", ["a", "z"], ["y"], name="sum"),
    ]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights * 2, "v")]
    graph = helper.make_graph(nodes, "products", [x], [y, z], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def answers(model: onnx.ModelProto, path: Path, x: np.ndarray) -> np.ndarray:
    onnx.save(model, str(path))
    return onnx_session(path, "cpu").run(["y"], {"x": x})[0]


def test_even_values_keep_their_whole_range():
    values = np.linspace(-2, 2, 100_001, dtype=np.float32)
    assert filled(values).scale() == pytest.approx(2 / 127, rel=0.02)


def test_one_value_far_out_is_cut_off_where_many_gain():
    values = np.append(np.random.default_rng(0).normal(0, 1, 60_000), 30.0)
    # least of 60000 s^2/12 + (30 - 127 s)^2, where s = 7620 / 42258
    assert filled(values).scale() == pytest.approx(0.180, rel=0.02)


def test_a_tensor_that_is_always_0_has_a_scale_all_the_same():
    assert filled(np.zeros(9, np.float32)).scale() == SMALLEST_SCALE
    assert Histogram().scale() == SMALLEST_SCALE


def test_a_range_that_grows_loses_no_count():
    histogram = filled(np.array([0.1, 0.4, 1.0]))
    histogram.add(np.array([-7.0]))
    assert histogram.top == 8.0 and histogram.counts.sum() == 4
    assert np.flatnonzero(histogram.counts).tolist() == [25, 102, 255, 1792]  # 256 bins a unit; 1.0 was in the last


def test_of_a_large_tensor_a_part_is_counted_but_its_largest_sets_the_range():
    values = np.ones(1_000_000, np.float32)
    values[123_457] = 5
    histogram = filled(values)
    assert histogram.top == 5 and 60_000 < histogram.counts.sum() < 70_000


def test_values_that_are_not_finite_are_named(tmp_path: Path):
    model = twice_used()
    feeds = [{"x": np.array([[np.inf, 1]], np.float32)}]
    with pytest.raises(ValueError, match="calibration: the tensor x has values that are not finite"):
        activation_scales(model, [model.graph.node[0]], feeds)


def test_each_channel_of_the_output_has_its_scale():
    assert weight_scales(WEIGHTS, 1).tolist() == pytest.approx([0.01, SMALLEST_SCALE, 2.0])
    kernel = WEIGHTS.T.reshape(3, 2, 1, 1)  # of a convolution: the output comes first
    assert weight_scales(kernel, 0).tolist() == pytest.approx([0.01, SMALLEST_SCALE, 2.0])


def test_a_tensor_is_quantised_once_for_all_that_take_it_and_not_for_others():
    model = with_qdq(twice_used(), {"first": 0.1, "second": 0.1})
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 3  # x, w, v
    takes = {node.name: list(node.input) for node in model.graph.node}
    assert takes["first"] == ["x.dq", "w.dq"] and takes["second"] == ["x.dq", "v.dq"] and takes["sum"] == ["a", "z"]
    assert takes["x.quantise"] == ["x", "x.scale", "x.zero"]
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in twice_used().graph.node] == ["MatMul", "MatMul", "Add"]


def test_values_are_rounded_as_by_hand(tmp_path: Path):
    x = np.array([[0.26, -100.0]], np.float32)  # in steps of 0.1: 0.3 and, cut off, -12.8
    rounded = np.array([[1.27, 0, -254], [-0.5, 0, 128]], np.float32)  # steps 0.01, -, 2; 127 lies between 126 and 128
    expected = np.array([[0.3, -12.8]]) @ rounded * 3  # v = 2 w
    found = answers(with_qdq(twice_used(), {"first": 0.1, "second": 0.1}), tmp_path / "model.onnx", x)
    assert np.allclose(found, expected, rtol=1e-5)


def test_in_a_half_precision_model_scales_are_of_half_precision(tmp_path: Path):
    model = with_qdq(twice_used(TensorProto.FLOAT16), {"first": 0.1})
    scales = [each for each in model.graph.initializer if each.name.endswith(".scale")]
    assert len(scales) == 2 and {each.data_type for each in scales} == {TensorProto.FLOAT16}
    onnx.checker.check_model(model, full_check=True)
    x = np.array([[0.26, -1.0]], np.float16)
    found = answers(model, tmp_path / "model.onnx", x)
    rounded = np.array([[1.27, 0, -254], [-0.5, 0, 128]])
    assert np.allclose(found, np.array([[0.3, -1.0]]) @ rounded + x.astype(float) @ (2 * WEIGHTS), rtol=2e-3)


def test_scales_are_those_of_what_flows_in(tmp_path: Path):
    model = twice_used()
    feeds = [{"x": np.full((1, 2), value, np.float32)} for value in (0.5, -2.0, 1.0)]
    assert activation_scales(model, [model.graph.node[0]], feeds) == {"first": pytest.approx(2 / 127, rel=0.05)}


def test_parts_are_layers_with_all_below_them():
    assert within("encoder.down.0", ["encoder"]) and within("encoder", ["encoder"])
    assert not within("encoder2.down", ["encoder"]) and not within("", ["encoder"])


def test_a_part_that_is_not_there_is_told(exported: Path):
    with pytest.raises(
        ValueError, match="parts must name layers with weights, such as backbone, decoder, encoder; got enc"
    ):
        quantisable(onnx.load(str(exported)), ["enc"])
