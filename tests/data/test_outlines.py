import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.data.outlines import Passage, bend, box_rings, ellipse_rings, hull, is_inside, ring_area, simplified

WINDOW = (0, 0, 100, 80)
SQUARE = np.array([[10.0, 10], [30, 10], [30, 40], [10, 40]])
U_AROUND_THE_LEFT_SIDE = np.array([[20.0, 10], [-10, 10], [-10, 60], [40, 60], [40, 50], [-5, 50], [-5, 20], [20, 20]])
U_AROUND_A_CORNER = np.array(
    [[10.0, 30], [-20, 30], [-20, -20], [50, -20], [50, 20], [40, 20], [40, -9], [-9, -9], [-9, 20], [10, 20]]
)


def stay(points):
    return points, np.ones(points.shape[:-1], bool)


def within(window):
    return Passage(stay, stay, window, window)


def bulge(points):
    """A quarter further from the middle of WINDOW at its left and right sides; one to one."""
    x = points[..., 0] - 50
    return np.stack([50 + x * (1 + (x / 100) ** 2), points[..., 1]], axis=-1), np.ones(points.shape[:-1], bool)


def disc(points):
    """Seen is only the disc of radius 30 around (50, 40)."""
    offset = points - [50, 40]
    radius = np.hypot(offset[..., 0], offset[..., 1])
    return [50, 40] + offset * np.minimum(1, 30 / np.maximum(radius, 1e-12))[..., None], radius <= 30


def covered(outline, x, y):
    return sum(bool(is_inside(np.array([[x, y]], float), ring)[0]) for ring in outline)


def test_the_area_tells_the_direction():
    assert ring_area(SQUARE) == 600 and ring_area(SQUARE[::-1]) == -600
    assert ring_area(SQUARE + 1e7) == 600


def test_inside_is_by_the_even_odd_rule_and_a_line_belongs():
    points = np.array([[20.0, 20], [30, 20], [10, 10], [30.01, 20], [5, 20]])
    assert is_inside(points, SQUARE).tolist() == [True, True, True, False, False]
    dent = np.array([[0.0, 0], [40, 0], [40, 40], [20, 5], [0, 40]])
    assert is_inside(np.array([[20.0, 20], [20, 4]]), dent).tolist() == [False, True]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_inside_agrees_with_the_winding_of_a_star(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    angle = np.concatenate([angle, [angle[0] + 2 * np.pi]])
    if np.diff(angle).max() > 3:
        return  # the centre would lie outside
    reach = np.append(reach := rng.uniform(5, 20, 9), reach[0])
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    points = rng.uniform(-20, 20, (50, 2))
    expected = []
    for point in points:  # the point lies in the triangle of the centre and the edge that its direction meets
        a, b = ring[:-1], ring[1:]
        share = np.array([np.linalg.solve(np.stack([p, q], axis=1), point) for p, q in zip(a, b, strict=True)])
        expected.append(bool(((share >= 0).all(axis=1) & (share.sum(axis=1) <= 1)).any()))
    assert is_inside(points, ring[:-1]).tolist() == expected


def test_rings_of_a_box_lie_in_it_and_touch_its_sides():
    boxes = np.array([[3.0, 4, 20, 10]])
    assert hull([box_rings(boxes)[0]]).tolist() == [3, 4, 20, 10]
    assert np.allclose(hull([ellipse_rings(boxes)[0]]), [3, 4, 20, 10])
    assert abs(ring_area(ellipse_rings(boxes)[0])) == pytest.approx(np.pi * 8.5 * 3, rel=2e-3)


def test_what_does_not_move_stays_exactly():
    bent = bend([[SQUARE], [SQUARE + 20, SQUARE / 2]], within(WINDOW))
    assert bent.boxes_xyxy_px.tolist() == [[10, 10, 30, 40], [5, 5, 50, 60]] and bent.shares.tolist() == [1, 1]
    assert [len(outline) for outline in bent.outlines] == [1, 2]
    assert sorted(map(tuple, bent.outlines[0][0])) == sorted(map(tuple, SQUARE))


def test_nothing_is_bent_to_nothing():
    bent = bend([], within(WINDOW))
    assert bent.boxes_xyxy_px.shape == (0, 4) and bent.shares.shape == (0,) and bent.outlines == []


def test_an_edge_that_bends_reaches_further_than_its_corners():
    def arch(points):
        return points - [0, 1] * (20 * np.sin(points[..., :1] * np.pi / 100)), np.ones(points.shape[:-1], bool)

    flat = np.array([[0.0, 50], [100, 50], [100, 70], [0, 70]])
    box = bend([[flat]], Passage(arch, arch, (0, 0, 100, 100), (0, 0, 100, 100))).boxes_xyxy_px[0]
    assert box == pytest.approx([0, 30, 100, 70], abs=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_box_is_the_one_of_ten_thousand_points(seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, [70, 50])
    box = np.concatenate([corner, corner + rng.uniform(5, 30, 2)])
    share = np.linspace(0, 1, 2500)[:, None]
    ring = box_rings(box[None])[0]
    dense = np.concatenate([a * (1 - share) + b * share for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)])
    moved = bulge(dense)[0].clip(0, [100, 80])
    found = bend([[ring]], Passage(bulge, stay, WINDOW, WINDOW), with_outlines=False).boxes_xyxy_px[0]
    if (bulge(dense)[0] == moved).all():
        assert np.allclose(found, [*moved.min(axis=0), *moved.max(axis=0)], atol=0.02)


def test_half_an_object_has_a_share_of_one_half():
    bent = bend([[SQUARE - [20, 0]]], within(WINDOW))
    assert bent.shares[0] == pytest.approx(0.5) and bent.boxes_xyxy_px[0].tolist() == [0, 10, 10, 40]
    assert abs(ring_area(bent.outlines[0][0])) == pytest.approx(300)


@pytest.mark.parametrize("shift", [(-200, 0), (0, 200), (-31, -41)])
def test_what_is_not_seen_is_gone(shift):
    bent = bend([[SQUARE + shift]], within(WINDOW))
    assert np.isnan(bent.boxes_xyxy_px).all() and bent.shares[0] == 0 and bent.outlines == [[]]


def test_what_covers_the_whole_picture_has_the_whole_picture():
    huge = np.array([[-500.0, -500], [900, -400], [700, 800], [-300, 600]])
    bent = bend([[huge]], within(WINDOW))
    assert bent.boxes_xyxy_px[0].tolist() == [0, 0, 100, 80]
    assert abs(ring_area(bent.outlines[0][0])) == pytest.approx(8000)


def test_a_tip_far_outside_does_not_stretch_the_box():
    slanted = np.array([[80.0, 10], [80, 20], [300, 70]])  # its lower edge leaves at y = 20 + 50 * 20 / 220
    bent = bend([[slanted]], within(WINDOW))
    assert bent.boxes_xyxy_px[0] == pytest.approx([80, 10, 100, 24.545], abs=0.02)
    assert hull(bent.outlines[0]) == pytest.approx(bent.boxes_xyxy_px[0], abs=0.02)


def test_two_ends_of_one_thing_are_not_joined_along_the_side():
    bent = bend([[U_AROUND_THE_LEFT_SIDE]], within(WINDOW))
    assert bent.boxes_xyxy_px[0] == pytest.approx([0, 10, 40, 60], abs=0.02)
    assert len(bent.outlines[0]) == 2
    assert [covered(bent.outlines[0], x, y) for x, y in ((10, 15), (10, 55), (10, 35), (1, 35))] == [1, 1, 0, 0]
    assert sum(abs(ring_area(ring)) for ring in bent.outlines[0]) == pytest.approx(20 * 10 + 40 * 10, rel=0.02)


def test_two_ends_of_one_thing_are_not_joined_around_a_corner():
    bent = bend([[U_AROUND_A_CORNER]], within(WINDOW))
    assert bent.boxes_xyxy_px[0] == pytest.approx([0, 0, 50, 30], abs=0.02)
    assert len(bent.outlines[0]) == 2
    assert [covered(bent.outlines[0], x, y) for x, y in ((5, 25), (45, 5), (3, 3), (20, 10))] == [1, 1, 0, 0]
    left = next(ring for ring in bent.outlines[0] if ring[:, 0].max() < 20)
    assert hull([left]) == pytest.approx([0, 20, 10, 30], abs=0.2)


def test_a_round_rim_cuts_along_its_arc():
    bar = np.array([[0.0, 35], [100, 35], [100, 45], [0, 45]])
    bent = bend([[bar]], Passage(disc, disc, WINDOW, WINDOW))
    assert bent.boxes_xyxy_px[0] == pytest.approx([20, 35, 80, 45], abs=0.02)  # the arc bulges past its ends
    half = np.arcsin(5 / 30)
    area = 2 * 30**2 * half + 4 * 0.5 * 5 * 30 * np.cos(half)  # two sectors and four triangles
    assert abs(ring_area(bent.outlines[0][0])) == pytest.approx(area, rel=2e-3)
    assert bent.shares[0] == pytest.approx(area / 1000, rel=2e-3)


def test_parts_of_an_object_share_its_box():
    bent = bend([[SQUARE, SQUARE + np.array([200, 0])]], within(WINDOW))  # the second is out of sight
    assert bent.boxes_xyxy_px[0].tolist() == [10, 10, 30, 40] and bent.shares[0] == 0.5
    assert len(bent.outlines[0]) == 1


def test_a_line_without_width_is_no_part():
    assert len(simplified(np.array([[0.0, 0], [10, 0], [20, 0], [10, 0]]))) < 3
    needle = np.array([[10.0, 10], [50, 10], [50, 10.001]])
    assert bend([[needle]], within(WINDOW)).outlines == [[]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100_000))
@example(630)  # a steep edge that leaves the window
def test_what_is_left_of_a_polygon_in_a_window_is_what_a_fine_grid_finds(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 9))
    angle = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * (2 * np.pi / count)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(10, 60, (count, 1)) + rng.uniform(
        0, [100, 80]
    )
    x, y = np.meshgrid(np.arange(0.5, 100), np.arange(0.5, 80))
    inside = is_inside(np.stack([x, y], axis=-1).reshape(-1, 2), ring)
    bent = bend([[ring]], within(WINDOW))
    if inside.sum() < 40:
        return
    of_grid = np.array(
        [x.ravel()[inside].min(), y.ravel()[inside].min(), x.ravel()[inside].max(), y.ravel()[inside].max()]
    )
    assert (bent.boxes_xyxy_px[0, :2] <= of_grid[:2]).all() and (bent.boxes_xyxy_px[0, 2:] >= of_grid[2:]).all()
    assert bent.shares[0] * abs(ring_area(ring)) == pytest.approx(inside.sum(), rel=0.1, abs=8)
    assert sum(abs(ring_area(each)) for each in bent.outlines[0]) == pytest.approx(inside.sum(), rel=0.1, abs=10)
