import numpy as np
import pytest

from kit.data.augment import Recipe, single
from kit.data.photometric import weather, weathered
from kit.data.picture import Picture

EFFECTS = ("brightness_contrast", "clahe", "gamma", "jpeg", "shadow", "noise", "posterize", "gravel")
NEVER = dict.fromkeys(EFFECTS, 0.0)
ALWAYS = weather(**dict.fromkeys(EFFECTS, 1.0))


def image_of(channels=3, size_hw=(96, 128)):
    ramp = np.linspace(30, 220, size_hw[1]).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 20, (*size_hw, channels)).astype(np.uint8)
    return ramp[None, :, None] + noise


def rng(seed=1):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", EFFECTS)
def test_each_probability_turns_its_effect_on(name):
    image = image_of()
    assert not np.array_equal(weathered(image, weather(**(NEVER | {name: 1.0})), rng()), image)


def test_without_effects_the_pixels_stay():
    image = image_of()
    assert np.array_equal(weathered(image, weather(**NEVER), rng()), image)


def test_the_same_seed_gives_the_same_pixels_whatever_was_made_before():
    image, again = image_of(), weather(**dict.fromkeys(EFFECTS, 1.0))
    first = weathered(image, ALWAYS, rng())
    weathered(image, again, rng(5))
    assert np.array_equal(weathered(image, again, rng()), first)
    assert not np.array_equal(weathered(image, again, rng(2)), first)


def test_the_picture_given_stays_as_it_was():
    image = image_of()
    before = image.copy()
    weathered(image, ALWAYS, rng())
    assert np.array_equal(image, before)


def test_grey_stays_grey_and_a_fourth_channel_stays():
    grey, four = image_of(1), image_of(4)
    assert weathered(grey, ALWAYS, rng()).shape == grey.shape and not np.array_equal(
        weathered(grey, ALWAYS, rng()), grey
    )
    result = weathered(four, ALWAYS, rng())
    assert np.array_equal(result[..., 3], four[..., 3]) and not np.array_equal(result[..., :3], four[..., :3])


def test_the_online_augmentation_can_use_the_same_effects():
    picture = Picture(image_of(), np.array([[10.0, 10, 40, 30]]), np.array([0]))
    result = single(picture, (96, 128), Recipe(distort=ALWAYS), rng())
    assert not np.array_equal(result.image, picture.image)
    assert np.array_equal(result.boxes_xyxy_px, picture.boxes_xyxy_px)
