from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kit.media import Unreadable, VideoWriter, frame_count, frames, kind_of

IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.png, a.JPG, notes.txt, .hidden.png, deep/c.png, deep/report.pdf (2 pages), street.mp4 (6 frames)."""
    for name in ("b.png", "a.JPG", ".hidden.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), IMAGE)
    (tmp_path / "notes.txt").write_text("no picture")
    page = Image.new("RGB", (20, 20))
    page.save(tmp_path / "deep" / "report.pdf", save_all=True, append_images=[page])
    with VideoWriter(tmp_path / "street.mp4", 10) as video:
        for _ in range(6):
            video.write(IMAGE)
    return tmp_path


def names(*arguments: object, **options: object) -> list[str]:
    return [f"{frame.name} {frame.index}" for frame in frames(*arguments, **options)]  # type: ignore[arg-type]


STREET = [f"street.mp4 {place}" for place in range(6)]


def test_a_folder_gives_what_can_be_looked_at_in_order(folder: Path):
    assert names(folder) == ["a.JPG 0", "b.png 0", *STREET]
    deep = ["deep/c.png 0", "deep/report.pdf 0", "deep/report.pdf 1"]
    assert names(folder, recursive=True) == ["a.JPG 0", "b.png 0", *STREET, *deep]
    assert names(str(folder), every=4) == ["a.JPG 0", "b.png 0", "street.mp4 0", "street.mp4 4"]


def test_a_pattern_gives_what_it_matches(folder: Path):
    assert names(f"{folder}/*.png") == ["b.png 0"]
    assert names(f"{folder}/**/*", recursive=True) == ["a.JPG 0", "b.png 0", "deep/c.png 0", "deep/report.pdf 0",
                                                       "deep/report.pdf 1", *STREET]  # fmt: skip
    (folder / "[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(folder / "[1].png") == ["[1].png 0"]  # a file of that very name


def test_a_list_mixes_everything_and_names_tell_the_files_apart(folder: Path):
    mixed = [folder / "b.png", IMAGE, str(folder / "deep"), folder / "missing.png", IMAGE[..., 0]]
    listed = list(frames(mixed))
    wanted = [
        "b.png",
        "array_000001",
        "deep/c.png",
        "deep/report.pdf",
        "deep/report.pdf",
        "missing.png",
        "array_000004",
    ]
    assert [frame.name for frame in listed] == wanted
    with pytest.raises(Unreadable, match=r"missing\.png: expected an image, found nothing"):
        listed[5].load(3)
    assert listed[6].load(3).shape == (8, 8, 3)
    assert list(frames([])) == []


def test_a_file_of_another_kind_in_a_list_is_a_fault(folder: Path):
    _, notes = frames([folder / "b.png", folder / "notes.txt"])
    with pytest.raises(Unreadable, match=r"notes\.txt: expected an image, got 10 bytes of something else"):
        notes.load(3)


def test_a_single_source_that_leads_to_nothing_is_refused(folder: Path):
    with pytest.raises(ValueError, match=r"nowhere: expected a file, a folder or a pattern of files, found nothing"):
        names(folder / "nowhere")
    with pytest.raises(ValueError, match=r"\*\.bmp: expected a file, a folder or a pattern"):
        names(f"{folder}/*.bmp")
    with pytest.raises(ValueError, match=r"notes\.txt: expected an image .*, a video .* or a \.pdf, got \.txt"):
        names(folder / "notes.txt")
    (folder / "empty" / "deeper").mkdir(parents=True)
    cv2.imwrite(str(folder / "empty" / "deeper" / "a.png"), IMAGE)
    with pytest.raises(ValueError, match=r"empty: expected a folder with images, .* found none; .*\(recursive\)"):
        names(folder / "empty")
    assert names(folder / "empty", recursive=True) == ["deeper/a.png 0"]


@pytest.mark.parametrize("options", [{"every": 0}, {"dpi": 0}])
def test_steps_of_nothing_are_refused(folder: Path, options: dict[str, int]):
    with pytest.raises(ValueError, match="every and dpi must be at least 1"):
        names(folder, **options)


def test_the_bar_knows_how_many_there_will_be(folder: Path):
    assert frame_count(folder) == 2 + 6
    assert frame_count(folder, recursive=True, every=4) == 2 + 2 + 3
    (folder / "broken.mp4").write_bytes(b"")
    assert frame_count([folder / "broken.mp4", folder / "missing.pdf", IMAGE]) == 3


def test_kinds_are_told_by_the_ending():
    assert [kind_of(name) for name in ("a.JPG", "b.Mp4", "c.pdf", "d.txt", "e")] == [
        "image",
        "video",
        "pdf",
        None,
        None,
    ]
