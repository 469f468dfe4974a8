import pytest

from kit.competitions import COMPETITIONS
from kit.competitions.track4 import track4_image_id, track4_image_ids
from kit.data.views import view_of
from kit.submission import Rules

TRACK4 = COMPETITIONS["track4"]
IMAGES = [{"id": 3187, "file_name": "camera3_A_87.png", "width": 200, "height": 100}]


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("camera3_A_87.png", 3187),
        ("camera1_M_0.jpg", 100),
        ("val/camera29_N_401.png", 293401),
        ("camera01_E_007.png", 127),
    ],
)
def test_an_image_id_is_camera_scene_and_frame_in_digits(name, image_id):
    assert track4_image_id(name) == image_id


@pytest.mark.parametrize(
    "name", ["camera3_B_87.png", "camera_A_87.png", "camera3_A_87", "3_A_87.png", "camera3_A_8x.png"]
)
def test_another_name_has_no_image_id(name):
    with pytest.raises(ValueError, match="file name must be camera"):
        track4_image_id(name)


def test_two_names_with_one_id_are_refused_with_both_names():
    with pytest.raises(ValueError, match=r"camera1_M_12\.png and camera10_A_2\.png both give 1012"):
        track4_image_ids(["camera1_M_12.png", "camera1_M_13.png", "camera10_A_2.png"])


def test_the_rules_want_the_ids_of_the_file_names():
    rules = TRACK4.rules(IMAGES, [0, 2], allow_missing_images=True)
    assert rules == Rules({3187: (100, 200)}, (0, 1, 2, 3, 4), 100, None, True)
    with pytest.raises(ValueError, match=r"camera3_A_87\.png must have 3187, got 5"):
        TRACK4.rules([IMAGES[0] | {"id": 5}], [0])


def test_categories_numbered_from_1_are_refused_before_anything_is_sent():
    with pytest.raises(ValueError, match=r"category ids must be 0 Bus, .* got \[1, 2, 3, 4, 5\]; renumber"):
        TRACK4.rules(IMAGES, [5, 4, 3, 2, 1])


def test_camera_and_time_of_day_are_read_from_the_file_name():
    view = view_of("camera3_N_87.png", TRACK4.view_pattern)
    assert (view.camera, view.is_night) == ("3", True)


def test_the_competition_counts_f1_in_its_own_sizes():
    assert TRACK4.select_by == "f1" and TRACK4.areas["small"] == (0, 64**2)
