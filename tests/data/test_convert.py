import json

import pytest

from kit.data.check import check_dataset
from kit.data.coco import find_split, read_coco
from kit.data.convert import convert, main, read_dataset, recognised
from kit.data.formats.coco import write_raw_coco
from tests.data.formats.made import content_of, draw_image, on_disk, one_image, write

TARGETS = ("coco", "yolo", "voc", "csv")  # that carry any class and decimals of pixels; VisDrone does not


def coco_folder(root, *annotations):
    box = {"bbox": [10, 20, 5.25, 6], "area": 31.5}
    write_raw_coco(on_disk(one_image(*(annotations or [box])), root / "made"), root / "set")
    return root / "set"


def test_visdrone_leads_there_and_back(tmp_path, capsys):
    source, text = tmp_path / "VisDrone2019-DET-val", "684,8,273,116,1,4,1,2\n1,2,3,4,0,0,0,0\n5,6,7,8,0,1,0,1\n"
    draw_image(source / "images" / "a.jpg")
    write(source / "annotations" / "a.txt", text)
    convert(source, tmp_path / "coco", "coco")
    assert main([str(tmp_path / "coco"), str(tmp_path / "back"), "--to", "visdrone"]) == 0
    assert (tmp_path / "back" / source.name / "annotations" / "a.txt").read_text() == text
    assert recognised(tmp_path / "back") == "visdrone" and "lost" not in capsys.readouterr().out


def test_visdrone_refuses_classes_that_it_has_not(tmp_path, capsys):
    content = one_image({"bbox": [1, 2, 3, 4], "area": 12}, names=("horse", "bus"))
    write_raw_coco(on_disk(content, tmp_path / "made"), tmp_path / "set")
    assert main([str(tmp_path / "set"), str(tmp_path / "out"), "--to", "visdrone"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: VisDrone: expected the classes pedestrian, ") and "found 'horse'" in said
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize("to", [*TARGETS, "visdrone"])
@pytest.mark.parametrize("folders", ["same", "apart"])
def test_a_file_that_is_listed_twice_loses_no_object(tmp_path, to, folders):
    """Twice in one part, or in two parts that share the folder of the images."""
    image = {"file_name": "a.png", "width": 50, "height": 40}
    draw_image(tmp_path / "set" / "images" / "a.png", (50, 40))
    entries = [image | {"id": number} for number in (1, 2)]
    boxes = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [number, 2, 9, 9], "area": 81} for number in (1, 2)
    ]
    parts = {"train": [0, 1]} if folders == "same" else {"train": [0], "val": [1]}
    for name, rows in parts.items():
        content = {"images": [entries[row] for row in rows], "annotations": [boxes[row] for row in rows]}
        content |= {"categories": [{"id": 1, "name": "car"}]}
        write(tmp_path / "set" / "annotations" / f"instances_{name}.json", json.dumps(content))
    there = convert(tmp_path / "set", tmp_path / "there", to)
    back = read_dataset(tmp_path / "there", to)
    assert sorted(each["bbox"][0] for part in back.parts for each in part.annotations) == [1, 2]
    is_told = any("listed twice" in loss.what for loss in there.losses)
    assert is_told == (folders == "same" and to in ("yolo", "voc", "visdrone"))


def test_names_that_cannot_be_printed_are_shown_escaped(tmp_path, capsys):
    content = one_image() | {"images": [one_image()["images"][0] | {"file_name": "\ud800\x1b[2J.png"}]}
    write(tmp_path / "set" / "annotations" / "instances_train.json", json.dumps(content))
    assert main([str(tmp_path / "set"), str(tmp_path / "out"), "--to", "coco"]) == 1
    assert r"image file missing (1), first train: \ud800\x1b[2J.png" in capsys.readouterr().out


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
    for to in (*TARGETS, "visdrone"):
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
