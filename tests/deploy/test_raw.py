from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kit.deploy.raw import raw_work, without_post
from kit.deploy.runtimes import open_runner
from tests.deploy.small import small_onnx


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 320, 320, 3), dtype=np.uint8)


def best_of(answers: list[np.ndarray]) -> np.ndarray:
    """The 300 best scores in whichever of the answers are logits (B, Q, K)."""
    logits = next(each for each in answers if each.ndim == 3 and each.shape[-1] == 5)
    return torch.from_numpy(logits).sigmoid().flatten().sort(descending=True).values[:300].numpy()


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_the_detector_alone_gives_what_the_post_processing_takes(
    checkpoint: Path, exported: Path, tmp_path: Path, images: np.ndarray, runtime: str
):
    source = checkpoint if runtime == "torch" else exported
    runner, sizes_hw = open_runner(source, runtime), np.ones((1, 2), np.float32)
    work = raw_work(runner, source, tmp_path)
    assert best_of(work(images, sizes_hw)) == pytest.approx(runner(images, sizes_hw).scores[0], abs=1e-5)


def test_a_cut_file_has_no_top_k_of_scores_left(exported: Path):
    model = onnx.load(exported)
    cut = without_post(model)
    assert [each.name for each in cut.graph.input] == ["images", "sizes_hw"]
    assert len(cut.graph.output) == 2 and len(cut.graph.node) < len(model.graph.node)
    counts = [sum(node.op_type == "TopK" for node in each.graph.node) for each in (model, cut)]
    assert counts == [3, 2]  # of scores; of tokens and of bins stay


def test_a_graph_that_names_no_layers_is_not_cut(tmp_path: Path):
    path = small_onnx(tmp_path / "small.onnx")
    assert without_post(onnx.load(path)) is None
    assert raw_work(open_runner(path), path, tmp_path) is None
