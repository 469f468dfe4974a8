import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from kit.data.pixels import read_image
from kit.media import Unreadable, read_picture

ENDINGS = (".jpg", ".png", ".bmp", ".webp", ".tif")


def picture(size_hw: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Blocks of colour, so that no format can make it small."""
    blocks = np.random.default_rng(0).integers(0, 256, (size_hw[0] // 10, size_hw[1] // 10, 3), np.uint8)
    return blocks.repeat(10, 0).repeat(10, 1)


def written(path: Path, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(path, exif=exif) if orientation > 1 else Image.fromarray(picture()).save(path)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_whole_files_are_read_as_the_training_reads_them(tmp_path: Path, ending: str):
    path = written(tmp_path / f"a{ending}")
    for channels in (1, 3, 4):
        assert np.array_equal(read_picture(path, channels), read_image(path, channels))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("left", [0.0, 0.1, 0.5, 0.98])
def test_a_file_that_is_cut_off_is_unreadable(tmp_path: Path, ending: str, left: float):
    path = written(tmp_path / f"a{ending}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(Unreadable, match=rf"a\{ending}: ") as error:
        read_picture(path)
    assert "\n" not in str(error.value)


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path):
    path = written(tmp_path / "a.jpg")
    expected = read_picture(path)
    path.write_bytes(path.read_bytes() + b"what some phones append")
    assert np.array_equal(read_picture(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_their_exif_says(tmp_path: Path, orientation: int):
    path = written(tmp_path / "a.jpg", orientation)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_picture(path), expected)
    assert np.array_equal(read_picture(path, exif=False), read_image(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes of something else"), (b"hello" * 9, "45 bytes of something else"), (None, "found nothing")],
)
def test_what_is_no_image_is_told_in_a_line(tmp_path: Path, content: bytes | None, reason: str):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(Unreadable, match=rf"a\.jpg: expected an image, .*{reason}"):
        read_picture(tmp_path / "a.jpg")
    with pytest.raises(Unreadable, match="expected an image, found a folder"):
        read_picture(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    """A PNG whose head promises 60000 x 60000 pixels."""
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = (60000).to_bytes(4) * 2
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(Unreadable, match=r"a\.png: expected an image"):
        read_picture(tmp_path / "a.png")


def test_sixteen_bits_become_eight(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 0x7F80, np.uint16))
    assert read_picture(tmp_path / "a.png", 1).dtype == np.uint8
