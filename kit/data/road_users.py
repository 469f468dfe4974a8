"""What stands on and beside our roads: the five classes in many looks, trees, lamp posts and houses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from kit.data.solids import (
    FRONT,
    HEADLIGHT,
    LEFT,
    REAR,
    RIGHT,
    TOP,
    Colour,
    Decal,
    Mesh,
    Solid,
    box,
    build_mesh,
    darker,
    lighter,
    rounded,
)

GLASS: Colour = (38, 46, 54)
RUBBER: Colour = (26, 26, 28)
TAILLIGHT: Colour = (205, 24, 22)
SKIN: tuple[Colour, ...] = ((224, 178, 146), (176, 122, 88), (112, 74, 52))


def _lamps(v: tuple[float, float], inset: float = 0.06, size: float = 0.2) -> tuple[Decal, ...]:
    """Two headlights in front and two tail lights behind."""
    places = ((inset, inset + size), (1 - inset - size, 1 - inset))
    front = [Decal(FRONT, u, v, HEADLIGHT, glows=True) for u in places]
    return tuple(front + [Decal(REAR, u, v, TAILLIGHT, glows=True) for u in places])


def _wheels(places: Sequence[float], size: float, height: float) -> tuple[Decal, ...]:
    """Dark wheels low on both sides, at shares of the length."""
    spots = [(u - size / 2, u + size / 2) for u in places]
    right = [Decal(RIGHT, u, (0.0, height), RUBBER) for u in spots]
    return tuple(right + [Decal(LEFT, (1 - b, 1 - a), (0.0, height), RUBBER) for a, b in spots])


CAR_PAINTS: tuple[Colour, ...] = (
    (206, 210, 214), (236, 236, 232), (46, 50, 56), (128, 132, 138), (172, 30, 34), (34, 66, 132),
    (242, 190, 30), (92, 110, 98), (96, 38, 44), (60, 112, 168), (212, 202, 180), (24, 30, 44),
)  # fmt: skip


def _car(rng: np.random.Generator) -> list[Solid]:
    """Hood, glass all round, roof: saloon, estate or off-roader."""
    paint = CAR_PAINTS[rng.integers(len(CAR_PAINTS))]
    length, width = rng.uniform(4.0, 4.8), rng.uniform(1.74, 1.92)
    tall = rng.random() < 0.35
    cabin, roof, shift = (0.66, 0.56, -0.10) if tall else (0.60, 0.40, -0.04)
    top, waist = (1.68, 0.98) if tall else (1.46, 0.86)
    seams = (
        Decal(TOP, (0.70, 0.93), (0.16, 0.84), lighter(paint, 0.10)),
        Decal(TOP, (0.70, 0.705), (0.08, 0.92), darker(paint, 0.4)),
        Decal(TOP, (0.955, 0.99), (0.12, 0.26), HEADLIGHT, glows=True),
        Decal(TOP, (0.955, 0.99), (0.74, 0.88), HEADLIGHT, glows=True),
        Decal(TOP, (0.008, 0.03), (0.12, 0.27), TAILLIGHT, glows=True),
        Decal(TOP, (0.008, 0.03), (0.73, 0.88), TAILLIGHT, glows=True),
        Decal(FRONT, (0.25, 0.75), (0.1, 0.45), RUBBER),
    )
    sides = _wheels((0.18, 0.80), 0.15, 0.5) + _lamps((0.55, 0.85))
    lower = rounded(length * cabin, width * 0.9, 0.22, shift * length)
    upper = rounded(length * roof, width * 0.74, 0.16, shift * length * 1.2)
    pillars = tuple(Decal(side, u, (0, 1), paint) for side in (RIGHT, LEFT) for u in ((0.0, 0.05), (0.48, 0.54)))
    solids = [
        box(length * 0.94, width * 0.92, (0.02, 0.32), RUBBER, corner=0.3),
        box(length, width, (0.2, waist), paint, corner=0.34, taper=0.97, bands=5, layer=1, decals=seams + sides),
        Solid(lower, upper, (waist, top), GLASS, paint, pillars, layer=2, bands=5),
    ]
    if rng.random() < 0.12:
        solids.append(box(0.3, 0.75, (top, top + 0.16), (250, 226, 120), shift=shift * length * 1.2, layer=3))
    return solids


BUS_PAINTS: tuple[Colour, ...] = ((238, 176, 34), (30, 122, 80), (186, 36, 40), (44, 98, 170), (226, 228, 226))


def _bus(rng: np.random.Generator) -> list[Solid]:
    """Long, strips of windows, a pale roof with hatches and an air conditioner."""
    paint = BUS_PAINTS[rng.integers(len(BUS_PAINTS))]
    stripe = BUS_PAINTS[rng.integers(len(BUS_PAINTS))]
    length, width = rng.uniform(9.0, 11.0), 2.5
    roof = lighter(paint, 0.35)
    windows = [
        Decal(side, (0.04 + step, 0.155 + step), (0.48, 0.86), GLASS)
        for side in (RIGHT, LEFT)
        for step in np.arange(7) * 0.134
    ]
    bodywork = [Decal(side, (0, 1), (0.12, 0.24), stripe) for side in (RIGHT, LEFT, REAR)]
    ends = [
        Decal(FRONT, (0.04, 0.96), (0.36, 0.82), GLASS),
        Decal(FRONT, (0.15, 0.85), (0.86, 0.97), (255, 158, 40), glows=True),
        Decal(REAR, (0.12, 0.88), (0.5, 0.85), GLASS),
    ]
    seams = [Decal(TOP, (u, u + 0.004), (0.06, 0.94), darker(roof, 0.18)) for u in np.arange(0.1, 0.95, 0.14)]
    edges = [Decal(TOP, (0.01, 0.99), v, darker(roof, 0.12)) for v in ((0.06, 0.08), (0.92, 0.94))]
    decals = (*bodywork, *windows, *ends, *_wheels((0.2, 0.76), 0.09, 0.17), *_lamps((0.12, 0.24)), *seams, *edges)
    vents = [
        box(
            1.0,
            1.0,
            (3.05, 3.17),
            (176, 180, 182),
            shift=share * length,
            layer=2,
            decals=(Decal(TOP, (0.15, 0.85), (0.15, 0.85), (120, 124, 128)),),
        )
        for share in (-0.32, 0.02)
    ]
    cooler = box(
        1.9,
        1.5,
        (3.05, 3.27),
        (206, 208, 210),
        corner=0.15,
        shift=0.29 * length,
        layer=2,
        decals=tuple(Decal(TOP, (u, u + 0.05), (0.15, 0.85), (110, 114, 118)) for u in (0.2, 0.35, 0.5, 0.65, 0.8)),
    )
    return [
        box(length * 0.96, width * 0.94, (0.02, 0.4), RUBBER),
        box(
            length, width, (0.3, 3.05), paint, corner=0.2, taper=0.985, top_colour=roof, layer=1, bands=5, decals=decals
        ),
        *vents,
        cooler,
    ]


TRUCK_PAINTS: tuple[Colour, ...] = ((40, 92, 178), (204, 54, 36), (232, 232, 230), (226, 148, 28), (54, 122, 92))
CARGO_PAINTS: tuple[Colour, ...] = ((234, 234, 230), (198, 204, 208), (150, 74, 58), (72, 104, 132), (222, 214, 190))
LOADS: tuple[Colour, ...] = ((168, 134, 88), (104, 98, 92), (122, 84, 56))


def _cargo(rng: np.random.Generator, length: float, shift: float, anchor: tuple[float, float]) -> list[Solid]:
    """A closed box with ribs, or an open bed with its load."""
    paint = CARGO_PAINTS[rng.integers(len(CARGO_PAINTS))]
    if rng.random() < 0.6:
        ribs = tuple(
            Decal(face, (u, u + 0.012), (0.02, 0.98), darker(paint, 0.22))
            for face in (TOP, RIGHT, LEFT)
            for u in np.arange(0.06, 0.96, 0.11)
        )
        doors = (Decal(REAR, (0.49, 0.51), (0.03, 0.97), darker(paint, 0.5)),)
        return [box(length, 2.45, (0.85, 3.15), paint, shift=shift, layer=1, anchor=anchor, decals=ribs + doors)]
    load = LOADS[rng.integers(len(LOADS))]
    steel = TRUCK_PAINTS[rng.integers(len(TRUCK_PAINTS))]
    ribs = tuple(
        Decal(face, (u, u + 0.03), (0, 1), darker(steel, 0.3)) for face in (RIGHT, LEFT) for u in (0.2, 0.4, 0.6, 0.8)
    )
    hollow = (Decal(TOP, (0.025, 0.975), (0.05, 0.95), darker(load, 0.45)),)
    heap = box(
        length * 0.88, 1.95, (1.9, 2.3), load, corner=0.5, shift=shift, taper=0.55, layer=2, bands=4, anchor=anchor
    )
    bed = box(length, 2.45, (0.85, 1.95), steel, shift=shift, layer=1, anchor=anchor, decals=ribs + hollow)
    return [bed, heap]


def _truck(rng: np.random.Generator) -> list[Solid]:
    """A coloured cab, a gap, and a load behind it."""
    paint = TRUCK_PAINTS[rng.integers(len(TRUCK_PAINTS))]
    length = rng.uniform(6.4, 8.6)
    cab = 2.0
    gap_x = length / 2 - cab - 0.15
    glass = (
        Decal(FRONT, (0.06, 0.94), (0.5, 0.88), GLASS),
        Decal(RIGHT, (0.45, 0.88), (0.5, 0.86), GLASS),
        Decal(LEFT, (0.12, 0.55), (0.5, 0.86), GLASS),
        Decal(TOP, (0.84, 0.985), (0.08, 0.92), GLASS),
        Decal(TOP, (0.1, 0.5), (0.2, 0.8), darker(paint, 0.14)),
    )
    wheels = _wheels((0.12, 0.26, 0.86), 0.12, 1.0)
    frame = box(length * 0.97, 2.3, (0.05, 0.9), (44, 46, 50), decals=wheels + _lamps((0.55, 0.85)))
    tractor = box(
        cab,
        2.35,
        (0.5, 2.65),
        paint,
        corner=0.2,
        shift=length / 2 - cab / 2,
        taper=0.96,
        layer=1,
        bands=3,
        anchor=(gap_x + 0.15 + cab / 2, 0.0),
        decals=glass + _lamps((0.05, 0.18))[:2],
    )
    body = length - cab - 0.3
    return [frame, tractor, *_cargo(rng, body, -length / 2 + body / 2, (gap_x - 0.15 - cab / 2, 0.0))]


CLOTHES: tuple[Colour, ...] = (
    (204, 52, 48), (40, 78, 158), (238, 238, 232), (232, 178, 42), (52, 128, 86), (136, 66, 146), (58, 60, 68),
    (226, 116, 44), (98, 164, 206), (222, 138, 164),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = ((38, 44, 62), (64, 70, 92), (84, 74, 62), (30, 30, 32), (120, 112, 98))
HAIR: tuple[Colour, ...] = ((32, 26, 22), (76, 52, 34), (148, 122, 84), (40, 36, 36))
HELMETS: tuple[Colour, ...] = ((240, 240, 240), (204, 40, 40), (38, 40, 44), (238, 196, 52), (48, 98, 180))


def _pick(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _moved(ring: np.ndarray, x: float, y: float) -> np.ndarray:
    return ring + np.array([x, y])


def _limb(start: Sequence[float], end: Sequence[float], size: float, colour: Colour, layer: int) -> Solid:
    """A square rod between two points (x, y, z), the first the lower."""
    ring = rounded(size, size, size * 0.25)
    return Solid(_moved(ring, *start[:2]), _moved(ring, *end[:2]), (start[2], end[2]), colour, layer=layer)


def _pedestrian(rng: np.random.Generator) -> list[Solid]:
    """Two striding legs, shoulders, arms and a head."""
    shirt, trousers, hair = _pick(rng, CLOTHES), _pick(rng, TROUSERS), _pick(rng, HAIR)
    skin, stride, scale = _pick(rng, SKIN), rng.uniform(0.05, 0.3), rng.uniform(0.94, 1.1)
    solids = [
        _limb((stride, 0.12, 0), (0, 0.1, 0.9), 0.2, trousers, 0),
        _limb((-stride, -0.12, 0), (0, -0.1, 0.9), 0.2, trousers, 0),
        Solid(rounded(0.27, 0.42, 0.08), rounded(0.3, 0.58, 0.1), (0.82, 1.48), shirt, layer=2),
        _limb((stride * 0.8, -0.33, 0.85), (0, -0.29, 1.42), 0.13, shirt, 1),
        _limb((-stride * 0.8, 0.33, 0.85), (0, 0.29, 1.42), 0.13, shirt, 1),
        box(0.24, 0.22, (1.48, 1.68), skin, corner=0.07, shift=0.03, layer=3),
        box(0.28, 0.26, (1.6, 1.78), hair, corner=0.08, layer=4, taper=0.75),
    ]
    if rng.random() < 0.3:
        solids.append(box(0.2, 0.36, (1.0, 1.45), _pick(rng, CLOTHES), corner=0.05, shift=-0.23, layer=3))
    return [_scaled(solid, scale) for solid in solids]


def _scaled(solid: Solid, scale: float) -> Solid:
    z = (solid.z[0] * scale, solid.z[1] * scale)
    return replace(solid, lower=solid.lower * scale, upper=solid.upper * scale, z=z)


def _wheel(size: float, width: float, shift: float) -> list[Solid]:
    """An upright wheel with eight corners."""
    slices = ((0.0, 0.29, 0.42, 1.0), (0.29, 0.71, 1.0, 1.0), (0.71, 1.0, 1.0, 0.42))
    return [
        Solid(
            rounded(size * below, width, 0.02, shift),
            rounded(size * above, width, 0.02, shift),
            (size * start, size * end),
            RUBBER,
            layer=index,
        )
        for index, (start, end, below, above) in enumerate(slices)
    ]


def _bike(rng: np.random.Generator) -> list[Solid]:
    """A scooter or a bicycle: two thin wheels, handlebar, and its rider."""
    shirt, trousers = _pick(rng, CLOTHES), _pick(rng, TROUSERS)
    paint, is_scooter = _pick(rng, CAR_PAINTS), rng.random() < 0.7
    head = _pick(rng, HELMETS if is_scooter or rng.random() < 0.6 else HAIR)
    wheel = 0.56 if is_scooter else 0.68
    reach = 0.62 if is_scooter else 0.54
    solids = [
        *_wheel(wheel, 0.14 if is_scooter else 0.08, reach),
        *_wheel(wheel, 0.14 if is_scooter else 0.08, -reach),
        _limb((0.05, 0.2, 0.3), (-0.12, 0.14, 0.85), 0.17, trousers, 5),
        _limb((0.05, -0.2, 0.3), (-0.12, -0.14, 0.85), 0.17, trousers, 5),
    ]
    if is_scooter:
        lamp = (Decal(FRONT, (0.25, 0.75), (0.55, 0.85), HEADLIGHT, glows=True),)
        rear = (Decal(REAR, (0.25, 0.75), (0.5, 0.85), TAILLIGHT, glows=True),)
        solids += [
            box(1.15, 0.34, (0.26, 0.5), paint, corner=0.1, layer=3),
            box(0.72, 0.36, (0.45, 0.82), paint, corner=0.1, shift=-0.44, layer=4, top_colour=RUBBER, decals=rear),
            box(0.2, 0.4, (0.45, 1.02), paint, corner=0.06, shift=0.52, layer=4, decals=lamp),
        ]
    else:
        solids.append(box(1.1, 0.08, (0.45, 0.72), paint, layer=3))
    return [
        *solids,
        box(0.07, 0.74, (0.98, 1.05), (52, 54, 58), shift=0.44, layer=5),
        _limb((0.42, 0.3, 1.02), (-0.02, 0.24, 1.38), 0.12, shirt, 6),
        _limb((0.42, -0.3, 1.02), (-0.02, -0.24, 1.38), 0.12, shirt, 6),
        Solid(rounded(0.32, 0.4, 0.08, -0.2), rounded(0.32, 0.54, 0.1, -0.06), (0.8, 1.46), shirt, layer=7),
        box(0.3, 0.28, (1.44, 1.74), head, corner=0.09, shift=0.0, layer=8, taper=0.8),
    ]


VARIANTS = 32  # different looks of each class
BUILDERS = (_bus, _bike, _car, _pedestrian, _truck)  # by label


@cache
def road_user(label: int, variant: int) -> Mesh:
    """The mesh of one look of a class, the same in every scene; `variant` in 0..VARIANTS-1."""
    return build_mesh(BUILDERS[label](np.random.default_rng([label, variant])))


@cache
def tree(variant: int) -> Mesh:
    """A trunk and a crown of leaf clumps lying on an ellipsoid."""
    rng = np.random.default_rng([97, variant])
    radius, height = rng.uniform(1.3, 2.1), rng.uniform(3.4, 4.8)
    green = np.array([(74, 108, 52), (92, 122, 56), (62, 98, 62)][variant % 3], dtype=np.float64)
    count = 60
    share = (np.arange(count) + 0.5) / count
    polar, turn = np.arccos(1 - 1.7 * share), np.arange(count) * 2.39996
    normals = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], axis=1)
    order = np.argsort(normals[:, 2], kind="stable")
    trunk = build_mesh([box(0.28, 0.28, (0, height), (92, 74, 56), corner=0.08)])
    crown = [_clump(normal, radius, height, rng) for normal in normals[order]]
    colours = np.clip(green * rng.uniform(0.72, 1.22, (count, 1)) + rng.uniform(-6, 6, (count, 3)), 0, 255)
    return _with_crown(trunk, crown, normals[order], colours, np.array([0.0, 0.0, height]))


def _clump(normal: np.ndarray, radius: float, height: float, rng: np.random.Generator) -> np.ndarray:
    """A ragged patch of leaves that touches the crown's ellipsoid from inside, (12, 3)."""
    side = np.cross(normal, [0.31, 0.22, 0.93])
    side /= np.linalg.norm(side)
    turn = np.arange(12) / 12 * 2 * np.pi
    reach = radius * rng.uniform(0.26, 0.5, 12)[:, None]
    patch = (np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * np.cross(normal, side)) * reach
    centre = normal * radius * np.array([1.0, 1.0, 0.75]) * rng.uniform(0.86, 1.02)
    return centre + patch + np.array([0.0, 0.0, height])


def _with_crown(
    trunk: Mesh, crown: Sequence[np.ndarray], normals: np.ndarray, colours: np.ndarray, centre_m: np.ndarray
) -> Mesh:
    """trunk below, then patches of leaves in the order given; crown: (P, 3) each."""
    count = len(crown)
    sizes = [len(patch) for patch in crown]
    return Mesh(
        points_m=np.concatenate([trunk.points_m, *crown]),
        starts=np.concatenate([trunk.starts, trunk.starts[-1] + np.cumsum(sizes)]),
        normals=np.concatenate([trunk.normals, normals]),
        colours=np.concatenate([trunk.colours, colours]),
        glows=np.zeros(len(trunk.glows) + count, dtype=bool),
        is_decal=np.zeros(len(trunk.glows) + count, dtype=bool),
        layers=np.concatenate([trunk.layers, np.ones(count, dtype=int)]),
        anchors_m=np.concatenate([trunk.anchors_m, np.tile(centre_m, (count, 1))]),
        hulls_m=(*trunk.hulls_m, np.concatenate(crown)),
        footprint_m=trunk.footprint_m,
    )


@cache
def lamp_post() -> Mesh:
    """A thin mast with an arm and a lamp that glows."""
    steel: Colour = (122, 126, 130)
    mast = box(0.16, 0.16, (0, 5.2), steel, corner=0.05)
    arm = box(1.6, 0.12, (5.1, 5.2), steel, shift=0.75, layer=1)
    head = box(0.7, 0.3, (5.05, 5.2), steel, shift=1.4, layer=2)
    return build_mesh([mast, arm, head])


def house(length: float, width: float, height: float, wall: Colour, rng: np.random.Generator) -> Mesh:
    """Floors of windows, some of them lit, under a flat roof."""
    decals = [Decal(TOP, (0.04, 0.96), (0.05, 0.95), darker(wall, 0.35))]
    floors = max(int(height / 3.1), 1)
    for face, wide in ((RIGHT, length), (FRONT, width), (LEFT, length), (REAR, width)):
        columns = max(int(wide / 2.2), 1)
        for floor in range(floors):
            for column in range(columns):
                u = ((column + 0.24) / columns, (column + 0.76) / columns)
                v = ((floor + 0.3) / floors, (floor + 0.8) / floors)
                is_lit = rng.random() < 0.3
                decals.append(Decal(face, u, v, (78, 94, 110), glows=is_lit))
    return build_mesh([box(length, width, (0, height), wall, decals=tuple(decals), top_colour=darker(wall, 0.2))])
