import msgspec
import numpy as np
import pytest

from kit.data.typed_entries import KINDS, NO_CATEGORY, annotation_block, areas_of, category_of, side, typed_annotation


def test_a_side_is_a_whole_number_or_none():
    values = [5, 7.9, "12", None, "", "x", float("nan"), float("inf"), [3], 10**30, -4]
    assert [side(value) for value in values] == [5, 7, 12, 0, 0, 0, 0, 0, 0, 0, -4]


def test_a_category_is_a_whole_number_or_none():
    values = [5, 5.0, True, 5.5, "5", None, float("nan"), float("inf"), 10**30, 1e30, -(1 << 63), 1 - (1 << 63)]
    assert [category_of(value) for value in values] == [5, 5, 1] + [None] * 8 + [1 - (1 << 63)]
    assert NO_CATEGORY == -(1 << 63)  # so that it is no number that can be read


def test_a_missing_area_is_that_of_the_box_and_no_warning():
    boxes = np.array([[0, 0, 2, 3], [0, 0, 2, 3], [0, 0, np.inf, 0], [0, 0, 1e300, 1e300]])
    found = areas_of([None, 5.0, None, None], boxes)
    assert found[:2].tolist() == [6, 5] and np.isnan(found[2]) and found[3] == np.inf
    assert np.isnan(areas_of([float("nan")], boxes[:1])[0])  # what stands in the file counts


def test_an_entry_is_the_same_by_its_type_and_by_hand():
    entry = {"image_id": 3, "category_id": 2, "bbox": [1, 2.5, 3, 4], "area": 9, "iscrowd": 1, "id": 5}
    entry |= {"segmentation": [[1, 2, 3, 4, 5, 6.5]]}
    one = annotation_block([KINDS["annotations"].one.decode(msgspec.json.encode(entry))])
    other = annotation_block([typed_annotation(entry)])
    assert {name: column.tolist() for name, column in one[0].items()} == {
        "image_ids": [3],
        "category_ids": [2],
        "boxes_xywh_px": [[1, 2.5, 3, 4]],
        "is_crowd": [True],
        "annotation_ids": [5],
        "areas_px2": [9],
    }
    assert all((one[0][name] == column).all() for name, column in other[0].items())
    assert (one[1], other[1]) == ([b"[[1,2,3,4,5,6.5]]"], [b"[[1, 2, 3, 4, 5, 6.5]]"])


@pytest.mark.parametrize(
    "text", [b'{"image_id": 1.0}', b'{"image_id": 9223372036854775808}', b'{"image_id": null}', b"{}"]
)
def test_the_type_does_not_take_what_is_no_image_id(text):
    with pytest.raises(msgspec.ValidationError):
        KINDS["annotations"].one.decode(text)
