"""Lens geometry: how a lens bends the world, and a camera that looks down through it.

Image points are continuous: pixel (row i, column j) covers [j, j + 1] x [i, i + 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Projection:
    """One law of a lens: angle from the optical axis <-> distance from the centre, in focal lengths."""

    name: str
    radius: Callable[[np.ndarray], np.ndarray]  # angle in radians -> r / f
    angle: Callable[[np.ndarray], np.ndarray]  # r / f -> angle in radians
    widest_rad: float = np.pi  # up to here the radius grows with the angle and stays finite


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _equisolid_radius(angle: np.ndarray) -> np.ndarray:
    return 2 * np.sin(angle / 2)


def _equisolid_angle(radius: np.ndarray) -> np.ndarray:
    return 2 * np.arcsin(np.clip(radius / 2, 0, 1))


def _stereographic_radius(angle: np.ndarray) -> np.ndarray:
    return 2 * np.tan(angle / 2)


def _stereographic_angle(radius: np.ndarray) -> np.ndarray:
    return 2 * np.arctan(radius / 2)


def _orthographic_angle(radius: np.ndarray) -> np.ndarray:
    return np.arcsin(np.clip(radius, 0, 1))


EQUIDISTANT = Projection("equidistant", _same, _same)
EQUISOLID = Projection("equisolid", _equisolid_radius, _equisolid_angle)
STEREOGRAPHIC = Projection("stereographic", _stereographic_radius, _stereographic_angle, np.deg2rad(175))
ORTHOGRAPHIC = Projection("orthographic", np.sin, _orthographic_angle, np.pi / 2)
RECTILINEAR = Projection("rectilinear", np.tan, np.arctan, np.deg2rad(89))  # the pinhole: straight lines stay straight
FISHEYES = (EQUIDISTANT, EQUISOLID, STEREOGRAPHIC)


@dataclass(frozen=True)
class Lens:
    """What turns directions into image points; outside the image circle nothing is seen."""

    projection: Projection
    focal_px: float
    centre_px: tuple[float, float]  # x, y
    field_rad: float  # angle of the rim of the image circle from the optical axis

    def __post_init__(self) -> None:
        if not (self.focal_px > 0 and 0 < self.field_rad <= self.projection.widest_rad):
            raise ValueError(
                f"{self.projection.name} lens: expected focal_px > 0 and field_rad in (0, "
                f"{self.projection.widest_rad:.3f}], got {self.focal_px:g} and {self.field_rad:g}; narrow the field"
            )

    @property
    def circle_px(self) -> float:
        """Radius of the image circle."""
        return float(self.focal_px * self.projection.radius(np.asarray(self.field_rad)))

    def project(self, rays: np.ndarray) -> np.ndarray:
        """rays: (..., 3) right, down, ahead, of any length -> image points in pixels (..., 2), whatever the field."""
        planar = np.maximum(np.hypot(rays[..., 0], rays[..., 1]), 1e-12)
        radius_px = self.focal_px * self.projection.radius(np.arctan2(planar, rays[..., 2]))
        return rays[..., :2] * (radius_px / planar)[..., None] + np.array(self.centre_px)

    def rays(self, points_px: np.ndarray) -> np.ndarray:
        """points_px: (..., 2) -> unit rays right, down, ahead (..., 3); the inverse of `project`."""
        offset = (points_px - np.array(self.centre_px)) / self.focal_px  # (..., 2)
        radius = np.maximum(np.hypot(offset[..., 0], offset[..., 1]), 1e-12)
        angle = self.projection.angle(radius)
        sideways = offset * (np.sin(angle) / radius)[..., None]  # (..., 2)
        return np.concatenate([sideways, np.cos(angle)[..., None]], axis=-1)


def pinhole(size_hw: tuple[int, int], field_deg: float) -> Lens:
    """A perspective camera of a picture: field_deg from its left to its right side, the axis in its middle."""
    focal_px = size_hw[1] / 2 / np.tan(np.deg2rad(field_deg) / 2)
    return Lens(RECTILINEAR, float(focal_px), middle_px(size_hw), RECTILINEAR.widest_rad)


def fisheye_lens(projection: Projection, size_hw: tuple[int, int], field_deg: float) -> Lens:
    """The lens of a fisheye picture: field_deg across its shorter side, the axis in its middle.

    What lies beyond that field, in the corners, counts as seen as far as the law of the lens reaches.
    """
    focal_px = min(size_hw) / 2 / projection.radius(np.asarray(np.deg2rad(field_deg) / 2))
    return Lens(projection, float(focal_px), middle_px(size_hw), projection.widest_rad)


def middle_px(size_hw: tuple[int, int]) -> tuple[float, float]:
    return size_hw[1] / 2, size_hw[0] / 2


@dataclass(frozen=True)
class Camera:
    """A lens on a pole above the origin of a ground plane; x, y on the ground, z up, all in metres."""

    lens: Lens
    height_m: float
    rotation: np.ndarray  # (3, 3), rows: the image's right, the image's down, the optical axis, in world coordinates

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """points_m: (..., 3) -> image points in pixels (..., 2)."""
        return self.lens.project((points_m - np.array([0.0, 0.0, self.height_m])) @ self.rotation.T)

    def rays(self, points_px: np.ndarray) -> np.ndarray:
        """points_px: (..., 2) -> unit directions in the world (..., 3); the inverse of `project`."""
        return self.lens.rays(points_px) @ self.rotation

    def ground(self, points_px: np.ndarray) -> np.ndarray:
        """points_px: (..., 2) -> where the ray meets the ground, metres (..., 2); infinite at and above the horizon."""
        rays = self.rays(points_px)
        down = -rays[..., 2]
        reach = np.where(down > 1e-3, self.height_m / np.maximum(down, 1e-3), np.inf)
        return np.where(np.isinf(reach)[..., None], np.inf, rays[..., :2] * np.minimum(reach, 1e6)[..., None])


def looking_down(tilt_rad: float, yaw_rad: float) -> np.ndarray:
    """Rotation (3, 3) of a camera that looks straight down, then tilts its axis up towards the direction `yaw_rad`.

    The direction it tilts to is the top of the image, so what is far lies above what is near, as on a street camera.
    """
    forward = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    axis = np.sin(tilt_rad) * forward - np.cos(tilt_rad) * up
    image_down = -(np.cos(tilt_rad) * forward + np.sin(tilt_rad) * up)
    return np.stack([np.cross(image_down, axis), image_down, axis])


def tilted(tilt_rad: float, yaw_rad: float) -> np.ndarray:
    """Rotation (3, 3) of rays: the old optical axis comes to lie `tilt_rad` off the new one, towards `yaw_rad`.

    yaw_rad: 0 is right, pi / 2 is down in the picture.
    """
    x, y = -np.sin(yaw_rad), np.cos(yaw_rad)  # the axis of the turn
    cross = np.array([[0.0, 0.0, y], [0.0, 0.0, -x], [-y, x, 0.0]])
    turn: np.ndarray = np.eye(3) + np.sin(tilt_rad) * cross + (1 - np.cos(tilt_rad)) * cross @ cross
    return turn
