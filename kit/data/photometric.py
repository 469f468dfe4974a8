"""What weather, light and a cheap camera do to a picture: the colours of the offline copies. Labels stay.

The strengths are those of the method in which this augmentation was published for fisheye street cameras; only how
often each effect is met can be chosen.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np

from kit.data.augment import distorted


def weather(
    *,
    brightness_contrast: float = 0.5,
    clahe: float = 0.5,
    gamma: float = 0.5,
    jpeg: float = 0.8,
    shadow: float = 0.5,
    noise: float = 0.5,
    posterize: float = 0.5,
    gravel: float = 0.5,
) -> A.Compose:
    """All effects in the published order, each with its own probability; also fits a `Recipe` as `distort`."""
    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=(-0.2, 0.2), contrast_limit=(-0.2, 0.2), p=brightness_contrast),
            A.CLAHE(clip_limit=(1, 3), tile_grid_size=(16, 16), p=clahe),
            A.RandomGamma(gamma_limit=(80, 100), p=gamma),  # in hundredths
            A.ImageCompression(quality_range=(80, 80), p=jpeg),
            A.RandomShadow(p=shadow),
            A.GaussNoise(std_range=(0.01, 0.09), p=noise),  # of the whole range
            A.Posterize(num_bits=(4, 6), p=posterize),
            A.RandomGravel(p=gravel),
        ]
    )


def weathered(image: np.ndarray, effects: A.Compose, rng: np.random.Generator) -> np.ndarray:
    """Pixels through the effects, a pure function of image and rng; grey stays grey, a fourth channel stays as it is.

    image: (H, W, C) uint8 -> (H, W, C) uint8.
    """
    if image.shape[2] >= 3:
        return distorted(image, effects, rng)
    colours = distorted(np.repeat(image, 3, axis=2), effects, rng)  # some effects know three channels only
    return cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[..., None]
