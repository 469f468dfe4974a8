import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from kit.data.mask_shapes import (
    area_of_entry,
    as_text,
    box_of_entry,
    compressed,
    compressed_entry,
    mask_of_entry,
    parts_of,
    polygons_of,
    uncompressed_entry,
)
from kit.data.outlines import ring_area

SHARES = st.sampled_from([0.1, 0.5, 0.8, 1.0])
masks = st.tuples(st.integers(1, 14), st.integers(1, 14), SHARES, st.randoms(use_true_random=False)).map(
    lambda drawn: np.array([[drawn[3].random() < drawn[2] for _ in range(drawn[1])] for _ in range(drawn[0])], np.uint8)
)


def ring_with_island() -> np.ndarray:
    """A disc with two holes, an island in one of them, and a part that touches it with a corner."""
    mask = np.zeros((60, 90), np.uint8)
    cv2.circle(mask, (30, 30), 25, 1, -1)
    cv2.circle(mask, (25, 30), 12, 0, -1)
    cv2.circle(mask, (25, 30), 4, 1, -1)
    mask[28:33, 42:46] = 0
    mask[50:56, 60:80] = 1
    return mask


@given(masks)
def test_runs_are_those_of_pycocotools_in_both_forms(mask):
    text = as_text(reference.encode(np.asfortranarray(mask)))
    assert compressed_entry(mask) == text
    assert as_text(compressed(uncompressed_entry(mask), mask.shape)) == text
    assert np.array_equal(mask_of_entry(text, mask.shape), mask)
    assert np.array_equal(mask_of_entry(uncompressed_entry(mask), mask.shape), mask)


@given(masks)
def test_polygons_with_keyholes_give_the_very_mask_again(mask):
    polygons = polygons_of(mask)
    if not mask.any():
        assert polygons.rings == [] and polygons.iou == 1
        return
    assert np.array_equal(mask_of_entry(polygons.entry(), mask.shape), mask)
    assert polygons.iou == 1 and polygons.area_error_px2 == 0 and polygons.area_px2 == mask.sum()
    assert sum(abs(ring_area(ring)) for ring in polygons.rings) == mask.sum()


@given(masks.filter(lambda mask: bool(mask.any())))
def test_opencv_fills_the_keyholed_rings_alike(mask):
    scale = 8  # OpenCV paints the line too: a mask far larger than the line is wide
    drawn = np.zeros((mask.shape[0] * scale, mask.shape[1] * scale), np.uint8)
    for ring in polygons_of(mask).rings:
        own = np.zeros_like(drawn)
        cv2.fillPoly(own, [np.round(ring * scale).astype(np.int32)], 1)
        drawn |= own
    assert np.array_equal(drawn[scale // 2 :: scale, scale // 2 :: scale], mask)


@given(masks.filter(lambda mask: bool(mask.any())))
def test_boxes_and_areas_are_those_of_pycocotools(mask):
    runs = reference.encode(np.asfortranarray(mask))
    for entry in (compressed_entry(mask), uncompressed_entry(mask), polygons_of(mask).entry()):
        assert box_of_entry(entry, mask.shape).tolist() == reference.toBbox(runs).tolist()
        assert area_of_entry(entry, mask.shape) == reference.area(runs)


def test_parts_know_their_holes_and_an_island_is_a_part():
    parts = parts_of(ring_with_island())
    assert sorted(len(part.holes) for part in parts) == [0, 0, 2]


def test_filled_holes_are_counted_and_measured():
    mask = ring_with_island()
    filled = polygons_of(mask, holes="fill")
    hole_px = 0
    for part in parts_of(mask):
        hole_px += sum(abs(ring_area(hole)) for hole in part.holes)
    island_px = 49  # OpenCV's disc of radius 4, which the filled disc swallows
    assert filled.holes == filled.holes_filled == 2
    assert filled.area_error_px2 == hole_px - island_px and 0 < filled.iou < 1


@pytest.mark.parametrize("tolerance_px", [0.75, 1.0, 3.0])
def test_fewer_points_lose_no_part_and_tell_their_error(tolerance_px):
    mask = ring_with_island()
    exact, rough = polygons_of(mask), polygons_of(mask, tolerance_px=tolerance_px)
    drawn = mask_of_entry(rough.entry(), mask.shape)
    assert len(rough.rings) == 3 and sum(map(len, rough.rings)) < sum(map(len, exact.rings))
    assert rough.area_error_px2 == int(drawn.sum()) - int(mask.sum())
    assert rough.iou == (drawn & mask).sum() / (drawn | mask).sum() and 0.75 < rough.iou < 1


def test_a_single_pixel_and_a_full_image_are_rings_too():
    one = np.zeros((3, 4), np.uint8)
    one[1, 2] = 1
    assert polygons_of(one, tolerance_px=2.0).iou == 1
    assert sorted(polygons_of(np.ones((3, 4), np.uint8)).rings[0].tolist()) == [[0, 0], [0, 3], [4, 0], [4, 3]]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [4, 4], "counts": [3, 2]}, "expected 16 pixels in all, got 5"),
        ({"size": [4, 4], "counts": [20, -4]}, "expected counts"),
        ({"size": [4, 4], "counts": [True] * 16}, "expected counts"),
        ({"size": [4, 4], "counts": "P" * 10_000_000}, "expected counts"),
        ({"size": [4, 4], "counts": "~~"}, "expected counts"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "at most"),
        ({"size": "4x4", "counts": [16]}, "expected size"),
        ({"counts": [16]}, "expected size"),
        ([[0, 0, 1, 1]], "3 points or more"),  # pycocotools takes four numbers for a box
        ([[0, 0, 1, 1, 2]], "3 points or more"),
        ([[0, 0, 1, 1, 2, float("nan")]], "finite"),
        ([[0, 0, 1, 1, 2, 1e12]], "within"),
        ([[0, 0, 1, 1, 2, "2"]], "finite"),
        ([], "got none"),
        ([[0, 0, 1e6, 1e6] * 4], "lines of at most"),
        ("PPPP", "expected polygons or run lengths"),
        (None, "expected polygons or run lengths"),
    ],
)
def test_a_broken_entry_is_refused_in_words(segmentation, words):
    with pytest.raises(ValueError, match=words):
        mask_of_entry(segmentation, (4, 4))
