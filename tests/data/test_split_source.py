import json

import numpy as np
import pytest

from kit.data.coco_columns import NOWHERE
from kit.data.split_source import read_source


def written(folder, images, annotations=()):
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    content = {"images": images, "annotations": list(annotations), "categories": [{"id": 4, "name": "car"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder


def test_images_and_annotations_are_in_the_order_of_the_file(tmp_path):
    images = [{"id": 9, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}, {"id": 5, "file_name": "c.jpg"}]
    owners = [(2, 4, 0), (9, 4, 0), (7, 4, 0), (5, 8, 0), (5, 4, 1), (5, 4, 0)]  # image, category, crowd
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "bbox": [0, 0, 1, 1]}
        for number, (image, category, crowd) in enumerate(owners, 1)
    ]
    found = read_source(written(tmp_path / "set", images, annotations), None, None)
    assert list(found.contents.file_names) == ["b.jpg", "a.jpg", "c.jpg"]
    assert found.contents.image_ids.tolist() == [9, 2, 5]
    assert found.image_rows.tolist() == [1, 0, NOWHERE, 2, 2, 2]
    assert found.contents.image_rows.tolist() == [1, 0, 2] and found.contents.labels.tolist() == [0, 0, 0]
    assert found.dangling == [
        "1 annotations of images that are not listed are in no part: annotation 3 of image 7",
    ]


def test_files_are_those_that_are_there(tmp_path):
    names = ["x/../a.jpg", "b.jpg", "c..jpg", "n" * 300]
    folder = written(tmp_path / "set", [{"id": row, "file_name": name} for row, name in enumerate(names)])
    (folder / "images" / "train").mkdir()
    (folder / "images" / "train" / "x").mkdir()
    for name in ("a.jpg", "c..jpg"):
        (folder / "images" / "train" / name).write_bytes(b"")
    found = read_source(folder, "train", None)
    assert found.files.is_there.tolist() == [True, False, True, False]
    assert found.files[1] is None and found.files[2] == folder / "images" / "train" / "c..jpg"
    assert [each is None for each in found.files[1:]] == [True, False, True] and len(found.files) == 4
    assert found.missing()[0].startswith("2 image files are missing: b.jpg, nnn")


def test_many_missing_files_are_told_by_the_first(tmp_path):
    folder = written(tmp_path / "set", [{"id": row, "file_name": f"{row}.jpg"} for row in range(20)])
    told = "20 image files are missing: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg, 7.jpg, ... (20)"
    assert read_source(folder, None, None).missing() == [told]


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "", "a\0b", "x/../../a.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    folder = written(tmp_path / "set", [{"id": 1, "file_name": name}])
    with pytest.raises(ValueError, match=r"instances_train.json: expected a name inside .*, found"):
        read_source(folder, None, None)


def test_an_id_given_twice_is_refused(tmp_path):
    images = [{"id": each, "file_name": f"{row}.jpg"} for row, each in enumerate([3, 1, 3])]
    with pytest.raises(ValueError, match="expected image ids given once, found 3 twice; see"):
        read_source(written(tmp_path / "set", images), None, None)


def test_a_file_without_images_is_empty(tmp_path):
    found = read_source(written(tmp_path / "set", [], [{"image_id": 1}]), None, None)
    assert found.image_rows.tolist() == [NOWHERE] and len(found.files) == 0 and found.missing() == []
    assert found.contents.boxes_per_class(np.zeros(0, np.int64), 2).tolist() == [[0], [0]]
