import csv
import json
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.competitions import COMPETITIONS
from kit.data.coco import find_split, read_coco
from kit.deploy.runtimes import Found
from kit.dfine.weights import load_detector
from kit.media import VideoWriter, video_about, video_frames
from kit.metrics import evaluate
from kit.params import ROOT
from kit.predict import predict_dataset
from kit.predictor import Predictor
from tests.predictor.conftest import Bright, bright, write_bright

Make = Callable[..., Predictor]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two pictures, of which one lies deeper, a broken one, and a video of 6 frames."""
    folder = tmp_path / "mixed"
    write_bright(folder / "a.png")
    write_bright(folder / "deep" / "a.png")
    (folder / "b.jpg").write_bytes(b"no picture")
    with VideoWriter(folder / "street.mp4", 12) as video:
        for place in range(6):
            video.write(bright((40 + 10 * place, 20, 120 + 10 * place, 60)))
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_over_everything_writes_everything(predictor_of: Make, mixed: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    summary = predictor_of().run(
        mixed, out, formats=("coco", "yolo", "csv"), crops=True, drawn=True, recursive=True, every=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert (summary.images, summary.detections, summary.faulty, summary.status) == (5, 10, 1, 2)
    assert summary.faults == [f"{mixed / 'b.jpg'}: expected an image, got 10 bytes of something else"]
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6, 6] and seen[-2] == (6, 7) and seen[-1] == (6, 6)
    stems = ["a", "deep/a", "street_000000", "street_000002", "street_000004"]
    wanted = ["images.json", "results.json", "detections.csv", "classes.txt", "drawn/street.mp4"]
    wanted += [f"labels/{stem}.txt" for stem in stems] + ["drawn/a.jpg", "drawn/deep/a.jpg"]
    wanted += [f"crops/{name}/{stem}_{number:03}.jpg" for number, name in enumerate(("lamp", "sun")) for stem in stems]
    assert files_below(out) == sorted(wanted)
    assert {path.name for path in summary.files} == {path.split("/")[0] for path in wanted}

    images = read_coco(out / "images.json")
    assert [record.file_name for record in images.records] == ["a.png", *["street.mp4"] * 3, "deep/a.png"]
    assert images.category_ids == [3, 7] and images.names == ["lamp", "sun"]
    entries = json.loads((out / "images.json").read_text())["images"]
    assert [entry.get("index") for entry in entries] == [None, 0, 2, 4, None]
    assert entries[2]["time_s"] == pytest.approx(2 / 12)
    results = json.loads((out / "results.json").read_text())
    assert [(each["image_id"], each["category_id"]) for each in results] == [
        (i, c) for i in range(1, 6) for c in (3, 7)
    ]
    rows = list(csv.DictReader((out / "detections.csv").read_text().splitlines()))
    assert [float(row["x1_px"]) for row in rows[::2]] == pytest.approx([40, 40, 60, 80, 40], abs=8)
    assert rows[1]["class"] == "sun" and rows[1]["category_id"] == "7" and float(rows[1]["score"]) == 0.5


def test_a_drawn_video_has_each_frame_and_the_right_speed(predictor_of: Make, mixed: Path, tmp_path: Path):
    predictor_of().run(mixed / "street.mp4", tmp_path, formats=(), drawn=True, every=2)
    about = video_about(tmp_path / "drawn" / "street.mp4")
    assert about.rate_fps == Fraction(6) and about.size_hw == (128, 256)
    frames = [frame.load(3) for frame in video_frames(tmp_path / "drawn" / "street.mp4")]
    plain = [frame.load(3) for frame in video_frames(mixed / "street.mp4", every=2)]
    assert len(frames) == 3
    assert all(np.abs(drawn.astype(int) - frame).max() > 60 for drawn, frame in zip(frames, plain, strict=True))


def test_the_frames_of_a_video_can_be_drawn_one_by_one(predictor_of: Make, mixed: Path, tmp_path: Path):
    predictor_of().run(mixed / "street.mp4", tmp_path, formats=(), drawn=True, video=False, every=3)
    assert files_below(tmp_path / "drawn") == ["street_000000.jpg", "street_000003.jpg"]


def test_results_of_a_data_set_have_its_ids_and_score_as_they_do_in_training(
    checkpoint: Path, scenes: Path, tmp_path: Path
):
    split = find_split(scenes, "val")
    coco = read_coco(split.annotations)
    predictor = Predictor(checkpoint, runtime="torch", threshold=0.01, batch_size=4)
    predictor.run(split.images, tmp_path, annotations=split.annotations)
    detector, _ = load_detector(checkpoint)
    expected = predict_dataset(detector, coco, split.images, size_hw=(320, 320))
    ours, theirs = (
        evaluate(results, split.annotations).ap
        for results in (json.loads((tmp_path / "results.json").read_text()), expected)
    )
    assert ours == pytest.approx(theirs, abs=1e-6) and ours > 0.2


def test_pictures_that_the_annotations_do_not_list_are_faults(predictor_of: Make, tmp_path: Path):
    write_bright(tmp_path / "in" / "a.png")
    write_bright(tmp_path / "in" / "b.png")
    image = {"id": 77, "file_name": "a.png", "height": 128, "width": 256}
    (tmp_path / "all.json").write_text(json.dumps({"images": [image], "categories": []}))
    summary = predictor_of().run(tmp_path / "in", tmp_path / "out", annotations=tmp_path / "all.json")
    assert summary.images == 2 - 1 and "b.png: expected one of the images of" in summary.faults[0]
    assert {each["image_id"] for each in json.loads((tmp_path / "out" / "results.json").read_text())} == {77}


def test_annotations_of_other_categories_are_refused(predictor_of: Make, tmp_path: Path):
    content = {"images": [], "categories": [{"id": 1, "name": "boat"}]}
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected the categories \[3, 7\] of the detector, it has \[1\]"):
        predictor_of().run(bright(), tmp_path / "out", annotations=tmp_path / "all.json")


@pytest.mark.parametrize("name", ["track4", "coco", "kaggle_csv"])
def test_a_submission_passes_the_rules_of_its_competition(
    predictor_of: Make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    for frame in (1, 2):
        write_bright(tmp_path / "in" / f"camera1_A_{frame}.png")
    runner = Bright()
    monkeypatch.setattr(runner, "about", runner.about.__class__(**(vars(runner.about) | {"category_ids": [0, 4]})))
    summary = predictor_of(runner).run(tmp_path / "in", tmp_path, formats=["submission"], competition=name)
    images = json.loads((tmp_path / "images.json").read_text())["images"]
    (path,) = [file for file in summary.files if file.name.startswith("submission")]
    entries = COMPETITIONS[name].read(path, images)
    assert sorted({entry["image_id"] for entry in entries}) == ([111, 112] if name == "track4" else [1, 2])
    assert len(entries) == 4 and all(entry["bbox"] == pytest.approx([40, 20, 80, 40]) for entry in entries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["voc"]}, "formats must be of coco, yolo, csv, submission, got 'voc'"),
        ({"formats": ["submission"]}, "needs the format submission and a competition"),
        ({"competition": "track4"}, "needs the format submission and a competition"),
        ({"formats": ["submission"], "competition": "track5"}, "competition must be one of track4, coco, kaggle_csv"),
        ({"crop_padding": -1.0}, "crop_padding is a share of the box"),
        ({"every": 0}, "every and dpi must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused_and_nothing_is_written(
    predictor_of: Make, tmp_path: Path, options: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        predictor_of().run(bright(), tmp_path / "out", **options)
    assert files_below(tmp_path / "out") == []


def test_a_run_does_not_feed_on_what_it_writes(predictor_of: Make, mixed: Path):
    with pytest.raises(ValueError, match=r"found: lies in .*mixed, whose folders are all read"):
        predictor_of().run([mixed], mixed / "found", recursive=True)
    assert predictor_of().run([mixed], mixed / "found", drawn=True).images == 1 + 6


def test_a_run_that_breaks_off_leaves_no_half_files_and_no_threads(predictor_of: Make, mixed: Path, tmp_path: Path):
    class Failing(Bright):
        def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
            if len(self.batches) == 3:
                raise RuntimeError("out of memory")
            return super().__call__(images, sizes_hw)

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        predictor_of(Failing()).run(mixed, tmp_path / "out", formats=("coco", "csv"), drawn=True)
    assert [name for name in files_below(tmp_path / "out") if not name.endswith(".jpg")] == []
    assert threading.active_count() == before


def test_a_full_disk_is_not_passed_over(predictor_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.predictor.results.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        predictor_of().run([bright()] * 3, tmp_path, drawn=True)
    assert not (tmp_path / "results.json").exists()


def test_the_same_run_gives_the_same_bytes(predictor_of: Make, mixed: Path, tmp_path: Path):
    for name in ("one", "two"):
        predictor_of(workers=3, batch_size=2).run(mixed, tmp_path / name, formats=("coco", "yolo", "csv"))
    names = files_below(tmp_path / "one")
    assert len(names) == 4 + 7 and names == files_below(tmp_path / "two")
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_real_videos_and_a_real_pdf(predictor_of: Make, shared: Callable[[str], Path], tmp_path: Path):
    folder = shared("data/media")
    summary = predictor_of(workers=2).run(folder, tmp_path, formats=("csv",), recursive=True, every=20, dpi=72)
    assert summary.images == 8 + 2 + 4 + 13 and summary.faulty == 0


@pytest.mark.slow
def test_the_command_tells_by_its_status_how_it_went(
    checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from kit.predictor.__main__ import main

    images = scenes / "images" / "val"
    command = [str(checkpoint), str(images), "--out", str(tmp_path / "out"), "--runtime", "torch", "--drawn"]
    assert (
        main([*command, "--threshold", "0.3", "--threshold", "Car=0.5", "--json", str(tmp_path / "summary.json")]) == 0
    )
    printed = capsys.readouterr().out
    assert "8 images, " in printed and "320 x 320 px, torch on cpu (as asked for)" in printed
    assert "threads that wait sleep" in printed or "wait busily" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["images"] == 8 and summary["detections"] > 20
    assert cv2.imread(str(next((tmp_path / "out" / "drawn").glob("*.jpg")))).shape == (480, 480, 3)

    assert main([*command, str(ROOT / "README.md")]) == 2
    assert "1 could not be read:" in capsys.readouterr().out
    assert main([*command, "--threshold", "Cra=0.5"]) == 1
    assert capsys.readouterr().err == "error: threshold: no class 'Cra', did you mean Car?\n"
    assert main([str(checkpoint), "nowhere", "--out", str(tmp_path), "--runtime", "torch"]) == 1
    assert "nowhere: expected a file, a folder or a pattern" in capsys.readouterr().err
