import json

import pytest

from kit.data.check import check_dataset
from kit.data.coco import find_split, read_coco
from kit.data.convert import convert, main, read_dataset, recognised
from kit.data.formats.coco import write_raw_coco
from tests.data.formats.made import content_of, draw_image, on_disk, one_image, write

TARGETS = ("coco", "yolo", "voc", "csv")


def coco_folder(root, *annotations):
    box = {"bbox": [10, 20, 5.25, 6], "area": 31.5}
    write_raw_coco(on_disk(one_image(*(annotations or [box])), root / "made"), root / "set")
    return root / "set"


@pytest.mark.parametrize("to", TARGETS)
def test_each_format_is_recognised_and_leads_back(tmp_path, to):
    source = coco_folder(tmp_path)
    convert(source, tmp_path / "there", to)
    assert recognised(tmp_path / "there") == to
    back = convert(tmp_path / "there", tmp_path / "back", "coco")
    assert content_of(back.dataset) == content_of(read_dataset(source, "coco")) and back.problems == []


def test_what_is_written_is_a_data_set_of_ours(tmp_path):
    convert(coco_folder(tmp_path), tmp_path / "yolo", "yolo")
    convert(tmp_path / "yolo", tmp_path / "back", "coco")
    split = find_split(tmp_path / "back", "train")
    assert not check_dataset(split.annotations, split.images).fatal
    assert read_coco(split.annotations).records[0].boxes_xywh_px.tolist() == [[10, 20, 5.25, 6]]


def test_a_source_of_two_formats_is_asked_about(tmp_path):
    source = coco_folder(tmp_path)
    write(source / "labels" / "train" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match="found coco and yolo; say which with --from"):
        recognised(source)
    assert convert(source, tmp_path / "out", "coco", start="coco").source == "coco"


def test_bare_images_and_labels_beside_them_are_told_apart(tmp_path):
    draw_image(tmp_path / "a.png")
    assert recognised(tmp_path) == "folder"
    write(tmp_path / "a.txt", "0 0.5 0.5 0.1 0.2\n")
    assert recognised(tmp_path) == "yolo"
    assert convert(tmp_path, tmp_path / "out", "coco").dataset.parts[0].annotations[0]["bbox"] == [45, 20, 10, 10]


def test_other_sources_are_recognised(tmp_path):
    draw_image(tmp_path / "drone" / "images" / "a.jpg")
    write(tmp_path / "drone" / "annotations" / "a.txt", "1,2,3,4,1,4,0,0\n")
    assert recognised(tmp_path / "drone") == "visdrone"
    write(tmp_path / "big" / "val" / "zhiyuan_objv2_val.json", "{}")
    assert recognised(tmp_path / "big") == "objects365"
    for name in ("empty", "nothing"):
        with pytest.raises(ValueError, match="expected a data set"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            recognised(tmp_path / name)


def test_the_command_tells_what_it_read_and_lost(tmp_path, capsys):
    source = coco_folder(tmp_path, {"bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 1})
    assert main([str(source), str(tmp_path / "out"), "--to", "yolo"]) == 0
    said = capsys.readouterr().out
    assert "read as coco: 2 classes" in said
    assert "lost or changed: crowd: left out, or it would be one object (1), first train: annotation 1" in said


def test_the_command_ends_with_1_for_problems_and_2_for_refusals(tmp_path, capsys):
    source = coco_folder(tmp_path)
    (source / "images" / "train" / "a.png").unlink()
    assert main([str(source), str(tmp_path / "out"), "--to", "csv"]) == 1
    assert "problem: image file missing (1), first train: a.png" in capsys.readouterr().out
    assert main([str(source), str(tmp_path / "out"), "--to", "csv"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}: expected a new or an empty folder")
    write(source / "annotations" / "instances_train.json", json.dumps(one_image())[:-9])
    assert main([str(source), str(tmp_path / "other"), "--to", "csv"]) == 2
    assert not (tmp_path / "other").exists()


def test_the_source_is_not_changed(tmp_path):
    source = coco_folder(tmp_path)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    for to in TARGETS:
        convert(source, tmp_path / to, to, polygons=True)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


REAL = ("coco_mini", "bccd", "kitti_tiny", "pennfudan_mini", "fisheye8k_mini")


@pytest.mark.parametrize("name", REAL)
def test_real_data_comes_back_from_each_format(shared, tmp_path, name):
    source = shared(f"data/{name}")
    parts = {part.name: part for part in read_dataset(source, "coco").parts}
    for to in TARGETS:
        convert(source, tmp_path / to, to)
        for part in read_dataset(tmp_path / to, to).parts:
            assert boxes_of(part, to == "yolo") == boxes_of(parts[part.name], to == "yolo")


def boxes_of(part, without_crowds):
    """By image, in their order; labels in order of the classes would need the ids, which some formats number anew."""
    names = {image["id"]: (image["file_name"], image["width"], image["height"]) for image in part.images}
    found = {name: [] for name in names.values()}
    for each in part.annotations:
        if not (without_crowds and each["iscrowd"]):
            found[names[each["image_id"]]].append((each["bbox"], each["iscrowd"]))
    return found
