"""Graphs that are broken on purpose: each is caught by the gate, and the layer is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from kit.data.coco import find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy.divergence import Compared, Divergence, compare, find_divergence, relative_error, run
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.gate import judge, main, open_candidate
from kit.deploy.graph import layer_of
from kit.deploy.runtimes import OnnxRunner, open_runner

LAYER = "decoder.layers.1.norm2"
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture(scope="module")
def image(scenes: Path) -> np.ndarray:
    split = find_split(scenes, "val")
    return read_image(split.images / read_coco(split.annotations).records[0].file_name)


def broken(exported: Path, path: Path, change: Callable[[onnx.GraphProto], None], precision: str = "fp32") -> Path:
    model, about = read_onnx(exported)
    change(model.graph)
    return write_onnx(model, path, replace(about, precision=precision))


def node_of(graph: onnx.GraphProto, layer: str, operator: str) -> NodeProto:
    return next(node for node in graph.node if layer_of(node) == layer and node.op_type == operator)


def replace_weight(graph: onnx.GraphProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    weight = next(each for each in graph.initializer if each.name == name)
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(weight))), name))


def replace_node(graph: onnx.GraphProto, old: NodeProto, new: list[NodeProto]) -> None:
    place = next(index for index, node in enumerate(graph.node) if node.name == old.name)
    rest = list(graph.node[place + 1 :])
    del graph.node[place:]
    graph.node.extend([*new, *rest])


def overflowing_norm(graph: onnx.GraphProto) -> None:
    """What an export below opset 17 makes of a LayerNorm, in fp16, of activations that are 2000 times as large: in
    exact arithmetic the same, but their squares are beyond 65504."""
    norm = node_of(graph, LAYER, "LayerNormalization")
    x, scale, shift = norm.input[:3]
    steps = [
        ("Cast", [x], "norm/half", {"to": HALF}),
        ("Mul", ["norm/half", "norm/by"], "norm/large", {}),
        ("ReduceMean", ["norm/large", "norm/last"], "norm/mean", {}),
        ("Sub", ["norm/large", "norm/mean"], "norm/centred", {}),
        ("Pow", ["norm/centred", "norm/two"], "norm/squares", {}),
        ("ReduceMean", ["norm/squares", "norm/last"], "norm/variance", {}),
        ("Sqrt", ["norm/variance"], "norm/deviation", {}),
        ("Div", ["norm/centred", "norm/deviation"], "norm/normal", {}),
        ("Cast", ["norm/normal"], "norm/wide", {"to": FLOAT}),
        ("Mul", ["norm/wide", scale], "norm/scaled", {}),
        ("Add", ["norm/scaled", shift], norm.output[0], {}),
    ]
    for name, value in (("norm/by", np.float16(2000)), ("norm/two", np.float16(2)), ("norm/last", np.array([-1]))):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    replace_node(graph, norm, [helper.make_node(kind, of, [out], name=out, **more) for kind, of, out, more in steps])


def centres_for_corners(graph: onnx.GraphProto) -> None:
    """The output `boxes` as cx, cy, w, h."""
    for node in graph.node:
        node.output[:] = ["box/corners" if name == "boxes" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "box/halves"))
    graph.initializer.append(numpy_helper.from_array(np.float32(2), "box/of_two"))
    graph.node.extend(
        [
            helper.make_node(
                "Split", ["box/corners", "box/halves"], ["box/low", "box/high"], name="box/split", axis=-1
            ),
            helper.make_node("Sub", ["box/high", "box/low"], ["box/sizes"], name="box/sizes"),
            helper.make_node("Add", ["box/high", "box/low"], ["box/sums"], name="box/sums"),
            helper.make_node("Div", ["box/sums", "box/of_two"], ["box/centres"], name="box/centres"),
            helper.make_node("Concat", ["box/centres", "box/sizes"], ["boxes"], name="box/join", axis=-1),
        ]
    )


def swapped_colours(graph: onnx.GraphProto) -> None:
    stem = node_of(graph, "backbone.stem.stem1.conv", "Conv")
    replace_weight(graph, stem.input[1], lambda weight: weight[:, ::-1])


def scaled_weight(graph: onnx.GraphProto) -> None:
    conv = node_of(graph, "encoder.lateral.0.conv", "Conv")
    replace_weight(graph, conv.input[1], lambda weight: weight * np.float32(1.5))


BROKEN = {
    "LayerNorm that overflows in fp16": (overflowing_norm, "fp16", LAYER),
    "a weight that is half as large again": (scaled_weight, "fp32", "encoder.lateral.0.conv"),
    "red and blue swapped": (swapped_colours, "fp32", "backbone.stem.stem1.conv"),
    "boxes as centre and size": (centres_for_corners, "fp32", "answers"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_graph_is_caught_and_its_layer_is_named(fault, exported, checkpoint, scenes, image, tmp_path):
    change, precision, layer = BROKEN[fault]
    path = broken(exported, tmp_path / "broken.onnx", change, precision)
    split = find_split(scenes, "val")
    coco = read_coco(split.annotations)
    verdict = judge(open_runner(checkpoint), open_candidate(path, device="cpu"), split.images, coco, count=4)
    assert not verdict.passed
    divergence = find_divergence(exported, path, image)
    assert divergence.layer == layer
    assert divergence.table().splitlines()[0].startswith(f"first beyond {divergence.limit:g}: {layer} (")


def test_the_overflow_would_not_be_seen_without_rounding(exported, checkpoint, scenes, tmp_path):
    path = broken(exported, tmp_path / "broken.onnx", overflowing_norm, "fp16")
    split = find_split(scenes, "val")
    coco = read_coco(split.annotations)
    assert judge(open_runner(checkpoint), OnnxRunner(path), split.images, coco, count=2).passed


def test_the_same_file_nowhere_diverges(exported, image):
    divergence = find_divergence(exported, exported, image)
    assert divergence.first is None and divergence.layer == "" and len(divergence.tensors) > 300
    assert {each.error for each in divergence.tensors} == {0.0}
    assert "none of" in divergence.table()


def test_rows_that_swap_are_no_divergence(exported, image, tmp_path, monkeypatch):
    """Scores that are moved a little change the order of the queries, and nothing else."""

    def nudged(graph: onnx.GraphProto) -> None:
        top = next(node for node in graph.node if node.op_type == "TopK")
        noise = helper.make_node(
            "RandomUniformLike", [top.input[0]], ["noise"], name="noise", high=0.02, low=0.0, seed=1.0
        )
        nudge = helper.make_node("Add", [top.input[0], "noise"], ["nudged"], name="nudge")
        chooser = helper.make_node("TopK", ["nudged", top.input[1]], top.output, name=top.name, axis=1)
        replace_node(graph, top, [noise, nudge, chooser])

    path = broken(exported, tmp_path / "nudged.onnx", nudged)
    assert find_divergence(exported, path, image, limit=0.02).first is None
    monkeypatch.setattr("kit.deploy.divergence.choices_of", lambda model: [])
    assert find_divergence(exported, path, image, limit=0.02).first is not None


def test_memory_bounds_how_many_tensors_are_fetched_at_once(monkeypatch):
    counts = []
    names = [f"tensor{number}" for number in range(60)]
    nodes = [helper.make_node("Relu", [before], [name]) for before, name in zip(["x", *names], names, strict=False)]
    ends = [helper.make_tensor_value_info(name, FLOAT, [1000]) for name in ("x", names[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def counting(model: onnx.ModelProto, feeds: dict[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
        counts.append(len(names))
        return run(model, feeds, names)

    monkeypatch.setattr("kit.deploy.divergence.run", counting)
    feeds = {"x": np.ones(1000, np.float32)}
    errors = dict(compare(model, model, feeds, feeds, names, memory_bytes=4 * 4000 * 5))
    assert list(errors) == names and set(errors.values()) == {0.0}
    assert counts[2:] == [5] * 16 + [4] * 2  # after the first 16, as many as five times 4000 bytes and their like allow


def test_errors_are_shares_of_the_length_and_infinite_where_numbers_are_not_finite():
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1, rel=1e-5)
    assert relative_error(np.array([1.0]), np.array([np.nan])) == np.inf
    assert relative_error(np.array([1.0]), np.array([1.0, 1.0])) == np.inf
    assert relative_error(np.array([1.0, np.inf]), np.array([1.0, np.inf])) == 0
    assert relative_error(np.zeros((0, 4)), np.zeros((0, 4))) == 0


def row(layer: str, error: float, received: float) -> Compared:
    return Compared(layer, layer, "Add", layer, error, received)


def test_the_first_is_where_the_error_was_made_and_not_where_it_was_handed_on():
    inherited = Divergence([row("a", 0.04, 0.0), row("b", 0.06, 0.055), row("c", 0.9, 0.06)], 0.05)
    assert inherited.layer == "c"
    slowly = Divergence([row("a", 0.04, 0.0), row("b", 0.06, 0.04), row("c", 0.07, 0.06)], 0.05)
    assert slowly.layer == "b" and len(slowly.breaks) == 1


def test_the_worst_are_named_once_a_layer_and_what_follows_a_break_is_not_blamed():
    rows = [
        row("a", 0.01, 0.0),
        row("b", 0.5, 0.01),
        row("b", 0.3, 0.01),
        row("c", np.inf, 0.5),
        row("d", np.inf, np.inf),
    ]
    assert [each.layer for each in Divergence(rows, 0.05).worst()] == ["c", "b", "a", "d"]


def test_files_that_cannot_be_traced_are_told(exported, image, tmp_path):
    with pytest.raises(ValueError, match=r"model\.xml: only ONNX files can be traced"):
        find_divergence(exported, tmp_path / "model.xml", image)
    model, about = read_onnx(exported)
    other = write_onnx(model, tmp_path / "other.onnx", replace(about, height_px=640))
    with pytest.raises(ValueError, match="expected the input size"):
        find_divergence(exported, other, image)


def test_the_command_refuses_and_names_the_layer(exported, scenes, tmp_path, capsys):
    path = broken(exported, tmp_path / "broken.onnx", scaled_weight)
    assert main([str(exported), str(path), "--data", str(scenes), "--images", "2"]) == 1
    assert "first layer: encoder.lateral.0.conv" in capsys.readouterr().out
