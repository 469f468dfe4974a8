from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.data.augment import resized
from kit.data.coco import find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.graph import layer_of
from kit.deploy.operators import check_operators
from kit.deploy.precision import ISLANDS, MOVING, matches, mixed_precision, node_types, tensor_types, type_counts
from kit.deploy.rounding import RoundedRunner
from kit.deploy.runtimes import open_runner

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@pytest.fixture(scope="module")
def mixed(exported: Path) -> onnx.ModelProto:
    return mixed_precision(read_onnx(exported)[0])


def chain(*nodes: onnx.NodeProto, constants: dict[str, float] | None = None) -> onnx.ModelProto:
    """Nodes from x to y, both fp32 (2, 2)."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "chain", [x], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(kind: str, inputs: str, output: str, layer: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], f"{layer}/{kind}", **attributes)


def kinds_of(model: onnx.ModelProto) -> list[str]:
    return [f"{each.op_type} {kind}" for each, kind in zip(model.graph.node, node_types(model).values(), strict=True)]


def test_islands_compute_in_fp32_and_all_else_in_half_precision(mixed: onnx.ModelProto) -> None:
    types = tensor_types(mixed)
    for each in mixed.graph.node:
        floats = {types[name] for name in (*each.input, *each.output) if name and types[name] in FLOATS}
        if each.op_type not in ("Cast", "Resize") and floats:
            inside = any(matches(each, island) for island in ISLANDS)
            assert floats == {TensorProto.FLOAT if inside else TensorProto.FLOAT16}, each.name


def test_every_island_is_there_but_those_that_are_constants_at_a_fixed_size(mixed: onnx.ModelProto) -> None:
    empty = [island for island in ISLANDS if not any(matches(each, island) for each in mixed.graph.node)]
    assert empty == ["position", "anchors"]
    assert {layer_of(each) for each in mixed.graph.node if each.op_type == "GridSample"} == {
        f"decoder.layers.{index}.sampling.points" for index in range(3)
    }


def test_nothing_is_cast_twice_or_there_and_back(mixed: onnx.ModelProto) -> None:
    casts = [each for each in mixed.graph.node if each.op_type == "Cast"]
    made_by = {name: each for each in mixed.graph.node for name in each.output}
    assert len({(each.input[0], each.attribute[0].i) for each in casts}) == len(casts)
    for each in casts:
        before = made_by.get(each.input[0])
        while before is not None and before.op_type in MOVING:
            before = made_by.get(before.input[0])
        assert before is None or before.op_type != "Cast", each.name
    assert 20 < len(casts) < 60


def test_inputs_outputs_and_names_stay(mixed: onnx.ModelProto, exported: Path) -> None:
    model, _ = read_onnx(exported)
    assert list(mixed.graph.input) == list(model.graph.input) and list(mixed.graph.output) == list(model.graph.output)
    assert [each.name for each in mixed.graph.node if each.op_type != "Cast"] == [
        each.name for each in model.graph.node
    ]
    assert len(mixed.SerializeToString()) < 0.56 * len(model.SerializeToString())
    assert check_operators(mixed) == []


def test_scenes_are_found_alike_when_halves_are_rounded_as_a_gpu_rounds(
    mixed: onnx.ModelProto, exported: Path, scenes: Path, tmp_path: Path
) -> None:
    split = find_split(scenes, "val")
    image = read_image(split.images / read_coco(split.annotations).records[0].file_name)
    images, sizes_hw = resized(image, (320, 320))[None], np.array([image.shape[:2]], np.float32)
    path = write_onnx(mixed, tmp_path / "half.onnx", read_onnx(exported)[1])
    reference, rounded, plain = (
        run(images, sizes_hw) for run in (open_runner(exported), RoundedRunner(path), open_runner(path))
    )
    sure = int((reference.scores[0] > 0.3).sum())
    assert sure >= 3
    for found in (rounded, plain):
        for place in range(sure):
            same = found.labels[0] == reference.labels[0, place]
            off_px = np.abs(found.boxes_xyxy[0, same] - reference.boxes_xyxy[0, place]).max(axis=1)
            assert off_px.min() < 0.5
            assert abs(found.scores[0, same][off_px.argmin()] - reference.scores[0, place]) < 0.01


def test_more_islands_are_layers_operators_or_nodes(exported: Path) -> None:
    model, _ = read_onnx(exported)
    more = mixed_precision(model, (*ISLANDS, "decoder.layers.1", "backbone", "Resize", "encoder/Concat"))
    types = node_types(more)
    assert types["decoder.layers.1.widen/MatMul"] == "fp32" and types["decoder.layers.2.widen/MatMul"] == "fp16"
    assert types["backbone.stem.stem1.conv/Conv"] == "fp32" and types["encoder.down.0.0.conv/Conv"] == "fp16"
    assert types["encoder/Concat"] == "fp32"
    assert [kind for name, kind in types.items() if name.endswith("/Resize")] == ["fp32"]


def test_an_island_that_is_nowhere_is_told(exported: Path) -> None:
    model, _ = read_onnx(exported)
    with pytest.raises(ValueError, match=r"got 'decoder\.layer\.1', did you mean 'decoder\.layers\.1'\?"):
        mixed_precision(model, ("decoder.layer.1",))
    with pytest.raises(TypeError, match="islands must be a sequence of names, got the string 'bins'"):
        mixed_precision(model, "bins")


def test_only_fp32_is_made_half(mixed: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="expected a model in fp32, got one in half precision or INT8"):
        mixed_precision(mixed)


def test_outputs_of_half_nodes_are_cast_at_the_end() -> None:
    model = mixed_precision(chain(node("Relu", "x", "y", "a")), ())
    assert kinds_of(model) == ["Cast fp32 to fp16", "Relu fp16", "Cast fp16 to fp32"]
    assert model.graph.node[-1].output[0] == "y"


def test_what_only_carries_between_islands_stays_full() -> None:
    nodes = [
        node("Exp", "x", "a", "bins"), node("Transpose", "a", "b", "between"), node("Exp", "b", "c", "best"),
        node("Transpose", "c", "d", "after"), node("Relu", "d", "y", "after"),
    ]  # fmt: skip
    assert kinds_of(mixed_precision(chain(*nodes))) == [
        "Exp fp32", "Transpose fp32", "Exp fp32", "Cast fp32 to fp16", "Transpose fp16", "Relu fp16",
        "Cast fp16 to fp32",
    ]  # fmt: skip


def test_constants_beyond_half_precision_keep_their_nodes_full() -> None:
    nodes = [node("Mul", "x large", "a", "one"), node("Add", "a small", "y", "two")]
    model = mixed_precision(chain(*nodes, constants={"large": 70000.0, "small": 2.0}))
    assert kinds_of(model) == ["Mul fp32", "Cast fp32 to fp16", "Add fp16", "Cast fp16 to fp32"]
    assert {each.name: each.data_type for each in model.graph.initializer} == {
        "large": TensorProto.FLOAT, "small.fp16": TensorProto.FLOAT16,
    }  # fmt: skip


def test_bounds_beyond_half_precision_are_its_largest_numbers() -> None:
    limits = {"low": -0.5, "high": float(np.finfo(np.float32).max)}
    model = mixed_precision(chain(node("Clip", "x low high", "y", "act"), constants=limits))
    values = {each.name: numpy_helper.to_array(each).item() for each in model.graph.initializer}
    assert values == {"low.fp16": -0.5, "high.fp16": 65504.0}
    assert type_counts(model)["fp16"] == 1
