import numpy as np
import pytest

from kit.media.frame import Unreadable, unreadable, with_channels


def test_channels_are_made_to_fit():
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[..., 1] = 100
    four = with_channels(rgb, 4)
    assert four[0, 0].tolist() == [0, 100, 0, 255]
    assert with_channels(four, 3).tolist() == rgb.tolist()
    assert with_channels(rgb, 1)[0, 0].tolist() == [round(0.587 * 100)]
    grey = np.full((2, 3), 9, np.uint8)
    assert with_channels(grey, 3).shape == (2, 3, 3) and with_channels(grey, 1).shape == (2, 3, 1)
    assert with_channels(grey, 4)[0, 0].tolist() == [9, 9, 9, 255]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))]
)
def test_what_is_no_picture_is_refused(image: np.ndarray):
    with pytest.raises(Unreadable, match=r"image must be .* got \("):
        with_channels(image, 3)


def test_a_frame_without_pixels_says_why():
    with pytest.raises(Unreadable, match="the reason"):
        unreadable("the reason")(3)
