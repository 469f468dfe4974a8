import json

import cv2
import numpy as np
import pytest

from kit.data.coco import find_split, read_coco
from kit.data.cutouts import extract_objects
from kit.data.mask_shapes import mask_of_entry, uncompressed_entry
from kit.files import read_json, sha256


@pytest.fixture
def source(tmp_path):
    """One image; a disc with a hole (runs), a triangle at the edge (polygon), a crowd, a box alone, a small one."""
    folder = tmp_path / "source"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    cv2.imwrite(str(folder / "images" / "train" / "a.png"), pixels[..., ::-1])
    disc = np.zeros((80, 100), np.uint8)
    cv2.circle(disc, (40, 40), 20, 1, -1)
    cv2.circle(disc, (40, 40), 5, 0, -1)
    masks = [
        {"segmentation": uncompressed_entry(disc), "bbox": [20, 20, 41, 41]},
        {"segmentation": [[80.0, 60.0, 100.0, 60.0, 100.0, 80.0]], "bbox": [80, 60, 20, 20], "colour": "red"},
        {"segmentation": uncompressed_entry(disc), "bbox": [20, 20, 41, 41], "iscrowd": 1},
        {"bbox": [0, 0, 30, 30]},
        {"segmentation": [[1.0, 1.0, 3.0, 1.0, 3.0, 3.0]], "bbox": [1, 1, 2, 2]},
        {"segmentation": {"size": [8, 8], "counts": [3]}, "bbox": [1, 1, 2, 2]},
    ]
    rows = [{"id": 10 + row, "image_id": 1, "category_id": 7, "iscrowd": 0, **each} for row, each in enumerate(masks)]
    image = {"id": 1, "file_name": "a.png", "height": 80, "width": 100}
    content = {"images": [image], "annotations": rows, "categories": [{"id": 7, "name": "../car / bus"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder, pixels, disc


def extracted(folder, out, **options):
    split = find_split(folder, "train")
    result = extract_objects(split.annotations, split.images, out, **options)
    return result, read_json(out / "annotations" / "instances_train.json")


def test_a_cutout_holds_the_pixels_and_the_very_mask(source, tmp_path):
    folder, pixels, disc = source
    _, content = extracted(folder, tmp_path / "out", margin_px=4)
    entry = content["images"][0]
    x0, y0, x1, y1 = entry["provenance"]["window_xyxy_px"]
    assert (x0, y0, x1, y1) == (16, 16, 65, 65)
    crop = cv2.imread(str(tmp_path / "out" / "images" / "train" / entry["file_name"]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(crop[..., 2::-1], pixels[y0:y1, x0:x1])
    assert np.array_equal(crop[..., 3], disc[y0:y1, x0:x1] * 255)
    own = content["annotations"][0]
    assert np.array_equal(mask_of_entry(own["segmentation"], crop.shape[:2]), disc[y0:y1, x0:x1])
    assert own["bbox"] == [4, 4, 41, 41] and own["area"] == disc.sum()


def test_each_cutout_tells_where_it_comes_from(source, tmp_path):
    folder, _, _ = source
    _, content = extracted(folder, tmp_path / "out")
    disc, triangle = (image["provenance"] for image in content["images"])
    assert disc["annotation_id"] == 10 and disc["image_id"] == 1 and disc["image"] == "a.png"
    assert disc["image_sha256"] == sha256(folder / "images" / "train" / "a.png")
    assert disc["annotations"].endswith("instances_train.json")
    assert not disc["touches_edge"] and triangle["touches_edge"]
    assert content["annotations"][1]["colour"] == "red"


def test_what_covers_an_object_is_measured(source, tmp_path):
    folder, _, _ = source
    path = folder / "annotations" / "instances_train.json"
    content = read_json(path)
    content["annotations"][4] |= {"bbox": [20, 20, 41, 10.25], "segmentation": [[20, 20, 61, 20, 61, 30.25]]}
    path.write_text(json.dumps(content))
    _, made = extracted(folder, tmp_path / "out", least_side_px=15)
    assert made["images"][0]["provenance"]["covered_by_another_box"] == 0.25


def test_what_is_left_out_is_named(source, tmp_path):
    result, content = extracted(source[0], tmp_path / "out")
    assert result.objects == len(content["annotations"]) == 2
    assert {reason: len(names) for reason, names in result.left_out.items()} == {
        "crowd": 1,
        "without a mask": 1,
        "side under 10 px": 1,
        "broken mask": 1,
    }
    assert result.left_out["crowd"] == ["a.png, annotation 12"]


def test_the_cutouts_are_a_data_set(source, tmp_path):
    extracted(source[0], tmp_path / "out")
    split = find_split(tmp_path / "out", "train")
    coco = read_coco(split.annotations)
    assert [(split.images / record.file_name).is_file() for record in coco.records] == [True, True]
    assert all(".." not in record.file_name for record in coco.records) and coco.records[0].outlines is not None


def test_a_missing_image_is_told_and_one_of_another_size(source, tmp_path):
    folder, _, _ = source
    image = folder / "images" / "train" / "a.png"
    cv2.imwrite(str(image), np.zeros((100, 80, 3), np.uint8))
    result, _ = extracted(folder, tmp_path / "other")
    assert len(result.left_out["image file of another size than its entry"]) == 4
    image.unlink()
    result, _ = extracted(folder, tmp_path / "missing")
    assert result.objects == 0 and len(result.left_out["image missing or not readable"]) == 4


def test_a_name_that_leaves_its_folder_is_refused_and_nothing_is_made(source, tmp_path):
    path = source[0] / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"a.png"', '"../../secret.png"'))
    with pytest.raises(ValueError, match="expected a name inside"):
        extracted(source[0], tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source"]
