import pytest

from kit.data.formats.images import head_of, link_or_copy, output_names
from kit.data.formats.raw import Losses, RawPart
from kit.files import whole_folder
from tests.data.formats.made import draw_image, write


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as made:
        (made / "half").mkdir()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "out") as made:
        (made / "done").mkdir()
    assert (tmp_path / "out" / "done").is_dir() and len(list(tmp_path.iterdir())) == 1


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    write(tmp_path / "out" / "mine.txt", "kept")
    with pytest.raises(ValueError, match="expected a new or an empty folder"), whole_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("copy", [False, True])
def test_an_image_is_linked_or_copied(tmp_path, copy):
    source = draw_image(tmp_path / "a.png")
    link_or_copy(source, tmp_path / "new" / "a.png", copy)
    assert (tmp_path / "new" / "a.png").samefile(source) is not copy
    assert (tmp_path / "new" / "a.png").read_bytes() == source.read_bytes()


def part(*names):
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
    return RawPart("val", images, [], {})


def test_names_are_told_apart_in_one_folder():
    names = output_names(part("x/a.png", "x_a.jpg", "val_x_a.png"), {}, Losses(), flat=True, by_stem=True)
    assert names == {1: "x_a.png", 2: "val_x_a.jpg", 3: "val_val_x_a.png"}


def test_head_of_a_broken_image_names_it(tmp_path):
    assert head_of(draw_image(tmp_path / "a.png", (3, 2))) == (3, 2, 3)
    with pytest.raises(ValueError, match=r"b\.png: expected an image"):
        head_of(write(tmp_path / "b.png", "no"))
