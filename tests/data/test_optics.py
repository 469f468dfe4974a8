import numpy as np
import pytest

from kit.data.optics import chromatic, vignetted

GREY = np.full((40, 60, 3), 200, np.uint8)


def test_the_corner_loses_its_share_of_the_light_and_the_middle_none():
    dark = vignetted(GREY, 0.5)
    assert dark[20, 30].tolist() == [200] * 3 and abs(int(dark[0, 0, 0]) - 104) <= 1  # the pixel's middle: 0.959 r^2
    assert np.array_equal(dark, dark[::-1, ::-1]) and (dark[:20, 30, 0] <= dark[1:21, 30, 0]).all()


def test_the_light_falls_off_from_the_optical_centre():
    dark = vignetted(GREY, 0.8, centre_px=(10.0, 30.0))
    assert dark[29, 9, 0] == 200 and dark[20, 30, 0] < 190 and dark[0, 59, 0] == dark.min()


def test_a_fourth_channel_is_no_light_and_one_channel_stays_one():
    four = np.full((40, 60, 4), 200, np.uint8)
    assert (vignetted(four, 0.5)[..., 3] == 200).all() and (chromatic(four, 0.01)[..., 3] == 200).all()
    assert vignetted(four[..., :1], 0.5).shape == (40, 60, 1)
    assert np.array_equal(chromatic(four[..., :1], 0.01), four[..., :1])


def middle_of_bright(plane):
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]] + 0.5
    return np.array([(plane * x).sum(), (plane * y).sum()]) / plane.sum()


def test_red_moves_out_and_blue_in_and_green_with_the_labels_stays():
    image = np.zeros((200, 200, 3), np.uint8)
    image[150:154, 180:184] = 255  # its middle is (182, 152), that of the picture (100, 100)
    red, green, blue = (middle_of_bright(chromatic(image, 0.05)[..., channel].astype(float)) for channel in range(3))
    assert np.allclose(green, [182, 152])
    assert np.allclose(red, [100 + 82 * 1.05, 100 + 52 * 1.05], atol=0.1)
    assert np.allclose(blue, [100 + 82 * 0.95, 100 + 52 * 0.95], atol=0.1)


def test_the_given_picture_is_not_changed_and_nothing_is_nothing():
    image = np.random.default_rng(0).integers(0, 255, (30, 30, 3), dtype=np.uint8)
    before = image.copy()
    assert np.array_equal(vignetted(image, 0.0), image) and np.array_equal(chromatic(image, 0.0), image)
    vignetted(image, 0.9), chromatic(image, 0.02)
    assert np.array_equal(image, before)


def test_strengths_without_sense_are_refused():
    with pytest.raises(ValueError, match=r"strength in \[0, 1\], got 1.5"):
        vignetted(GREY, 1.5)
    with pytest.raises(ValueError, match=r"between -0\.1 and 0\.1, got 2"):
        chromatic(GREY, 2)
