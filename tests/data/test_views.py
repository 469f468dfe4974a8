import pytest

from kit.data.views import TRACK4_VIEW, View, group_of, view_of


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("camera3_A_12.png", View("3", "A", 12)),
        ("images/train/camera20_N_0.png", View("20", "N", 0)),
        ("camera3_A_12_copy1.jpg", View("3", "A", 12)),
        ("night_camera3_A_12.png", None),
        ("photo.jpg", None),
    ],
)
def test_the_name_tells_camera_scene_and_frame(name, view):
    assert view_of(name, TRACK4_VIEW) == view


def test_without_a_pattern_nothing_is_known():
    assert view_of("camera3_A_12.png", None) is None and group_of("camera3_N_12.png", None) == "day"


def test_a_pattern_of_ones_own_may_have_the_camera_alone():
    assert view_of("site7-001.jpg", r"(?P<camera>site\d+)-") == View("site7")


def test_only_the_letter_n_is_night():
    assert [group_of(f"camera1_{letter}_5.png", TRACK4_VIEW) for letter in "MAEN"] == ["day", "day", "day", "night"]
