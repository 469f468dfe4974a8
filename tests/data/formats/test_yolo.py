import math

import pytest
from hypothesis import given, settings

from kit.data.formats.yolo import read_yolo, write_yolo
from tests.data.formats.made import (
    any_boxes,
    content_of,
    datasets,
    draw_image,
    objects,
    on_disk,
    one_image,
    round_trip,
    write,
)

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]


@settings(max_examples=25, deadline=None)
@given(datasets())
def test_boxes_come_back_to_the_last_digit(content):
    back = content_of(round_trip(content, write_yolo, read_yolo))
    assert objects(back) == objects(content)
    assert back["categories"] == content["categories"] and back["images"] == content["images"]


@settings(max_examples=15, deadline=None)
@given(datasets(box=any_boxes))
def test_any_box_comes_back_to_a_millionth_of_a_pixel(content):
    back = content_of(round_trip(content, write_yolo, read_yolo))
    for (*own, box), (*other, again) in zip(objects(content), objects(back), strict=True):
        assert own == other and all(map(lambda a, b: math.isclose(a, b, abs_tol=1e-6), box, again))


def losses_of(content, folder, **options):
    found = write_yolo(on_disk(content, folder / "source"), folder / "out", **options)
    return {loss.what: loss.count for loss in found}


def test_a_polygon_comes_back_with_its_box(tmp_path):
    each = {"bbox": [10, 10, 20, 20], "area": 400, "segmentation": [SQUARE]}
    assert losses_of(one_image(each), tmp_path, polygons=True) == {}
    (back,) = content_of(read_yolo(tmp_path / "out"))["annotations"]
    assert (back["bbox"], back["area"], back["segmentation"]) == ([10, 10, 20, 20], 400, [SQUARE])


def test_parts_of_an_object_are_joined_without_area_and_told(tmp_path):
    other = [60.0, 10.0, 60.0, 20.0, 70.0, 20.0, 70.0, 10.0]  # turned the other way
    each = {"bbox": [10, 10, 60, 20], "area": 500, "segmentation": [SQUARE, other]}
    losses = losses_of(one_image(each), tmp_path, polygons=True)
    assert losses == {"parts of an object: joined by lines of no width": 1}
    (back,) = content_of(read_yolo(tmp_path / "out"))["annotations"]
    assert back["area"] == 500 and back["bbox"] == [10, 10, 60, 20]


def test_what_yolo_cannot_carry_is_told(tmp_path):
    crowd = {"bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 1, "segmentation": {"size": [50, 100], "counts": [5000]}}
    masked = {"bbox": [10, 10, 20, 20], "area": 399, "segmentation": [SQUARE], "note": "dark"}
    content = one_image(crowd, masked)
    content["images"][0]["id"] = 7
    for each in content["annotations"]:
        each["image_id"] = 7
    assert losses_of(content, tmp_path) == {
        "crowd: left out, or it would be one object": 1,
        "masks and polygons": 1,
        "area of annotations": 1,
        "note of annotations": 1,
        "ids of images: read again they are 1, 2, ... by file name": 1,
    }


def test_numbers_outside_the_image_are_kept_and_told(tmp_path):
    losses = losses_of(one_image({"bbox": [-100, 0, 40, 5], "area": 200}), tmp_path)
    assert losses == {"numbers outside 0 to 1: kept; some trainers then leave out the image": 1}
    assert content_of(read_yolo(tmp_path / "out"))["annotations"][0]["bbox"] == [-100, 0, 40, 5]


def test_ids_of_classes_come_back_by_data_yaml(tmp_path):
    content = one_image({"bbox": [1, 2, 3, 4], "area": 12, "category_id": 9})
    content["categories"] = [{"id": 4, "name": "car"}, {"id": 9, "name": "bus"}]
    losses_of(content, tmp_path)
    back = content_of(read_yolo(tmp_path / "out"))
    assert back["categories"] == content["categories"] and back["annotations"][0]["category_id"] == 9
    assert "category_ids:\n- 4\n- 9\n" in (tmp_path / "out" / "data.yaml").read_text()


def test_two_images_of_one_stem_keep_labels_of_their_own(tmp_path):
    content = one_image({"bbox": [1, 2, 3, 4], "area": 12}, {"bbox": [5, 6, 7, 8], "area": 56, "image_id": 2})
    content["images"].append({"id": 2, "file_name": "a.bmp", "width": 100, "height": 50})
    losses = losses_of(content, tmp_path)
    assert losses["image written under another name"] == 1
    found = {(name, tuple(box)) for name, _, box in objects(content_of(read_yolo(tmp_path / "out")))}
    assert found == {("a.png", (1, 2, 3, 4)), ("train_a.bmp", (5, 6, 7, 8))}


def yolo_folder(root, row="0 0.5 0.5 0.1 0.2", yaml="train: images/train\nnames: [car]\n"):
    draw_image(root / "images" / "train" / "a.png")
    write(root / "labels" / "train" / "a.txt", row + "\n")
    write(root / "data.yaml", yaml)
    return root


def test_an_export_with_paths_of_another_computer_is_read(tmp_path):
    draw_image(tmp_path / "train" / "images" / "a.png")
    write(tmp_path / "train" / "labels" / "a.txt", "1 0.5 0.5 0.1 0.2 0.75\n")
    write(tmp_path / "data.yaml", "path: /home/someone/data\ntrain: ../train/images\nnames: {0: car, 1: bus}\n")
    dataset = read_yolo(tmp_path)
    (each,) = dataset.parts[0].annotations
    assert each["bbox"] == [45, 20, 10, 10] and each["category_id"] == 2 and each["score"] == 0.75
    assert "its own folder is taken" in dataset.notes[0]


def test_classes_txt_will_do_without_data_yaml(tmp_path):
    root = yolo_folder(tmp_path)
    (root / "data.yaml").unlink()
    write(root / "classes.txt", "tram\n")
    assert read_yolo(root).categories == [{"id": 1, "name": "tram"}]


def test_lists_of_images_are_read(tmp_path):
    root = yolo_folder(tmp_path, yaml="train: train.txt\nnames: [car]\n")
    write(root / "train.txt", "./images/train/a.png\n")
    part = read_yolo(root).parts[0]
    assert [image["file_name"] for image in part.images] == ["train/a.png"] and len(part.annotations) == 1


def test_a_label_file_without_an_image_is_a_problem(tmp_path):
    root = yolo_folder(tmp_path)
    write(root / "labels" / "train" / "b.txt", "0 0.5 0.5 0.1 0.2\n")
    assert [problem.rpartition("/")[2] for problem in read_yolo(root).problems] == ["b.txt"]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("0 0.5 0.5 0.1", "found 4 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "found 8 numbers"),
        ("car 0.5 0.5 0.1 0.2", "found 'car'"),
        ("0.5 0.5 0.5 0.1 0.2", "expected the number of a class"),
        ("0 nan 0.5 0.1 0.2", "found 'nan'"),
        ("3 0.5 0.5 0.1 0.2", "expected classes 0 to 0, found 3"),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, found):
    with pytest.raises(ValueError, match=found) as caught:
        read_yolo(yolo_folder(tmp_path, row))
    assert "a.txt" in str(caught.value)


@pytest.mark.parametrize("train", ["/etc", "images/../../..", "../../secret"])
def test_a_data_yaml_that_leaves_its_folder_is_refused(tmp_path, train):
    root = yolo_folder(tmp_path / "set", yaml=f"train: {train}\nnames: [car]\n")
    with pytest.raises(ValueError, match=r"expected a name inside"):
        read_yolo(root)


@pytest.mark.parametrize("yaml", ["- 1\n", "names: 3\ntrain: images\n", "names: {1: car}\ntrain: images\n", "a: [\n"])
def test_a_broken_data_yaml_is_named(tmp_path, yaml):
    with pytest.raises(ValueError, match=r"data\.yaml: expected"):
        read_yolo(yolo_folder(tmp_path, yaml=yaml))


def test_an_image_without_labels_has_an_empty_file(tmp_path):
    assert losses_of(one_image(), tmp_path) == {}
    assert (tmp_path / "out" / "labels" / "train" / "a.txt").read_text() == ""
    assert content_of(read_yolo(tmp_path / "out"))["annotations"] == []


def test_a_bomb_of_aliases_is_refused(tmp_path):
    lists = "".join(
        f"{chr(98 + row)}: &{chr(98 + row)} [{', '.join([f'*{chr(97 + row)}'] * 10)}]\n" for row in range(9)
    )
    yaml = f"a: &a [1]\n{lists}train: images/train\nnames: [*j]\n"
    with pytest.raises(ValueError, match=r"data\.yaml: expected YAML, more than"):
        read_yolo(yolo_folder(tmp_path, yaml=yaml))


@pytest.mark.parametrize("row", ["0 1e308 0.5 0.1 0.2", "1e300 0.5 0.5 0.1 0.2"])
def test_huge_numbers_are_refused(tmp_path, row):
    root = yolo_folder(tmp_path, row)
    with pytest.raises(ValueError, match="expected"):
        read_yolo(root)
    (root / "data.yaml").unlink()
    with pytest.raises(ValueError, match="expected"):
        read_yolo(root)
