import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from kit.data.coco import Split, find_split
from kit.deploy.calibration import Pool
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.graph import layer_of
from kit.deploy.int8 import Quantised, group_of, quantise_onnx, quantise_openvino, revert
from kit.deploy.operators import check_operators
from kit.deploy.runtimes import open_runner
from tests.deploy.test_calibration import file_of

FRAGILE = (
    "encoder.project.0.conv",
    "encoder.top_down.0.fine",
)  # made so: the second takes in the first's channels


def splits(scenes: Path) -> dict[str, Split]:
    return {"train": find_split(scenes, "train"), "control": find_split(scenes, "val")}


@pytest.fixture(scope="module")
def quantised(exported: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """Of 4 images, whatever it costs: what such figures are worth is no matter here."""
    path = tmp_path_factory.mktemp("int8") / "scenes.onnx"
    return quantise_onnx(exported, path, **splits(scenes), images=4, control_images=8, drop=1.0)


@pytest.fixture(scope="module")
def fragile(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function, but one channel between two layers is 3000 times as large, so that 8 bits lose the others."""
    model, about = read_onnx(exported)
    weights = {each.name: each for each in model.graph.initializer}
    first, second = (next(node for node in model.graph.node if layer_of(node) == name) for name in FRAGILE)
    scale(weights[first.input[1]], np.s_[0], 3000)
    scale(weights[first.input[2]], np.s_[0], 3000)
    scale(weights[second.input[1]], np.s_[:, 0], 1 / 3000)
    return write_onnx(model, tmp_path_factory.mktemp("fragile") / "fragile.onnx", about)


def scale(tensor: onnx.TensorProto, where: object, factor: float) -> None:
    values = numpy_helper.to_array(tensor).copy()
    values[where] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def graph_of(path: Path) -> tuple[dict[str, onnx.NodeProto], dict[str, onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes by what they give, nodes by name, constants."""
    graph = onnx.load(str(path)).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    return {name: node for node in graph.node for name in node.output}, {n.name: n for n in graph.node}, constants


def test_every_q_has_its_dq_in_the_form_that_tensorrt_reads(quantised: Quantised):
    giving, _, constants = graph_of(quantised.path)
    pairs = [node for node in giving.values() if node.op_type == "DequantizeLinear"]
    assert len(pairs) == sum(node.op_type == "QuantizeLinear" for node in giving.values()) > 100
    for dequantise in pairs:
        quantise = giving[dequantise.input[0]]
        assert quantise.op_type == "QuantizeLinear" and quantise.input[1:] == dequantise.input[1:]
        assert quantise.attribute == dequantise.attribute
        scale, zero = (constants[name] for name in dequantise.input[1:])
        assert np.isfinite(scale).all() and (scale > 0).all() and zero.dtype == np.int8 and not zero.any()
        is_weight = quantise.input[0] in constants
        assert scale.shape == zero.shape == ((constants[quantise.input[0]].shape[axis(quantise)],) if is_weight else ())


def axis(node: onnx.NodeProto) -> int:
    return next(each.i for each in node.attribute if each.name == "axis")


def test_backbone_and_encoder_are_quantised_and_nothing_else(quantised: Quantised):
    giving, nodes, _ = graph_of(quantised.path)
    takes_8_bits = [
        node
        for node in nodes.values()
        if any(name in giving and giving[name].op_type == "DequantizeLinear" for name in node.input)
    ]
    assert {node.op_type for node in takes_8_bits} == {"Conv", "MatMul"}
    layers = {layer_of(node) for node in takes_8_bits}
    assert {layer.split(".")[0] for layer in layers} == {"backbone", "encoder"}
    assert layers == set(quantised.quantised) and not quantised.reverted
    floating = [node for node in nodes.values() if node.op_type == "Conv" and node not in takes_8_bits]
    assert not [layer_of(node) for node in floating if layer_of(node).startswith(("backbone", "encoder"))]


def test_tensorrt_has_every_operator_of_it(quantised: Quantised):
    assert check_operators(onnx.load(str(quantised.path))) == []


def test_the_file_runs_and_its_figures_are_those_of_what_it_finds(quantised: Quantised, exported: Path, scenes: Path):
    runner = open_runner(quantised.path)
    about = read_onnx(exported)[1]
    assert runner.about.precision == "int8" and runner.about.names == about.names
    notes = runner.about.notes["int8"]
    assert notes["ap_after"] == quantised.ap_after and notes["quantised"] == quantised.quantised
    assert "path" not in notes and "seconds" not in notes
    assert quantised.ap_before > 0.2 and abs(quantised.drop) < 0.1
    assert quantised.control_images == 8 and quantised.calibration_images == 4
    images, sizes_hw = np.zeros((2, 320, 320, 3), np.uint8), np.full((2, 2), 320, np.float32)
    assert runner(images, sizes_hw).scores.shape == (2, 300)


def test_layers_that_cost_too_much_return_to_floating_point_and_are_named(fragile: Path, scenes: Path, tmp_path: Path):
    result = quantise_onnx(
        fragile, tmp_path / "mended.onnx", **splits(scenes), images=4, control_images=8, drop=0.03,
        parts=["encoder.top_down.0.fine", "encoder.project", "encoder.down"],
    )  # fmt: skip
    assert result.reverted == ["encoder.top_down.0.fine"]
    assert "encoder.project.0.conv" in result.quantised and result.drop <= 0.03
    _, nodes, _ = graph_of(result.path)
    second = next(node for node in nodes.values() if layer_of(node) == FRAGILE[1])
    assert not any(name.endswith(".dq") for name in second.input)


def test_what_cannot_be_mended_is_refused_and_written_only_when_told_to(fragile: Path, scenes: Path, tmp_path: Path):
    few = {**splits(scenes), "images": 2, "control_images": 8, "drop": 0.03, "parts": ["encoder.top_down.0.fine"]}
    path = tmp_path / "model.onnx"
    with pytest.raises(
        ValueError, match=r"model\.onnx: expected AP to fall by at most 0\.03 on 8 images, it fell from 0"
    ):
        quantise_onnx(fragile, path, **few)
    assert not list(tmp_path.iterdir())
    assert quantise_onnx(fragile, path, **few, allow_drop=True).drop > 0.03
    assert open_runner(path).about.notes["int8"]["drop"] > 0.03


def test_with_the_rest_in_half_precision_all_types_fit(exported: Path, scenes: Path, tmp_path: Path):
    result = quantise_onnx(
        exported, tmp_path / "half.onnx", **splits(scenes), images=2, control_images=4, drop=1.0, rest="fp16"
    )
    model = onnx.load(str(result.path))
    assert check_operators(model) == []
    scales = [each for each in model.graph.initializer if each.name.endswith(".scale")]
    assert len(scales) > 100 and {each.data_type for each in scales} == {TensorProto.FLOAT16}
    assert [each.type.tensor_type.elem_type for each in model.graph.output] == [1, 1, 6]  # float, float, int32
    assert open_runner(result.path).about.precision == "int8" and abs(result.drop) < 0.1


def pool_of(count: int) -> Pool:
    names = [f"{number:03}" for number in range(count)]
    return Pool(file_of(names), np.zeros((count, 1, 1, 1), np.uint8), np.ones((count, 2), np.float32))


def test_groups_return_in_the_order_of_their_gain_until_it_suffices():
    costs = {"a": 0.01, "b": 0.2, "c": 0.0, "d": 0.1}
    looked_at: list[tuple[set[str], int]] = []

    def measure(reverted: set[str], pool: Pool) -> float:
        looked_at.append((reverted, len(pool)))
        return 0.8 - sum(cost for group, cost in costs.items() if group not in reverted)

    reverted, after = revert(measure, list(costs), pool_of(80), least=0.78)
    assert reverted == {"b", "d"} and after == pytest.approx(0.79)
    assert looked_at[0] == (set(), 80) and [count for _, count in looked_at[1:5]] == [50] * 4  # ranked on some
    assert looked_at[5:] == [({"b"}, 80), ({"b", "d"}, 80)]


def test_nothing_returns_where_the_accuracy_holds():
    assert revert(lambda reverted, pool: 0.5, ["a", "b"], pool_of(3), least=0.5) == (set(), 0.5)


def test_the_last_group_stays_in_8_bits():
    reverted, after = revert(lambda reverted, pool: 0.1 * len(reverted), ["a", "b", "c"], pool_of(3), least=0.9)
    assert len(reverted) == 2 and after == pytest.approx(0.2)


def test_layers_are_grouped_by_block():
    assert group_of("encoder.top_down.0.first.0.deep.conv") == "encoder.top_down.0"
    assert group_of("backbone.stem") == "backbone.stem"


def test_a_negative_drop_and_a_rounded_file_are_refused(exported: Path, quantised: Quantised, scenes: Path, tmp_path):
    with pytest.raises(ValueError, match="drop must be at least 0, got -1"):
        quantise_onnx(exported, tmp_path / "model.onnx", **splits(scenes), drop=-1)
    with pytest.raises(ValueError, match=r"scenes\.onnx: expected an ONNX file of precision fp32, found int8; calib"):
        quantise_onnx(quantised.path, tmp_path / "model.onnx", **splits(scenes))


@pytest.mark.slow
def test_openvino_in_8_bits_gives_back_what_costs_too_much(fragile: Path, scenes: Path, tmp_path: Path, capfd):
    pytest.importorskip("nncf", reason="needs pip install -e '.[openvino]'")
    seen: list[tuple[int, int]] = []
    result = quantise_openvino(
        fragile, tmp_path / "model.xml", **splits(scenes), images=4, control_images=8, drop=0.03,
        parts=["encoder.top_down.0.fine", "encoder.project"], progress=lambda *state: seen.append(state),
    )  # fmt: skip
    assert result.reverted == ["encoder.top_down.0.fine"] and result.drop <= 0.03
    assert sorted(result.quantised) == ["encoder.project.0.conv", "encoder.project.1.conv"]
    runner = open_runner(result.path)
    assert runner.about.precision == "int8" and runner.about.notes["int8"]["reverted"] == result.reverted
    assert str(tmp_path) not in result.path.read_text() and "ignored_scope" not in result.path.read_text()
    assert seen[-1][0] == seen[-1][1] and all(one[0] <= other[0] < other[1] for one, other in pairwise(seen[:-1]))
    assert capfd.readouterr().out == ""


def test_a_process_of_nncf_that_dies_is_told(exported: Path, scenes: Path, tmp_path: Path, monkeypatch):
    pytest.importorskip("openvino", reason="needs pip install -e '.[openvino]'")
    script = tmp_path / "dies.sh"
    script.write_text("#!/bin/sh\necho image looked at\necho no memory left >&2\nexit 7\n")
    script.chmod(0o755)
    monkeypatch.setattr("kit.deploy.nncf_control.sys.executable", str(script))
    with pytest.raises(RuntimeError, match="NNCF could not quantise the model: no memory left"):
        quantise_openvino(exported, tmp_path / "model.xml", **splits(scenes), images=1, control_images=1)
    assert not (tmp_path / "model.xml").exists()


@pytest.mark.slow
def test_nncf_sends_nothing_home():
    pytest.importorskip("nncf", reason="needs pip install -e '.[openvino]'")
    program = (
        "from kit.deploy.nncf_control import nncf; nncf(); import os, nncf.telemetry.wrapper as w; "
        "print(type(w.telemetry).__name__, os.environ.get('NNCF_CI'))"
    )  # in a process of its own: NNCF keeps silent under pytest anyhow
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["MagicMock", "None"]


def test_the_absence_of_nncf_is_one_clear_line(exported: Path, scenes: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("kit.deploy.nncf_control.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="NNCF, which makes INT8, is not installed: pip install") as error:
        quantise_openvino(exported, tmp_path / "model.xml", **splits(scenes))
    assert "\n" not in str(error.value)
