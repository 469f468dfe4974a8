from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from kit.deploy.runtimes import onnx_session, tensorrt


def doubling(path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at a machine without a GPU")
def test_without_a_gpu_the_cpu_is_taken_quietly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = onnx_session(doubling(tmp_path / "model.onnx"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.run(None, {"x": np.array([1, 2], np.float32)})[0].tolist() == [2, 4]
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at a machine without a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torch finds no GPU; take cpu"):
        onnx_session(doubling(tmp_path / "model.onnx"), "cuda")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: expected an ONNX file, found nothing"):
        onnx_session(tmp_path / "model.onnx", "cpu")


def test_the_absence_of_tensorrt_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("kit.deploy.runtimes.import_module", missing)
    with pytest.raises(ImportError, match="TensorRT is not installed: pip install") as error:
        tensorrt()
    assert "\n" not in str(error.value)
