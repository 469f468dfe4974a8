from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.coco import parse_coco
from kit.data.coco_columns import NOWHERE
from kit.data.coco_entries import entries_of
from kit.data.partition import (
    Contents,
    Recipe,
    contents_of,
    contents_of_coco,
    contents_of_entries,
    folds,
    groups_by_pattern,
    joined_groups,
    partition_of_list,
    refuse_leaks,
    split,
    torn_groups,
)

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def contents(images: int = 100, seed: int = 0, classes: int = 3) -> Contents:
    """Class 0 in most images, the last in few."""
    random = np.random.default_rng(seed)
    has = random.random((images, classes)) < np.array([0.8, 0.4, 0.1])[:classes]
    rows, labels = np.nonzero(has)
    times = random.integers(1, 5, len(rows))
    names = [f"camera{row % 7}_{row:03d}.jpg" for row in range(images)]
    ids = np.arange(1, images + 1)
    return Contents(names, ids, np.repeat(rows, times), np.repeat(labels, times), ["car", "bus", "tram"][:classes])


def shuffled(own: Contents, order: np.ndarray) -> Contents:
    place = np.argsort(order)
    names = [own.file_names[row] for row in order]
    return replace(own, file_names=names, image_ids=own.image_ids[order], image_rows=place[own.image_rows])


def test_parts_have_their_share_of_the_images_and_of_every_class():
    found = split(contents(500), Recipe(SHARES))
    assert np.bincount(found.part).tolist() == [400, 50, 50]
    counts = found.contents.boxes_per_class(found.part, 3)
    assert np.abs(counts / counts.sum(axis=0) - np.array([[0.8], [0.1], [0.1]])).max() < 0.02


def test_a_random_split_does_not_look_at_the_boxes():
    own = contents()
    without = replace(own, image_rows=own.image_rows[:0], labels=own.labels[:0])
    plain = Recipe(SHARES, stratify="none")
    assert split(own, plain).part.tolist() == split(without, plain).part.tolist()
    assert split(own, plain).part.tolist() != split(own, Recipe(SHARES)).part.tolist()


def test_boxes_or_images_of_a_class_are_shared_out():
    """One image has as many boxes as the other nine."""
    rows = np.concatenate([np.zeros(9, np.int64), np.arange(1, 10)])
    own = Contents([f"{row}.jpg" for row in range(10)], np.arange(10), rows, np.zeros(18, np.int64), ["car"])
    halves = {"a": 0.5, "b": 0.5}
    groups = ["crowded", *["rest"] * 9]
    assert np.bincount(split(own, Recipe(halves, stratify="boxes"), groups).part).tolist() in ([1, 9], [9, 1])
    by_images = split(own, Recipe(halves, stratify="classes"))
    assert np.bincount(by_images.part).tolist() == [5, 5]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_of_the_file_changes_nothing(seed, is_grouped):
    own = contents(40, seed)
    order = np.random.default_rng(seed).permutation(40)
    groups = [name[:7] for name in own.file_names]
    one = split(own, Recipe(SHARES, seed), groups if is_grouped else None)
    other = split(shuffled(own, order), Recipe(SHARES, seed), [groups[row] for row in order] if is_grouped else None)
    assert one.part[order].tolist() == other.part.tolist()
    assert one.group[order].tolist() == other.group.tolist()


def test_the_seed_decides():
    one, same, other = (split(contents(), Recipe(SHARES, seed)).part.tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_groups_stay_whole_and_no_part_is_empty():
    own = contents()
    keys, unfit = groups_by_pattern(own.file_names, r"camera(\d+)")
    found = split(own, Recipe(SHARES), keys)
    assert unfit == [] and torn_groups(found) == [] and set(found.part.tolist()) == {0, 1, 2}
    assert len({(key, part) for key, part in zip(keys, found.part.tolist(), strict=True)}) == 7


def test_every_image_is_held_out_once_by_folds_of_equal_size():
    found = folds(contents(90), 3)
    assert np.bincount(found.part).tolist() == [30, 30, 30]
    assert (found.contents.boxes_per_class(found.part, 3) > 0).all()


def test_two_entries_of_one_file_stay_together():
    own = contents(20)
    twice = replace(own, file_names=[f"{row // 2}.jpg" for row in range(20)])
    part = split(twice, Recipe({"a": 1, "b": 1})).part
    assert part[::2].tolist() == part[1::2].tolist()


def test_chains_of_keys_link_images():
    assert joined_groups(["a", "a", "b", "c"], np.array([1, 2, 2, 3])).tolist() == [0, 0, 0, 1]
    assert joined_groups([]).tolist() == []


def test_names_that_do_not_fit_a_pattern_stay_alone_and_are_told():
    keys, unfit = groups_by_pattern(["v1/a.jpg", "v1/b.jpg", "c.jpg", "d.jpg"], r"^(.*)/")
    assert keys[0] == keys[1] and len(set(keys)) == 3 and unfit == ["c.jpg", "d.jpg"]
    with pytest.raises(ValueError, match="must be a regular expression, got"):
        groups_by_pattern([], "(")


def test_a_torn_group_is_refused_with_its_images():
    found = split(contents(), Recipe(SHARES))
    torn = replace(found, group=np.where(found.group < 50, 0, found.group))
    with pytest.raises(ValueError, match=r"found 1 groups torn apart, such as camera.* in train and camera"):
        refuse_leaks(torn)
    refuse_leaks(found)


def test_what_cannot_be_met_is_told():
    own = contents(12)
    stays = own.labels < 2
    rows, labels = np.append(own.image_rows[stays], 0), np.append(own.labels[stays], 2)
    one_tram = replace(own, image_rows=rows, labels=labels)
    notes = split(one_tram, Recipe({"train": 0.5, "val": 0.5}), ["a"] * 9 + ["b"] * 3).notes()
    assert any("of the images where 50.0% were wanted" in note for note in notes)
    assert any("has no box of tram" in note for note in notes)


def test_raw_entries_and_records_give_the_same_contents():
    boxes = {"bbox": [0, 0, 2, 2]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 9, "name": "bus"}, {"id": 4, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9} | boxes,
            {"id": 2, "image_id": 2, "category_id": 4, "iscrowd": 1} | boxes,
            {"id": 3, "image_id": 2, "category_id": 77} | boxes,
        ],
    }
    one, other = contents_of(content), contents_of_coco(parse_coco(content, "x.json"))
    assert one.names == other.names == ["car", "bus"]
    for own in (one, other):
        assert (own.image_rows.tolist(), own.labels.tolist(), own.image_ids.tolist()) == ([0], [1], [1, 2])


whole = st.integers(-3, 6)
any_categories = st.one_of(st.none(), whole, st.text(max_size=2), st.just(1.5), st.just(10**30))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(whole, unique=True, max_size=6),
    st.lists(st.tuples(whole, any_categories, st.sampled_from([None, 0, 1, True])), max_size=15),
    st.lists(whole, max_size=4),
)
def test_entries_give_what_dictionaries_give(image_ids, boxes, category_ids):
    content = {
        "images": [{"id": each, "file_name": f"{each}.jpg"} for each in image_ids],
        "annotations": [{"image_id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in boxes],
        "categories": [{"id": each, "name": f"name {row}"} for row, each in enumerate(category_ids)],
    }
    known = sorted(set(category_ids))
    own = [(image_ids.index(i), known.index(c)) for i, c, crowd in boxes if i in image_ids and c in known and not crowd]
    found, rows = contents_of_entries(entries_of(content, Path("x.json")))
    assert list(zip(found.image_rows.tolist(), found.labels.tolist(), strict=True)) == own
    assert rows.tolist() == [image_ids.index(i) if i in image_ids else NOWHERE for i, _, _ in boxes]
    assert list(found.file_names) == [f"{each}.jpg" for each in image_ids] and found.image_ids.tolist() == image_ids
    assert found.names == [f"name {max(row for row, e in enumerate(category_ids) if e == each)}" for each in known]


@pytest.mark.parametrize(
    "shares, message",
    [({"a": 1}, "two or more"), ({"a": 1, "b": 0}, "above 0"), ({"a": 1, "../b": 1}, "names of parts must be")],
)
def test_shares_that_make_no_sense_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        Recipe(shares)


def test_too_few_groups_and_too_few_folds_are_refused():
    with pytest.raises(ValueError, match="expected 3 groups of images or more, one for each part, got 1"):
        split(contents(), Recipe(SHARES), ["one"] * 100)
    with pytest.raises(ValueError, match="folds must be 2 or more, got 1"):
        folds(contents(), 1)
    with pytest.raises(ValueError, match="got 0"):
        split(contents(0), Recipe(SHARES))


def test_a_list_must_name_every_image_once(tmp_path):
    own, path = contents(3), tmp_path / "list.csv"
    rows = [f"{name},{part}" for name, part in zip(own.file_names, ("a", "b", "a"), strict=True)]
    path.write_text("\n".join(["file_name,part", *rows]))
    assert partition_of_list(own, path).part.tolist() == [0, 1, 0]
    path.write_text("\n".join(["file_name,part", *rows[:2], "other.jpg,a"]))
    with pytest.raises(ValueError, match=r"1 without a row \(camera2_002.jpg\), 1 rows of other images \(other.jpg\)"):
        partition_of_list(own, path)
    path.write_text("name\n")
    with pytest.raises(ValueError, match="expected the columns file_name and part"):
        partition_of_list(own, path)
