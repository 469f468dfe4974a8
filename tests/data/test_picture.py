import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.outlines import hull
from kit.data.picture import (
    Picture,
    flipped,
    joined,
    quarter_turned,
    shifted,
    vertically_flipped,
    visible,
    whole,
)

TRIANGLE = np.array([[10.0, 5], [30, 5], [10, 25]])


def picture_of(*outlines, size_hw=(40, 50), boxes=None):
    """Boxes are the hulls of the outlines, unless given."""
    boxes = [hull(outline) for outline in outlines] if boxes is None else boxes
    labels = np.arange(len(boxes))
    return Picture(np.zeros((*size_hw, 3), np.uint8), np.array(boxes, float).reshape(-1, 4), labels, list(outlines))


def test_boxes_labels_and_outlines_are_as_many():
    with pytest.raises(ValueError, match=r"as many boxes as labels and outlines, got \[1, 1, 2\]"):
        Picture(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4)), np.zeros(1, int), [None, None])


def test_rows_are_selected_together():
    picture = picture_of([TRIANGLE], None, [TRIANGLE + 3], boxes=[[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]])
    for rows in (np.array([False, True, True]), np.array([1, 2])):
        only = picture.only(rows)
        assert only.labels.tolist() == [1, 2] and only.boxes_xyxy_px[:, 2].tolist() == [2, 3]
        assert only.outlines[0] is None and np.array_equal(only.outlines[1][0], TRIANGLE + 3)


def test_other_pixels_must_have_the_same_size():
    with pytest.raises(ValueError, match=r"\(40, 50\), got \(40, 51\)"):
        picture_of([TRIANGLE]).with_image(np.zeros((40, 51, 3), np.uint8))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_outlines_turn_with_their_boxes(seed, turns):
    rng = np.random.default_rng(seed)
    picture = picture_of(*([rng.uniform(0, 30, (5, 2))] for _ in range(3)), size_hw=(33, 57))
    for turn in (flipped, vertically_flipped, lambda p: quarter_turned(p, turns), lambda p: shifted(p, 7, -3)):
        turned = turn(picture)
        assert np.allclose([hull(outline) for outline in turned.outlines], turned.boxes_xyxy_px)


def test_a_point_of_an_outline_lands_where_its_pixel_lands():
    picture = picture_of([np.array([[12.5, 5.5], [20, 9], [14, 30]])])
    picture.image[5, 12] = 255
    for turn in (flipped, vertically_flipped, *(lambda p, n=n: quarter_turned(p, n) for n in (1, 2, 3))):
        turned = turn(picture)
        x, y = turned.outlines[0][0][0]
        assert turned.image[int(y), int(x)].tolist() == [255, 255, 255] and turned.image.sum() == 3 * 255


def test_pictures_with_and_without_outlines_are_joined():
    bare = Picture(np.zeros((40, 50, 3), np.uint8), np.array([[1.0, 1, 5, 5]]), np.array([7]))
    image = np.zeros((9, 9, 3), np.uint8)
    assert joined([bare, bare], image).outlines is None
    both = joined([bare, picture_of([TRIANGLE])], image)
    assert both.labels.tolist() == [7, 0] and both.outlines[0] is None and both.outlines[1][0] is TRIANGLE


def test_a_cut_outline_tells_the_box_of_what_is_left():
    cut = visible(picture_of([TRIANGLE]), (0, 0, 50, 15))  # the hull would be cut to x <= 30, y <= 15
    assert cut.boxes_xyxy_px[0] == pytest.approx([10, 5, 30, 15])
    cut = visible(picture_of([TRIANGLE]), (15, 0, 50, 40))  # at x = 15 the slope has come down to y = 20
    assert cut.boxes_xyxy_px[0] == pytest.approx([15, 5, 30, 20], abs=0.02)
    assert hull(cut.outlines[0]) == pytest.approx(cut.boxes_xyxy_px[0], abs=0.02)


def test_an_outline_inside_the_window_is_left_alone():
    box = [[9, 4, 31, 26]]  # a little loose, as annotations are
    kept = visible(picture_of([TRIANGLE], boxes=box), (0, 0, 50, 40))
    assert kept.boxes_xyxy_px.tolist() == box and kept.outlines[0][0] is TRIANGLE


def test_an_object_whose_box_is_cut_but_not_its_outline_is_gone_with_the_window():
    frame = picture_of([TRIANGLE])
    assert len(visible(frame, (26, 17, 50, 40)).labels) == 0  # only the empty corner of the box lies here


def test_boxes_without_outlines_are_cut_as_boxes():
    picture = Picture(np.zeros((40, 50, 3), np.uint8), np.array([[10.0, 5, 30, 25]]), np.array([0]))
    assert visible(picture, (15, 0, 50, 40)).boxes_xyxy_px.tolist() == [[15, 5, 30, 25]]
    assert visible(picture, (15, 0, 50, 40)).outlines is None and whole(picture) == (0, 0, 50, 40)
