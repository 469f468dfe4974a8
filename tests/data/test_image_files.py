import os

import pytest
from PIL import Image

from kit.data.image_files import FileState, name_fault, read_named, read_state


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a.jpg", ""),
        ("b/../a.jpg", ""),
        ("..a/b.jpg", ""),
        ("./a.jpg", ""),
        ("\ud800.jpg", ""),
        ("x" * 255, ""),
        ("../a.jpg", "leads out of the image folder"),
        ("..", "leads out of the image folder"),
        ("b/../../a.jpg", "leads out of the image folder"),
        ("/tmp/a.jpg", "leads out of the image folder"),
        ("", "is empty"),
        (".", "is that of the image folder"),
        ("a/..", "is that of the image folder"),
        ("a\0.jpg", "holds a NUL"),
        ("x" * 256, "has 256 bytes, more than the 255 of a file"),
        ("a/" + "\u00fc" * 128 + "/b.jpg", "has 256 bytes, more than the 255 of a file"),
    ],
)
def test_names_that_no_file_of_the_folder_can_have(name, fault):
    assert name_fault(name) == fault


def test_no_file_outside_of_the_folder_is_opened(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (folder / "a.png", tmp_path / "secret.png"):
        Image.new("RGB", (4, 3)).save(path)
    names = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "b.png", "a/" * 3000 + "b.png"]
    calls = []
    states = read_named(folder, names, lambda done, total: calls.append((done, total)))
    assert [state.fault for state in states] == [
        "", "unusable file name", "unusable file name", "missing image", "missing image"
    ]  # fmt: skip
    assert states[0].size_hw == (3, 4) and calls[-1] == (5, 5)


def test_what_the_system_cannot_look_for_is_missing(tmp_path):
    assert read_state(tmp_path / ("x" * 300)) == FileState("missing image", os.strerror(36))
