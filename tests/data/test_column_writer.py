import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data import column_writer
from kit.data.coco import as_coco, columns_of, parse_coco, read_coco, write_coco, write_coco_file

numbers = st.floats(-1e300, 1e300, allow_nan=False) | st.integers(-(2**60), 2**60)
CATEGORIES = [{"id": 4, "name": "é"}, {"id": 9, "name": '"'}]


def content_of(boxes, **more):
    images = [{"id": each, "file_name": f"{each}.jpg", "height": 3, "width": 4} for each in (1, 2, 3)]
    entries = [
        {"id": row, "image_id": row % 3 + 1, "category_id": (4, 9)[row % 2], "bbox": box, "area": 2.5, "iscrowd": 0}
        for row, box in enumerate(boxes, 1)
    ]
    return {"images": images, "annotations": [each | more for each in entries], "categories": CATEGORIES}


def coco_of(content):
    return parse_coco(json.loads(json.dumps(content)), Path("x.json"))


@settings(max_examples=60, deadline=None)
@given(boxes=st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=7), block=st.integers(1, 4))
def test_columns_are_written_as_the_dictionaries_are(tmp_path_factory, boxes, block):
    folder, coco = tmp_path_factory.getbasetemp(), coco_of(content_of(boxes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_writer, "BLOCK", block)
        written = json.loads(write_coco_file(folder / "a.json", coco, {"year": 1}).read_text())
    assert written == json.loads(write_coco(folder / "b.json", **as_coco(coco), info={"year": 1}).read_text())
    in_a_list = write_coco_file(folder / "c.json", replace(coco, records=list(coco.records)), {"year": 1})
    assert json.loads(in_a_list.read_text()) == written


def test_masks_are_written_as_they_stood_those_of_crowds_too(tmp_path):
    mask = {"size": [2, 3], "counts": [2, 3, 1]}
    content = content_of([[1, 2, 3, 4]] * 2, segmentation=mask)
    content["annotations"][1]["iscrowd"] = 1
    read = coco_of(content)
    written = json.loads(write_coco_file(tmp_path / "x.json", read).read_text())
    assert sorted(written["annotations"], key=lambda each: each["id"]) == content["annotations"]
    assert columns_of(read_coco(tmp_path / "x.json")).segmentation(1) == mask


def test_a_packed_file_is_the_same_each_time(tmp_path):
    coco = coco_of(content_of([[1, 2, 3, 4]]))
    first, second = (write_coco_file(tmp_path / name, coco).read_bytes() for name in ("a.json.gz", "b.json.gz"))
    assert first == second and json.loads(gzip.decompress(first)) == as_coco(coco)


def test_an_empty_file_is_written_too(tmp_path):
    coco = parse_coco({"images": []}, Path("x"))
    assert json.loads(write_coco_file(tmp_path / "x.json", coco).read_text()) == as_coco(coco)


def test_what_json_or_coco_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    good = coco_of(content_of([[1, 2, 3, 4]] * 3))
    unknown = content_of([[1, 2, 3, 4]] * 3)
    unknown["annotations"][1]["category_id"] = 5
    no_area = good.records[0]
    no_area = replace(no_area, areas_px2=np.full(len(no_area.labels), np.inf))
    for coco, found in (
        (coco_of(unknown), "image 3 has an unknown category"),
        (coco_of(content_of([[1, 2, 3, 4], [1, float("nan"), 3, 4]])), "image 3 has a box or an area without numbers"),
        (replace(good, records=[good.records[1], no_area]), "image 1 has a box or an area without numbers"),
        (coco_of(content_of([[1, 2, 3, 4]], segmentation=[[1, float("nan")]])), "expected numbers that JSON can hold"),
    ):
        with pytest.raises(ValueError, match=found):
            write_coco_file(tmp_path / "x.json", coco)
    assert list(tmp_path.iterdir()) == []


def test_letters_of_run_lengths_are_no_numbers(tmp_path):
    mask = {"size": [2, 3], "counts": "NaNInfinity"}
    path = write_coco_file(tmp_path / "x.json", coco_of(content_of([[1, 2, 3, 4]], segmentation=mask)))
    assert json.loads(path.read_text())["annotations"][0]["segmentation"] == mask
