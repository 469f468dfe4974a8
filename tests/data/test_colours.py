import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from kit.data.colours import Colours, mean_grey, recoloured


@pytest.fixture
def image():
    """Soft colours from black to white, and some greys, (60, 70, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    soft = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    soft[:5] = np.arange(70, dtype=np.uint8)[:, None] * 3
    return soft


STEPS = {
    "brightness": ({"brightness": 1.12}, lambda t: F.adjust_brightness(t, 1.12)),
    "darkness": ({"brightness": 0.88}, lambda t: F.adjust_brightness(t, 0.88)),
    "contrast": ({"contrast": 0.6}, lambda t: F.adjust_contrast(t, 0.6)),
    "more contrast": ({"contrast": 1.5}, lambda t: F.adjust_contrast(t, 1.5)),
    "saturation": ({"saturation": 1.4}, lambda t: F.adjust_saturation(t, 1.4)),
    "hue": ({"hue": 0.05}, lambda t: F.adjust_hue(t, 0.05)),
    "hue the other way": ({"hue": -0.05}, lambda t: F.adjust_hue(t, -0.05)),
    "order": ({"order": (2, 0, 1)}, lambda t: t[[2, 0, 1]]),
    "all": (
        {"brightness": 0.9, "contrast": 0.8, "saturation": 1.2, "hue": 0.03},
        lambda t: F.adjust_hue(F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(t, 0.9), 0.8), 1.2), 0.03),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_the_one_of_the_published_recipe(image, name):
    ours, theirs = STEPS[name]
    expected = theirs(torch.from_numpy(image).permute(2, 0, 1).double() / 255) * 255
    off = np.abs(recoloured(image, **ours) - expected.permute(1, 2, 0).numpy())
    assert off.max() <= 0.5 + 1e-2  # nothing but the last rounding


def test_the_mean_is_that_of_the_brightened_picture(image):
    bright = np.minimum(image * 1.1, 255)
    assert mean_grey(image, 1.1) == pytest.approx(float((bright @ (0.299, 0.587, 0.114)).mean()), abs=0.05)


def test_probability_one_changes_and_zero_does_not(image):
    rng = np.random.default_rng(0)
    assert Colours(0.0)(image, rng) is image
    assert not np.array_equal(Colours(1.0)(image, rng), image)


def test_chance_comes_from_the_generator_alone_and_the_source_stays(image):
    before = image.copy()
    one, two, other = (Colours(0.5)(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, two) and not np.array_equal(one, other) and np.array_equal(image, before)


def test_half_of_all_pictures_have_a_step_of_one_half(image):
    rng = np.random.default_rng(0)
    channels = [Colours(0.5, (1, 1), (1, 1), (1, 1), (0, 0))(image[20:24, :4], rng) for _ in range(400)]
    moved = sum(not np.array_equal(each, image[20:24, :4]) for each in channels)
    assert moved == pytest.approx(400 * 0.5 * 5 / 6, abs=50)  # one order of six is the old one


def test_grey_gets_light_and_a_fourth_channel_stays(image):
    grey = image[..., :1]
    assert recoloured(grey, brightness=0.5)[..., 0] == pytest.approx(grey[..., 0] * 0.5, abs=0.51)
    four = np.concatenate([image, grey], axis=2)
    changed = recoloured(four, 0.9, 1.2, 0.7, 0.02, (1, 0, 2))
    assert np.array_equal(changed[..., 3:], grey)
    assert np.array_equal(changed[..., :3], recoloured(image, 0.9, 1.2, 0.7, 0.02, (1, 0, 2)))


def test_parts_of_a_picture_are_taken_as_they_are(image):
    part = image[5:30, 10:40]
    assert np.array_equal(recoloured(part, 0.9, hue=0.04), recoloured(part.copy(), 0.9, hue=0.04))
