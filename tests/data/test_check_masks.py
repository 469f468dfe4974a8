from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data import check_masks
from kit.data.check_masks import agrees, disagreements, problems_of_masks
from kit.data.check_table import table_of
from kit.data.coco_entries import entries_of
from kit.data.mask_boxes import disagreements as one_by_one

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
coordinate = st.one_of(st.integers(-5, 70), st.floats(-5, 70), st.sampled_from([2.0**20, 2.0**21, 1e300]))
ring = st.lists(coordinate, min_size=5, max_size=10)
near = st.floats(-3, 3).map(lambda shift: [10 + shift, 10, 30 + shift, 10, 30 + shift, 30 + shift / 2, 10, 30])
runs = st.lists(st.integers(0, 3000), min_size=1, max_size=3).map(lambda counts: {"size": [60, 80], "counts": counts})
segmentation = st.one_of(st.lists(near, min_size=1, max_size=2), st.lists(ring, max_size=2), runs, st.just([["a"]]))
side = st.floats(17, 23)


def content(annotations):
    images = [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]}


def table(*annotations):
    return table_of(entries_of(content(list(annotations)), Path("x.json")))


def masked(id=1, segmentation=(SQUARE,), bbox=(10, 10, 20, 20), area=400.0):
    own = list(segmentation) if isinstance(segmentation, tuple) else segmentation
    return {"id": id, "image_id": 1, "category_id": 3, "bbox": list(bbox), "area": area, "segmentation": own}


@settings(max_examples=300)
@given(st.lists(st.tuples(segmentation, side, side, st.floats(300, 520)), min_size=1, max_size=5))
def test_many_at_once_give_what_each_by_itself_does(drawn):
    annotations = [
        masked(number, own, (10, 10, width, height), area) for number, (own, width, height, area) in enumerate(drawn, 1)
    ]
    found = [(each.annotation_id, each.kind) for _, each in disagreements(table(*annotations))]
    assert found == [(each.annotation_id, each.kind) for each in one_by_one(content(annotations))]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("broken mask", {"segmentation": [[1, 2, 3]]}),
        ("empty mask", {"segmentation": {"size": [60, 80], "counts": [4800]}}),
        ("mask of another size", {"segmentation": {"size": [20, 20], "counts": [0, 400]}, "bbox": [0, 0, 20, 20]}),
        ("mask unlike its box", {"bbox": [14, 10, 20, 20]}),
        ("area unlike its mask", {"area": 100.0}),
    ],
)
def test_each_disagreement_is_a_problem_of_its_own_that_stops_no_training(kind, change):
    problems = [each for each in problems_of_masks(table(masked(1), masked(2) | change)) if each.count]
    assert [(each.kind, each.count, each.is_fatal) for each in problems] == [(kind, 1, False)]
    assert problems[0].findings[0].annotation_ids == (2,) and problems[0].findings[0].detail


def test_polygons_that_surely_agree_are_not_looked_at_one_by_one():
    own = table(masked(1), masked(2, bbox=(11.9, 10, 20, 20)), masked(3, bbox=(12.1, 10, 20, 20)))
    assert agrees(own, np.arange(3)).tolist() == [True, True, False]


def test_blocks_are_joined_in_order_and_the_bar_counts_masks(monkeypatch):
    monkeypatch.setattr(check_masks, "BLOCK", 2)
    calls = []
    own = table(
        masked(1, area=1.0), masked(2), {**masked(3), "segmentation": []}, masked(4, area=1.0), masked(5, area=1.0)
    )
    found = disagreements(own, lambda done, total: calls.append((done, total)))
    assert [row for row, _ in found] == [0, 3, 4] and calls == [(2, 4), (4, 4)]
