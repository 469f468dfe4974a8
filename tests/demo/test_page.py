from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install -e '.[demo]'")

import cv2
import gradio
import numpy as np
from PIL import Image

from kit.demo.models import Answer, Model
from kit.demo.page import NOTHING, Column, Page, Seen, build_page, check_pixels


@pytest.fixture
def page(model, in_loop, tmp_path) -> Page:
    """Of two models; the second gives the bus 0.8 where the first gives it 0.3."""
    models = [model("one.pt"), model("other.pt", scores=[0.9, 0.8])]
    return in_loop(lambda: bare_page(models, tmp_path))


def bare_page(models: list[Model], folder: Path) -> Page:
    with gradio.Blocks(analytics_enabled=False):
        columns = [Column(gradio.Column(), gradio.HTML(), gradio.Image(), gradio.Video()) for _ in models]
        upload, status, stop, seen = gradio.File(), gradio.HTML(), gradio.Button(), gradio.State()
    return Page(models, folder, 100, upload, status, stop, seen, columns)


def last(page: Page, *arguments) -> dict:
    return list(page.detect(*arguments))[-1]


def test_an_image_is_shown_with_what_each_model_finds(page, picture):
    shown = last(page, str(picture), Seen(), 0, 1, 0.5)
    assert "street.png, 80 x 48 px. The two agree on 1 of 2 boxes" in shown[page.status]
    assert "one.pt" in shown[page.columns[0].card] and "Car 1" in shown[page.columns[0].card]
    assert "Bus 1" not in shown[page.columns[0].card] and "Bus 1" in shown[page.columns[1].card]
    before = cv2.imread(str(picture))[..., ::-1]
    for column in page.columns:
        drawn = shown[column.picture]["value"]
        assert drawn.shape == (48, 80, 3) and not np.array_equal(drawn, before)
        assert shown[column.picture]["visible"] and not shown[column.video]["visible"]


def test_the_drop_zone_is_free_for_the_next_file(page, picture):
    assert last(page, str(picture), Seen(), 0, 1, 0.5)[page.upload] is None


def test_without_a_second_model_there_is_one_column(page, picture):
    shown = last(page, str(picture), Seen(), 1, NOTHING, 0.5)
    assert "other.pt" in shown[page.columns[0].card]
    assert "agree" not in shown[page.status]
    assert shown[page.columns[1].whole]["visible"] is False
    assert page.models[0].predictor.shapes == []


def test_another_threshold_needs_no_other_prediction(page, picture):
    seen = last(page, str(picture), Seen(), 0, NOTHING, 0.5)[page.seen]
    asked = len(page.models[0].predictor.shapes)
    assert "<b>2</b> found" in page.drawn(seen, 0.3)[page.columns[0].card]
    assert "<b>0</b> found" in page.drawn(seen, 0.95)[page.columns[0].card]
    assert len(page.models[0].predictor.shapes) == asked


def test_another_model_looks_at_the_file_that_was_dropped_before(page, picture):
    shown = last(page, None, Seen(picture), 1, NOTHING, 0.5)
    assert "other.pt" in shown[page.columns[0].card] and "street.png" in shown[page.status]


def test_without_a_file_the_page_waits(page):
    assert "Waiting for an image" in last(page, None, Seen(), 0, 1, 0.5)[page.status]
    assert "Waiting for an image" in page.drawn(Seen(), 0.5)[page.status]


def test_a_file_that_has_been_deleted_meanwhile_is_asked_for_again(page, tmp_path):
    assert (
        "gone.png is no longer kept; drop it again"
        in last(page, None, Seen(tmp_path / "gone.png"), 0, 1, 0.5)[page.status]
    )


def test_a_video_is_shown_while_it_is_worked_on_and_then_whole(page, video, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.demo.page.LIVE_S", 0.0)
    files, lines = [], []
    for shown in page.detect(str(video), Seen(), 0, 1, 0.5):
        lines.append(shown[page.status])
        if page.columns[1].video in shown and shown[page.columns[1].video]["visible"]:
            files = [shown[column.video]["value"] for column in page.columns]
            assert all(path.stat().st_size > 0 for path in files)
    assert "Opening street.mp4" in lines[0] and "Frame 3 of 6" in lines[3]
    assert "street.mp4, 6 frames." in lines[-1] and len(files) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street.mp4"]  # the copies are the page's now


def test_a_visitor_who_stops_a_video_leaves_nothing(page, video, tmp_path):
    updates = page.detect(str(video), Seen(), 0, 1, 0.5)
    next(updates)
    updates.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street.mp4"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("torn.jpg", b"\xff\xd8\xff\xe0 not a picture", "torn.jpg: expected an image"),
        ("torn.mp4", b"not a video", "torn.mp4: expected a video"),
        ("notes.txt", b"hello", "notes.txt: expected an image or a video, found .txt"),
        ("report.pdf", b"%PDF-1.4", "report.pdf: expected an image or a video, found .pdf"),
        ("bare", b"", "bare: expected an image or a video, found no ending"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_in_words_and_deleted(page, tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    shown = last(page, str(path), Seen(), 0, 1, 0.5)
    assert said in shown[page.status] and "wrong" in shown[page.status]
    assert str(tmp_path) not in shown[page.status]  # where the file lies is nobody's business
    assert shown[page.seen] == Seen() and not path.exists()


def test_a_model_that_fails_is_told_in_the_page_and_the_fault_goes_on_to_the_terminal(page, picture, monkeypatch):
    def fail(self, image):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(page.models[0].predictor), "__call__", fail)
    updates = page.detect(str(picture), Seen(), 0, 1, 0.5)
    assert "street.png: a model failed" in next(updates)[page.status]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(updates)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (40, 30)).save(path)
    monkeypatch.setattr("kit.demo.page.MOST_PIXELS", 1200)
    check_pixels(path)
    monkeypatch.setattr("kit.demo.page.MOST_PIXELS", 1199)
    with pytest.raises(ValueError, match="at most 1,199 pixels, found 40 x 30; make it smaller"):
        check_pixels(path)


def test_a_single_model_has_nothing_to_be_compared_with(model, in_loop, tmp_path):
    page = in_loop(lambda: build_page([model()], tmp_path))
    parts = {part.elem_id: part for part in page.blocks.values() if getattr(part, "elem_id", None)}
    assert not parts["second"].visible and parts["second"].value == NOTHING
    assert "picture_0" in parts and "picture_1" not in parts


def test_the_models_are_run_for_one_visitor_at_a_time(model, in_loop, tmp_path):
    page = in_loop(lambda: build_page([model("one.pt"), model("other.pt")], tmp_path))
    runs = [each for each in page.fns.values() if each.concurrency_id == "models"]
    assert [each.concurrency_limit for each in runs] == [1]
    assert all(each.api_visibility == "private" for each in page.fns.values())


def test_seen_of_an_answer_keeps_the_name_of_its_file(model, tmp_path):
    answer = Answer(model(), np.zeros((2, 2, 3), np.uint8), model().predictor.detections, [1.0])
    assert Seen(tmp_path / "a.png", [answer]).name == "a.png" and Seen().name == ""
