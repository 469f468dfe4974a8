from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.rounding import RoundedRunner, half_tensors, has_half, plain_session, rounded

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def model_of(nodes: list[onnx.NodeProto], kind: int = FLOAT) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, kind, ["count"]) for name in "xy")
    graph = helper.make_graph(nodes, "graph", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def squared_then_root() -> onnx.ModelProto:
    """|x| by way of x * x in fp16, which overflows from 256 on."""
    return model_of(
        [
            helper.make_node("Cast", ["x"], ["half"], to=HALF),
            helper.make_node("Mul", ["half", "half"], ["square"]),
            helper.make_node("Sqrt", ["square"], ["root"]),
            helper.make_node("Cast", ["root"], ["y"], to=FLOAT),
        ]
    )


def test_what_overflows_on_a_gpu_overflows():
    x = np.array([3.0, 255.0, 257.0], np.float32)
    assert plain_session(rounded(squared_then_root())).run(None, {"x": x})[0].tolist() == [3, 255, np.inf]
    session = onnxruntime.InferenceSession(squared_then_root().SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": x})[0].tolist() == [3, 255, 257]  # why this file is here


def test_each_result_is_the_nearest_fp16_number():
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    half = x.astype(np.float16)
    expected = np.sqrt((half * half).astype(np.float32)).astype(np.float16)
    assert (plain_session(rounded(squared_then_root())).run(None, {"x": x})[0] == expected).all()


def test_tensors_keep_their_names_and_become_fp32():
    model = rounded(squared_then_root())
    onnx.checker.check_model(model, full_check=True)
    made = {name for node in model.graph.node for name in node.output}
    assert {"half", "square", "root", "y"} <= made
    assert half_tensors(model) == {"half/half", "square/half", "root/half"}


def test_constants_in_fp16_keep_their_values():
    third = helper.make_tensor("third", HALF, [1], np.array([1 / 3], np.float16))
    model = model_of(
        [
            helper.make_node("Cast", ["x"], ["half"], to=HALF),
            helper.make_node("Constant", [], ["third"], value=third),
            helper.make_node("Add", ["half", "third"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=FLOAT),
        ]
    )
    y = plain_session(rounded(model)).run(None, {"x": np.zeros(1, np.float32)})[0]
    assert y[0] == np.float16(1 / 3) and y[0] != np.float32(1 / 3)


def test_a_file_in_fp32_is_computed_as_it_is():
    model = model_of([helper.make_node("Mul", ["x", "x"], ["y"])])
    assert not has_half(model) and has_half(squared_then_root())
    assert [node.op_type for node in rounded(model).graph.node] == ["Mul"]


def test_inputs_in_fp16_are_refused():
    with pytest.raises(ValueError, match="expected inputs and outputs in fp32, got fp16 for x, y"):
        rounded(model_of([helper.make_node("Mul", ["x", "x"], ["y"])], HALF))


def test_types_that_do_not_fit_are_told_in_one_line():
    half_where_float_is_said = model_of([helper.make_node("Cast", ["x"], ["y"], to=HALF)])
    with pytest.raises(ValueError, match="the types of the graph do not fit") as error:
        rounded(half_where_float_is_said)
    assert "\n" not in str(error.value)


def test_a_runner_reads_what_the_file_says_of_itself(exported: Path, tmp_path: Path):
    model, about = read_onnx(exported)
    path = write_onnx(model, tmp_path / "copy.onnx", replace(about, precision="fp16"))
    runner = RoundedRunner(path)
    images = np.zeros((2, *about.size_hw, 3), np.uint8)
    found = runner(images, np.full((2, 2), 100, np.float32))
    assert runner.about.precision == "fp16" and found.boxes_xyxy.shape == (2, about.top_k, 4)
