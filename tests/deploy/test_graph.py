from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kit.data.augment import resized
from kit.data.coco import find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy.graph import Deployed, best_boxes, layer_of, token_count
from kit.deploy.runtimes import open_runner
from kit.dfine.detector import SIZES, Detector


def test_scenes_are_found_alike_in_torch_and_in_the_exported_file(checkpoint: Path, exported: Path, scenes: Path):
    split = find_split(scenes, "val")
    record = read_coco(split.annotations).records[0]
    image = read_image(split.images / record.file_name)
    images = np.stack([resized(image, (320, 320))] * 2)
    sizes_hw = np.array([image.shape[:2]] * 2, np.float32)
    ours, theirs = (open_runner(path)(images, sizes_hw) for path in (checkpoint, exported))
    assert ours.scores[0, 0] > 0.4
    assert np.abs(ours.scores - theirs.scores).max() < 1e-5
    assert np.abs(ours.boxes_xyxy - theirs.boxes_xyxy)[ours.scores > 0.1].max() < 0.01


def test_the_best_pairs_of_query_and_class_are_told_best_first() -> None:
    logits = torch.tensor([[[0.0, 3.0], [2.0, -1.0]]])  # Q = 2, K = 2
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.5, 0.5]]])
    found, scores, labels = best_boxes(logits, boxes, torch.tensor([[100.0, 200.0]]), top_k=3)
    assert labels.tolist() == [[1, 0, 0]] and labels.dtype == torch.int32
    assert scores[0].tolist() == pytest.approx([0.95257, 0.88080, 0.5], abs=1e-5)
    assert found[0].tolist() == [
        pytest.approx([80, 30, 120, 70]), pytest.approx([0, 50, 100, 100]), pytest.approx([80, 30, 120, 70])
    ]  # fmt: skip


def test_no_more_pairs_are_told_than_there_are() -> None:
    _, scores, labels = best_boxes(torch.zeros(2, 3, 1), torch.zeros(2, 3, 4), torch.ones(2, 2), top_k=300)
    assert scores.shape == (2, 3) and labels.unique().tolist() == [0]


def test_stored_bytes_give_what_floats_give() -> None:
    detector = Detector("n", 2).eval()
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    sizes_hw = torch.tensor([[64.0, 96.0]] * 2)
    with torch.inference_mode():
        stored = Deployed(detector, 10, uint8_input=True)(images, sizes_hw)
        floats = Deployed(detector, 10)(images.permute(0, 3, 1, 2).float() / 255, sizes_hw)
    assert all(torch.equal(a, b) for a, b in zip(stored, floats, strict=True))


def test_tokens_are_the_cells_of_all_levels() -> None:
    assert token_count(SIZES["n"], (64, 96)) == 4 * 6 + 2 * 3
    assert token_count(SIZES["s"], (64, 96)) == 8 * 12 + 4 * 6 + 2 * 3


def test_the_layer_is_what_stands_before_the_operator() -> None:
    assert layer_of(onnx.NodeProto(name="decoder.layers.1.norm2/LayerNormalization")) == "decoder.layers.1.norm2"
    assert layer_of(onnx.NodeProto(name="Cast")) == ""
