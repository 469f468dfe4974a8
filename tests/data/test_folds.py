import json
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.coco import parse_coco, read_coco
from kit.data.columns import Records
from kit.data.folds import (
    balanced,
    fold_of,
    grouped_folds,
    groups_of,
    split_report,
    surplus,
    traits,
    usable_folds,
    write_folds,
)
from kit.data.views import TRACK4_VIEW


def coco_of(images):
    """images: (file name, labels of its boxes) each."""
    entries = [
        {"id": number, "file_name": name, "height": 100, "width": 100} for number, (name, _) in enumerate(images, 1)
    ]
    boxes = [
        {"image_id": number, "bbox": [5 * row, 5, 4, 4], "category_id": label + 1}
        for number, (_, labels) in enumerate(images, 1)
        for row, label in enumerate(labels)
    ]
    numbered = [each | {"id": number} for number, each in enumerate(boxes, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate("abc", 1)]
    return parse_coco({"images": entries, "annotations": numbered, "categories": categories}, Path("a.json"))


def frames(camera, count, labels=(0,), scene="A", first=0):
    return [(f"camera{camera}_{scene}_{first + frame}.png", labels) for frame in range(count)]


def ids(coco):
    return [record.image_id for record in coco.records]


# images of up to 9 cameras at two times of day, with up to 3 boxes each
any_images = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from("AN"), st.lists(st.integers(0, 2), max_size=3)),
    min_size=1,
    max_size=40,
).map(lambda rows: [(f"camera{c}_{s}_{frame}.png", labels) for frame, (c, s, labels) in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(any_images, st.integers(2, 6), st.integers(0, 3))
def test_no_camera_is_in_two_folds_and_none_is_empty(images, k, seed):
    coco = coco_of(images)
    cameras = groups_of(coco, TRACK4_VIEW)
    if len(set(cameras)) < k:
        with pytest.raises(ValueError, match="number of groups"):
            grouped_folds(coco, k, TRACK4_VIEW, seed)
        return
    folds = grouped_folds(coco, k, TRACK4_VIEW, seed)
    assert len({(camera, fold) for camera, fold in zip(cameras, folds.fold, strict=True)}) == len(set(cameras))
    assert set(folds.fold.tolist()) == set(range(k)) and folds.k == k


@settings(max_examples=60, deadline=None)
@given(any_images, st.integers(2, 6))
def test_every_image_is_held_out_once_and_trained_on_otherwise(images, k):
    coco = coco_of(images)
    folds = usable_folds(coco, k, TRACK4_VIEW)
    held_out = [ids(folds.held_out(fold)) for fold in range(folds.k)]
    assert sorted(chain(*held_out)) == ids(coco) and folds.k <= k
    for fold, own in enumerate(held_out):
        assert sorted(own + ids(folds.rest(fold))) == ids(coco)


@settings(max_examples=60, deadline=None)
@given(any_images, st.floats(0.1, 0.9), st.integers(0, 3))
def test_choosing_and_reporting_share_no_image(images, share, seed):
    coco = coco_of(images)
    tune, report = split_report(coco, share, TRACK4_VIEW, seed=seed)
    if len(images) == 1:
        assert report is None
        return
    assert sorted(ids(tune) + ids(report)) == ids(coco) and ids(tune) and ids(report)


def worst_surplus(contents, fold, k):
    return (surplus(np.asarray(fold), contents, np.full(k, 1 / k)) ** 2).sum()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(4, 8), st.integers(2, 3), st.integers(0, 10**6))
def test_the_search_comes_near_the_best_of_all_ways_to_share_out(groups, k, seed):
    contents = np.random.default_rng(seed).exponential(size=(groups, 3))
    contents /= contents.sum(axis=0)
    ways = [fold for fold in product(range(k), repeat=groups) if len(set(fold)) == k]
    all_costs = np.sort([worst_surplus(contents, fold, k) for fold in ways])
    found = worst_surplus(contents, balanced(contents, np.full(k, 1 / k), 0), k)
    third = np.unique(all_costs.round(12))[2]  # few groups have few ways: 5 % of them may be the best alone
    assert all_costs[0] - 1e-12 <= found <= max(np.quantile(all_costs, 0.05), third) + 1e-12


def test_a_rare_class_is_shared_out_as_evenly_as_a_frequent_one():
    images = [image for camera in range(1, 7) for image in frames(camera, 4, (0, 0, 0, 1) if camera > 4 else (0, 0, 0))]
    folds = grouped_folds(coco_of(images), 2, TRACK4_VIEW)
    rare = [sum((record.labels == 1).sum() for record in folds.held_out(fold).records) for fold in (0, 1)]
    assert rare == [4, 4]


def test_nights_are_shared_out_too():
    images = [image for camera in range(1, 9) for image in frames(camera, 3, scene="N" if camera > 6 else "A")]
    folds = grouped_folds(coco_of(images), 2, TRACK4_VIEW)
    nights = [sum("_N_" in record.file_name for record in folds.held_out(fold).records) for fold in (0, 1)]
    assert nights == [3, 3]


def test_the_same_seed_gives_the_same_folds_and_another_seed_others():
    coco = coco_of([(f"{number}.jpg", (number % 3,)) for number in range(40)])
    assert fold_of(coco, 4, 0, None) == fold_of(coco, 4, 0, None) != fold_of(coco, 4, 1, None)


def test_without_cameras_near_duplicates_stay_together():
    coco = coco_of([(f"{number}.jpg", (0,)) for number in range(10)])
    clusters = {1: 0, 2: 0, 7: 0, 4: 1, 9: 1}
    for seed in range(5):
        fold = fold_of(coco, 3, seed, None, clusters)
        assert fold[1] == fold[2] == fold[7] and fold[4] == fold[9]


def test_fewer_cameras_than_folds_give_as_many_folds_as_cameras():
    coco = coco_of(frames(1, 5) + frames(2, 5) + frames(30, 5))
    folds = usable_folds(coco, 5, TRACK4_VIEW)
    assert sorted(folds.members(fold) for fold in range(folds.k)) == [["camera 1"], ["camera 2"], ["camera 30"]]


def test_one_camera_is_split_by_its_scenes_and_one_scene_by_its_images():
    two = coco_of(frames(1, 5) + frames(1, 5, scene="N"))
    assert len(set(fold_of(two, 5, 0, TRACK4_VIEW).values())) == 2
    one = coco_of(frames(1, 10))
    assert sorted(np.bincount(list(fold_of(one, 5, 0, TRACK4_VIEW).values()))) == [2] * 5


def test_a_single_image_and_no_image_make_one_fold():
    one = coco_of(frames(1, 1))
    assert fold_of(one, 5, 0, TRACK4_VIEW) == {1: 0}
    assert fold_of(replace(one, records=[]), 5, 0, TRACK4_VIEW) == {}


def test_a_report_is_of_whole_cameras_where_three_are_enough():
    tune, report = split_report(
        coco_of([image for camera in (1, 2, 3, 4) for image in frames(camera, 10)]), 0.25, TRACK4_VIEW
    )
    assert (len(tune.records), len(report.records)) == (30, 10)
    assert not set(groups_of(tune, TRACK4_VIEW)) & set(groups_of(report, TRACK4_VIEW))


def test_two_cameras_are_not_enough_for_a_report_so_scenes_are_taken_then_images():
    scenes = coco_of([image for c in (1, 2) for s in "AN" for image in frames(c, 10, scene=s)])
    report = split_report(scenes, 0.25, TRACK4_VIEW)[1]
    assert len(report.records) == 10 and len(set(groups_of(report, TRACK4_VIEW, "scene"))) == 1
    images = coco_of(frames(1, 10) + frames(2, 10))
    assert len(split_report(images, 0.25, TRACK4_VIEW)[1].records) == 5


def test_a_share_of_nothing_keeps_all_for_the_choices():
    coco = coco_of(frames(1, 4))
    assert split_report(coco, 0.0, TRACK4_VIEW) == (coco, None)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_to_choose_on_is_refused(share):
    with pytest.raises(ValueError, match="report_share must be from 0 to less than 1"):
        split_report(coco_of(frames(1, 4)), share, TRACK4_VIEW)


def test_folds_are_written_as_coco_files_that_tell_how_they_were_made(tmp_path):
    coco = coco_of(frames(1, 2) + frames(2, 1, (0, 2)) + frames(10, 1, ()))
    folds = grouped_folds(coco, 2, TRACK4_VIEW, seed=3)
    paths = write_folds(folds, tmp_path, TRACK4_VIEW)
    assert [path.name for path in paths] == ["fold0_train.json", "fold0_val.json", "fold1_train.json", "fold1_val.json"]
    train, val = read_coco(paths[0]), read_coco(paths[1])
    assert ids(val) == ids(folds.held_out(0)) and sorted(ids(train) + ids(val)) == ids(coco)
    assert train.names == coco.names and '"seed": 3' in paths[0].read_text()
    assert [each.labels.tolist() for each in val.records] == [r.labels.tolist() for r in folds.held_out(0).records]


def test_parts_of_a_file_stay_arrays_and_keep_masks_as_they_stood(tmp_path):
    masks = [[[1.25, 2, 3, 4, 5, 6]], {"size": [9, 9], "counts": "abc"}, {"size": [9, 9], "counts": [0, 81]}]
    images = [{"id": number, "file_name": f"{number}.png", "height": 9, "width": 9} for number in range(3)]
    boxes = [
        {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 2, "iscrowd": number % 2}
        | {"segmentation": masks[number]}
        for number in range(3)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    folds = grouped_folds(parse_coco(content, Path("a.json")), 3, None)
    assert all(isinstance(folds.rest(fold).records, Records) for fold in range(3))
    val = [json.loads(path.read_text()) for path in write_folds(folds, tmp_path)[1::2]]
    found = sorted((each for part in val for each in part["annotations"]), key=lambda each: each["id"])
    assert found == boxes and [len(part["images"]) for part in val] == [1, 1, 1]


def test_counting_block_by_block_changes_nothing(monkeypatch):
    coco = coco_of(
        [image for camera in range(1, 7) for image in frames(camera, 5, (0, camera % 3), scene="AN"[camera % 2])]
    )
    whole = np.concatenate(list(traits(coco, TRACK4_VIEW)))
    monkeypatch.setattr("kit.data.folds.BLOCK", 7)
    blocks = list(traits(coco, TRACK4_VIEW))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    assert np.array_equal(np.concatenate(blocks), whole)
    assert np.allclose(whole.sum(axis=0), [1, 1, 1, 2, 1, 1, 1, 1])


def test_all_of_fisheye8k_is_shared_out_by_camera(shared):
    coco = read_coco(shared("data/fisheye8k_mini/annotations_full/fisheye8k_gt_train.json.gz"))
    folds = grouped_folds(coco, 3, TRACK4_VIEW)
    counts = np.array([sum(len(record.labels) for record in folds.held_out(fold).records) for fold in range(3)])
    images = np.bincount(folds.fold)
    assert counts.sum() == 112213 and images.min() > 1500  # camera 3 alone has 1617 of 5288
