import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.data.coco import find_split, read_coco
from kit.deploy.runtimes import Found
from kit.dfine.weights import load_detector
from kit.predict import Detections, coco_results, predict_dataset
from kit.predictor import Predictor
from tests.predictor.conftest import Bright, bright, write_bright

BOX = [40.0, 20.0, 120.0, 60.0]
Make = Callable[..., Predictor]


def boxes_of(detections: Detections) -> list[list[float]]:
    return [[round(edge, 2) for edge in box] for box in detections.boxes_xyxy_px.tolist()]


def as_results(predictor: Predictor, scenes: Path) -> list[dict[str, Any]]:
    split = find_split(scenes, "val")
    coco, ids = read_coco(split.annotations), predictor.about.category_ids
    found = predictor([split.images / record.file_name for record in coco.records], exif=False)
    return [
        entry
        for record, detections in zip(coco.records, found, strict=True)
        for entry in coco_results(detections, record.image_id, record.size_hw, ids, 0.0)
    ]


def expected_results(checkpoint: Path, scenes: Path) -> list[dict[str, Any]]:
    detector, _ = load_detector(checkpoint)
    split = find_split(scenes, "val")
    return predict_dataset(detector, read_coco(split.annotations), split.images, size_hw=(320, 320), min_score=0.2)


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 20
    for mine, peer in zip(ours, theirs, strict=True):
        assert (mine["image_id"], mine["category_id"]) == (peer["image_id"], peer["category_id"])
        assert mine["bbox"] == pytest.approx(peer["bbox"], abs=1e-3)
        assert mine["score"] == pytest.approx(peer["score"], abs=1e-4)


def test_it_finds_what_predict_dataset_finds(checkpoint: Path, scenes: Path):
    predictor = Predictor(checkpoint, runtime="torch", threshold=0.2, batch_size=3)
    assert_same(as_results(predictor, scenes), expected_results(checkpoint, scenes))


@pytest.mark.slow
def test_an_exported_file_finds_it_too(exported: Path, checkpoint: Path, scenes: Path):
    predictor = Predictor(exported, threshold=0.2, batch_size=2)
    assert predictor.runtime == "onnxruntime"
    assert_same(as_results(predictor, scenes), expected_results(checkpoint, scenes))


def test_one_picture_gives_detections_and_a_list_gives_a_list(predictor_of: Make, tmp_path: Path):
    predictor, path = predictor_of(), write_bright(tmp_path / "a.png")
    one, several = predictor(bright()), predictor([path, str(path), bright()])
    assert isinstance(one, Detections) and one.labels.tolist() == [0, 1]
    assert [boxes_of(each) for each in several] == [[BOX, BOX]] * 3
    assert predictor([]) == []


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_any_channels_are_made_to_fit(predictor_of: Make, channels: int):
    predictor, grey = predictor_of(Bright(channels=channels)), bright()[..., 0]
    for image in (grey, grey[..., None], bright(), np.dstack([bright(), grey])):
        assert boxes_of(predictor(image)) == [BOX, BOX]


def test_what_is_no_picture_is_told(predictor_of: Make, tmp_path: Path):
    predictor = predictor_of()
    with pytest.raises(ValueError, match=r"image must be \(H, W\) or \(H, W, C\) uint8 .* got \(4, 4, 3\) float64"):
        predictor(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"a\.mp4: expected an image, got a video; take predictor\.stream"):
        predictor(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a\.png: expected an image, found nothing"):
        predictor(tmp_path / "a.png")


def test_letterbox_finds_the_same_box(predictor_of: Make):
    assert (
        boxes_of(predictor_of(resize="letterbox")(bright((40, 20, 120, 60), (100, 200))))
        == [pytest.approx(BOX, abs=4)] * 2
    )


def test_a_fixed_batch_is_filled_up_and_the_answers_cut(predictor_of: Make, tmp_path: Path):
    runner = Bright(batch=4)
    pictures = [bright((10 * place, 0, 10 * place + 50, 50)) for place in range(6)]
    found = predictor_of(runner)(pictures)
    assert runner.batches == [4, 4]
    assert [boxes_of(each)[0][0] for each in found] == pytest.approx([0, 10, 20, 30, 40, 50], abs=4)


def test_any_batch_is_as_large_as_asked(predictor_of: Make):
    runner = Bright()
    predictor_of(runner, batch_size=4)([bright()] * 6)
    assert runner.batches == [4, 4]  # a smaller one would be another shape, which some runtimes compile first


def test_a_single_picture_is_not_made_a_batch(predictor_of: Make):
    runner = Bright()
    predictor = predictor_of(runner, batch_size=4)
    assert len(predictor([bright()])) == len(list(predictor.stream([bright()]))) == 1
    assert runner.batches == [1, 1]


def test_thresholds_can_change_from_call_to_call(predictor_of: Make):
    predictor = predictor_of(threshold={"sun": 0.6})
    assert predictor(bright()).labels.tolist() == [0]
    assert predictor(bright(), threshold=0.1).labels.tolist() == [0, 1, 0]
    assert predictor(bright(), threshold={"lamp": 0.95}).labels.tolist() == [1]
    assert predictor(bright()).labels.tolist() == [0]


def test_top_k_keeps_the_best(predictor_of: Make):
    assert predictor_of(top_k=1, threshold=0.0)(bright()).labels.tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": "stretch"}, "resize must be plain or letterbox, got 'stretch'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"size_hw": (640, 640)}, r"takes \(64, 64\) alone, got size_hw \(640, 640\); export it in that size"),
    ],
)
def test_arguments_that_cannot_be_are_refused(predictor_of: Make, arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        predictor_of(**arguments)


def test_two_threads_do_not_call_the_detector_at_once(predictor_of: Make):
    class Alone(Bright):
        inside = most = 0

        def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.01)
            self.inside -= 1
            return super().__call__(images, sizes_hw)

    runner = Alone()
    predictor = predictor_of(runner)
    threads = [threading.Thread(target=predictor, args=([bright()] * 3,)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert runner.most == 1 and sum(runner.batches) == 12


# --- streams ---


def folder_with_a_broken_one(folder: Path) -> Path:
    for place in range(7):
        write_bright(folder / f"{place}.png", (10 * place, 0, 10 * place + 40, 50))
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:-40])
    return folder


@pytest.mark.parametrize("batch", [None, 2, 4])
def test_a_stream_keeps_the_order_and_goes_on_after_a_broken_file(
    predictor_of: Make, tmp_path: Path, batch: int | None
):
    seen = list(predictor_of(Bright(batch)).stream(folder_with_a_broken_one(tmp_path)))
    assert [each.name for each in seen] == [f"{place}.png" for place in range(7)]
    assert [bool(each.fault) for each in seen] == [place == 3 for place in range(7)]
    assert "3.png: " in seen[3].fault and seen[3].image is None and len(seen[3].detections.scores) == 0
    lefts = [boxes_of(each.detections)[0][0] for each in seen if not each.fault]
    assert lefts == pytest.approx([0, 10, 20, 40, 50, 60], abs=4)
    assert seen[4].image is not None and seen[4].image.shape == (128, 256, 3)


def test_a_stream_of_nothing_but_faults_ends(predictor_of: Make, tmp_path: Path):
    paths = [tmp_path / f"{place}.jpg" for place in range(5)]
    assert [bool(each.fault) for each in predictor_of().stream(paths)] == [True] * 5


def test_a_stream_reads_only_a_little_ahead(predictor_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []

    def reading(path: Path, channels: int, exif: bool) -> np.ndarray:
        read.append(path)
        return bright()

    monkeypatch.setattr("kit.media.sources.read_picture", reading)
    predictor = predictor_of(workers=2, batch_size=2)
    stream = predictor.stream([tmp_path / f"{place}.png" for place in range(500)])
    next(stream)
    end = time.monotonic() + 20
    while len(read) < 15 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert 15 <= len(read) <= 18  # 1 is taken, 2 batches of 2 lie ready, a batch is on its way, 10 are prepared
    stream.close()


def test_who_leaves_a_stream_leaves_no_thread(predictor_of: Make, tmp_path: Path):
    before = threading.active_count()
    predictor = predictor_of()
    path = write_bright(tmp_path / "a.png")
    for prediction in predictor.stream([path] * 300):
        assert not prediction.fault
        break
    assert threading.active_count() == before


def test_an_error_of_the_detector_ends_the_stream(predictor_of: Make):
    class Failing(Bright):
        def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
            raise RuntimeError("out of memory")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        list(predictor_of(Failing()).stream([bright()] * 20))
    assert threading.active_count() == before


def test_a_photo_taken_sideways_is_seen_upright_unless_told_otherwise(predictor_of: Make, tmp_path: Path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    Image.fromarray(bright()).save(tmp_path / "a.jpg", quality=95, exif=exif)
    predictor = predictor_of()
    upright, stored = predictor(tmp_path / "a.jpg"), predictor(tmp_path / "a.jpg", exif=False)
    assert boxes_of(stored)[0] == pytest.approx(BOX, abs=4)
    assert boxes_of(upright)[0] == pytest.approx([128 - 60, 40, 128 - 20, 120], abs=4)
    (seen,) = predictor.stream(tmp_path / "a.jpg")
    assert seen.size_hw == (256, 128)
    assert cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_IGNORE_ORIENTATION).shape[:2] == (128, 256)
