import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.data.outlines import hull, is_inside, ring_area
from kit.data.window_cut import cut_outline

WINDOW = (0, 0, 100, 80)
SQUARE = np.array([[10.0, 10], [30, 10], [30, 40], [10, 40]])


def test_what_lies_inside_stays_and_what_lies_outside_goes():
    box, parts = cut_outline([SQUARE], WINDOW)
    assert box.tolist() == [10, 10, 30, 40] and ring_area(parts[0]) == 600
    box, parts = cut_outline([SQUARE + 200], WINDOW)
    assert np.isnan(box).all() and parts == []


def test_a_window_within_an_object_is_all_of_it():
    box, parts = cut_outline([SQUARE * 10 - 150], WINDOW)
    assert box.tolist() == [0, 0, 100, 80] and abs(ring_area(parts[0])) == 8000


def test_a_slanted_edge_is_cut_where_it_crosses():
    triangle = np.array([[-10.0, 0], [10, 0], [-10, 30]])  # crosses x = 0 at y = 15
    box, parts = cut_outline([triangle], WINDOW)
    assert box == pytest.approx([0, 0, 10, 15]) and abs(ring_area(parts[0])) == pytest.approx(75)


def test_two_legs_around_a_corner_are_two_parts_and_not_joined_along_the_sides():
    u = np.array(
        [[20.0, 5], [30, 5], [30, -20], [-20, -20], [-20, 30], [10, 30], [10, 20], [-10, 20], [-10, -10], [20, -10]]
    )
    box, parts = cut_outline([u], WINDOW)
    assert box == pytest.approx([0, 0, 30, 30]) and len(parts) == 2


def test_parts_of_an_object_share_its_box_and_lines_without_width_are_none():
    box, parts = cut_outline([SQUARE, SQUARE + np.array([80, 0]), SQUARE + 500], WINDOW)
    assert box.tolist() == [10, 10, 100, 40] and len(parts) == 2
    needle = np.array([[10.0, 10], [150, 10], [150, 10.001]])
    assert cut_outline([needle], WINDOW)[1] == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000))
@example(630)
def test_the_box_is_that_of_a_fine_grid(seed):
    """Star-shaped polygons with steep edges; 630 was once off by a pixel."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 9))
    angle = (np.arange(count) + rng.uniform(-0.4, 0.4, count)) * (2 * np.pi / count)
    reach = rng.uniform(10, 60, (count, 1))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach + rng.uniform(0, [100, 80])
    x, y = (each.ravel() for each in np.meshgrid(np.arange(0.125, 100, 0.25), np.arange(0.125, 80, 0.25)))
    inside = is_inside(np.stack([x, y], axis=1), ring)
    box, parts = cut_outline([ring], WINDOW)
    if inside.sum() < 100:
        return
    of_grid = np.array([x[inside].min(), y[inside].min(), x[inside].max(), y[inside].max()])
    assert (box[:2] <= of_grid[:2]).all() and (box[2:] >= of_grid[2:]).all()
    assert sum(abs(ring_area(part)) for part in parts) == pytest.approx(inside.sum() / 16, rel=0.02, abs=2)
    assert hull([np.concatenate(parts)]) == pytest.approx(box, abs=0.05)
