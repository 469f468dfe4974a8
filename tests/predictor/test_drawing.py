import numpy as np
import pytest
import torch

from kit.plots.canvas import class_colour
from kit.predict import Detections
from kit.predictor.drawing import crop, draw, label_chip, rgb
from kit.predictor.prediction import nothing_found

NAMES = ["car", "bus"]


def detections(boxes: list[list[float]], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes), torch.linspace(0.9, 0.5, len(labels)), torch.tensor(labels))


def has_colour(image: np.ndarray, label: int) -> bool:
    return bool((image == rgb(class_colour(label))).all(axis=-1).any())


def test_boxes_have_the_colour_of_their_class_and_the_picture_itself_is_left_alone():
    image = np.full((240, 320, 3), 128, np.uint8)
    drawn = draw(image, detections([[40.0, 60.0, 140.0, 160.0]], [1]), NAMES)
    assert (image == 128).all()
    assert tuple(drawn[60, 90]) == tuple(drawn[160, 90]) == rgb(class_colour(1))
    assert (drawn[80:140, 60:120] == 128).all()
    assert has_colour(drawn[30:58], 1)  # the label, above
    assert not has_colour(drawn, 0)


def test_nothing_is_drawn_where_nothing_was_found():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    assert np.array_equal(draw(image, nothing_found(), NAMES), image)


@pytest.mark.parametrize("size_hw", [(8, 8), (64, 2000), (3000, 4000)])
def test_pictures_of_every_size_are_drawn(size_hw: tuple[int, int]):
    height, width = size_hw
    drawn = draw(np.zeros((*size_hw, 3), np.uint8), detections([[0.0, 0.0, width, height]], [0]), NAMES)
    assert drawn.shape == (*size_hw, 3) and has_colour(drawn, 0)


def test_a_label_does_not_cover_another_box():
    boxes = [[20.0, 100.0, 120.0, 200.0], [20.0, 40.0, 120.0, 99.0], [20.0, 201.0, 120.0, 239.0]]
    middle = draw(np.full((240, 125, 3), 128, np.uint8), detections(boxes, [0, 0, 0]), NAMES)
    inside = middle[45:95, 26:114]
    assert (inside == 128).all()


def test_grey_pictures_become_colours():
    assert draw(np.full((20, 30, 1), 7, np.uint8), nothing_found(), NAMES).shape == (20, 30, 3)


def test_a_label_can_be_read_on_its_ground():
    for label in range(8):
        chip = label_chip("car 0.87", class_colour(label), 16).astype(int)
        assert np.abs(chip.max(axis=(0, 1)) - chip.min(axis=(0, 1))).max() > 120


def test_a_crop_has_its_padding_as_far_as_the_picture_reaches():
    image = np.arange(100 * 200).reshape(100, 200, 1).astype(np.uint8)
    assert crop(image, np.array([50.0, 20.0, 90.0, 60.0]), 0.25).shape == (60, 60, 1)
    assert crop(image, np.array([0.0, 0.0, 40.0, 40.0]), 0.5).shape == (60, 60, 1)
    assert np.array_equal(crop(image, np.array([0.0, 0.0, 200.0, 100.0]), 3.0), image)
    assert crop(image, np.array([199.9, 99.9, 200.0, 100.0]), 0.0).shape == (1, 1, 1)
