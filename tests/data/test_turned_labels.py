import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.mask_shapes import compressed_entry, mask_of_entry, polygons_of, uncompressed_entry
from kit.data.turned_labels import MASKS, turned_annotation, turned_box, turned_points

BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
orientations = st.integers(1, 8)
STORED_HW = (30, 50)
coordinates = st.floats(0, 30)


def mask() -> np.ndarray:
    drawn = np.zeros(STORED_HW, np.uint8)
    drawn[3:9, 20:41] = 1
    drawn[9:12, 20:23] = 1
    return drawn


@given(orientations, coordinates, coordinates, coordinates, coordinates)
def test_turned_back_a_box_is_the_same(orientation, x, y, width, height):
    box = np.array([x, y, width, height])
    shown_hw = STORED_HW[::-1] if orientation >= 5 else STORED_HW
    back = turned_box(turned_box(box, orientation, STORED_HW), BACK[orientation], shown_hw)
    assert np.abs(back - box).max() < 1e-12 and (back[2:] == box[2:]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", [compressed_entry, uncompressed_entry, lambda mask: polygons_of(mask).entry()])
def test_boxes_polygons_and_masks_turn_as_the_pixels_do(orientation, write):
    shown = MASKS[orientation](mask())
    annotation = {"id": 1, "bbox": [20, 3, 21, 9], "segmentation": write(mask()), "colour": "red"}
    turned, faults = turned_annotation(annotation, orientation, STORED_HW)
    rows, columns = np.nonzero(shown)
    corner = [columns.min(), rows.min()]
    assert turned["bbox"] == [*corner, columns.max() + 1 - corner[0], rows.max() + 1 - corner[1]]
    assert np.array_equal(mask_of_entry(turned["segmentation"], shown.shape), shown)
    assert type(turned["segmentation"]) is type(annotation["segmentation"])
    assert turned["colour"] == "red" and faults == [] and annotation["bbox"] == [20, 3, 21, 9]


def test_six_turns_the_top_to_the_right():
    assert turned_points(np.array([10.0, 0.0]), 6, STORED_HW).tolist() == [30, 10]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"keypoints": [1, 2, 2]}, "keypoints not turned"),
        ({"bbox": "1,2,3,4"}, "bbox is no box"),
        ({"segmentation": [[1, 2]]}, "mask not turned: polygon"),
        ({"segmentation": {"size": [3, 3], "counts": [9]}}, "it is of 3 x 3, the image of 30 x 50"),
    ],
)
def test_what_cannot_be_turned_stays_and_is_told(extra, words):
    turned, faults = turned_annotation(extra, 6, STORED_HW)
    assert turned == extra and len(faults) == 1 and words in faults[0]
