import numpy as np
import pytest

from kit.data.road_users import BUILDERS, road_user
from kit.data.roads import kerb_distance, make_site
from kit.data.traffic import PEDESTRIAN, far_to_near, place_traffic, turned


def square(x: float, y: float, half: float = 0.5) -> np.ndarray:
    return np.array([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)])


def test_of_two_in_a_row_the_far_one_is_painted_first():
    assert far_to_near(np.stack([square(3, 0), square(6, 0)])) == [1, 0]


def test_a_person_in_front_of_a_long_bus_is_painted_last_though_the_middle_of_the_bus_is_nearer():
    bus = np.array([(-9.0, 2.0), (9.0, 2.0), (9.0, 4.5), (-9.0, 4.5)])  # its middle is 3.25 m away
    person = square(8.0, 1.2, half=0.3)  # 8.1 m away, but between the camera and the bus
    assert far_to_near(np.stack([person, bus])) == [1, 0]


def test_nothing_to_paint_has_an_empty_order():
    assert far_to_near(np.zeros((0, 4, 2))) == []


def test_turning_by_a_quarter_takes_x_to_y():
    assert np.allclose(turned(np.array([1.0, 0.0]), np.pi / 2), [0.0, 1.0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_vehicles_stand_on_the_road_and_never_in_one_another(seed):
    site = make_site(seed, camera=1)
    placed = place_traffic(site, np.random.default_rng(seed))
    middles = np.array([one.position_m for one in placed])
    gaps = np.linalg.norm(middles[:, None] - middles, axis=-1) + 9 * np.eye(len(placed))
    vehicles = np.array([one.position_m for one in placed if one.label != PEDESTRIAN])
    assert len(placed) > 3 and gaps.min() > 0.4 and kerb_distance(site, vehicles).max() < 0


@pytest.mark.parametrize(
    ("label", "length_m"), [(0, (9, 11)), (1, (1.5, 2.1)), (2, (4, 4.8)), (3, (0.2, 0.95)), (4, (6.2, 8.8))]
)
def test_every_class_has_the_length_it_has_on_the_road(label, length_m):
    lengths = [np.ptp(road_user(label, variant).footprint_m[:, 0]) for variant in range(6)]
    assert length_m[0] <= min(lengths) and max(lengths) <= length_m[1] and len(BUILDERS) == 5
