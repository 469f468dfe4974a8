from pathlib import Path

import pytest
import torch

from kit.dfine.decoder import Output
from kit.predict import Detections, coco_results, predict_dataset, to_unit, top_detections
from tests import tiny


def test_the_best_pairs_of_query_and_class_come_first_in_pixels() -> None:
    logits = torch.tensor([[[0.0, 3.0], [1.0, -9.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]])
    found = top_detections(Output(logits, boxes), [(100, 200)], top_k=2)[0]
    assert found.labels.tolist() == [1, 0]
    assert torch.allclose(found.boxes_xyxy_px, torch.tensor([[80.0, 30, 120, 70], [0.0, 0, 100, 100]]))
    assert torch.allclose(found.scores, torch.tensor([3.0, 1.0]).sigmoid())


def test_results_are_cut_at_the_image_and_weak_or_empty_ones_left_out() -> None:
    boxes = torch.tensor([[-5.0, 10, 30, 40], [150.0, 10, 160, 20], [10.0, 10, 20, 20], [1.0, 1, 2, 2]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 1, 1, 0]))
    results = coco_results(found, 42, (50, 100), category_ids=[3, 7], min_score=0.5)
    assert results == [
        {"image_id": 42, "category_id": 3, "bbox": [0, 10, 30, 30], "score": pytest.approx(0.9)},
        {"image_id": 42, "category_id": 7, "bbox": [10, 10, 10, 10], "score": pytest.approx(0.7)},
    ]


def test_every_image_is_predicted_once_with_the_file_s_own_ids(tmp_path: Path) -> None:
    data, detector = tiny.dataset(tmp_path, images=5), tiny.detector().train()
    how = {"size_hw": (64, 64), "min_score": 0.0, "top_k": 10}
    done: list[tuple[int, int]] = []
    whole = predict_dataset(detector, data.coco, data.images, batch_size=2, progress=lambda *x: done.append(x), **how)
    shards = [predict_dataset(detector, data.coco, data.images, rank=r, world=2, **how) for r in range(2)]
    assert {each["image_id"] for each in whole} == {1, 2, 3, 4, 5} and {e["category_id"] for e in whole} <= {3, 7}
    assert sorted(e["image_id"] for shard in shards for e in shard) == sorted(e["image_id"] for e in whole)
    assert done == [(1, 3), (2, 3), (3, 3)] and detector.training


def test_pixels_become_shares_with_the_channels_last_in_memory() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2) * 10
    found = to_unit(images)
    assert torch.equal(found, images.float() / 255) and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last) and images.is_contiguous()
    assert to_unit(images, torch.float16).dtype == torch.float16
