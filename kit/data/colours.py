"""Colours changed by chance, all in one pass over the pixels: brightness, contrast, saturation, hue, channel order.

Nothing is rounded between the steps; each is cut at 0 and 255 like a picture that had been stored in between.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

Span = tuple[float, float]

ZERO, HALF, ONE, TWO, SIX, FULL = (np.float32(value) for value in (0, 0.5, 1, 2, 6, 255))
RED, GREEN, BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)  # shares of the grey picture
FIXED = 4096  # of whole-number arithmetic where the order of a sum must not change it
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Colours:
    """What SSD and D-FINE do to colours, each step with this probability; hue in turns of the colour circle."""

    probability: float
    brightness: Span = (0.875, 1.125)
    contrast: Span = (0.5, 1.5)
    saturation: Span = (0.5, 1.5)
    hue: Span = (-0.05, 0.05)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """image: (H, W, C) uint8 -> the same; of one channel only light changes, a fourth stays."""
        spans = ((self.brightness, 1.0), (self.contrast, 1.0), (self.saturation, 1.0), (self.hue, 0.0))
        brightness, contrast, saturation, hue = (
            rng.uniform(*span) if rng.random() < self.probability else still for span, still in spans
        )
        order = ORDERS[int(rng.integers(len(ORDERS)))] if rng.random() < self.probability else ORDERS[0]
        if (brightness, contrast, saturation, hue, order) == (1.0, 1.0, 1.0, 0.0, ORDERS[0]):
            return image
        return recoloured(image, brightness, contrast, saturation, hue, order)


def recoloured(
    image: np.ndarray,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    order: tuple[int, int, int] = ORDERS[0],
) -> np.ndarray:
    """Factors, 1 = as it is; hue in turns; order: which channel comes first, second and third.

    image: (H, W, C) uint8, RGB -> (H, W, C) uint8.
    """
    image = np.ascontiguousarray(image)
    if image.shape[2] == 1:
        return _light(image, brightness, contrast)
    if image.shape[2] > 3:
        colours = recoloured(image[..., :3], brightness, contrast, saturation, hue, order)
        return np.concatenate([colours, image[..., 3:]], axis=2)
    level = 0.0 if contrast == 1 else (1 - contrast) * mean_grey(image, brightness)
    result = np.empty_like(image)
    factors = (np.float32(each) for each in (brightness, contrast, level, saturation))
    turn = np.float32(6 * hue) if hue else None  # Numba makes a loop without hue of None: half the time
    _recolour(image.reshape(-1), result.reshape(-1), *factors, turn, *order)  # type: ignore[call-arg]
    return result


def mean_grey(image: np.ndarray, brightness: float) -> float:
    """The mean of the grey picture, brightened: the level that contrast turns around."""
    means = _sums(image.reshape(-1), round(brightness * FIXED)) / (FIXED * image.shape[0] * image.shape[1])  # (3,)
    return float(means @ (RED, GREEN, BLUE))


def _light(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    light = np.minimum(np.arange(256) * brightness, 255)
    mean = float(np.bincount(image.ravel(), minlength=256) @ light) / image.size
    table = np.round((light * contrast + (1 - contrast) * mean).clip(0, 255)).astype(np.uint8)
    return table[image]


@njit(cache=True, nogil=True)
def _sums(values, factor):  # type: ignore[no-untyped-def]  # Numba finds the types
    """values: (P * 3,) uint8 -> (3,): sums of the channels, brightened, in FIXED; of whole numbers, so in any order."""
    red = green = blue = 0
    for i in range(len(values) // 3):
        red += int(min(np.int32(values[3 * i]) * np.int32(factor), np.int32(255 * FIXED)))
        green += int(min(np.int32(values[3 * i + 1]) * np.int32(factor), np.int32(255 * FIXED)))
        blue += int(min(np.int32(values[3 * i + 2]) * np.int32(factor), np.int32(255 * FIXED)))
    return np.array([red, green, blue], np.float64)


@njit(inline="always")
def _cut(value):  # type: ignore[no-untyped-def]  # Numba finds the types
    value = value if value > ZERO else ZERO
    return value if value < FULL else FULL


@njit(inline="always")
def _of_circle(place, most, range_):  # type: ignore[no-untyped-def]
    """One channel of a colour of this hue, brightest channel and range; place: (5, 3, 1) + hue of 6, modulo 6."""
    place = place - SIX if place >= SIX else place
    ramp = SIX - TWO - place
    ramp = place if place < ramp else ramp
    ramp = ramp if ramp < ONE else ONE
    return most - range_ * (ramp if ramp > ZERO else ZERO)


@njit(inline="always")
def _turned(red, green, blue, turn):  # type: ignore[no-untyped-def]
    """The hue further by `turn`, in sixths of the circle, as in HSV."""
    most = max(red, green, blue)
    range_ = most - min(red, green, blue)
    scale = ONE / (range_ if range_ > ZERO else ONE)
    hue = (blue - red) * scale + TWO if green == most else (red - green) * scale + TWO + TWO
    hue = (green - blue) * scale if red == most else hue
    hue = hue + turn
    hue = hue + SIX if hue < ZERO else hue
    hue = hue - SIX if hue >= SIX else hue
    return (
        _of_circle(hue + (SIX - ONE), most, range_),
        _of_circle(hue + (TWO + ONE), most, range_),
        _of_circle(hue + ONE, most, range_),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _recolour(values, out, brightness, contrast, level, saturation, turn, first, second, third):  # type: ignore[no-untyped-def]
    """values, out: (P * 3,) uint8; turn: None leaves the hue. Written so that LLVM makes vectors of it."""
    for i in range(len(values) // 3):
        red = _cut(_cut(np.float32(values[3 * i]) * brightness) * contrast + level)
        green = _cut(_cut(np.float32(values[3 * i + 1]) * brightness) * contrast + level)
        blue = _cut(_cut(np.float32(values[3 * i + 2]) * brightness) * contrast + level)
        grey = (RED * red + GREEN * green + BLUE * blue) * (ONE - saturation)
        red, green, blue = (
            _cut(saturation * red + grey),
            _cut(saturation * green + grey),
            _cut(saturation * blue + grey),
        )
        if turn is not None:
            red, green, blue = _turned(red, green, blue, turn)
        a = red if first == 0 else (green if first == 1 else blue)
        b = red if second == 0 else (green if second == 1 else blue)
        c = red if third == 0 else (green if third == 1 else blue)
        out[3 * i] = np.uint8(np.int32(a + HALF))
        out[3 * i + 1] = np.uint8(np.int32(b + HALF))
        out[3 * i + 2] = np.uint8(np.int32(c + HALF))
