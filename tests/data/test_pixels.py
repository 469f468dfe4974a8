import cv2
import numpy as np
import pytest
from PIL import Image

from kit.data.pixels import read_image

COLOUR = (200, 100, 50)
GREY = 124  # 0.299 R + 0.587 G + 0.114 B


def save(path, mode, **more):
    Image.new("RGB", (5, 4), COLOUR).convert(mode).save(path, **more)
    return path


def test_colours_are_in_the_order_red_green_blue(tmp_path):
    path = save(tmp_path / "x.png", "RGB")
    assert read_image(path)[0, 0].tolist() == [200, 100, 50] and read_image(path).shape == (4, 5, 3)
    assert read_image(path, 4)[0, 0].tolist() == [200, 100, 50, 255]
    assert read_image(path, 1)[0, 0].tolist() == [GREY]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_files_are_read_with_any_number_of_channels(tmp_path, channels):
    image = read_image(save(tmp_path / "x.png", "L"), channels)
    assert image.shape == (4, 5, channels) and set(image[0, 0].tolist()) <= {GREY, 255}


def test_the_fourth_channel_is_read_when_asked_for(tmp_path):
    picture = Image.new("RGBA", (5, 4), (*COLOUR, 70))
    picture.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", 4)[0, 0].tolist() == [200, 100, 50, 70]
    assert read_image(tmp_path / "x.png", 3)[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_become_8(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    cv2.imwrite(str(path), np.full((4, 5, 3), COLOUR[::-1], np.uint16) * 257)
    assert read_image(path)[0, 0].tolist() == [200, 100, 50]
    assert read_image(path, 4)[0, 0].tolist() == [200, 100, 50, 255]


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, ending):
    image = read_image(save(tmp_path / f"x.{ending}", "CMYK"))
    assert np.abs(image[0, 0].astype(int) - COLOUR).max() <= 3


def test_palettes_become_rgb(tmp_path):
    assert read_image(save(tmp_path / "x.png", "P"))[0, 0].tolist() == pytest.approx(COLOUR, abs=30)


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    save(tmp_path / "x.jpg", "RGB", exif=exif)
    assert [read_image(tmp_path / "x.jpg", channels).shape[:2] for channels in (1, 3, 4)] == [(4, 5)] * 3


def test_other_channel_counts_and_files_that_are_no_image_are_refused(tmp_path):
    (tmp_path / "x.jpg").write_text("404")
    with pytest.raises(ValueError, match="channels must be 1, 3 or 4, got 2"):
        read_image(tmp_path / "x.jpg", 2)
    with pytest.raises(ValueError, match=r"x\.jpg: expected an image, the file cannot be decoded"):
        read_image(tmp_path / "x.jpg")


def test_a_picture_of_more_pixels_than_opencv_takes_is_refused_in_words(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xc0") + 5  # height and width in the head of the frame
    data[place : place + 4] = (65500).to_bytes(2, "big") * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.jpg: expected an image, .*; run the check of the data set") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
