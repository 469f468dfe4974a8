import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.coco import columns_of, parse_coco
from kit.data.columns import Columns, Packed, Records, Texts, columns_of_records

RING = [1.5, 2, 8, 2, 8.25, 9]
MASK = {"size": [2, 3], "counts": [2, 3, 1]}


def box(image_id, number, **more):
    return {"id": number, "image_id": image_id, "category_id": number % 2, "bbox": [number, 1, 2.5, 4]} | more


CONTENT = {
    "images": [{"id": each, "file_name": f"ü{each}.jpg", "height": each, "width": 2 * each} for each in (7, 3, 5)],
    "annotations": [
        box(7, 1),
        box(3, 2, segmentation=[RING]),
        box(7, 3, iscrowd=1, area=5, segmentation=MASK),
        box(3, 4, segmentation=MASK),
        box(99, 5),
        box(3, 6),
    ],
    "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
}


@pytest.fixture
def coco():
    return parse_coco(json.loads(json.dumps(CONTENT)), Path("x.json"))


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("image_id", "file_name", "size_hw"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("boxes_xywh_px", "labels", "is_crowd", "annotation_ids", "areas_px2"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        rings = [[[ring.tolist() for ring in each or []] for each in record.outlines or []] for record in (one, other)]
        assert rings[0] == rings[1] and (one.outlines is None) == (other.outlines is None)


def test_columns_hold_the_boxes_image_by_image(coco):
    columns = columns_of(coco)
    assert columns.image_ids.tolist() == [3, 5, 7] and list(columns.file_names) == ["ü3.jpg", "ü5.jpg", "ü7.jpg"]
    assert columns.sizes_hw.tolist() == [[3, 6], [5, 10], [7, 14]] and columns.file_name(1) == "ü5.jpg"
    assert columns.offsets.tolist() == [0, 3, 3, 5] and columns.image_rows().tolist() == [0, 0, 0, 2, 2]
    assert columns.annotation_ids.tolist() == [2, 4, 6, 1, 3] and columns.labels.tolist() == [0, 0, 0, 1, 1]
    assert columns.areas_px2.tolist() == [10, 10, 10, 10, 5]
    assert columns.is_crowd.tolist() == [False] * 4 + [True] and columns.boxes_xywh_px[1].tolist() == [4, 1, 2.5, 4]
    assert [columns.segmentation(row) for row in range(5)] == [[RING], MASK, None, None, MASK]


def test_records_are_a_sequence_as_a_list_is(coco):
    records = coco.records
    assert isinstance(records, Records) and len(records) == 3
    assert records[-1].image_id == records[np.int64(2)].image_id == 7
    assert [each.image_id for each in reversed(records)] == [7, 5, 3]
    assert [each.image_id for each in records[::-2]] == [7, 3] and isinstance(records[:1], Records)
    assert not records[:0] and list(records[3:]) == []
    for row in (3, -4):
        with pytest.raises(IndexError):
            records[row]
    with pytest.raises(TypeError):
        records["0"]


def test_outlines_are_those_of_objects_and_none_where_an_image_has_none(coco):
    first, second, third = coco.records
    assert [each is None for each in first.outlines] == [False, False, True] and len(first.outlines[:2]) == 2
    assert first.outlines[0][0].reshape(-1).tolist() == RING and first.outlines[-1] is None
    assert second.outlines is None and third.outlines is None  # a crowd has no outline


def test_a_list_of_records_gives_the_same_columns_again(coco):
    again = columns_of(replace(coco, records=list(coco.records)))
    assert_equal(Records(again), coco.records)
    assert again.segmentations[1] == columns_of(coco).segmentations[1]  # the mask as it stood, not its outline
    for name in ("image_ids", "sizes_hw", "offsets", "boxes_xywh_px", "labels", "areas_px2"):
        one, other = getattr(again, name), getattr(columns_of(coco), name)
        assert one.dtype == other.dtype and (one == other).all()


def test_records_may_come_twice_and_in_any_order_in_a_list(coco):
    chosen = [coco.records[2], coco.records[0], coco.records[2]]
    columns = columns_of(replace(coco, records=chosen))
    assert columns.image_ids.tolist() == [7, 3, 7] and columns.offsets.tolist() == [0, 2, 5, 7]
    assert_equal(Records(columns), [replace(each, outlines=None) if each.image_id == 7 else each for each in chosen])


def test_no_records_are_columns_too(coco):
    columns = columns_of(replace(coco, records=[]))
    assert len(columns) == 0 and columns.offsets.tolist() == [0] and columns.boxes_xywh_px.shape == (0, 4)
    assert len(parse_coco({"images": []}, Path("x")).records) == 0


def test_outlines_given_as_points_become_segmentations(coco):
    moved = replace(coco.records[0], outlines=[[np.array([[0, 0], [4, 0], [4, 3.5]])], None, None])
    columns = columns_of_records([moved])
    assert columns.segmentation(0) == [[0, 0, 4, 0, 4, 3.5]] and columns.segmentation(1) is None


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(-3, 2), max_size=6), mask=st.lists(st.booleans(), min_size=3, max_size=3))
def test_some_images_are_taken_as_from_a_list(rows, mask):
    coco = parse_coco(json.loads(json.dumps(CONTENT)), Path("x.json"))
    columns, records = columns_of(coco), list(coco.records)
    assert_equal(Records(columns.take(np.array(rows, np.int64))), [records[row] for row in rows])
    stays = [record for record, stay in zip(records, mask, strict=True) if stay]
    assert_equal(Records(columns.take(np.array(mask))), stays)


@settings(max_examples=60, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=5, max_size=5))
def test_some_boxes_are_taken_as_from_each_record(mask):
    coco = parse_coco(json.loads(json.dumps(CONTENT)), Path("x.json"))
    columns, mask = columns_of(coco), np.array(mask)
    parts = np.split(mask, columns.offsets[1:-1])
    expected = [record.only(part) for record, part in zip(coco.records, parts, strict=True)]
    expected = [replace(each, outlines=each.outlines if any(each.outlines or ()) else None) for each in expected]
    assert_equal(Records(columns.only(mask)), expected)
    assert_equal(Records(columns.only(np.flatnonzero(mask))), expected)


def test_columns_travel_to_other_processes(coco):
    assert_equal(pickle.loads(pickle.dumps(coco)).records, coco.records)


def test_texts_without_a_text_take_no_place():
    nothing = Packed.of([b""] * 1000)
    assert nothing.starts.base.nbytes == 8 and nothing[999] == b"" and len(nothing.take(np.arange(3))) == 3
    assert nothing.between(2, 4) == [b"", b""]


def test_packed_texts_are_what_was_packed():
    texts = Texts.of(["", "a", "\ud83d", "\U0001f697", ""])
    assert list(texts) == ["", "a", "\ud83d", "\U0001f697", ""] and list(texts[1::2]) == ["a", "\U0001f697"]
    assert texts.packed.between(1, 3) == [b"a", "\ud83d".encode("utf-8", "surrogatepass")]
    assert isinstance(texts[:1], Texts) and texts[-2] == "\U0001f697"


def test_a_record_is_a_part_of_the_columns_and_no_copy(coco):
    columns: Columns = columns_of(coco)
    assert np.shares_memory(coco.records[0].boxes_xywh_px, columns.boxes_xywh_px)
