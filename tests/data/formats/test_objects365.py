import pytest
from PIL import Image

from kit.data.formats.coco import write_raw_coco
from kit.data.formats.objects365 import read_objects365, remapped, with_longest_side
from kit.files import read_json, write_json
from tests.data.formats.made import draw_image

CATEGORIES = [{"id": 1, "name": "Person"}]


def content(first_id, *names, size_wh=(100, 50), first_annotation=1):
    images = [
        {"id": first_id + row, "file_name": name, "width": size_wh[0], "height": size_wh[1], "license": 5}
        for row, name in enumerate(names)
    ]
    annotations = [
        {"id": first_annotation + row, "image_id": first_id + row, "category_id": 1, "iscrowd": 0, "isfake": 0}
        | {"bbox": [10.5, 20.25, 30, 20], "area": 600}
        for row in range(len(names))
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def objects365(root, val_id=10, first_annotation=11):
    """The official layout; train's files lie in bare patches, val's under images/."""
    write_json(
        root / "train" / "zhiyuan_objv2_train.json", content(1, "images/v1/patch8/a.jpg", "images/v2/patch16/b.jpg")
    )
    names = [f"images/v1/patch{number}/v{number}.jpg" for number in range(4)]
    val = content(val_id, *names, first_annotation=first_annotation)
    write_json(root / "val" / "zhiyuan_objv2_val.json", val)
    for name in ("patch8/a.jpg", "patch16/b.jpg"):
        draw_image(root / "train" / name)
    for name in names:
        draw_image(root / "val" / name)
    return root


def by_name(dataset):
    return {part.name: part for part in dataset.parts}


def test_images_are_found_in_their_patches(tmp_path):
    parts = by_name(read_objects365(objects365(tmp_path)))
    assert [path.name for path in parts["train"].files.values()] == ["a.jpg", "b.jpg"]
    assert len(parts["val"].files) == 4 and parts["val"].annotations[0]["isfake"] == 0


def test_several_files_of_a_part_are_put_together(tmp_path):
    root = objects365(tmp_path)
    draw_image(root / "train" / "patch9" / "c.jpg")
    write_json(root / "train" / "zhiyuan_objv2_train_2.json", content(3, "images/v2/patch9/c.jpg"))
    dataset = read_objects365(root)
    train = by_name(dataset)["train"]
    assert [image["id"] for image in train.images] == [1, 2, 3] and len(train.files) == 3
    assert [each["id"] for each in train.annotations] == [1, 2, 3]  # 1, 2, 1 in the files
    assert dataset.notes == ["train: annotation ids clash between files: numbered anew"]


def test_an_image_id_of_two_files_is_refused(tmp_path):
    root = objects365(tmp_path)
    write_json(root / "train" / "zhiyuan_objv2_train_2.json", content(2, "images/v2/patch9/c.jpg"))
    with pytest.raises(ValueError, match="found 2 again"):
        read_objects365(root)


def test_the_first_images_of_val_stay_and_the_others_train(tmp_path):
    parts = by_name(remapped(read_objects365(objects365(tmp_path)), kept=3))
    assert [image["id"] for image in parts["val"].images] == [10, 11, 12]
    assert [image["file_name"] for image in parts["train"].images] == [
        "images_from_val/v1/patch3/v3.jpg",
        "images/v1/patch8/a.jpg",
        "images/v2/patch16/b.jpg",
    ]
    assert [(each["id"], each["image_id"]) for each in parts["train"].annotations] == [(14, 13), (1, 1), (2, 2)]
    assert len(parts["train"].files) == 3 and len(parts["val"].annotations) == 3


def test_ids_that_clash_are_changed_when_val_trains(tmp_path):
    parts = by_name(remapped(read_objects365(objects365(tmp_path, val_id=1, first_annotation=1)), kept=1))
    train = parts["train"]
    assert [image["id"] for image in train.images] == [5, 6, 7, 1, 2]
    assert [each["image_id"] for each in train.annotations] == [5, 6, 7, 1, 2]
    assert [each["id"] for each in train.annotations] == [1, 2, 3, 4, 5]
    assert train.files[5].name == "v1.jpg" and train.files[1].name == "a.jpg"


def test_long_images_are_made_smaller_with_their_boxes(tmp_path):
    root = tmp_path / "set"
    write_json(root / "train" / "zhiyuan_objv2_train.json", content(1, "patch1/a.jpg", size_wh=(1000, 333)))
    draw_image(root / "train" / "patch1" / "a.jpg", (1000, 333))
    before = (root / "train" / "patch1" / "a.jpg").read_bytes()
    write_raw_coco(with_longest_side(read_objects365(root), 640), tmp_path / "out")
    written = read_json(tmp_path / "out" / "annotations" / "instances_train.json")
    with Image.open(tmp_path / "out" / "images" / "train" / "patch1" / "a.jpg") as image:
        assert image.size == (640, 213)
    assert (written["images"][0]["width"], written["images"][0]["height"]) == (640, 213)
    x, y, width, height = written["annotations"][0]["bbox"]
    assert (x, width) == (10.5 * 0.64, 30 * 0.64) and (y, height) == (20.25 * (213 / 333), 20 * (213 / 333))
    assert written["annotations"][0]["area"] == pytest.approx(width * height)
    assert (root / "train" / "patch1" / "a.jpg").read_bytes() == before


def test_images_that_are_short_enough_stay_as_they_are(tmp_path):
    root = objects365(tmp_path / "set")
    dataset = with_longest_side(read_objects365(root), 100)
    assert by_name(dataset)["train"].resize_wh == {}
    assert by_name(dataset)["train"].annotations == by_name(read_objects365(root))["train"].annotations


def test_polygons_are_scaled_and_masks_told(tmp_path):
    root = objects365(tmp_path / "set")
    dataset = read_objects365(root)
    first, second = by_name(dataset)["train"].annotations
    first["segmentation"], second["segmentation"] = [[10, 20, 30, 20, 30, 40]], {"size": [50, 100], "counts": [5000]}
    smaller = with_longest_side(dataset, 50)
    assert by_name(smaller)["train"].annotations[0]["segmentation"] == [[5, 10, 15, 10, 15, 20]]
    assert "segmentation" not in by_name(smaller)["train"].annotations[1]
    assert "train: 1 masks of runs left out: they do not scale" in smaller.notes


def test_remap_wants_both_parts(tmp_path):
    write_json(tmp_path / "train" / "zhiyuan_objv2_train.json", content(1))
    with pytest.raises(ValueError, match="expected the parts train and val, found train"):
        remapped(read_objects365(tmp_path))
