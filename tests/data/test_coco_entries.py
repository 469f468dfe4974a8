import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.coco import as_coco, coco_of_entries, parse_coco, read_coco
from kit.data.coco_entries import NO_CATEGORY, entries_of, read_entries
from kit.data.record import outline_of

# --- the plain way, which any other must equal: an image after the other, an annotation after the other ---


def plainly_read(content):
    images, own = {}, {}
    for image in content["images"]:
        images.setdefault(image["id"], image)
    for annotation in content.get("annotations") or []:
        own.setdefault(annotation["image_id"], []).append(annotation)
    category_ids = sorted({category["id"] for category in content.get("categories") or []})
    return [plain_record(images[each], own.get(each, []), category_ids) for each in sorted(images)]


def plain_record(image, annotations, category_ids):
    boxes = [plain_box(each.get("bbox")) for each in annotations]
    outlines = [outline_of(each) for each in annotations]
    categories = [each.get("category_id") for each in annotations]
    with np.errstate(all="ignore"):
        areas = [
            each["area"] if isinstance(each.get("area"), int | float) else np.float64(box[2]) * box[3]
            for each, box in zip(annotations, boxes, strict=True)
        ]
    return {
        "image_id": image["id"],
        "file_name": str(image["file_name"]),
        "size_hw": (int(image.get("height") or 0), int(image.get("width") or 0)),
        "boxes_xywh_px": np.array(boxes, np.float64).reshape(-1, 4),
        "labels": [category_ids.index(each) if each in category_ids else -1 for each in categories],
        "is_crowd": [bool(each.get("iscrowd", 0)) for each in annotations],
        "annotation_ids": [each["id"] if isinstance(each.get("id"), int) else 0 for each in annotations],
        "areas_px2": np.array(areas, np.float64),
        "outlines": outlines if any(outlines) else None,
    }


def plain_box(box):
    is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    return [float(value) for value in box] if is_box else [np.nan] * 4


def assert_same(coco, content):
    expected = plainly_read(content)
    assert len(coco.records) == len(expected)
    for record, wanted in zip(coco.records, expected, strict=True):
        assert (record.outlines is None) == (wanted["outlines"] is None)
        rings = [[ring.tolist() for ring in each or []] for each in record.outlines or []]
        assert rings == [[ring.tolist() for ring in each or []] for each in wanted["outlines"] or []]
        for name in wanted.keys() - {"outlines"}:
            np.testing.assert_array_equal(getattr(record, name), wanted[name], err_msg=name)
        assert record.boxes_xywh_px.dtype == record.areas_px2.dtype == np.float64
        assert record.labels.dtype == record.annotation_ids.dtype == np.int64 and record.is_crowd.dtype == bool


def all_ways(content, folder, chunk_bytes=50, indent=None):
    """In memory; as a small file; as a large one; the same packed."""
    path = folder / "x.json"
    path.write_text(json.dumps(content, indent=indent))
    packed = folder / "x.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    yield parse_coco(json.loads(path.read_text()), path)
    yield read_coco(path)
    yield coco_of_entries(read_entries(path, small_bytes=0, chunk_bytes=chunk_bytes))
    yield coco_of_entries(read_entries(packed, small_bytes=0, chunk_bytes=chunk_bytes))


# --- files as strangers write them ---

number = (
    st.integers(-5, 500) | st.floats(-10, 1e4, allow_nan=False) | st.sampled_from([0.1, 1 / 3, 1e-7, 5e300, 10**19])
)
odd = st.sampled_from([None, "x", "7", float("nan"), float("inf"), 1e400, 10**400, True, [], {}, [1, 2], {"a": "]"}])
small = st.integers(0, 4)
polygon = st.lists(number, min_size=6, max_size=8) | st.lists(number | odd, max_size=7)
runs = st.fixed_dictionaries(
    {"size": st.just([2, 3]), "counts": st.sampled_from([[2, 3, 1], [6], [0, 6], [1, 2], "02c0", [2, "x"], None])}
)


def some_of(**fields):
    """Any of these, and what nobody asks for."""
    more = {"license": number, "attributes": st.just({'a,"]}': [{"id": 3}, "\\\\"]})}
    return st.fixed_dictionaries({}, optional=fields | more)


images = st.tuples(
    st.fixed_dictionaries({"id": small, "file_name": st.text(max_size=5) | st.integers()}),
    some_of(height=st.integers(0, 50) | st.sampled_from([None, 7.5, "12"]), width=st.integers(0, 50) | st.none()),
).map(lambda pair: pair[1] | pair[0])
annotations = st.tuples(
    st.fixed_dictionaries({"image_id": small}),
    some_of(
        category_id=small | st.sampled_from([None, 1.0, "x", 2.5, 10**30]),
        bbox=st.lists(number, min_size=4, max_size=4) | st.lists(number | odd, max_size=5) | odd,
        area=number | st.sampled_from([None, "x", float("nan"), float("inf")]),
        iscrowd=st.sampled_from([0, 1, True, False, None, "x", 0.5]),
        id=small | st.sampled_from([None, "a1", 2.0, 1.5, True]),
        segmentation=st.lists(polygon | odd, max_size=3) | runs | odd,
    ),
).map(lambda pair: pair[0] | pair[1])
categories = st.fixed_dictionaries({"id": small}, optional={"name": st.text(max_size=3), "supercategory": odd})
contents = st.fixed_dictionaries(
    {"images": st.lists(images, max_size=5)},
    optional={
        "annotations": st.lists(annotations, max_size=8) | st.none(),
        "categories": st.lists(categories, max_size=3) | st.none(),
        "info": st.dictionaries(st.text(max_size=3), odd, max_size=2),
        "licenses": st.lists(odd, max_size=3),
    },
)


def with_floats_of_any_size(value):
    """Whole numbers that no float can hold are read as infinity: the plain way would stop at them."""
    if isinstance(value, dict):
        return {key: with_floats_of_any_size(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_floats_of_any_size(each) for each in value]
    return float("inf") if type(value) is int and value > 10**308 else value


@settings(max_examples=150, deadline=None)
@given(content=contents, order=st.randoms(), chunk_bytes=st.integers(1, 300), indent=st.sampled_from([None, 1]))
def test_every_way_of_reading_gives_what_the_plain_one_gives(tmp_path_factory, content, order, chunk_bytes, indent):
    keys = list(content)
    order.shuffle(keys)
    content = {key: content[key] for key in keys}
    expected = with_floats_of_any_size(content)
    for coco in all_ways(content, tmp_path_factory.getbasetemp(), chunk_bytes, indent):
        assert_same(coco, expected)
        own = {each["id"]: each.get("name", str(each["id"])) for each in content.get("categories") or []}
        assert (coco.category_ids, coco.names) == (sorted(own), [own[each] for each in sorted(own)])


@pytest.mark.parametrize(
    "name", ["coco_mini", "bccd", "pennfudan_mini", "kitti_tiny", "vehicles_openimages", "fisheye8k_mini"]
)
def test_real_files_are_read_the_same_by_every_way(shared, tmp_path, name):
    for path in sorted(shared(f"data/{name}/annotations").glob("*.json")):
        content = json.loads(path.read_text())
        for coco in all_ways(content, tmp_path, chunk_bytes=5000):
            assert_same(coco, content)


def test_a_real_packed_file_is_read_the_same(shared):
    path = shared("data/fisheye8k_mini/annotations_full/fisheye8k_gt_test.json.gz")
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert_same(coco_of_entries(read_entries(path, small_bytes=0, chunk_bytes=200_000)), content)


IMAGES = [{"id": 5, "file_name": "b.jpg", "height": 4, "width": 6}, {"id": 5, "file_name": "c.jpg"}]


def write(folder, content):
    path = folder / "x.json"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_entries_stand_as_in_the_file_and_none_is_left_out(tmp_path):
    boxes = [{"image_id": 9, "bbox": [1, 2, 3, 4]}, {"image_id": 5, "category_id": 3, "id": 8, "segmentation": [[1]]}]
    content = {"annotations": boxes, "images": IMAGES, "categories": [{"id": 3, "odd": 1}], "info": {"year": 1}}
    for small_bytes in (0, 10_000):
        entries = read_entries(write(tmp_path, content), small_bytes=small_bytes)
        assert list(entries.images.file_names) == ["b.jpg", "c.jpg"] and entries.images.image_ids.tolist() == [5, 5]
        assert entries.images.sizes_hw.tolist() == [[4, 6], [0, 0]]
        assert entries.annotations.image_ids.tolist() == [9, 5] and entries.annotations.annotation_ids.tolist() == [
            0,
            8,
        ]
        assert entries.annotations.category_ids.tolist() == [NO_CATEGORY, 3]
        assert entries.annotations.segmentations.lengths.tolist() == [0, 5]
        assert entries.categories == [{"id": 3, "odd": 1}] and entries.info == {"year": 1}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"shapes": [], "version": 1}, "got the keys shapes, version"),
        ({"images": {"id": 1}}, "expected a COCO file with the lists"),
        ({"images": None}, "expected a COCO file with the lists"),
        ({"images": [], "annotations": {"a": 1}}, "annotations that are no list"),
        ({"images": [], "categories": 7}, "categories that are no list"),
        ({"images": [IMAGES[0], 7]}, r"images\[1\]: expected id, file_name, got 7"),
        ({"images": IMAGES, "annotations": [{"image_id": 1}, {}]}, r"annotations\[1\]: expected image_id, got \{\}"),
        ({"images": IMAGES, "annotations": [{"image_id": 1.0}]}, r"annotations\[0\]: image_id must be an integer"),
        ({"images": IMAGES, "annotations": [{"image_id": 1 << 63}]}, r"annotations\[0\]: image_id must have 64 bits"),
        ({"images": IMAGES, "annotations": [{"image_id": 1, "id": -(10**400)}]}, r"annotations\[0\]: id must have 64"),
        (
            {"images": IMAGES, "categories": [{"id": 1}, {"id": "x"}]},
            r"categories\[1\]: id must be an integer, got 'x'",
        ),
        ('{"images": [], "licenses": [tru]}', "expected JSON"),
        (b'{"images": [], "licenses": ["\xff"]}', "expected JSON, 'utf-8' codec"),
        ('{"images": [{"id": 1, "file_name": "a\x01"}]}', "expected JSON"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4}]}', "expected JSON"),
        ('{"images": [], "annotations": ' + "[" * 100_000 + "]" * 100_000 + "}", "expected JSON"),
        ('{"images": [], "annotations": [{"image_id": ' + "9" * 5000 + "}]}", "expected JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_alike_in_small_and_large_files(tmp_path, content, found):
    path = write(tmp_path, content)
    for small_bytes in (0, 1 << 20):
        with pytest.raises(ValueError, match=rf"x\.json: .*{found}"):
            read_entries(path, small_bytes=small_bytes, chunk_bytes=64)


def test_an_empty_segmentation_is_none(tmp_path):
    boxes = [{"image_id": 5, "segmentation": each} for each in ([], None, {}, [[]], "x")] + [{"image_id": 5}]
    path = write(tmp_path, {"images": IMAGES, "annotations": boxes[:4] + boxes[5:]})
    for small_bytes in (0, 10_000):  # all as types, and
        texts = read_entries(path, small_bytes=small_bytes).annotations.segmentations
        assert texts.lengths.tolist() == [0, 0, 0, 4, 0]
    texts = entries_of({"images": IMAGES, "annotations": boxes}, path).annotations.segmentations  # by hand
    assert texts.lengths.tolist() == [0, 0, 0, 4, 0, 0]


def test_a_fault_late_in_a_large_file_is_told_with_its_number(tmp_path):
    boxes = [{"image_id": 5, "bbox": [1, 2, 3, 4]} for _ in range(1000)]
    boxes[700] = {"bbox": [1, 2, 3, 4]}
    with pytest.raises(ValueError, match=r"annotations\[700\]: expected image_id"):
        read_entries(write(tmp_path, {"images": IMAGES, "annotations": boxes}), small_bytes=0, chunk_bytes=512)


def test_the_last_of_two_lists_of_one_name_counts_as_in_any_json(tmp_path):
    path = write(tmp_path, '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}], "images": []}')
    path.write_text(path.read_text()[:-1] + ', "annotations": null}')
    for small_bytes in (0, 10_000):
        entries = read_entries(path, small_bytes=small_bytes)
        assert len(entries.images.image_ids) == len(entries.annotations.image_ids) == 0


def test_halves_of_characters_in_file_names_survive(tmp_path):
    path = write(
        tmp_path, r'{"images": [{"id": 1, "file_name": "\ud83d.jpg"}, {"id": 2, "file_name": "\ud83d\ude97"}]}'
    )
    for small_bytes in (0, 10_000):
        assert list(read_entries(path, small_bytes=small_bytes).images.file_names) == ["\ud83d.jpg", "\U0001f697"]


def test_run_lengths_in_memory_may_be_bytes_and_arrays_polygons():
    boxes = [
        {"image_id": 5, "segmentation": {"size": [2, 3], "counts": b"231"}},
        {"image_id": 5, "segmentation": [np.array([0, 0, 4, 0, 4, 3.5])]},
    ]
    texts = entries_of({"images": IMAGES, "annotations": boxes}, Path("x")).annotations.segmentations
    assert json.loads(texts[0]) == {"size": [2, 3], "counts": "231"} and json.loads(texts[1]) == [[0, 0, 4, 0, 4, 3.5]]
    with pytest.raises(ValueError, match="expected numbers or text, got set"):
        entries_of({"images": IMAGES, "annotations": [{"image_id": 5, "segmentation": [{1}]}]}, Path("x"))


def test_what_was_read_in_any_way_is_written_the_same(tmp_path):
    content = {"images": IMAGES[:1], "categories": [{"id": 3, "name": "car"}], "annotations": []}
    content["annotations"] = [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1.5, 2, 0.1, 4], "area": 7, "iscrowd": 0}
        | {"segmentation": [[0.1, 2, 8, 2, 8.25, 9]]}
    ]
    for coco in all_ways(content, tmp_path):
        assert as_coco(coco) == content
