from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kit.data.coco import CocoFile, Split, find_split, read_coco
from kit.deploy.divergence import Compared, Divergence
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.gate import GateFailed
from kit.deploy.graph import layer_of
from kit.deploy.precision import ISLANDS
from kit.deploy.retry import accept_mixed, more_islands
from kit.deploy.runtimes import open_runner

LAYER = "encoder.lateral.0.conv"
LOUD = 2.0**15


@pytest.fixture(scope="module")
def val(scenes: Path) -> Split:
    return find_split(scenes, "val")


@pytest.fixture(scope="module")
def coco(val: Split) -> CocoFile:
    return read_coco(val.annotations)


@pytest.fixture(scope="module")
def loud(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in fp32, but the results of one convolution are so large on the way that fp16 cannot hold them."""
    model, about = read_onnx(exported)
    graph = model.graph
    place, conv = next(
        (place, node) for place, node in enumerate(graph.node) if layer_of(node) == LAYER and node.op_type == "Conv"
    )
    for weight in graph.initializer:
        if weight.name in conv.input[1:]:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(LOUD), weight.name))
    graph.initializer.append(numpy_helper.from_array(np.float32(1 / LOUD), "quieter"))
    shrink = helper.make_node("Mul", ["loud", "quieter"], [conv.output[0]], name=f"{LAYER}/Mul")
    conv.output[0] = "loud"
    rest = list(graph.node[place + 1 :])
    del graph.node[place + 1 :]
    graph.node.extend([shrink, *rest])
    return write_onnx(model, tmp_path_factory.mktemp("loud") / "loud.onnx", about)


def test_half_precision_passes_at_once_where_nothing_is_wrong(exported, checkpoint, val, coco, tmp_path):
    attempts = accept_mixed(exported, tmp_path / "half.onnx", open_runner(checkpoint), val.images, coco, count=4)
    assert attempts.verdict.passed and attempts.islands == () and len(attempts.tried) == 1
    model, about = read_onnx(tmp_path / "half.onnx")
    assert about.precision == "fp16" and about.notes["islands"] == list(ISLANDS)
    assert any(each.data_type == onnx.TensorProto.FLOAT16 for each in model.graph.initializer)


@pytest.mark.slow
def test_a_layer_that_overflows_becomes_an_island(loud, checkpoint, val, tmp_path):
    attempts = accept_mixed(loud, tmp_path / "half.onnx", open_runner(checkpoint), val.images, count=4)
    first, last = attempts.tried
    assert not first.verdict.passed and first.verdict.first_layer == LAYER and first.islands == ()
    assert last.verdict.passed and LAYER in last.islands
    assert read_onnx(tmp_path / "half.onnx")[1].notes["islands"] == [*ISLANDS, *last.islands]
    assert attempts.table().splitlines()[0].startswith("1. no more islands: refused: ")


@pytest.mark.slow
def test_when_the_attempts_are_used_up_the_layer_is_named(loud, checkpoint, val, tmp_path):
    path = tmp_path / "half.onnx"
    with pytest.raises(GateFailed, match=f"the first layer that diverges is {LAYER}"):
        accept_mixed(loud, path, open_runner(checkpoint), val.images, count=2, attempts=0)
    assert not path.exists()
    attempts = accept_mixed(loud, path, open_runner(checkpoint), val.images, count=2, attempts=0, allow_drop=True)
    assert path.exists() and not attempts.verdict.passed


def row(layer: str, error: float, received: float) -> Compared:
    return Compared(layer, f"{layer}/Add", "Add", layer, error, received)


def test_islands_are_the_layers_that_break_or_else_those_that_add_most():
    rows = [row("a.b", 0.01, 0.0), row("a.c", 0.2, 0.01), row("a.d", 0.25, 0.2), row("a.e", 0.0, 0.0)]
    assert more_islands(Divergence(rows, 0.1), (), 9) == ("a.c",)
    smooth = Divergence(rows, 1.0)
    assert more_islands(smooth, (), 2) == ("a.c", "a.d")
    assert more_islands(smooth, ("a.c",), 9) == ("a.d", "a.b")
    assert more_islands(smooth, ("a",), 9) == ()


def test_a_module_with_layers_of_its_own_is_named_by_its_node():
    rows = [row("a", 0.3, 0.0), row("a.b", 0.01, 0.0), row("post-processing", 0.4, 0.0)]
    assert more_islands(Divergence(rows, 1.0), (), 9) == ("post-processing/Add", "a/Add", "a.b")
