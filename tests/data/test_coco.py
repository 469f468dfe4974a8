import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from kit.data.check import clean_record
from kit.data.coco import UNKNOWN, as_coco, columns_of, find_dataset, find_split, parse_coco, read_coco, write_coco
from kit.data.coco_entries import read_entries
from kit.files import read_json

IMAGES = [
    {"id": 30, "file_name": "b.jpg", "height": 20, "width": 40},
    {"id": 7, "file_name": "a.jpg", "height": 10, "width": 10},
]
CATEGORIES = [{"id": 90, "name": "bus"}, {"id": 0, "name": "car"}, {"id": 13, "name": "bike"}]


def annotation(image_id=30, category_id=90, bbox=(1.25, 2.5, 3.125, 4.0), **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox)} | more


def write_file(path, annotations=(), images=IMAGES, categories=CATEGORIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": categories}))
    return path


def test_records_are_in_order_of_image_id_with_sizes_from_the_file(tmp_path):
    coco = read_coco(write_file(tmp_path / "x.json"))
    assert [record.image_id for record in coco.records] == [7, 30]
    assert [record.size_hw for record in coco.records] == [(10, 10), (20, 40)]
    assert coco.records[0].boxes_xywh_px.shape == (0, 4)


def test_category_ids_of_any_numbering_become_labels_and_come_back(tmp_path):
    annotations = [annotation(category_id=each, id=n) for n, each in enumerate((90, 0, 13), 1)]
    coco = read_coco(write_file(tmp_path / "x.json", annotations))
    assert coco.category_ids == [0, 13, 90] and coco.names == ["car", "bike", "bus"]
    assert coco.records[1].labels.tolist() == [2, 0, 1]
    assert [each["category_id"] for each in as_coco(coco)["annotations"]] == [90, 0, 13]


def test_boxes_are_the_numbers_of_the_file(tmp_path):
    box = [0.1, 1 / 3, 2.7182818284590451, 1e-7]
    coco = read_coco(write_file(tmp_path / "x.json", [annotation(bbox=box, id=1)]))
    assert coco.records[1].boxes_xywh_px.tolist() == [box]
    again = write_coco(tmp_path / "y.json", **as_coco(coco))
    assert read_coco(again).records[1].boxes_xywh_px.tolist() == [box]


def test_areas_of_masks_survive_and_boxes_give_the_others(tmp_path):
    coco = read_coco(write_file(tmp_path / "x.json", [annotation(area=5, id=1), annotation(id=2)]))
    assert [each["area"] for each in as_coco(coco)["annotations"]] == [5, 12.5]


def test_an_unknown_category_is_not_written_as_another(tmp_path):
    coco = read_coco(write_file(tmp_path / "x.json", [annotation(category_id=5, id=1)]))
    with pytest.raises(ValueError, match="image 30 has an unknown category"):
        as_coco(coco)


def test_what_the_check_reports_is_read_and_marked(tmp_path):
    annotations = [
        annotation(category_id=5, id=1),
        annotation(bbox=(1, 2, 3), id=2),
        annotation(bbox=(float("nan"), 1, 2, 3), id=2),
        {"image_id": 30, "category_id": 0, "id": "a1"},
        annotation(image_id=99, id=4),
        annotation(iscrowd=1, id=6),
    ]
    record = read_coco(write_file(tmp_path / "x.json", annotations)).records[1]
    assert record.labels.tolist() == [UNKNOWN, 2, 2, 0, 2]
    assert np.isnan(record.boxes_xywh_px).any(axis=1).tolist() == [False, True, True, True, False]
    assert record.annotation_ids.tolist() == [1, 2, 2, 0, 6] and record.is_crowd.tolist() == [False] * 4 + [True]


POLYGON = [1.5, 2, 8, 2, 8.25, 9]
RUN_LENGTHS = {"size": [20, 40], "counts": [5, 3, 792]}


def test_polygons_are_read_and_written_back_as_they_stand(tmp_path):
    two = annotation(id=1, segmentation=[POLYGON, [0, 0, 4, 0, 4, 3]])
    coco = read_coco(write_file(tmp_path / "x.json", [two, annotation(id=2)]))
    first, second = coco.records[1].outlines
    assert [ring.tolist() for ring in first] == [[[1.5, 2], [8, 2], [8.25, 9]], [[0, 0], [4, 0], [4, 3]]]
    assert second is None and coco.records[0].outlines is None
    written = as_coco(coco)["annotations"]
    assert written[0]["segmentation"] == [POLYGON, [0, 0, 4, 0, 4, 3]] and "segmentation" not in written[1]


def test_the_mask_of_an_object_gives_its_outline_and_that_of_a_crowd_none(tmp_path):
    both = [annotation(id=1, segmentation=RUN_LENGTHS), annotation(id=2, segmentation=RUN_LENGTHS, iscrowd=1)]
    first, second = read_coco(write_file(tmp_path / "x.json", both)).records[1].outlines
    assert sorted(first[0].tolist()) == [[0, 5], [0, 8], [1, 5], [1, 8]] and second is None


@pytest.mark.parametrize(
    "nothing",
    [
        RUN_LENGTHS | {"counts": [5, 3]},
        None,
        [],
        "x",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, "4", 5, 6]],
        [3, 4],
    ],
)
def test_what_is_no_polygon_is_no_outline(tmp_path, nothing):
    coco = read_coco(write_file(tmp_path / "x.json", [annotation(id=1, segmentation=nothing)]))
    assert coco.records[1].outlines is None


def test_a_polygon_with_a_nan_is_no_outline_and_a_crowd_has_none(tmp_path):
    broken = annotation(id=1, segmentation=[[1, 2, float("nan"), 4, 5, 6], POLYGON])
    crowd = annotation(id=2, iscrowd=1, segmentation=[POLYGON])
    outlines = read_coco(write_file(tmp_path / "x.json", [broken, crowd])).records[1].outlines
    assert [ring.shape for ring in outlines[0]] == [(3, 2)] and outlines[1] is None


def test_rows_of_a_record_are_selected_together(tmp_path):
    annotations = [annotation(category_id=each, id=n) for n, each in enumerate((90, 0, 13), 1)]
    annotations[2]["segmentation"] = [POLYGON]
    record = read_coco(write_file(tmp_path / "x.json", annotations)).records[1]
    for rows in (np.array([False, True, True]), np.array([1, 2])):
        only = record.only(rows)
        assert only.annotation_ids.tolist() == [2, 3] and only.labels.tolist() == [0, 1]
        assert only.outlines[0] is None and only.outlines[1][0].shape == (3, 2) and len(only.areas_px2) == 2
    with pytest.raises(ValueError, match=r"b\.jpg: expected as many outlines as annotations, got 2 annotations and 3"):
        replace(record, labels=record.labels[:2])


def test_outlines_stay_with_their_annotations_when_the_check_takes_others_away(tmp_path):
    broken, bare = annotation(bbox=(1, 2, 0, 3), id=1, segmentation=[POLYGON]), annotation(id=2)
    whole = annotation(bbox=(2, 3, 4, 5), id=3, segmentation=[[2, 3, 6, 3, 6, 8]])
    cleaned = clean_record(read_coco(write_file(tmp_path / "x.json", [broken, bare, whole])).records[1])
    assert cleaned.annotation_ids.tolist() == [2, 3] and cleaned.outlines[0] is None
    assert cleaned.outlines[1][0].tolist() == [[2, 3], [6, 3], [6, 8]]


def test_progress_ends_with_the_whole_file_be_it_small_or_large(tmp_path):
    path, calls = write_file(tmp_path / "x.json", [annotation(id=1)]), []
    size = path.stat().st_size
    read_coco(path, lambda done, total: calls.append((done, total)))
    assert calls == [(size, size)]
    entries = read_entries(path, lambda done, total: calls.append((done, total)), small_bytes=0, chunk_bytes=50)
    assert len(calls) > 3 and calls[-1] == (size, size) and len(entries.annotations.image_ids) == 1


def test_some_records_may_stand_for_all(tmp_path):
    coco = read_coco(write_file(tmp_path / "x.json", [annotation(id=1), annotation(id=2)]))
    fewer, none = replace(coco, records=coco.records[1:]), replace(coco, records=[])
    assert as_coco(replace(coco, records=list(coco.records))) == as_coco(coco)
    assert [each["id"] for each in as_coco(fewer)["images"]] == [30] and as_coco(none)["annotations"] == []
    assert columns_of(fewer).annotation_ids.tolist() == [1, 2] and len(columns_of(none)) == 0


def test_a_list_of_images_alone_is_enough(tmp_path):
    coco = parse_coco({"images": IMAGES}, tmp_path)
    assert len(coco.records) == 2 and coco.category_ids == []


def test_of_two_images_with_one_id_the_first_is_read(tmp_path):
    images = [*IMAGES, {"id": 7, "file_name": "other.jpg", "height": 1, "width": 1}]
    assert read_coco(write_file(tmp_path / "x.json", images=images)).records[0].file_name == "a.jpg"


def test_an_image_without_a_size_has_size_zero(tmp_path):
    coco = parse_coco({"images": [{"id": 1, "file_name": "a.jpg"}]}, tmp_path)
    assert coco.records[0].size_hw == (0, 0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "got list"),
        ({"shapes": [], "version": 1}, "the keys shapes, version"),
        ({"images": [{"id": 1}]}, r"images\[0\]: expected file_name"),
        ({"images": [{"id": "a1", "file_name": "x"}]}, "must be an integer, got 'a1'"),
        ({"images": IMAGES, "annotations": [{"bbox": [0, 0, 1, 1]}]}, r"annotations\[0\]: expected image_id"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused_by_name(tmp_path, content, found):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"x\.json: .*{found}"):
        read_coco(path)


def test_annotation_ids_are_written_from_one_and_area_and_crowd_are_completed(tmp_path):
    content = read_json(write_coco(tmp_path / "x.json", IMAGES, [annotation(), annotation()], CATEGORIES, {"year": 1}))
    assert [each["id"] for each in content["annotations"]] == [1, 2] and content["info"] == {"year": 1}
    assert content["annotations"][0]["area"] == 12.5 and content["annotations"][0]["iscrowd"] == 0


def test_given_annotation_ids_and_areas_are_kept(tmp_path):
    content = read_json(write_coco(tmp_path / "x.json", IMAGES, [annotation(id=5, area=3)], CATEGORIES))
    assert content["annotations"][0]["id"] == 5 and content["annotations"][0]["area"] == 3


def test_a_box_that_json_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_coco(tmp_path / "x.json", IMAGES, [annotation(bbox=(0, 0, float("nan"), 1))], CATEGORIES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["images/{}", "{}"])
def test_both_layouts_are_found(tmp_path, layout):
    for name in ("train", "val", "test"):
        (tmp_path / layout.format(name)).mkdir(parents=True)
        write_file(tmp_path / f"annotations/instances_{name}.json")
    splits = find_dataset(tmp_path)
    assert splits.train.images == tmp_path / layout.format("train") and list(splits.others) == ["test"]
    assert splits.val.annotations == tmp_path / "annotations/instances_val.json"


def test_a_data_set_without_val_has_none_and_gzip_is_read(tmp_path):
    (tmp_path / "train").mkdir()
    write_file(tmp_path / "annotations/instances_train.json")
    plain = tmp_path / "annotations/instances_train.json"
    plain.with_suffix(".json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    splits = find_dataset(tmp_path)
    assert splits.val is None and len(read_coco(splits.train.annotations).records) == 2


def test_what_was_looked_for_and_found_is_said(tmp_path):
    with pytest.raises(ValueError, match="found nothing"):
        find_dataset(tmp_path / "nowhere")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"expected .*annotations/instances_train\.json, found pictures"):
        find_dataset(tmp_path)
    write_file(tmp_path / "annotations/instances_val.json")
    with pytest.raises(ValueError, match=r"expected .*images/val or .*val, found annotations, pictures"):
        find_split(tmp_path, "val")


def test_annotations_may_stand_without_images_where_none_are_needed(tmp_path):
    write_file(tmp_path / "annotations/instances_val.json")
    split = find_split(tmp_path, "val", needs_images=False)
    assert split.annotations.is_file() and split.images == tmp_path / "images/val"
