import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from kit.data.outlines import hull
from kit.data.run_lengths import mask_of, outline_of_runs, runs_of

masks = st.tuples(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False)).map(
    lambda drawn: np.array([[drawn[2].random() < 0.5 for _ in range(drawn[1])] for _ in range(drawn[0])], np.uint8)
)


def compressed(mask: np.ndarray) -> dict[str, object]:
    runs = reference.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, object]:
    values = mask.T.reshape(-1)
    borders = np.flatnonzero(np.diff(values, prepend=1 - values[0], append=1 - values[-1]))
    counts = np.diff(borders).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if values[0] else counts}


@given(masks)
def test_masks_are_decoded_as_pycocotools_decodes_them(mask):
    assert np.array_equal(mask_of(compressed(mask)), mask) and np.array_equal(mask_of(plain(mask)), mask)


def test_long_runs_take_several_characters():
    mask = np.zeros((700, 900), np.uint8)
    mask[100:650, 200:880] = 1
    assert np.array_equal(mask_of(compressed(mask)), mask)


@given(masks.filter(lambda mask: bool(mask.any())))
def test_the_outline_lies_on_the_edges_of_the_pixels(mask):
    rows, columns = np.nonzero(mask)
    outline = outline_of_runs(compressed(mask))
    assert hull(outline).tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_each_part_of_a_mask_is_a_ring_and_their_areas_agree():
    mask = np.zeros((60, 80), np.uint8)
    cv2.ellipse(mask, (25, 30), (20, 12), 30, 0, 360, 1, -1)
    mask[40:50, 60:75] = 1
    outline = outline_of_runs(plain(mask))
    areas = [cv2.contourArea(ring.astype(np.float32)) for ring in outline]
    assert len(outline) == 2 and min(areas) == 150 and sum(areas) == pytest.approx(mask.sum(), rel=0.03)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": [3, 2]},  # too short
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": [16.0]},
        {"size": [4], "counts": [4]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [4, 4], "counts": "~~"},
        {"size": [4, 4], "counts": "PPPP"},  # cut off in the middle of a run
        {"counts": [16]},
        {"size": [4, 4], "counts": [16]},  # empty
    ],
)
def test_a_broken_or_empty_mask_has_no_outline(segmentation):
    assert outline_of_runs(segmentation) is None


def test_what_is_cut_off_is_told():
    assert runs_of("") == [] and runs_of("P") is None
