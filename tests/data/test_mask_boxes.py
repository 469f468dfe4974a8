import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.mask_boxes import disagreements, with_boxes

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def content(**changed: object) -> dict:
    annotation = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400.0, "iscrowd": 0}
    image = {"id": 1, "file_name": "a.png", "height": 50, "width": 60}
    rows = [annotation | {"segmentation": SQUARE} | changed]
    return {"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "car"}]}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({}, []),
        ({"bbox": [10, 10, 22, 20]}, []),  # two pixels: rounding
        ({"bbox": [10, 10, 23, 20]}, ["box"]),
        ({"bbox": None}, ["box"]),
        ({"area": 480}, []),
        ({"area": 530}, ["area"]),
        ({"segmentation": []}, []),  # no mask, nothing to disagree
        ({"segmentation": None}, []),
        ({"segmentation": [[1, 2, 3]]}, ["broken"]),
        ({"segmentation": {"size": [50, 60], "counts": [3000]}}, ["empty"]),
        ({"segmentation": {"size": [60, 50], "counts": [610, 20, 2370]}}, ["size", "box", "area"]),
        ({"segmentation": {"size": [60, 50], "counts": [610, 20]}}, ["broken"]),
    ],
)
def test_what_the_mask_says_is_held_against_box_area_and_image(changed, kinds):
    found = disagreements(content(**changed))
    assert [each.kind for each in found] == kinds
    assert all(each.annotation_id == 5 and each.image_id == 1 and each.found for each in found)


def test_a_large_box_may_be_off_by_its_share():
    large = [[0.0, 0.0, 1000.0, 0.0, 1000.0, 1000.0, 0.0, 1000.0]]
    assert disagreements(content(segmentation=large, bbox=[0, 0, 1010, 1000], area=1e6)) == []
    (found,) = disagreements(content(segmentation=large, bbox=[0, 0, 1100, 1000], area=1e6))
    assert found.kind == "box" and found.iou == pytest.approx(1 / 1.1)


def test_boxes_are_drawn_around_masks_and_the_rest_stays():
    before = content(bbox=[0, 0, 5, 5], colour="red")
    result = with_boxes(before)
    (row,) = result.content["annotations"]
    assert row["bbox"] == [10, 10, 20, 20] and row["colour"] == "red" and result.problems == []
    assert result.changes == [{"annotation_id": 5, "before": [0, 0, 5, 5], "after": [10, 10, 20, 20]}]
    assert before["annotations"][0]["bbox"] == [0, 0, 5, 5]


def test_a_box_stays_where_its_mask_is_broken_and_that_is_told():
    result = with_boxes(content(segmentation={"size": [50, 60], "counts": "~"}, bbox=[1, 2, 3, 4]))
    assert result.content["annotations"][0]["bbox"] == [1, 2, 3, 4] and result.changes == []
    assert len(result.problems) == 1 and "annotation 5" in result.problems[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=12,
)


@given(values, values, values)
def test_no_entry_is_too_strange(segmentation, bbox, area):
    strange = content(segmentation=segmentation, bbox=bbox, area=area)
    kinds = {each.kind for each in disagreements(strange)}
    assert kinds <= {"broken", "empty", "size", "box", "area"}
    assert len(with_boxes(strange).content["annotations"]) == 1
