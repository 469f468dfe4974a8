"""Do pixels and labels go the same way? The check itself lives in kit, so that it can be run on any machine."""

import json

import numpy as np
import pytest

from kit.data.warp_check import (
    LEAST_IOU,
    OPERATIONS,
    WARPS,
    box_of_bright,
    compared,
    drawn,
    line,
    main,
    of_warp,
    overlap,
)
from kit.data.warps import Warp, affine, random_lens, random_rotation, warp_boxes

EVERY = [*WARPS, *OPERATIONS]


@pytest.mark.parametrize("name", EVERY)
def test_pixels_and_labels_go_the_same_way(name):
    (row,) = compared(1, seed=1, names=[name])
    assert row.polygons >= 1 and row.boxes >= 1
    assert row.polygon_min >= LEAST_IOU and row.box_min >= LEAST_IOU and (row.offset_px or 0) < 0.25, line(row)


@pytest.mark.slow
def test_pixels_and_labels_go_the_same_way_for_many_shapes():
    rows = compared(2, seed=2)
    assert [line(row) for row in rows if not row.is_good or (row.offset_px or 0) >= 0.25] == []


# --- that the check finds the faults it is there for ---


def wrong_way(size_hw, rng):
    """Pixels right, labels the way that remap takes them."""
    right = random_rotation(size_hw, rng, 90)
    return Warp(right.backward, right.backward, right.size_hw)


def half_a_pixel_off(size_hw, rng):
    right = random_lens(size_hw, rng)
    shift = affine(np.array([[1, 0, 0.5], [0, 1, 0.5]]), size_hw)
    return Warp(right.then(shift).forward, right.backward, size_hw)


def test_labels_that_go_the_wrong_way_are_found():
    found = [pair for seed in range(6) for pair in of_warp(wrong_way, np.random.default_rng(seed), False)]
    assert min(iou for iou, _ in found) < 0.7


def test_labels_half_a_pixel_off_are_found():
    found = [pair for seed in range(6) for pair in of_warp(half_a_pixel_off, np.random.default_rng(seed), False)]
    assert np.nanmax([offset for _, offset in found]) > 0.6


def test_boxes_of_four_corners_would_be_found():
    worst = 1.0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        warp = WARPS["perspective to fisheye"]((960, 1280), rng)
        box = rng.uniform(0, [480, 340], 2)
        box = np.concatenate([box, box + 400])
        corners = warp.to_target(box[[[0, 1], [2, 1], [2, 3], [0, 3]]])
        if np.isnan(corners).any() or not ((corners > 0) & (corners < [1280, 960])).all():
            continue
        true = warp_boxes(box[None], warp, (960, 1280)).boxes_xyxy_px[0]
        worst = min(worst, overlap(true, np.concatenate([corners.min(axis=0), corners.max(axis=0)])))
    assert worst < LEAST_IOU


# --- its parts ---


def test_a_mask_covers_what_its_polygon_covers():
    mask = drawn(np.array([[10.0, 10], [20.5, 10], [20.5, 14], [10, 14]]), (30, 30))
    assert (
        mask[12, 15] == 255 and mask[12, 21] == 0 and abs(int(mask[12, 20]) - 128) < 65
    )  # OpenCV's polygons hold their own edge
    assert abs(mask.sum() / 255 - 10.5 * 4) < 4


def test_the_box_of_a_mask_is_in_pixels_and_small_remains_are_left_out():
    mask = np.zeros((300, 300), np.uint8)
    mask[20:150, 30:200] = 255
    assert box_of_bright(mask).tolist() == [30, 20, 200, 150]
    mask[:] = 0
    mask[20:40, 30:200] = 255
    assert box_of_bright(mask) is None


def test_boxes_apart_do_not_overlap_and_nothing_overlaps_nothing():
    assert overlap(np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])) == pytest.approx(1 / 3)
    assert overlap(np.array([0.0, 0, 1, 1]), np.array([2.0, 0, 3, 1])) == 0
    assert overlap(np.full(4, np.nan), np.array([0.0, 0, 1, 1])) == 0


def test_the_command_prints_the_table_and_writes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kit.data.warp_check.WARPS", {"mirror": WARPS["mirror"]})
    monkeypatch.setattr("kit.data.warp_check.OPERATIONS", {})
    assert main(["--shapes", "1", "--json", str(tmp_path / "table.json")]) == 0
    assert "mirror" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text())[0]["box_min"] >= LEAST_IOU
