from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import find_split, read_coco
from kit.deploy.about import read_checkpoint
from kit.deploy.results import dataset_results, find
from kit.deploy.runtimes import Found, open_runner
from kit.predict import predict_dataset
from tests.deploy.small import ABOUT, small_onnx


class Recorder:
    """Finds one box an image, the whole of it, and remembers how many images came at once."""

    runtime, device = "onnxruntime", "cpu"

    def __init__(self, batch: int | None):
        self.about, self.batches = replace(ABOUT, batch=batch), list[int]()

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        self.batches.append(len(images))
        boxes = np.concatenate([0 * sizes_hw, sizes_hw[:, ::-1]], axis=1)[:, None].astype(np.float32)
        scores = images.mean(axis=(1, 2, 3), keepdims=True)[:, 0, 0].astype(np.float32) / 255
        return Found(boxes, scores, np.ones((len(images), 1), np.int32))


def grey(value: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(("batch", "batches"), [(None, [3]), (2, [2, 2]), (5, [5])])
def test_the_last_images_of_a_fixed_batch_are_repeated_and_cut(batch: int | None, batches: list[int]):
    runner = Recorder(batch)
    found = find(runner, [grey(51, 10, 20), grey(102, 30, 40), grey(255, 50, 60)])
    assert runner.batches == batches
    assert [each.boxes_xyxy_px.tolist() for each in found] == [[[0, 0, 20, 10]], [[0, 0, 40, 30]], [[0, 0, 60, 50]]]
    assert [each.scores.tolist() for each in found] == [[pytest.approx(0.2)], [pytest.approx(0.4)], [1.0]]
    assert [each.labels.tolist() for each in found] == [[1]] * 3


def test_no_images_give_nothing():
    assert find(Recorder(None), []) == find(Recorder(4), []) == []


def test_a_data_set_gives_the_results_of_the_checkpoint(checkpoint: Path, scenes: Path):
    split = find_split(scenes, "val")
    coco = read_coco(split.annotations)
    expected = predict_dataset(read_checkpoint(checkpoint)[0], coco, split.images, size_hw=(320, 320))
    steps = list[tuple[int, int]]()
    found = dataset_results(
        open_runner(checkpoint), coco, split.images, batch_size=3, progress=lambda *step: steps.append(step)
    )
    assert steps == [(3, 8), (6, 8), (8, 8)]
    assert len(found) == pytest.approx(len(expected), abs=3)  # a score may fall to the other side of the least one
    sure = [row for row in expected if row["score"] > 0.05]
    assert len(sure) > 20 and all(any(is_same(row, other) for other in found) for row in sure)


def is_same(one: dict, other: dict) -> bool:
    """One detection up to rounding; near equals may stand in another order."""
    keys = ("image_id", "category_id")
    numbers = [[each["score"], *(0.001 * edge for edge in each["bbox"])] for each in (one, other)]
    return all(one[key] == other[key] for key in keys) and np.allclose(*numbers, rtol=0, atol=1e-5)


def test_data_of_other_classes_are_refused(tmp_path: Path, scenes: Path):
    split = find_split(scenes, "val")
    with pytest.raises(
        ValueError, match=r"instances_val\.json: expected the classes of the detector \(a, b\), found Bus"
    ):
        dataset_results(open_runner(small_onnx(tmp_path / "small.onnx")), read_coco(split.annotations), split.images)
