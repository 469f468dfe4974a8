from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.data.augment import plain_policy
from kit.data.coco import parse_coco
from kit.data.copy_paste import make_book
from kit.data.dataset import CocoDataset
from kit.data.offline import (
    EFFECTS,
    Offline,
    augmented,
    each_effect,
    loads,
    make_job,
    picture_of_task,
    record_of,
    typical_index,
    with_least_sides,
)
from kit.data.perspective import make_perspective
from kit.data.views import TRACK4_VIEW, view_of

NEVER = Offline(view_pattern=TRACK4_VIEW, **dict.fromkeys(EFFECTS, 0.0))
NAMES = ("camera1_M_1.png", "camera1_M_2.png", "camera1_N_1.png")


def coco_of(names=NAMES, boxes=((10, 12, 20, 16), (60, 50, 24, 20))):
    images = [{"id": 7 * k + 5, "file_name": name, "height": 96, "width": 112} for k, name in enumerate(names)]
    annotations = [
        {"image_id": image["id"], "category_id": 3, "bbox": [x + 20 * (k % 2), y, width, height]}
        for k, image in enumerate(images)
        for x, y, width, height in boxes
    ]
    numbered = [each | {"id": number} for number, each in enumerate(annotations, 1)]
    return parse_coco(
        {"images": images, "annotations": numbered, "categories": [{"id": 3, "name": "car"}]}, Path("a.json")
    )


@pytest.fixture
def dataset(tmp_path):
    for index, name in enumerate(NAMES):
        image = np.random.default_rng(index).integers(40, 200, (12, 14, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / name), cv2.resize(image, (112, 96), interpolation=cv2.INTER_CUBIC))
    return CocoDataset(coco_of(), tmp_path, plain_policy())


@pytest.mark.parametrize("name", EFFECTS)
def test_each_probability_turns_its_effect_on(dataset, name):
    book = make_book(dataset.coco, TRACK4_VIEW)
    once = replace(NEVER, **{name: 1.0})
    found = [augmented(dataset.load, 0, number, 5, once, book).image for number in range(1, 5)]
    assert any(not np.array_equal(image, dataset.load(0).image) for image in found)


def test_without_effects_a_copy_is_its_source(dataset):
    copy, source = augmented(dataset.load, 1, 1, 12, NEVER, None), dataset.load(1)
    assert np.array_equal(copy.image, source.image) and np.array_equal(copy.boxes_xyxy_px, source.boxes_xyxy_px)


def test_a_copy_follows_from_seed_image_and_number_alone(dataset):
    offline = Offline(copy_paste=0.5, lens=0.5, rotate=0.5, view_pattern=TRACK4_VIEW)
    book = make_book(dataset.coco, TRACK4_VIEW)

    def pixels(index=0, number=1, image_id=5, seed=0):
        return augmented(dataset.load, index, number, image_id, replace(offline, seed=seed), book).image.tobytes()

    first = pixels()
    others = {pixels(number=2), pixels(seed=1), pixels(image_id=6)}
    assert pixels() == first and first not in others and len(others) == 3


def test_names_keep_camera_and_scene_and_ids_are_unique(dataset):
    tasks = [task for chunk in make_job(dataset.coco, dataset.images, Offline(copies=3)).chunks for task in chunk]
    assert [task.file_name for task in tasks[:4]] == [
        NAMES[0],
        *(f"camera1_M_1_copy{number}.jpg" for number in (1, 2, 3)),
    ]
    assert len({task.image_id for task in tasks}) == len({task.file_name for task in tasks}) == 12
    assert [task.image_id for task in tasks if task.number == 0] == [5, 12, 19]
    views = {task.file_name: view_of(task.file_name, TRACK4_VIEW) for task in tasks}
    assert {name: view.camera + view.scene for name, view in views.items() if "N_1_copy2" in name} == {
        "camera1_N_1_copy2.jpg": "1N"
    }


def test_two_sources_of_one_stem_do_not_share_a_copy():
    coco = coco_of(("a.png", "a.jpg", "a_copy1.jpg", "b/a.png"))
    tasks = [task for chunk in make_job(coco, Path("."), Offline(copies=1)).chunks for task in chunk]
    names = [task.file_name for task in tasks]
    assert len(set(names)) == len(names) == 8 and "b/a_copy1.jpg" in names


def test_four_channels_are_written_without_jpeg():
    tasks = make_job(coco_of(), Path("."), Offline(copies=1, channels=4)).chunks[0]
    assert tasks[1].file_name == "camera1_M_1_copy1.png"


def test_perspective_images_follow_with_ids_and_names_of_their_own(dataset):
    other = coco_of(("x/1.png", "y/1.png"))
    perspective = make_perspective(other, dataset.images, [], dataset.coco, copies=2)
    tasks = [
        task
        for chunk in make_job(dataset.coco, dataset.images, Offline(copies=1), perspective).chunks
        for task in chunk
    ]
    assert [task.kind for task in tasks] == ["original", "copy"] * 3 + ["perspective"] * 4
    assert len({task.image_id for task in tasks}) == len({task.file_name for task in tasks}) == 10
    assert tasks[6].file_name == "perspective/1_fisheye1.jpg"


def test_a_perspective_image_becomes_a_picture_of_the_target_size(dataset):
    perspective = make_perspective(coco_of(NAMES[:1]), dataset.images, [], dataset.coco)
    job = make_job(dataset.coco, dataset.images, Offline(copies=0), perspective)
    picture = picture_of_task(job, job.chunks[0][-1], loads(job))
    assert picture.size_hw == (96, 112) and len(picture.labels) >= 1


def test_thin_boxes_grow_to_a_pixel_inside_the_image_and_others_stay_exact():
    record = coco_of(NAMES[:1], boxes=((111.6, 10.25, 0.4, 8.5), (20, 30, 0.5, 0.5), (1.1, 2.2, 3.3, 4.4))).records[0]
    grown = with_least_sides(record)
    assert np.allclose(grown.boxes_xywh_px, [[111, 10.25, 1, 8.5], [19.75, 29.75, 1, 1], [1.1, 2.2, 3.3, 4.4]])
    assert np.array_equal(grown.boxes_xywh_px[2], record.boxes_xywh_px[2]) and np.allclose(
        grown.areas_px2[:2], [8.5, 1]
    )


def test_the_labels_of_a_copy_without_boxes_are_empty(dataset):
    empty = dataset.load(0).only(np.zeros(2, bool))
    record = record_of(empty, make_job(dataset.coco, dataset.images, Offline()).chunks[0][1])
    assert record.boxes_xywh_px.shape == (0, 4) and record.areas_px2.shape == (0,)


def test_each_effect_is_shown_with_its_probability(dataset):
    shown = each_effect(dataset.load, 0, Offline(view_pattern=TRACK4_VIEW), make_book(dataset.coco, TRACK4_VIEW))
    assert list(shown)[:3] == ["as it is", "copy_paste: 0", "flip: 0.5"] and len(shown) == 1 + len(EFFECTS)


def test_the_typical_image_is_by_day_and_middling():
    coco = coco_of()
    records = [replace(coco.records[0].only(np.arange(k)), file_name=name) for k, name in enumerate(NAMES[::-1])]
    coco = replace(coco, records=records)  # by night none, by day 1 and 2
    assert typical_index(coco, make_book(coco, TRACK4_VIEW)) == 2
