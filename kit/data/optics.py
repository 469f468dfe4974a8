"""Faults of a lens that change colours and light, not places: labels stay where they are."""

import cv2
import numpy as np

Centre = tuple[float, float] | None  # x, y in pixels; None: the middle of the picture


def vignetted(image: np.ndarray, strength: float, centre_px: Centre = None) -> np.ndarray:
    """Darker away from the centre, by `strength` in the farthest corner and with the square of the distance before.

    image: (H, W, C) uint8 -> the same; a fourth channel is no light and stays.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"vignetted: expected a strength in [0, 1], got {strength:g}")
    height, width = image.shape[:2]
    x, y = centre_px or (width / 2, height / 2)
    across, down = (np.arange(width) + 0.5 - x) ** 2, (np.arange(height) + 0.5 - y) ** 2  # (W,), (H,)
    farthest = max(x, width - x) ** 2 + max(y, height - y) ** 2
    light = (1 - strength / farthest * (across + down[:, None])).astype(np.float32)  # (H, W)
    colours = np.ascontiguousarray(image[..., :3])
    factors = cv2.merge([light] * colours.shape[2]).reshape(colours.shape)
    darker = cv2.multiply(colours, factors, dtype=cv2.CV_8U).reshape(colours.shape)
    return np.concatenate([darker, image[..., 3:]], axis=2)


def chromatic(image: np.ndarray, shift: float, centre_px: Centre = None) -> np.ndarray:
    """Red larger around the centre by `shift` of the distance, blue smaller; green, and with it every label, stays.

    image: (H, W, C) uint8 RGB -> the same; a grey picture and a fourth channel stay.
    """
    if abs(shift) > 0.1:
        raise ValueError(f"chromatic: expected a shift of the distance between -0.1 and 0.1, got {shift:g}")
    if image.shape[2] < 3:
        return image
    height, width = image.shape[:2]
    centre = np.array(centre_px or (width / 2, height / 2)) - 0.5  # OpenCV puts (0, 0) at the middle of the first pixel
    result = image.copy()
    for channel, ratio in ((0, 1 + shift), (2, 1 - shift)):
        matrix = np.column_stack([np.eye(2) * ratio, centre * (1 - ratio)])
        plane = np.ascontiguousarray(image[..., channel])
        result[..., channel] = cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return result
