from functools import partial

import pytest
from hypothesis import given, settings

from kit.data.formats.voc import read_voc, write_voc
from tests.data.formats.made import content_of, datasets, draw_image, objects, on_disk, one_image, round_trip, write


def without_folders(content):
    """VOC's images lie in one folder."""
    names = [image["file_name"].replace("/", "_") for image in content["images"]]
    images = [image | {"file_name": name} for image, name in zip(content["images"], names, strict=True)]
    return content | {"images": images}


@settings(max_examples=25, deadline=None)
@given(datasets())
def test_boxes_come_back_to_the_last_digit(content):
    content = without_folders(content)
    back = content_of(round_trip(content, write_voc, read_voc))
    assert objects(back) == objects(content)
    assert back["categories"] == content["categories"] and back["images"] == content["images"]


@settings(max_examples=15, deadline=None)
@given(datasets())
def test_pixels_counted_from_one_come_back_too(content):
    content = without_folders(content)
    back = round_trip(content, partial(write_voc, one_based=True), read_voc)
    assert objects(content_of(back)) == objects(content)


def write_one(folder, *annotations, **options):
    found = write_voc(on_disk(one_image(*annotations), folder / "source"), folder / "out", **options)
    return {loss.what: loss.count for loss in found}


@pytest.mark.parametrize(("one_based", "xmin"), [(False, 10), (True, 11)])
def test_edges_and_first_pixels_are_told_apart(tmp_path, one_based, xmin):
    write_one(tmp_path, {"bbox": [10, 20, 5, 6], "area": 30}, one_based=one_based)
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert f"<xmin>{xmin}</xmin>" in text and "<xmax>15</xmax>" in text and "<ymax>26</ymax>" in text


def test_crowds_and_flags_come_back(tmp_path):
    losses = write_one(tmp_path, {"bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 1, "truncated": 0.25})
    (each,) = content_of(read_voc(tmp_path / "out"))["annotations"]
    assert (each["iscrowd"], each["difficult"], each["truncated"]) == (1, 1, 0.25)
    assert losses == {"crowd: as difficult, and in a field of ours, <iscrowd>": 1}


def test_a_mask_that_is_lost_is_told(tmp_path):
    losses = write_one(tmp_path, {"bbox": [1, 2, 3, 4], "area": 11, "segmentation": [[1, 2, 4, 2, 4, 6]]})
    assert losses == {"segmentation of annotations": 1, "area of annotations": 1}


def voc_folder(root, inner, head="<annotation>", filename="a.jpg"):
    size = "<size><width>100</width><height>50</height></size>"
    write(root / "Annotations" / "a.xml", f"{head}<filename>{filename}</filename>{size}{inner}</annotation>")
    draw_image(root / "JPEGImages" / "a.jpg")
    return root


BOX = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>15</xmax><ymax>26</ymax></bndbox>"
CAR = f"<object><name>car</name><difficult>1</difficult>{BOX}</object>"


@pytest.mark.parametrize(
    ("source", "box"),
    [("", [11, 21, 4, 5]), ("<source><annotation>PASCAL VOC2007</annotation></source>", [10, 20, 5, 6])],
)
def test_files_of_the_devkit_count_from_one_and_others_are_edges(tmp_path, source, box):
    dataset = read_voc(voc_folder(tmp_path, source + CAR))
    (each,) = dataset.parts[0].annotations
    assert each["bbox"] == box and each["difficult"] == 1 and each["iscrowd"] == 0
    assert len(dataset.notes) == 1 and ("from 1" in dataset.notes[0]) == bool(source)


def test_what_the_caller_says_goes_before_what_the_file_tells(tmp_path):
    (each,) = read_voc(voc_folder(tmp_path, CAR), one_based=True).parts[0].annotations
    assert each["bbox"] == [10, 20, 5, 6]


def test_lists_of_image_sets_make_the_parts(tmp_path):
    root = voc_folder(tmp_path, CAR)
    write(root / "Annotations" / "b 1.xml", (root / "Annotations" / "a.xml").read_text().replace("a.jpg", "b 1.jpg"))
    draw_image(root / "JPEGImages" / "b 1.jpg")
    write(root / "ImageSets" / "Main" / "train.txt", "a  1\n")
    write(root / "ImageSets" / "Main" / "val.txt", "b 1\n")
    parts = {part.name: [image["file_name"] for image in part.images] for part in read_voc(root).parts}
    assert parts == {"train": ["a.jpg"], "val": ["b 1.jpg"]}


def test_a_missing_image_is_a_problem_and_its_boxes_stay(tmp_path):
    root = voc_folder(tmp_path, CAR)
    (root / "JPEGImages" / "a.jpg").unlink()
    dataset = read_voc(root)
    assert len(dataset.problems) == 1 and dataset.parts[0].files == {} and len(dataset.parts[0].annotations) == 1


def test_the_same_name_in_train_and_val_is_written_apart(tmp_path):
    content = one_image({"bbox": [1, 2, 3, 4], "area": 12})
    train, val = (on_disk(content, tmp_path / part, part) for part in ("train", "val"))
    train.parts.append(val.parts[0])
    losses = write_voc(train, tmp_path / "out")
    assert [loss.example for loss in losses] == ["val: a.png is now val_a.png"]
    names = {part.name: [image["file_name"] for image in part.images] for part in read_voc(tmp_path / "out").parts}
    assert names == {"train": ["a.png"], "val": ["val_a.png"]}


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation><filename>&c;</filename></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>'


@pytest.mark.parametrize("text", [BOMB, OUTSIDE, "<annotation><object>", "", "<svg/>", "\0", "plain"])
def test_hostile_and_broken_xml_is_refused_by_name(tmp_path, text):
    path = write(tmp_path / "Annotations" / "a.xml", text)
    with pytest.raises(ValueError, match="expected") as caught:
        read_voc(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "inner",
    [
        f"<object>{BOX}</object>",
        "<object><name>car</name></object>",
        CAR.replace("15", "nan"),
        CAR.replace("<xmax>15</xmax>", ""),
    ],
)
def test_a_broken_object_is_named(tmp_path, inner):
    with pytest.raises(ValueError, match=r"a\.xml: expected"):
        read_voc(voc_folder(tmp_path, inner))


@pytest.mark.parametrize("filename", ["../../secret.jpg", "/etc/passwd"])
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path, filename):
    with pytest.raises(ValueError, match="expected a name inside"):
        read_voc(voc_folder(tmp_path / "set", CAR, filename=filename))


@pytest.mark.parametrize("name", ["a\x01b", "two\nlines", " padded "])
def test_class_names_that_xml_cannot_hold_are_refused(tmp_path, name):
    dataset = on_disk(one_image(names=(name,)), tmp_path / "source")
    with pytest.raises(ValueError, match="expected a class name of one plain line"):
        write_voc(dataset, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]
