import json

import numpy as np
import pytest

from kit.data.record import RawOutlines, finite, ring_of, rings_of_text, segmentation_texts

RING = [0, 0, 4, 0, 4, 3.5]
MASK = {"size": [2, 3], "counts": [2, 3, 1]}


def raw(*segmentations, is_crowd=False):
    texts = [json.dumps(each).encode() if each else b"" for each in segmentations]
    return RawOutlines(texts, np.full(len(texts), is_crowd))


def test_outlines_are_made_from_the_text_when_they_are_asked_for():
    outlines = raw([RING], None, MASK, [[1, 2]])
    assert len(outlines) == 4 and [each is None for each in outlines] == [False, True, False, True]
    assert outlines[0][0].reshape(-1).tolist() == RING and len(outlines[1:3]) == 2
    assert list(raw([RING], is_crowd=True)) == [None]
    with pytest.raises(IndexError):
        outlines[4]


def test_an_outline_that_is_asked_for_twice_is_made_once_and_cannot_be_changed_for_others():
    rings_of_text.cache_clear()
    outlines = raw([RING], [RING])
    first, second = outlines[0], outlines[1]
    assert first[0] is second[0] and rings_of_text.cache_info().misses == 1
    first.clear()
    assert len(outlines[0]) == 1
    with pytest.raises(ValueError, match="read-only"):
        second[0][0, 0] = 5


def test_what_cannot_be_decoded_is_no_outline():
    texts = [b"[" * 5000 + b"]" * 5000, b"[[1, 2, 3, 4, 5, " + b"6" * 5000 + b"]]"]
    assert list(RawOutlines(texts, np.zeros(2, bool))) == [None, None]


def test_a_number_that_no_float_holds_is_infinite():
    assert [finite(each) for each in (3, 10**400, -(10**400))] == [3, np.inf, -np.inf]
    assert ring_of([*RING, 10**400, 1]) is None and ring_of([True, *RING[1:]]).shape == (3, 2)


def test_segmentations_are_those_of_the_file_where_they_still_are(tmp_path):
    from kit.data.coco import parse_coco

    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}
    content["annotations"] = [{"image_id": 1, "segmentation": each} for each in ([RING], MASK, [])]
    (record,) = parse_coco(content, tmp_path).records
    assert [json.loads(text) if text else None for text in segmentation_texts(record)] == [[RING], MASK, None]
    assert json.loads(segmentation_texts(record.only(np.array([1])))[0]) == MASK
