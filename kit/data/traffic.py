"""Who is on the road: places for buses, bikes, cars, pedestrians and trucks that do not run into each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kit.data.road_users import VARIANTS, road_user
from kit.data.roads import LANE_M, PAVEMENT_M, Arm, Site, kerb_distance

BUS, BIKE, CAR, PEDESTRIAN, TRUCK = range(5)
NEAREST_M = (8.0, 2.5, 3.0, 1.5, 7.0)  # by label: long vehicles right below the camera would fill the picture
FARTHEST_M = (26.0, 17.0, 25.0, 15.0, 26.0)  # by label: beyond, they are too small to be labelled fairly
TRIES = 25


@dataclass(frozen=True)
class Placed:
    """One road user standing on the ground."""

    label: int
    variant: int
    position_m: np.ndarray  # (2,)
    heading_rad: float

    @property
    def footprint_m(self) -> np.ndarray:
        """Corners of the rectangle it stands on (4, 2), counterclockwise."""
        return turned(road_user(self.label, self.variant).footprint_m, self.heading_rad) + self.position_m


def turned(points: np.ndarray, angle_rad: float) -> np.ndarray:
    """points: (..., 2) -> the same turned counterclockwise (..., 2)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return points @ np.array([[c, s], [-s, c]])


def _in_lane(site: Site, rng: np.random.Generator, label: int) -> tuple[np.ndarray, float]:
    """A place in a lane of a random arm, or on the junction; bikes keep to the outer edge."""
    arm = site.arms[rng.integers(len(site.arms))]
    outward = rng.random() < 0.5
    lane = int(rng.integers(arm.lanes))
    across = (lane + 0.5) * LANE_M + rng.normal(0, 0.18)
    if label == BIKE:
        across = rng.uniform(0.35, 0.95) * (arm.half_width_m - 0.3)
    along = rng.uniform(0, arm.start_m + 3) if rng.random() < 0.3 else rng.uniform(arm.start_m, 26)
    swerve = rng.normal(0, 0.22) if along < arm.start_m else rng.normal(0, 0.03)
    side = 1 if outward else -1
    position = site.centre_m + arm.direction * along + arm.right * (side * across)
    return position, arm.angle_rad + (0.0 if outward else np.pi) + swerve


def _on_foot(site: Site, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A place on a zebra crossing or on a pavement."""
    arm: Arm = site.arms[rng.integers(len(site.arms))]
    if arm.has_zebra and rng.random() < 0.45:
        along, across = arm.start_m + rng.uniform(0.6, 3.4), rng.uniform(-1, 1) * arm.half_width_m
        heading = arm.angle_rad + rng.choice([-1, 1]) * np.pi / 2
    else:
        along = rng.uniform(arm.start_m, 18)
        across = rng.choice([-1, 1]) * (arm.half_width_m + rng.uniform(0.5, PAVEMENT_M - 0.4))
        heading = arm.angle_rad + rng.choice([0, np.pi])
    position = site.centre_m + arm.direction * along + arm.right * across
    return position, heading + rng.normal(0, 0.25)


def _discs(footprint_m: np.ndarray, margin_m: float) -> tuple[np.ndarray, float]:
    """footprint_m: (4, 2) -> centres (P, 2) and radius of a row of discs that cover it and a margin."""
    ends = (footprint_m[[0, 3]].mean(axis=0), footprint_m[[1, 2]].mean(axis=0))
    width = float(np.linalg.norm(footprint_m[3] - footprint_m[0]))
    length = float(np.linalg.norm(ends[1] - ends[0]))
    inset = min(width / 2, length / 2) / max(length, 1e-9)
    count = max(int(np.ceil(length / max(width, 0.4))), 2)
    share = np.linspace(inset, 1 - inset, count)[:, None]
    return ends[0] * (1 - share) + ends[1] * share, width / 2 * 1.15 + margin_m


def _wanted(rng: np.random.Generator) -> list[int]:
    """Labels to place in one picture, long vehicles first."""
    crowd = rng.uniform(0.6, 1.35)
    means = {BUS: 0.9, TRUCK: 1.5, CAR: 5.0 * crowd, BIKE: 4.2 * crowd, PEDESTRIAN: 4.6 * crowd}
    limits = {BUS: 2, TRUCK: 3, CAR: 9, BIKE: 8, PEDESTRIAN: 8}
    return [label for label, mean in means.items() for _ in range(min(int(rng.poisson(mean)), limits[label]))]


def _place(site: Site, rng: np.random.Generator, label: int) -> Placed | None:
    position, heading = _on_foot(site, rng) if label == PEDESTRIAN else _in_lane(site, rng, label)
    reach = float(np.hypot(*position))
    if not NEAREST_M[label] <= reach <= FARTHEST_M[label]:
        return None
    if label == PEDESTRIAN and len(site.trees_m) and np.linalg.norm(site.trees_m - position, axis=1).min() < 1:
        return None
    if label != PEDESTRIAN and kerb_distance(site, position[None])[0] > -0.2:
        return None
    return Placed(label, int(rng.integers(VARIANTS)), position, heading)


def place_traffic(site: Site, rng: np.random.Generator) -> list[Placed]:
    """Road users of one picture; each is tried a few times and left out where there is no room."""
    placed: list[Placed] = []
    centres, radii = np.zeros((0, 2)), np.zeros(0)
    for label in _wanted(rng):
        for _ in range(TRIES):
            candidate = _place(site, rng, label)
            if candidate is None:
                continue
            spots, radius = _discs(candidate.footprint_m, 0.22)
            gaps = np.linalg.norm(centres[:, None] - spots[None], axis=-1) - radii[:, None]
            if (gaps > radius).all():
                placed.append(candidate)
                centres = np.concatenate([centres, spots])
                radii = np.concatenate([radii, np.full(len(spots), radius)])
                break
    return placed


def far_to_near(footprints_m: np.ndarray) -> list[int]:
    """Painting order of things that stand apart, seen from above the origin: whoever may be hidden comes first.

    footprints_m: (N, 4, 2) counterclockwise. A line along an edge of one that has the other wholly beyond it parts
    the two; the one on the camera's side of it is in front. What is left undecided, or goes round in a circle, goes by
    distance.
    """
    count = len(footprints_m)
    edges = np.roll(footprints_m, -1, axis=1) - footprints_m  # (N, 4, 2)
    outward = np.stack([edges[..., 1], -edges[..., 0]], axis=-1)  # (N, 4, 2)
    start = (outward * footprints_m).sum(axis=-1)  # (N, 4)
    beyond = np.einsum("iec,jpc->iejp", outward, footprints_m) >= start[:, :, None, None] - 1e-9
    parted = beyond.all(axis=-1)  # (N, 4, N) edge e of i has j outside
    camera_outside = start < 0  # (N, 4)
    before = (parted & camera_outside[..., None]).any(axis=1)  # i must be painted before j
    after = (parted & ~camera_outside[..., None]).any(axis=1)
    waits = (before.T & ~after.T) | (after & ~before)  # (N, N) row i waits for column j
    waits &= ~waits.T
    reach = np.linalg.norm(footprints_m.mean(axis=1), axis=-1)
    order: list[int] = []
    left = set(range(count))
    while left:
        free = [i for i in left if not any(waits[i, j] for j in left)] or list(left)
        chosen = max(free, key=lambda i: (reach[i], i))
        order.append(chosen)
        left.remove(chosen)
    return order
