import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.dealing import Traits, deal, quotas


def traits_of_table(table: np.ndarray, images: np.ndarray) -> Traits:
    """table: (G, T) counts of traits; the images are added as the last trait."""
    full = np.column_stack([table, images]).astype(float)
    rows, kinds = np.nonzero(full)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(full)))])
    values = (full / np.maximum(full.sum(axis=0), 1))[rows, kinds]
    return Traits(starts, kinds, values, np.ones(full.shape[1], bool), images)


def test_quotas_are_whole_numbers_of_the_right_sum_and_none_is_empty():
    assert quotas(10, np.array([0.8, 0.1, 0.1])).tolist() == [8, 1, 1]
    assert quotas(7, np.array([0.5, 0.5])).sum() == 7
    assert quotas(3, np.array([0.98, 0.01, 0.01])).tolist() == [1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(12, 40), st.integers(2, 3))
def test_single_images_meet_their_share_and_a_trait_that_enough_have_is_in_every_part(seed, groups, k):
    random = np.random.default_rng(seed)
    table = (random.random((groups, 2)) < 0.5).astype(int)
    shares = np.full(k, 1 / k)
    part = deal(traits_of_table(table, np.ones(groups, np.int64)), shares, seed)
    assert np.bincount(part, minlength=k).tolist() == quotas(groups, shares).tolist()
    for trait in np.flatnonzero(table.sum(axis=0) >= groups * 2 // 3):
        assert (np.bincount(part, table[:, trait], minlength=k) > 0).all()


def test_a_rare_trait_is_in_every_part_where_the_least_squares_alone_would_leave_it_out():
    table = np.zeros((100, 1), int)
    table[:3] = 1
    part = deal(traits_of_table(table, np.ones(100, np.int64)), np.array([0.8, 0.1, 0.1]), 0)
    assert np.bincount(part, table[:, 0]).tolist() == [1, 1, 1]
    assert np.bincount(part).tolist() == [80, 10, 10]


def test_groups_of_any_size_fill_every_part_as_nearly_as_they_can():
    images = np.array([50, 30, 10, 5, 5])
    part = deal(traits_of_table(np.zeros((5, 1)), images), np.array([0.8, 0.1, 0.1]), 0)
    assert sorted(np.bincount(part, images).tolist()) == [10, 10, 80]


@pytest.mark.parametrize("groups", [3, 4])
def test_no_part_is_empty_where_there_are_enough_groups(groups):
    images = np.array([1000, 1, 1, 1][:groups])
    part = deal(traits_of_table(np.ones((groups, 1)), images), np.array([0.9, 0.05, 0.05]), 0)
    assert set(part.tolist()) == {0, 1, 2}
