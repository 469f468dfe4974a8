"""Streams in OpenVINO, which computes several batches at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kit.data.coco import find_split
from kit.deploy.openvino_runner import OpenVinoRunner
from kit.predict import Detections
from kit.predictor import Predictor
from tests.deploy.small import small_onnx
from tests.predictor.conftest import bright

pytest.importorskip("openvino", reason="needs pip install -e '.[openvino]'")


def written(folder: Path, count: int) -> list[Path]:
    """Pictures that are told apart by how much of them is bright."""

    folder.mkdir()
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), bright((0, 0, 8 * (number + 1), 128)))
    return paths


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> list[Path]:
    """Each scene twice, the second time mirrored."""
    split = find_split(scenes, "val")
    (tmp_path / "photos").mkdir()
    paths = []
    for number, source in enumerate(sorted(split.images.iterdir())[:4]):
        for name, image in (("a", cv2.imread(str(source))), ("b", cv2.imread(str(source))[:, ::-1])):
            paths.append(tmp_path / "photos" / f"{number}{name}.png")
            cv2.imwrite(str(paths[-1]), image)
    return paths


def same(one: Detections, other: Detections) -> bool:
    return torch.equal(one.boxes_xyxy_px, other.boxes_xyxy_px) and torch.equal(one.scores, other.scores)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stream_finds_in_order_what_a_call_finds(exported: Path, photos: list[Path], batch_size: int) -> None:
    (photos[0].parent / "1c.png").write_bytes(b"no picture")
    predictor = Predictor(exported, runtime="openvino", threshold=0.1, batch_size=batch_size, threads=2)
    called = predictor(photos)
    streamed = list(predictor.stream(photos[0].parent))
    assert [each.name for each in streamed if each.fault] == ["1c.png"]
    whole = [each for each in streamed if not each.fault]
    assert [each.name for each in whole] == [path.name for path in photos]
    assert all(same(each.detections, expected) for each, expected in zip(whole, called, strict=True))
    assert not same(called[0], called[1]) and all(len(each.scores) for each in called)


def test_streams_of_two_threads_do_not_disturb_each_other(exported: Path, photos: list[Path]) -> None:
    predictor = Predictor(exported, runtime="openvino", threshold=0.1, threads=2)

    def found(_: int) -> list[Detections]:
        return [each.detections for each in predictor.stream([*photos])]

    with ThreadPoolExecutor(2) as pool:
        for stream in pool.map(found, range(2)):
            assert all(same(each, expected) for each, expected in zip(stream, predictor(photos), strict=True))


def test_who_leaves_a_stream_leaves_no_batch_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = written(tmp_path / "pictures", 12)
    begun: list[str] = []
    ended: list[np.ndarray] = []
    original = OpenVinoRunner.begin

    def counted(self: OpenVinoRunner, *arguments: np.ndarray) -> object:
        wait = original(self, *arguments)
        begun.append("one")

        def told() -> object:
            found = wait()
            ended.append(found.scores)
            return found

        return told

    monkeypatch.setattr(OpenVinoRunner, "begin", counted)
    predictor = Predictor(small_onnx(tmp_path / "small.onnx"), runtime="openvino", threads=2)
    stream = predictor.stream([*paths])
    next(stream)
    stream.close()
    assert 0 < len(begun) < len(paths) and len(ended) == len(begun)
