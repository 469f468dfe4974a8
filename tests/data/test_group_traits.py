from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.group_traits import fill_traits, held_by_groups

CLASSES = 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, CLASSES - 1)), max_size=40),
)
def test_groups_hold_what_counting_one_by_one_finds(group, boxes):
    group = np.unique(group, return_inverse=True)[1]  # none without an image
    boxes = [(image, label) for image, label in boxes if image < len(group)]
    rows, labels = np.array(boxes, np.int32).reshape(-1, 2).T.copy()
    held = held_by_groups(rows, labels, group, CLASSES)
    of_boxes = Counter((int(group[image]), label) for image, label in boxes)
    of_images = Counter((int(group[image]), label) for image, label in set(boxes))
    owners = np.repeat(np.arange(group.max() + 1), np.diff(held.starts)).tolist()
    pairs = list(zip(owners, held.kinds.tolist(), strict=True))
    assert pairs == sorted(of_boxes)
    assert held.boxes.tolist() == [of_boxes[each] for each in pairs]
    assert held.images.tolist() == [of_images[each] for each in pairs]
    assert held.totals.sum() == sum(of_boxes.values()) + sum(of_images.values())


def test_traits_are_shares_of_classes_and_of_images():
    held = held_by_groups(np.array([1, 0, 1, 1], np.int32), np.array([1, 0, 1, 0], np.int32), np.array([0, 1]), 2)
    starts = 2 * held.starts + np.arange(3)
    traits, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    of_images = np.array([0.25, 0.75])
    weights = (held.images, held.boxes)
    fill_traits(held.starts, held.kinds, weights, held.totals, of_images, starts, traits, values)
    assert starts.tolist() == [0, 3, 8]
    assert traits.tolist() == [0, 2, 4, 0, 1, 2, 3, 4]
    assert values.tolist() == [0.5, 0.5, 0.25, 0.5, 1, 0.5, 1, 0.75]
