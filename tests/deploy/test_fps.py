from dataclasses import replace

import numpy as np
import pytest

from kit.data.augment import resized
from kit.data.coco import CocoFile
from kit.data.pixels import read_image
from kit.deploy import fps
from kit.deploy.about import About
from kit.deploy.fps import FrameTimes, run_as_judged
from kit.deploy.runtimes import Found
from tests import tiny

ABOUT = About(size="n", names=["dark", "bright"], category_ids=[3, 7], channels=3, height_px=32, width_px=48, top_k=3)


class Finder:
    """Finds the same three boxes in every image, and remembers what it was given."""

    runtime, device = "torch", "cpu"

    def __init__(self, about: About = ABOUT):
        self.about, self.calls = about, []

    def __call__(self, images, sizes_hw):
        self.calls.append((images.copy(), sizes_hw.copy()))
        boxes = np.array([[[0, 0, 10, 10], [5, 5, 500, 20], [8, 8, 9, 9]]], np.float32)
        return Found(boxes, np.array([[0.9, 0.5, 0.2]], np.float32), np.array([[1, 0, 1]], np.int32))


@pytest.fixture
def data(tmp_path):
    return tiny.dataset(tmp_path, images=3)


def test_the_rate_is_the_images_over_the_time_without_the_reading():
    """Two images of 10 ms of reading, then 40 and 60 ms."""
    times = FrameTimes(np.array([[10.0, 5, 30, 5], [10, 5, 50, 5]]))
    assert times.fps == pytest.approx(20.0) and times.fps_with_reading == pytest.approx(2000 / 120)
    figures = times.as_dict()
    assert figures["detector_ms"] == 40.0 and figures["reading_ms"] == 10.0 and figures["p50_ms"] == 50.0


def test_every_image_goes_by_itself_in_the_order_of_the_names_after_the_warm_up(data):
    finder, coco = Finder(), replace(data.coco, records=data.coco.records[::-1])
    run = run_as_judged(finder, coco, data.images)
    seen = finder.calls[fps.WARM_UP :]
    names = sorted(record.file_name for record in coco.records)
    assert len(seen) == 3 and run.times.stages_ms.shape == (3, 4)
    for name, (images, sizes_hw) in zip(names, seen, strict=True):
        assert np.array_equal(images[0], resized(read_image(data.images / name), (32, 48)))
        assert sizes_hw.tolist() == [[64.0, 64.0]] and sizes_hw.dtype == np.float32
    assert [each["image_id"] for each in run.predictions[::3]] == [1, 2, 3]


def test_detections_are_cut_at_the_image_and_kept_by_class(data):
    one = replace(data.coco, records=data.coco.records[:1])
    entries = run_as_judged(Finder(), one, data.images, least_scores={3: 0.4, 7: 0.5}).predictions
    assert [(each["category_id"], each["bbox"]) for each in entries] == [(7, [0, 0, 10, 10]), (3, [5, 5, 59, 15])]
    assert len(run_as_judged(Finder(), one, data.images, least_scores=0.1).predictions) == 3


def test_the_time_of_each_stage_stands_in_its_own_column(data, monkeypatch):
    """The clock moves by 1 s a look, but for the detector, which takes 7 s more."""
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    class Slow(Finder):
        def __call__(self, images, sizes_hw):
            now[0] += 7.0
            return super().__call__(images, sizes_hw)

    monkeypatch.setattr(fps, "perf_counter", clock)
    times = run_as_judged(Slow(), data.coco, data.images).times
    assert times.stages_ms.tolist() == [[1000.0, 1000.0, 8000.0, 1000.0]] * 3 and times.fps == pytest.approx(0.1)


def test_progress_is_told_image_by_image(data):
    told = []
    run_as_judged(Finder(), data.coco, data.images, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_file_for_more_images_at_once_and_a_folder_without_images_are_refused(data):
    with pytest.raises(ValueError, match="expected a file that takes one image, found one for 4; export with batch=1"):
        run_as_judged(Finder(replace(ABOUT, batch=4)), data.coco, data.images)
    with pytest.raises(ValueError, match="the annotations list none"):
        run_as_judged(Finder(), CocoFile(data.coco.path, [], [3, 7], ["dark", "bright"]), data.images)
