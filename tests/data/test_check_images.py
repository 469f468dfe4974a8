import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.data import check_images, image_files
from kit.data.check_images import (
    near_across,
    near_within,
    problems_of_images,
    read_files,
    read_looks,
    undecodable,
)
from kit.data.check_table import table_of
from kit.data.coco_entries import entries_of
from kit.data.near_duplicates import hash_file


def draw(path, seed, quality=95):
    """A picture of blots, of its own for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def table(names, part="train", first_id=1):
    images = [
        {"id": number, "file_name": name, "height": 60, "width": 80} for number, name in enumerate(names, first_id)
    ]
    return table_of(entries_of({"images": images}, Path("x.json")), part)


def looks(folder, names, part="train"):
    own = table(names, part)
    return read_looks(own, folder, read_files(own, folder))


def kinds(problems):
    return {problem.kind: problem.count for problem in problems if problem.count}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../other.jpg", "../other.jpg: image 1 has a name that leads out of the image folder"),
        ("", "image 1 has a name that is empty"),
        (".", ".: image 1 has a name that is that of the image folder"),
        ("a\0.jpg", "a\\x00.jpg: image 1 has a name that holds a NUL"),
        ("x" * 252 + ".jpg", "x" * 252 + ".jpg: image 1 has a name that has 256 bytes, more than the 255 of a file"),
    ],
)
def test_an_unusable_name_stops_a_training_and_its_file_is_never_opened(tmp_path, monkeypatch, name, told):
    draw(tmp_path / "other.jpg", 0)
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(image_files, "read_state", lambda path: pytest.fail(f"{path} was opened"))
    own = table([name])
    files = read_files(own, tmp_path / "in")
    (problem,) = (each for each in problems_of_images(own, tmp_path / "in", files) if each.count)
    assert problem.kind == "unusable file name" and problem.is_fatal
    assert problem.examples == [told] and problem.image_ids == (1,)
    assert len(read_looks(own, tmp_path / "in", files).rows) == 0


def test_of_two_entries_of_one_id_the_name_of_the_second_counts_for_nothing(tmp_path):
    draw(tmp_path / "a.jpg", 0)
    images = [{"id": 1, "file_name": name, "height": 60, "width": 80} for name in ("a.jpg", "../b.jpg")]
    own = table_of(entries_of({"images": images}, Path("x.json")))
    assert kinds(problems_of_images(own, tmp_path, read_files(own, tmp_path))) == {}


def test_each_finding_of_a_file_names_its_image(tmp_path):
    draw(tmp_path / "a.jpg", 0)
    draw(tmp_path / "sub" / "loose.jpg", 1)
    own = table(["a.jpg", "a.jpg", "b.jpg"])
    problems = {each.kind: each for each in problems_of_images(own, tmp_path, read_files(own, tmp_path)) if each.count}
    assert {kind: each.image_ids for kind, each in problems.items()} == {
        "missing image": (3,), "duplicate file name": (2,), "file without an entry": ()
    }  # fmt: skip
    assert problems["file without an entry"].findings[0].file_name == "sub/loose.jpg"


def test_of_pictures_that_are_almost_the_same_the_later_is_named(tmp_path):
    for seed in range(3):
        draw(tmp_path / f"{seed}.jpg", seed)
    draw(tmp_path / "again.jpg", 1, quality=40)
    own = near_within(looks(tmp_path, ["0.jpg", "1.jpg", "2.jpg", "again.jpg"]))
    (found,) = own.findings
    assert found.file_name == "again.jpg" and found.partner == ("train", "1.jpg") and not own.is_fatal
    assert found.detail.startswith("like 1.jpg, ") and found.detail.endswith(" bits apart")


def test_of_three_alike_two_are_named(tmp_path):
    for name, quality in (("a.jpg", 95), ("b.jpg", 95), ("c.jpg", 60)):
        draw(tmp_path / name, 5, quality)
    assert [each.file_name for each in near_within(looks(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])).findings] == [
        "b.jpg", "c.jpg"
    ]  # fmt: skip


def test_across_parts_the_very_file_is_a_problem_and_a_picture_like_it_is_odd(tmp_path):
    for seed in range(3):
        draw(tmp_path / "train" / f"{seed}.jpg", seed)
    (tmp_path / "val").mkdir()
    shutil.copy(tmp_path / "train" / "1.jpg", tmp_path / "val" / "same.jpg")
    draw(tmp_path / "val" / "near.jpg", 2, quality=40)
    draw(tmp_path / "val" / "own.jpg", 9)
    train = looks(tmp_path / "train", ["0.jpg", "1.jpg", "2.jpg"])
    val = looks(tmp_path / "val", ["own.jpg", "near.jpg", "same.jpg"], "val")
    same, near = near_across(val, train)
    assert same.examples == ["same.jpg: like train: 1.jpg, the very same file"] and same.is_fatal
    (found,) = near.findings
    assert (found.part, found.file_name, found.partner) == ("val", "near.jpg", ("train", "2.jpg"))
    assert not near.is_fatal and kinds(near_across(train, looks(tmp_path / "val", ["own.jpg"], "val"))) == {}


@pytest.mark.parametrize("names", [[], ["0.jpg"]])
def test_nothing_is_like_nothing(tmp_path, names):
    draw(tmp_path / "0.jpg", 0)
    assert near_within(looks(tmp_path, names)).count == 0
    assert kinds(near_across(looks(tmp_path, names, "val"), looks(tmp_path, []))) == {}


def test_what_only_decoding_shows_is_an_unreadable_image(tmp_path, monkeypatch):
    for seed in range(2):
        draw(tmp_path / f"{seed}.jpg", seed)

    def half(path):
        if path.name == "0.jpg":
            raise ValueError("expected an image")
        return hash_file(path)

    monkeypatch.setattr(check_images, "hash_file", half)
    own = looks(tmp_path, ["0.jpg", "1.jpg"])
    problem = undecodable(own, tmp_path)
    assert own.rows.tolist() == [1] and [path.name for path in own.paths] == ["1.jpg"]
    assert problem.image_ids == (1,) and problem.examples == ["0.jpg: image 1 OpenCV cannot decode it"]


def test_what_cannot_be_decoded_is_not_compared(tmp_path):
    draw(tmp_path / "0.jpg", 0)
    (tmp_path / "text.jpg").write_text("404")
    own = looks(tmp_path, ["text.jpg", "0.jpg", "0.jpg", "none.jpg"])
    assert own.rows.tolist() == [1] and own.hashes.shape[0] == 1
