import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.fisheye import EQUIDISTANT, EQUISOLID, RECTILINEAR, STEREOGRAPHIC, Lens, fisheye_lens, pinhole, tilted
from kit.data.outlines import hull
from kit.data.picture import Picture, flipped, quarter_turned, vertically_flipped
from kit.data.warp_check import WARPS, drawn
from kit.data.warps import (
    affine,
    between_lenses,
    fetch_places,
    mirror,
    quarter_turn,
    radial,
    random_fisheye,
    random_lens,
    random_radial,
    rotation,
    show_window,
    upside_down,
    warp_boxes,
    warp_image,
    warp_outlines,
    warp_picture,
    zoom,
)

SIZE = (240, 320)
FISHEYE = fisheye_lens(EQUIDISTANT, SIZE, 180)


def noise(size_hw=SIZE, channels=3, cell=8):
    """Smooth enough for bilinear values to be comparable."""
    small = np.random.default_rng(0).integers(
        0, 255, (size_hw[0] // cell, size_hw[1] // cell, channels), dtype=np.uint8
    )
    return warp_image(small, show_window((0, 0, small.shape[1], small.shape[0]), size_hw))


def picture(boxes, image=None, outlines=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Picture(noise() if image is None else image, boxes, np.arange(len(boxes)), outlines)


# --- maps ---


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(WARPS)), st.integers(0, 10_000))
def test_whatever_is_seen_comes_back_to_its_place(name, seed):
    rng = np.random.default_rng(seed)
    warp = WARPS[name](SIZE, rng)
    points = rng.uniform(0, [320, 240], (200, 2))
    there = warp.to_target(points)
    back, seen = warp.to_source(there), ~np.isnan(there).any(axis=1)
    near_rim = seen & np.isnan(back).any(axis=1)
    assert near_rim.mean() < 0.05  # on a rim rounding decides
    assert np.abs(back - points)[seen & ~near_rim].max(initial=0) < 1e-6
    height, width = warp.size_hw
    inside = rng.uniform(0, [width, height], (200, 2))
    origin = warp.to_source(inside)
    seen = ~np.isnan(origin).any(axis=1)
    again = warp.to_target(origin[seen])
    known = ~np.isnan(again).any(axis=1)
    assert known.mean() > 0.9 if seen.sum() > 20 else True
    assert np.abs(again - inside[seen])[known].max(initial=0) < 1e-6


def test_a_rotation_is_counter_clockwise_around_the_optical_centre():
    assert np.allclose(rotation(90, (100, 100)).to_target([[100.0, 50], [50, 0]]), [[50, 0], [0, 50]])
    about = rotation(37, SIZE, centre_px=(40.0, 50.0))
    assert np.allclose(about.to_target([[40.0, 50]]), [[40, 50]])
    assert np.isclose(np.hypot(*(about.to_target([[70.0, 90]])[0] - [40, 50])), 50)


def test_simple_warps_have_the_numbers_of_their_names():
    point = [[10.0, 30]]
    assert mirror(SIZE).to_target(point).tolist() == [[310, 30]]
    assert upside_down(SIZE).to_target(point).tolist() == [[10, 210]]
    assert quarter_turn(SIZE).to_target(point).tolist() == [[30, 310]] and quarter_turn(SIZE).size_hw == (320, 240)
    assert np.allclose(zoom(2, SIZE).to_target(point), [[-140, -60]])
    assert show_window((5, 20, 25, 60), (80, 40)).to_target(point).tolist() == [[10, 20]]


def test_perspective_to_fisheye_by_hand():
    """45 degrees off the axis: one focal length in the pinhole, pi / 4 of one in the equidistant fisheye."""
    source, target = pinhole((200, 200), 90), Lens(EQUIDISTANT, 100.0, (150.0, 150.0), 1.5)
    warp = between_lenses(source, target, (300, 300))
    assert np.allclose(warp.to_target([[200.0, 100]]), [[150 + 100 * np.pi / 4, 150]])
    assert np.allclose(warp.to_target([[100.0, 0]]), [[150, 150 - 100 * np.pi / 4]])
    assert np.allclose(warp.to_source([[150 + 100 * np.pi / 4, 150]]), [[200, 100]])


def test_a_tilt_moves_the_axis_that_way():
    turn = tilted(0.3, np.pi / 2)  # down
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.isclose(np.linalg.det(turn), 1)
    target = Lens(EQUIDISTANT, 100.0, (160.0, 120.0), 1.5)
    assert np.allclose(between_lenses(target, target, SIZE, turn).to_target([[160.0, 120]]), [[160, 150]])


def test_what_lies_behind_a_pinhole_or_beyond_a_field_is_not_seen():
    to_pinhole = between_lenses(FISHEYE, pinhole(SIZE, 90), SIZE)
    ahead, beside = to_pinhole.to_target([[160.0, 150], [160, 240.1]])  # 22.5 and 90.1 degrees off the axis
    assert np.isfinite(ahead).all() and np.isnan(beside).all()
    narrow = Lens(EQUIDISTANT, FISHEYE.focal_px, (160.0, 120.0), np.pi / 4)  # a circle of 60 px
    circle = between_lenses(narrow, narrow, SIZE)
    for points in (circle.to_target, circle.to_source):
        assert np.isnan(points([[160.0, 180.5]])).all() and np.allclose(points([[160.0, 179.5]]), [[160, 179.5]])


def test_radial_distortion_by_hand():
    warp = radial([-0.1, 0.02], (300, 400))  # half the diagonal is 250
    expected = 150 * (1 - 0.1 * 0.36 + 0.02 * 0.36**2)
    assert np.allclose(warp.to_target([[350.0, 150]]), [[200 + expected, 150]])
    assert np.allclose(warp.to_target([[200.0, 150]]), [[200, 150]])
    assert np.allclose(warp.to_source([[200 + expected, 150]]), [[350, 150]], atol=1e-9)
    other = radial([0.5], SIZE, centre_px=(100.0, 100.0), focal_px=1000.0)
    assert np.allclose(other.to_target([[200.0, 100]]), [[100 + 100 * 1.005, 100]])


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.3, 1), st.floats(-0.1, 1), st.floats(-0.05, 0.5))
def test_radial_distortion_is_undone_wherever_it_does_not_fold(k1, k2, k3):
    try:
        warp = radial([k1, k2, k3], SIZE)
    except ValueError:
        square = np.linspace(0, 1, 2000) ** 2
        assert (1 + 3 * k1 * square + 5 * k2 * square**2 + 7 * k3 * square**3).min() < 0.0101
        return
    points = np.random.default_rng(0).uniform(0, [320, 240], (300, 2))
    assert np.abs(warp.to_source(warp.to_target(points)) - points).max() < 1e-6


def test_a_distortion_that_folds_the_picture_is_refused_with_the_radius():
    with pytest.raises(ValueError, match=r"up to the corners, r = 1.000, got \[-0.4\], which turn back at r = 0.908"):
        radial([-0.4], SIZE)
    with pytest.raises(ValueError, match="invertible"):
        affine(np.zeros((2, 3)), SIZE)
    with pytest.raises(ValueError, match=r"rectilinear lens: expected .* got 100 and 1\.6"):
        Lens(RECTILINEAR, 100.0, (0.0, 0.0), 1.6)


def test_two_warps_as_one_are_the_one_after_the_other():
    first, second = radial([-0.1], SIZE), between_lenses(FISHEYE, pinhole(SIZE, 90), SIZE, tilted(0.3, 1.0))
    points = np.random.default_rng(0).uniform([100, 80], [220, 160], (50, 2))
    both = first.then(second)
    assert np.allclose(both.to_target(points), second.to_target(first.to_target(points)))
    assert np.allclose(both.to_source(points), first.to_source(second.to_source(points)))
    turns = rotation(20, SIZE).then(rotation(25, SIZE)).then(show_window((0, 0, 160, 120), (120, 160)))
    assert turns.size_hw == (120, 160) and np.allclose(turns.matrix[:, :2], rotation(45, SIZE).matrix[:, :2])


def test_the_way_back_is_the_inverse():
    for warp in (rotation(33, SIZE), radial([0.1], SIZE)):
        there_and_back = warp.then(warp.inverse(SIZE))
        assert np.allclose(there_and_back.to_target([[50.0, 70]]), [[50, 70]])


# --- pixels ---


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exact_moves_give_exact_pixels(channels):
    image = np.random.default_rng(0).integers(0, 255, (24, 32, channels), dtype=np.uint8)
    size = (24, 32)
    assert np.array_equal(warp_image(image, rotation(0, size)), image)
    assert np.array_equal(warp_image(image, mirror(size)), image[:, ::-1])
    assert np.array_equal(warp_image(image, upside_down(size)), image[::-1])
    for turns in range(4):
        assert np.array_equal(warp_image(image, quarter_turn(size, turns)), np.rot90(image, turns))
    shift = warp_image(image, show_window((3, -2, 35, 22), size))
    assert np.array_equal(shift[2:, :29], image[:22, 3:]) and shift[:2].max() == 0 and shift[:, 29:].max() == 0
    assert np.array_equal(warp_image(image, between_lenses(pinhole(size, 70), pinhole(size, 70), size)), image)


def by_hand(image, warp):
    """Bilinear, pixel by pixel, in double precision."""
    height, width = warp.size_hw
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = warp.to_source(np.stack([x, y], axis=-1)) - 0.5
    padded = np.pad(image.astype(float), ((1, 2), (1, 2), (0, 0)))
    seen = (places > -1).all(axis=-1) & (places < np.array(image.shape[1::-1])).all(axis=-1)
    places = np.where(seen[..., None], places, -1)
    low = np.floor(places).astype(int)
    (a, b), (i, j) = np.moveaxis(places - low, -1, 0)[..., None], np.moveaxis(low + 1, -1, 0)
    rows = [padded[j + k, i] * (1 - a) + padded[j + k, i + 1] * a for k in (0, 1)]
    return rows[0] * (1 - b) + rows[1] * b, seen


@pytest.mark.parametrize("name", ["rotation", "any affine", "random lens change", "random fisheye", "four as one"])
def test_pixels_are_fetched_from_where_the_map_says(name):
    warp = WARPS[name](SIZE, np.random.default_rng(4))
    expected, seen = by_hand(noise(), warp)
    difference = np.abs(warp_image(noise(), warp) - expected).max(axis=-1)
    assert seen.mean() > 0.2 and np.quantile(difference[seen], 0.99) <= 4 and np.median(difference[seen]) <= 1
    assert difference[~seen].max(initial=0) == 0


@pytest.mark.parametrize("make", [random_fisheye, random_lens, random_radial])
def test_places_between_the_knots_are_near_the_true_ones(make):
    for seed in range(3):
        warp = make(SIZE, np.random.default_rng(seed))
        places, _ = fetch_places(warp, SIZE)
        x, y = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
        true = warp.to_source(np.stack([x, y], axis=-1))
        inside = ((true > 0) & (true < [320, 240])).all(axis=-1)
        assert np.abs(places - true)[inside].max() < 0.2
        assert (places[np.isnan(true[..., 0])] < -100).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_pictures_of_any_size_are_fetched_to_their_last_row_and_column(height, width):
    size = (height, width)
    places, _ = fetch_places(between_lenses(pinhole(size, 70), pinhole(size, 70), size), size)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    assert np.allclose(places, np.stack([x, y], axis=-1), atol=1e-3)


def test_nothing_is_seen_outside_an_image_circle():
    narrow = Lens(EQUIDISTANT, FISHEYE.focal_px, (160.0, 120.0), np.pi / 4)  # a circle of 60 px
    image = warp_image(np.full((*SIZE, 3), 255, np.uint8), between_lenses(FISHEYE, narrow, SIZE))
    y, x = np.mgrid[:240, :320] + 0.5
    radius = np.hypot(x - 160, y - 120)
    assert (image[radius < 59] == 255).all() and (image[radius > 61] == 0).all()


def test_fine_patterns_are_averaged_where_the_warp_shrinks_them():
    stripes = np.zeros((480, 640, 1), np.uint8)
    stripes[:, ::2] = 255
    small = between_lenses(pinhole((480, 640), 60), Lens(EQUISOLID, 140.0, (80.0, 60.0), 1.5), (120, 160))
    for warp in (show_window((0, 0, 640, 480), (120, 160)), small):
        middle = warp_image(stripes, warp)[50:70, 70:90]
        assert abs(middle.mean() - 127.5) < 3 and middle.std() < 12


# --- labels ---


def test_a_box_in_a_lens_is_bounded_by_its_bulging_sides_not_its_corners():
    """Barrel distortion: the middle of a side lies further out than its ends."""
    warp = radial([-0.2], SIZE)
    box = warp_boxes(np.array([[100.0, 10, 220, 60]]), warp, SIZE).boxes_xyxy_px[0]
    corners = warp.to_target([[100.0, 10], [220, 10], [220, 60], [100, 60]])
    top = warp.to_target([[160.0, 10]])[0, 1]
    assert box[1] == pytest.approx(top, abs=0.02) and box[1] < corners[:, 1].min() - 0.5


def test_boxes_turn_as_rectangles_or_as_ellipses():
    box = np.array([[100.0, 80, 180, 100]])
    warp = rotation(45, SIZE)
    rectangle, ellipse = (warp_boxes(box, warp, SIZE, shape).boxes_xyxy_px[0] for shape in ("rectangle", "ellipse"))
    assert rectangle[2:] - rectangle[:2] == pytest.approx([100 / 2**0.5] * 2, abs=0.01)
    assert ellipse[2:] - ellipse[:2] == pytest.approx([2 * np.sqrt((40**2 + 10**2) / 2)] * 2, rel=2e-3)
    with pytest.raises(ValueError, match="expected rectangle or ellipse, got 'circle'"):
        warp_boxes(box, warp, SIZE, "circle")


def test_an_object_that_reaches_behind_the_camera_is_cut_at_the_window():
    warp = between_lenses(FISHEYE, pinhole(SIZE, 90), SIZE)
    box = np.array([[150.0, 125, 170, 239.9]])  # from 5 to 90 degrees below the axis
    bent = warp_boxes(box, warp, SIZE)
    assert bent.boxes_xyxy_px[0, 3] == 240 and 0 < bent.boxes_xyxy_px[0, 0] < 160
    bottom_deg = np.rad2deg(np.arctan2(120, 160))  # of the window, below the axis of a pinhole with focal length 160
    assert bent.shares[0] == pytest.approx((bottom_deg * 120 / 90 - 5) / 114.9, abs=0.01)


def test_an_object_around_the_back_of_a_camera_is_gone():
    ring = np.array([[20.0, 20], [300, 20], [300, 220], [20, 220]])  # encloses the axis of a camera that looks back
    warp = between_lenses(fisheye_lens(EQUIDISTANT, SIZE, 200), pinhole(SIZE, 60), SIZE, tilted(np.pi, 0.0))
    bent = warp_outlines([[ring]], warp, SIZE)
    assert np.isnan(bent.boxes_xyxy_px).all() and bent.outlines == [[]] and bent.shares[0] == 0


def test_an_object_in_two_pieces_at_the_rim_is_not_joined_across_what_is_not_seen():
    """A bow whose ends lie inside the image circle and whose middle lies outside of it."""
    narrow = Lens(EQUIDISTANT, FISHEYE.focal_px, (160.0, 120.0), np.pi / 4)  # a circle of 60 px
    bow = np.array([[190.0, 80], [240, 80], [240, 160], [190, 160], [190, 150], [230, 150], [230, 90], [190, 90]])
    bent = warp_outlines([[bow]], between_lenses(FISHEYE, narrow, SIZE), SIZE)
    assert len(bent.outlines[0]) == 2
    reach = 160 + np.sqrt(60**2 - 30**2)  # the circle at y = 90 and y = 150
    assert bent.boxes_xyxy_px[0] == pytest.approx([190, 80, reach, 160], abs=0.05)
    assert [hull([ring])[[1, 3]].round(0).tolist() for ring in sorted(bent.outlines[0], key=lambda r: r[0, 1])] == [
        [80, 90],
        [150, 160],
    ]


# --- pictures ---


def test_the_exact_moves_and_the_warps_of_the_same_name_agree():
    ring = np.array([[40.0, 30], [90, 50], [60, 90]])
    whole = picture([hull([ring])], outlines=[[ring]])
    for exact, warp in (
        (flipped(whole), mirror(SIZE)),
        (vertically_flipped(whole), upside_down(SIZE)),
        (quarter_turned(whole, 3), quarter_turn(SIZE, 3)),
    ):
        warped = warp_picture(whole, warp)
        assert np.array_equal(warped.image, exact.image) and np.allclose(warped.boxes_xyxy_px, exact.boxes_xyxy_px)
        assert np.allclose(hull(warped.outlines[0]), hull(exact.outlines[0]), atol=1e-3)


def test_the_outline_tells_the_box_where_it_is_known_and_the_shape_where_not():
    diamond = np.array([[160.0, 90], [190, 120], [160, 150], [130, 120]])
    both = picture([[130, 90, 190, 150]] * 2, outlines=[[diamond], None])
    turned = warp_picture(both, rotation(45, SIZE), "rectangle")
    sides = turned.boxes_xyxy_px[:, 2:] - turned.boxes_xyxy_px[:, :2]
    assert np.allclose(sides, [[60 / 2**0.5] * 2, [60 * 2**0.5] * 2], atol=0.02)
    assert turned.outlines[0] is not None and turned.outlines[1] is None and turned.labels.tolist() == [0, 1]


def test_shapes_are_kept_as_outlines_only_when_asked_for():
    bare = picture([[130, 90, 190, 150]])
    assert warp_picture(bare, rotation(45, SIZE)).outlines is None
    kept = warp_picture(bare, rotation(45, SIZE), "rectangle", keep_shapes=True)
    assert hull(kept.outlines[0]) == pytest.approx(kept.boxes_xyxy_px[0], abs=0.02)


def test_what_is_too_little_or_too_small_is_dropped_and_rows_stay_together():
    boxes = [[300, 100, 340, 140], [10, 10, 10.5, 30], [100, 100, 140, 140], [-30, 50, 9, 90]]
    kept = warp_picture(picture(boxes, outlines=[None] * 4), show_window((0, 0, 320, 240), SIZE))
    assert kept.labels.tolist() == [0, 2]  # half of the first is seen, and 9 of 39 px of the last
    assert kept.boxes_xyxy_px.tolist() == [[300, 100, 320, 140], [100, 100, 140, 140]]


@pytest.mark.parametrize("name", sorted(WARPS))
def test_pictures_without_objects_go_through(name):
    empty = picture([])
    for outlines in (None, []):
        warped = warp_picture(
            Picture(empty.image, empty.boxes_xyxy_px, empty.labels, outlines),
            WARPS[name](SIZE, np.random.default_rng(0)),
        )
        assert warped.boxes_xyxy_px.shape == (0, 4) and warped.image.dtype == np.uint8


@pytest.mark.parametrize("make", [random_fisheye, random_lens, random_radial])
def test_random_warps_follow_their_seed_and_keep_most_of_the_picture(make):
    middle = drawn(np.array([[130.0, 100], [190, 100], [190, 140], [130, 140]]), SIZE)[..., None]
    images = [
        warp_image(np.full((*SIZE, 1), 255, np.uint8), make(SIZE, np.random.default_rng(seed))) for seed in range(30)
    ]
    assert min((image > 0).mean() for image in images) > 0.35
    assert np.mean([(image > 0).mean() for image in images]) > 0.7
    one, same, other = (warp_image(middle, make(SIZE, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_lens_change_is_between_two_different_lenses():
    points = np.array([[160.0, 220], [220, 120]])
    assert all(
        np.abs(random_lens(SIZE, np.random.default_rng(seed)).to_target(points) - points).max() > 1
        for seed in range(10)
    )
    assert fisheye_lens(STEREOGRAPHIC, SIZE, 180).project(np.array([[1.0, 0, 0]])) == pytest.approx(
        np.array([[280, 120]])
    )
