import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.data.coco import CocoFile, read_coco, write_coco
from kit.data.unlabelled import (
    apart_from_val,
    entries_of,
    list_images,
    name_in,
    same_content,
    unlabelled_folder,
    with_twins,
)


def write_image(path: Path, seed: int, change: int = 0) -> Path:
    """Smooth noise of 40 x 60 px; the same seed is the same picture, `change` makes it so much brighter."""
    coarse = np.random.default_rng(seed).integers(0, 230, (5, 7, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(coarse, (60, 40), interpolation=cv2.INTER_CUBIC) // 2 + 40 + change)
    return path


def labelled(folder: Path, seeds: list[int]) -> CocoFile:
    images = [{"id": seed, "file_name": f"{seed}.png", "width": 60, "height": 40} for seed in seeds]
    for seed in seeds:
        write_image(folder / f"{seed}.png", seed)
    return read_coco(write_coco(folder / "all.json", images, [], [{"id": 1, "name": "Car"}]))


def test_images_are_listed_in_order_with_sizes_and_names_from_the_root(tmp_path: Path) -> None:
    for seed, name in enumerate(("b/2.png", "a/1.PNG", "a/deep/3.png")):
        write_image(tmp_path / name, seed)
    (tmp_path / "a/notes.txt").write_text("no image")
    listing = list_images([tmp_path / "a", tmp_path / "b"], tmp_path / "a")
    outside = (tmp_path / "b/2.png").as_posix()
    assert [(each["id"], each["file_name"]) for each in listing.images] == [
        (1, "1.PNG"), (2, "deep/3.png"), (3, outside),
    ]  # fmt: skip
    assert {(each["height"], each["width"]) for each in listing.images} == {(40, 60)}
    assert listing.images[0]["bytes"] == (tmp_path / "a/1.PNG").stat().st_size


def test_broken_files_and_copies_are_left_out_and_named(tmp_path: Path) -> None:
    first = write_image(tmp_path / "1.png", seed=1)
    shutil.copy(first, tmp_path / "copy.png")
    (tmp_path / "cut.png").write_bytes(first.read_bytes()[:90])
    listing = list_images([tmp_path], tmp_path)
    assert [each["file_name"] for each in listing.images] == ["1.png"]
    assert list(listing.left_out.values()) == [["cut.png"], ["copy.png"]]
    assert "the same file again" in listing.left_out
    assert listing.table["found"] == 3 and listing.table["to be labelled"] == 1


def test_what_is_in_val_or_nearly_so_is_left_out(tmp_path: Path) -> None:
    val = labelled(tmp_path / "val", [1, 2])
    write_image(tmp_path / "new/same.png", seed=1)
    write_image(tmp_path / "new/brighter.png", seed=2, change=20)
    write_image(tmp_path / "new/other.png", seed=3)
    listing = list_images([tmp_path / "new"], tmp_path)
    paths = [tmp_path / "val" / record.file_name for record in val.records]
    apart = apart_from_val(listing, paths, tmp_path, most_bits=24)
    assert [each["file_name"] for each in apart.images] == ["new/other.png"]
    assert apart.left_out == {"nearly the same as in val": ["new/brighter.png"], "in val too": ["new/same.png"]}
    assert apart.images[0]["id"] == 2  # ids stay


def test_an_image_that_has_labels_under_another_name_is_left_out_or_known_as_their_twin(tmp_path: Path) -> None:
    train = labelled(tmp_path / "train", [5, 6])
    write_image(tmp_path / "new/a.png", seed=9)
    write_image(tmp_path / "new/b.png", seed=6)
    listing = list_images([tmp_path / "new"], tmp_path)
    apart = with_twins(listing, train, tmp_path / "train", tmp_path, complete=False)
    assert [each["file_name"] for each in apart.images] == ["new/a.png"] and apart.twins == {}
    assert apart.left_out == {"labelled already": ["new/b.png"]}
    together = with_twins(listing, train, tmp_path / "train", tmp_path, complete=True)
    assert len(together.images) == 2 and together.twins == {2: 6}


def test_files_of_equal_length_are_told_apart_by_their_content(tmp_path: Path) -> None:
    for name, content in (("a", b"xy"), ("b", b"xz"), ("c", b"xy"), ("d", b"xyz")):
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert same_content([a, d], [b, c]) == {0: 1}
    assert same_content([b, a, c], [b, a, c]) == {0: 0, 1: 1, 2: 1}
    assert same_content([], [a]) == {}


def test_entries_of_a_coco_file_keep_its_ids(tmp_path: Path) -> None:
    val = labelled(tmp_path / "val", [7])
    (own,) = entries_of(val, tmp_path / "val", tmp_path)
    assert own["id"] == 7 and own["file_name"] == "val/7.png" and (own["height"], own["width"]) == (40, 60)


def test_the_unlabelled_part_is_found_in_both_layouts_and_its_absence_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder images/unlabelled, found none"):
        unlabelled_folder(tmp_path)
    (tmp_path / "unlabelled").mkdir()
    assert unlabelled_folder(tmp_path) == tmp_path / "unlabelled"
    (tmp_path / "images/unlabelled").mkdir(parents=True)
    assert unlabelled_folder(tmp_path) == tmp_path / "images/unlabelled"
    with pytest.raises(ValueError, match="expected a folder of images, found none"):
        list_images([tmp_path / "nowhere"], tmp_path)


def test_a_link_keeps_its_place_in_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/images").symlink_to(tmp_path / "disk")
    assert name_in(tmp_path / "root/images/1.png", tmp_path / "root") == "images/1.png"
