import pytest

from kit.data.formats.folder import read_folder
from tests.data.formats.made import draw_image


def test_all_images_below_a_folder_are_one_part(tmp_path):
    draw_image(tmp_path / "b.jpg", (8, 4))
    draw_image(tmp_path / "sub" / "a.png")
    (part,) = read_folder(tmp_path, part="unlabelled").parts
    assert part.name == "unlabelled" and part.annotations == []
    assert part.images[0] == {"id": 1, "file_name": "b.jpg", "width": 8, "height": 4}
    assert part.images[1]["file_name"] == "sub/a.png" and part.files[2] == tmp_path / "sub" / "a.png"


def test_folders_named_as_parts_are_parts(tmp_path):
    draw_image(tmp_path / "images" / "train" / "a.png")
    draw_image(tmp_path / "images" / "valid" / "b.png")
    parts = {part.name: [image["file_name"] for image in part.images] for part in read_folder(tmp_path).parts}
    assert parts == {"train": ["a.png"], "val": ["b.png"]}


def test_an_image_beside_such_folders_is_not_forgotten(tmp_path):
    draw_image(tmp_path / "train" / "a.png")
    draw_image(tmp_path / "b.png")
    (part,) = read_folder(tmp_path).parts
    assert [image["file_name"] for image in part.images] == ["b.png", "train/a.png"]


def test_a_folder_without_images_and_a_broken_image_are_named(tmp_path):
    with pytest.raises(ValueError, match="expected images, found none"):
        read_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.png: expected an image"):
        read_folder(tmp_path)
