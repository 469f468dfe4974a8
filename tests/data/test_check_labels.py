from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.check_labels import (
    class_counts,
    cut_boxes,
    is_left_out,
    is_outside,
    is_over_the_edge,
    is_repeated,
    problems_of_boxes,
    problems_of_ids,
)
from kit.data.check_report import SIDE_EDGES_PX
from kit.data.check_table import Rows, table_of
from kit.data.coco_entries import entries_of

NAN = float("nan")
numbers = st.sampled_from([0.0, 1.0, 5.5, -3.0, NAN, float("inf"), 90.0])


def rows(boxes, sizes_hw=(60, 80), labels=None, is_crowd=None, images=None):
    count = len(boxes)
    return Rows(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.broadcast_to(np.array(sizes_hw), (count, 2)),
        np.zeros(count, np.int64) if labels is None else np.array(labels),
        np.zeros(count, bool) if is_crowd is None else np.array(is_crowd, bool),
        np.zeros(count, np.int64) if images is None else np.array(images),
    )


def table(annotations, images=None, categories=None):
    images = images or [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}]
    content = {"images": images, "annotations": annotations}
    return table_of(entries_of(content | {"categories": categories or [{"id": 3, "name": "car"}]}, Path("x.json")))


def box(id, bbox=(10, 10, 20, 20), **more):
    return {"id": id, "image_id": 1, "category_id": 3, "bbox": list(bbox)} | more


def kinds(problems):
    return {problem.kind: problem.count for problem in problems if problem.count}


@pytest.mark.parametrize(
    ("own", "leaves", "lies_out"),
    [
        ([-1, 0, 5, 5], False, False),
        ([-1.01, 0, 5, 5], True, False),
        ([75, 55, 6, 6], False, False),
        ([75, 55, 6.01, 5], True, False),
        ([-5, 0, 5, 5], False, True),
        ([-5, 0, 5.1, 5], True, False),
        ([80, 0, 5, 5], False, True),
        ([79.9, 59.9, 9, 9], True, False),
        ([0, 0, NAN, 5], False, False),
        ([-9, 0, 0, 5], False, False),
    ],
)
def test_boxes_over_the_edge_and_outside(own, leaves, lies_out):
    assert is_over_the_edge(rows([own]))[0] == leaves and is_outside(rows([own]))[0] == lies_out


def test_without_a_size_of_the_image_nothing_lies_in_or_out():
    own = rows([[-50, 900, 20, 20]], sizes_hw=(0, 0))
    assert not is_outside(own).any() and not is_over_the_edge(own).any() and not is_left_out(own).any()


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 1), st.booleans(), st.integers(0, 1)), max_size=20))
def test_repeats_are_found_as_one_by_one(drawn):
    boxes = [[x, 2.0, width, 4.0] for x, width, *_ in drawn]
    keys = [(*each[2:], each[0], each[1]) for each in drawn]
    finite = [np.isfinite(own).all() for own in boxes]
    expected = [key in keys[:place] and ok for place, (key, ok) in enumerate(zip(keys, finite, strict=True))]
    labels, crowds, images = ([each[place] for each in drawn] for place in (2, 3, 4))
    assert is_repeated(rows(boxes, labels=labels, is_crowd=crowds, images=images)).tolist() == expected


def test_boxes_are_cut_at_the_image_and_those_inside_keep_their_digits():
    inside = [0.1, 0.2, 0.3, 0.7]
    cut = cut_boxes(rows([inside, [-5, 50, 10, 20], [70, 0, 20.5, 5]]))
    assert cut.tolist() == [inside, [0, 50, 5, 10], [70, 0, 10, 5]]


def test_the_image_that_is_not_listed_is_told():
    (own,) = (each for each in problems_of_ids(table([box(1, image_id=17)])) if each.count)
    assert own.kind == "image missing from the list" and own.examples == [
        "annotation 1, [10, 10, 20, 20], image 17 is not listed"
    ]


def test_two_categories_of_one_name_are_odd_and_of_one_id_wrong():
    categories = [{"id": 3, "name": "car"}, {"id": 4, "name": "car"}, {"id": 3, "name": "bus"}]
    found = {each.kind: each for each in problems_of_ids(table([], categories=categories)) if each.count}
    assert {kind: (each.count, each.is_fatal) for kind, each in found.items()} == {
        "duplicate category id": (1, True),
        "duplicate category name": (1, False),
    }
    assert found["duplicate category name"].examples == ["category 4, car"]


def test_strays_are_not_judged_by_their_boxes_and_the_first_image_of_an_id_has_the_boxes():
    images = [{"id": 1, "file_name": name, "height": 60, "width": 80} for name in ("a.png", "b.png")]
    assert kinds(problems_of_boxes(table([box(1), box(2, (1, 1, 0, 0), image_id=9)], images))) == {}


def test_classes_are_counted_by_boxes_images_and_size():
    images = [{"id": each, "file_name": f"{each}.png", "height": 60, "width": 80} for each in (1, 2)]
    annotations = [box(1), box(2, (0, 0, 2, 2)), box(3, image_id=2), box(4, iscrowd=1), box(5, (0, 0, 0, 1))]
    bus, car = class_counts(table(annotations, images, [{"id": 1, "name": "bus"}, {"id": 3, "name": "car"}]))
    assert (bus.boxes, bus.images, sum(bus.sides)) == (0, 0, 0)
    assert (car.name, car.boxes, car.images) == ("car", 3, 2)
    places = {SIDE_EDGES_PX[place]: count for place, count in enumerate(car.sides) if count}
    assert places == {2.0: 1, 16.0: 2}


def test_sizes_beyond_the_edges_are_in_the_end_bins():
    (car,) = class_counts(table([box(1, (0, 0, 0.1, 0.1)), box(2, (0, 0, 1e5, 1e5))]))
    assert car.sides[0] == car.sides[-1] == 1 and sum(car.sides) == 2
