from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from kit.deploy.about import INPUTS, OUTPUTS, read_checkpoint
from kit.deploy.export import OPSET, export_onnx, read_onnx, write_onnx
from kit.deploy.graph import Deployed, layer_of, token_count
from kit.deploy.operators import check_operators
from kit.deploy.runtimes import onnx_session
from kit.dfine.detector import SIZES, Detector
from kit.dfine.weights import save_weights


def saved(path: Path, size: str, classes: int = 2, channels: int = 3, size_hw: tuple[int, int] = (64, 64)) -> Path:
    torch.manual_seed(0)
    about = {"classes": [f"class {number}" for number in range(classes)], "size_hw": list(size_hw)}
    return save_weights(Detector(size, classes, channels).eval(), path, about)


def differences(checkpoint: Path, exported: Path, images: np.ndarray, top_k: int = 300) -> tuple[float, float]:
    """Of torch and the file, queries that come in another order set aside: of sorted scores, and of sorted boxes."""
    detector, _ = read_checkpoint(checkpoint)
    uint8_input = read_onnx(exported)[1].input == "uint8"
    sizes_hw = np.full((len(images), 2), 100, np.float32)
    with torch.inference_mode():
        boxes, scores, _ = Deployed(detector, top_k, uint8_input)(torch.from_numpy(images), torch.from_numpy(sizes_hw))
    found = onnx_session(exported, "cpu").run(None, dict(zip(INPUTS, (images, sizes_hw), strict=True)))
    assert found[1].shape == tuple(scores.shape)
    in_order = [np.sort(each.reshape(len(images), -1), axis=1) for each in (boxes.numpy(), found[0])]
    return float(np.abs(found[1] - scores.numpy()).max()), float(np.abs(in_order[0] - in_order[1]).max())


def types_and_shapes(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[str | int]]]:
    return {
        each.name: (
            each.type.tensor_type.elem_type,
            [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim],
        )
        for each in values
    }


def test_names_types_and_shapes_are_those_of_the_reference(exported: Path) -> None:
    model, about = read_onnx(exported)
    assert types_and_shapes(list(model.graph.input)) == {
        "images": (TensorProto.FLOAT, ["batch", 3, 320, 320]), "sizes_hw": (TensorProto.FLOAT, ["batch", 2]),
    }  # fmt: skip
    assert types_and_shapes(list(model.graph.output)) == {
        "boxes": (TensorProto.FLOAT, ["batch", 300, 4]), "scores": (TensorProto.FLOAT, ["batch", 300]),
        "labels": (TensorProto.INT32, ["batch", 300]),
    }  # fmt: skip
    assert (tuple(INPUTS), tuple(OUTPUTS)) == (("images", "sizes_hw"), ("boxes", "scores", "labels"))
    assert (about.top_k, about.batch, about.precision, about.size_hw) == (300, None, "fp32", (320, 320))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)] and OPSET >= 17


def test_every_layer_norm_is_one_node_and_nothing_is_computed_that_could_be_known(exported: Path) -> None:
    model, _ = read_onnx(exported)
    norms = [each for each in Detector("n", 5).modules() if isinstance(each, torch.nn.LayerNorm)]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["LayerNormalization"] == len(norms)
    assert not {"Pow", "Sqrt", "Shape", "Expand", "Mod", "And", "Range", "Sin", "Where", "Constant"} & set(kinds)
    assert [layer_of(node) for node in model.graph.node if node.op_type == "ReduceMean"] == ["decoder.sharpness"]
    assert kinds["Cast"] == 0 and len(model.graph.node) < 560
    assert check_operators(model) == []


def test_any_batch_gives_what_single_images_give(exported: Path) -> None:
    session = onnx_session(exported, "cpu")
    images = np.random.default_rng(0).random((5, 3, 320, 320), np.float32)
    sizes_hw = np.array([[100, 200]] * 5, np.float32)
    single = [session.run(None, {"images": images[i : i + 1], "sizes_hw": sizes_hw[i : i + 1]}) for i in range(5)]
    for count in (1, 2, 5):
        _, scores, _ = session.run(None, {"images": images[:count], "sizes_hw": sizes_hw[:count]})
        assert np.abs(scores - np.concatenate([each[1] for each in single[:count]])).max() < 1e-5


def test_the_file_holds_all_weights_and_nothing_of_the_machine(exported: Path) -> None:
    model = onnx.load(str(exported), load_external_data=False)
    assert not any(each.external_data for each in model.graph.initializer)
    assert {each.key for each in model.metadata_props} == {"kit"}
    assert b"site-packages" not in exported.read_bytes() and b"/kit/" not in exported.read_bytes()
    assert all(node.name and "/" in node.name for node in model.graph.node)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_hw": (100, 320)}, r"size_hw must be height and width, positive multiples of 32, got \(100, 320\)"),
        ({"batch": 0}, "batch must be at least 1, or None for any, got 0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"input": "int8"}, "input must be float or uint8, got 'int8'"),
        ({"precision": "int8"}, "precision must be fp32 or fp16, got 'int8'; for int8 see kit.deploy.int8"),
        ({"size_hw": (128, 128), "dynamic_size": True}, "height x width at least 61440 px"),
    ],
)
def test_what_cannot_be_exported_is_told_before_it_is_tried(
    options: dict[str, object], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export_onnx(checkpoint, tmp_path / "x.onnx", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_onnx_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\xff\xff not this")
    with pytest.raises(ValueError, match=r"x\.onnx: expected an ONNX file, cannot read it"):
        read_onnx(tmp_path / "x.onnx")


def test_a_broken_graph_is_not_written(exported: Path, tmp_path: Path) -> None:
    model, about = read_onnx(exported)
    model.graph.node[3].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError):
        write_onnx(model, tmp_path / "x.onnx", about)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_small_fixed_export_is_quiet_and_the_same_every_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = saved(tmp_path / "n.pt", "n", channels=1)
    files = [export_onnx(checkpoint, tmp_path / name, batch=1, top_k=60) for name in ("a.onnx", "b.onnx")]
    assert capfd.readouterr() == ("", "")
    assert files[0].read_bytes() == files[1].read_bytes()
    about = read_onnx(files[0])[1]
    assert (about.top_k, about.batch) == (2 * token_count(SIZES["n"], (64, 64)), 1)  # 20 tokens, 2 classes
    images = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
    assert max(differences(checkpoint, files[0], images, top_k=60)) < 1e-3


@pytest.mark.slow
def test_one_file_takes_many_sizes_of_stored_bytes(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "n.pt", "n", classes=80, channels=4, size_hw=(256, 320))
    exported = export_onnx(checkpoint, tmp_path / "x.onnx", dynamic_size=True, input="uint8")
    model, about = read_onnx(exported)
    assert check_operators(model) == []
    assert (about.top_k, about.min_area_px) == (300, 61440)
    for count, height, width in ((1, 256, 256), (2, 320, 224), (3, 128, 480)):
        about.check_size_hw((height, width))
        images = np.random.default_rng(0).integers(0, 256, (count, height, width, 4), np.uint8)
        assert differences(checkpoint, exported, images)[0] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("size", ["m", "x"])
def test_larger_sizes_are_exported_too(size: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "x.pt", size)
    exported = export_onnx(checkpoint, tmp_path / "x.onnx", batch=1)
    model, about = read_onnx(exported)
    layers = SIZES[size].layers
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["LayerNormalization"] == 3 + 3 * layers and kinds["GridSample"] == 3 * layers
    assert (about.size, about.top_k) == (size, 2 * 84)
    assert check_operators(model) == []
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    assert differences(checkpoint, exported, images)[0] < 1e-4
