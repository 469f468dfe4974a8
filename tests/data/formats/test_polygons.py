import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.data.formats.polygons import joined, polygon_area, rings_of
from kit.data.formats.raw import Losses


def square(x, y, side, turn):
    ring = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float64)
    return ring[::turn]


squares = st.builds(square, st.integers(0, 99), st.integers(0, 99), st.integers(1, 30), st.sampled_from([1, -1]))


@given(st.lists(squares, min_size=1, max_size=5))
def test_a_ring_through_all_parts_has_the_sum_of_their_areas(rings):
    assert polygon_area(joined(rings)) == sum(polygon_area(ring) for ring in rings)


def test_the_bridge_leads_between_the_nearest_points():
    ring = joined([square(0, 0, 10, 1), square(12, 10, 5, 1)])
    steps = np.abs(np.diff(ring, axis=0)).sum(axis=1)
    assert len(ring) == 10 and sorted(steps)[:2] == [2, 2]


def test_runs_become_polygons_and_are_told():
    losses = Losses()
    mask = {"size": [4, 5], "counts": [4, 4, 12]}  # the second column
    (ring,) = rings_of({"bbox": [1, 0, 1, 4], "segmentation": mask}, losses, "here")
    assert polygon_area(ring) == 4 and [loss.what for loss in losses.all()] == [
        "mask of runs: as polygons along its pixels, holes filled"
    ]


def test_a_broken_mask_is_a_problem_and_its_box_stands_for_it():
    losses = Losses()
    (ring,) = rings_of({"bbox": [1, 2, 3, 4], "segmentation": {"size": [4, 5], "counts": [1]}}, losses, "here")
    assert ring.tolist() == [[1, 2], [4, 2], [4, 6], [1, 6]] and losses.all()[0].is_problem
