"""The command."""

import json
import shutil

import pytest

from kit.doctor import __main__ as command
from kit.doctor.report import Report, judged
from kit.params import ROOT
from tests import tiny


@pytest.fixture
def folder(tmp_path):
    """A data set of 6 images in train and 2 in val."""
    for part, images in (("train", 6), ("val", 2)):
        tiny.dataset(tmp_path / "data" / "images" / part, images=images)
        (tmp_path / "data" / "annotations").mkdir(exist_ok=True)
        target = tmp_path / "data" / "annotations" / f"instances_{part}.json"
        shutil.move(tmp_path / "data" / "images" / part / "all.json", target)
    return tmp_path / "data"


@pytest.mark.slow
def test_the_command_leaves_a_page_and_a_file(folder, tmp_path, capsys):
    short = ["--side", "64", "--overfit-side", "64", "--overfit-steps", "2", "--batch-size", "2", "--workers", "0"]
    file = tmp_path / "found.json"
    assert command.main([str(folder), "--out", str(tmp_path / "page"), "--json", str(file), *short]) == 1
    said = capsys.readouterr().out
    page = (tmp_path / "page" / "doctor.html").read_text()
    assert "learned by heart" in page and "data:image/png" in page and "doctor.html: the page" in said
    verdicts = json.loads(file.read_text())["verdicts"]
    assert [each["part"] for each in verdicts if each["mark"] == "wrong"] == ["overfit"]  # of two steps


def test_a_folder_without_a_data_set_is_an_error(tmp_path, capsys):
    assert command.main([str(tmp_path / "none")]) == 2
    assert "expected the folder of a COCO data set" in capsys.readouterr().err


def test_stopped_it_leaves_no_page(folder, tmp_path, monkeypatch, capsys):
    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "examined", stop)
    assert command.main([str(folder), "--out", str(tmp_path / "page")]) == 130
    assert not (tmp_path / "page").exists() and "no page" in capsys.readouterr().err


def test_the_end_status_tells_whether_something_is_wrong(folder, tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(command, "draw", lambda report, page: pages.append(page))
    for wrong, status in ((False, 0), (True, 1)):
        report = Report("a set", [], [judged("loader", "Fast?", wrong, True, "10", "9", "workers")])
        monkeypatch.setattr(command, "examined", lambda options, report=report: report)
        assert command.main([str(folder), "--out", str(tmp_path / "page")]) == status
    assert pages == [tmp_path / "page" / "doctor.html"] * 2


def test_size_n_starts_from_the_weights_of_the_repository(folder):
    assert command.START_WEIGHTS == ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors"
    options = command.parser().parse_args([str(folder), "--epochs", "4", "--lr", "1e-3"])
    coco = tiny.dataset(folder / "again").coco
    _, is_random = command.detector_of(options, coco)
    plan = command.plan_of(options, 160)
    assert not is_random and plan.recipe.lr == 1e-3 and plan.epochs == 4 and plan.size_hw == (640, 640)
    options.weights = "none"
    assert command.detector_of(options, coco)[1]
