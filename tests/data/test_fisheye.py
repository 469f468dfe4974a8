import numpy as np
import pytest

from kit.data.fisheye import (
    EQUIDISTANT,
    EQUISOLID,
    ORTHOGRAPHIC,
    RECTILINEAR,
    STEREOGRAPHIC,
    Camera,
    Lens,
    Projection,
    fisheye_lens,
    looking_down,
    pinhole,
    tilted,
)


def tilted_camera(projection: Projection = EQUIDISTANT) -> Camera:
    lens = Lens(projection, focal_px=200.0, centre_px=(310.0, 330.0), field_rad=1.4)
    return Camera(lens, height_m=7.0, rotation=looking_down(0.3, 0.7))


def straight_down() -> Camera:
    return Camera(Lens(EQUIDISTANT, 200.0, (320.0, 320.0), 1.4), 7.0, looking_down(0.0, 0.0))


@pytest.mark.parametrize("projection", [EQUIDISTANT, EQUISOLID, STEREOGRAPHIC])
def test_ground_seen_at_a_pixel_projects_back_to_it(projection):
    camera, points_px = tilted_camera(projection), np.array([[310.0, 330.0], [200.0, 400.0], [420.0, 520.0]])
    ground_m = camera.ground(points_px)
    assert np.allclose(camera.project(np.column_stack([ground_m, np.zeros(3)])), points_px, atol=1e-9)


def test_equidistant_radius_grows_with_the_angle():
    points_m = np.array([[7.0 * np.tan(0.5), 0.0, 0.0], [7.0 * np.tan(1.0), 0.0, 0.0]])  # 0.5 and 1 rad off the axis
    radius_px = np.linalg.norm(straight_down().project(points_m) - 320.0, axis=1)
    assert np.allclose(radius_px, [100.0, 200.0])


def test_all_projections_agree_near_the_centre():
    angle = np.array([1e-4])
    radii = [projection.radius(angle).item() for projection in (EQUIDISTANT, EQUISOLID, STEREOGRAPHIC)]
    assert np.allclose(radii, 1e-4, rtol=1e-6)


def test_the_point_below_a_camera_that_looks_straight_down_is_the_centre():
    assert np.allclose(straight_down().project(np.zeros(3)), [320.0, 320.0])


def test_what_a_tilted_camera_faces_lies_up_in_the_picture_and_left_lies_left():
    camera = Camera(Lens(EQUIDISTANT, 200.0, (0.0, 0.0), 1.4), 7.0, looking_down(0.2, 0.0))
    ahead, left = camera.project(np.array([[20.0, 0.0, 0.0], [2.0, 9.0, 0.0]]))
    assert ahead[1] < 0 and abs(ahead[0]) < 1e-9 and left[0] < 0


def test_the_sky_has_no_ground():
    rays_px = np.array([[320.0, 320.0 - 200.0 * 1.6]])  # 1.6 rad from straight down is above the horizon
    assert np.isinf(straight_down().ground(rays_px)).all()


def test_rotation_keeps_lengths_and_hands():
    rotation = looking_down(0.4, 2.0)
    assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1.0)


def test_image_points_become_rays_and_come_back_through_every_projection():
    points_px = np.random.default_rng(0).uniform(200, 420, (50, 2))
    for projection in (EQUIDISTANT, EQUISOLID, STEREOGRAPHIC, ORTHOGRAPHIC, RECTILINEAR):
        lens = Lens(projection, 250.0, (310.0, 330.0), 1.4)
        rays = lens.rays(points_px)
        assert np.allclose(np.linalg.norm(rays, axis=1), 1) and np.allclose(lens.project(3 * rays), points_px)


def test_fields_are_those_of_the_picture():
    side, edge = pinhole((200, 400), 90), fisheye_lens(EQUISOLID, (200, 400), 160)
    assert np.allclose(side.project(np.array([[1.0, 0, 1]])), [[400, 100]])  # 45 degrees: the right side
    angle = np.deg2rad(80)
    assert np.allclose(edge.project(np.array([[0, np.sin(angle), np.cos(angle)]])), [[200, 200]])  # the lower side


def test_a_field_beyond_the_law_of_the_lens_is_refused():
    with pytest.raises(ValueError, match=r"orthographic lens: expected .* in \(0, 1\.571\], got 100 and 1\.7; narrow"):
        Lens(ORTHOGRAPHIC, 100.0, (0.0, 0.0), 1.7)


def test_a_tilt_takes_the_axis_to_where_it_says():
    axis = tilted(0.5, 0.0) @ np.array([0.0, 0, 1])
    assert np.allclose(axis, [np.sin(0.5), 0, np.cos(0.5)])
    assert np.allclose(tilted(0.5, 2.0) @ tilted(-0.5, 2.0), np.eye(3))
