import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.formats.table import read_table, write_table
from tests.data.formats.made import any_boxes, content_of, datasets, draw_image, on_disk, one_image, round_trip, write

mores = st.fixed_dictionaries(
    {"area": st.floats(0, 1e9), "iscrowd": st.sampled_from([0, 1])},
    optional={
        "segmentation": st.lists(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=8), min_size=1, max_size=2)
        | st.just({"size": [2, 3], "counts": "kV64\\`\"',;"})
        | st.just({"size": [2, 3], "counts": [1, 2, 3]})
        | st.just([])
    },
)


@settings(max_examples=30, deadline=None)
@given(datasets(box=any_boxes, more=mores))
def test_all_that_an_annotation_has_comes_back_exactly(content):
    assert content_of(round_trip(content, write_table, read_table)) == content


def test_a_large_mask_comes_back(tmp_path):
    mask = {"size": [1000, 1000], "counts": [1] * 100_000}
    content = one_image({"bbox": [1, 2, 3, 4], "area": 12.5, "segmentation": mask})
    write_table(on_disk(content, tmp_path / "source"), tmp_path / "out")
    assert content_of(read_table(tmp_path / "out")) == content


def test_ids_of_images_classes_and_annotations_come_back(tmp_path):
    content = one_image({"id": 90, "image_id": 7, "category_id": 0, "bbox": [1, 2, 3, 4], "area": 12})
    content["images"][0]["id"] = 7
    content["categories"] = [{"id": 0, "name": "car"}, {"id": 3, "name": "never seen"}]
    assert write_table(on_disk(content, tmp_path / "source"), tmp_path / "out") == []
    assert content_of(read_table(tmp_path / "out")) == content


def table(root, text, name="train.csv", image="a.png"):
    draw_image(root / "images" / image)
    write(root / name, text)
    return read_table(root)


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,100,50,car,10,20,15,26\n",
        "image_path,x1,y1,x2,y2,label\na.png,10,20,15,26,car\n",
        'image_id,width,height,bbox,class\na,100,50,"[10.0, 20.0, 5.0, 6.0]",car\n',
        "ImageID,LabelName,XMin,XMax,YMin,YMax\na,car,0.1,0.15,0.4,0.52\n",
        "a.png,10,20,15,26,car\n",
        "file_name;x;y;width;height;category\na.png;10;20;5;6;car\n",
        "\ufeffimage\tleft\ttop\twidth\theight\tlabel\r\na.png\t10\t20\t5\t6\tcar\r\n",
        "file_name,split,category_id,class,x,y,w,h\na.png,train,1,car,10,20,5,6\n",
    ],
)
def test_usual_tables_are_read_by_their_headers(tmp_path, text):
    dataset = table(tmp_path, text)
    (part,) = dataset.parts
    assert part.name == "train" and dataset.categories == [{"id": 1, "name": "car"}]
    assert [each["bbox"] for each in part.annotations] == [[10, 20, 5, 6]]
    assert part.images == [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}]
    assert list(part.files) == [1]


def test_a_row_without_numbers_is_an_image_without_boxes(tmp_path):
    dataset = table(tmp_path, "path,x1,y1,x2,y2,class\na.png,,,,,\n")
    assert len(dataset.parts[0].images) == 1 and dataset.parts[0].annotations == []


def test_a_column_tells_the_parts_and_others_are_told(tmp_path):
    draw_image(tmp_path / "images" / "b.png")
    text = "file,split,class,x,y,w,h,mood\na.png,train,car,1,2,3,4,good\nb.png,valid,bus,1,2,3,4,bad\n"
    dataset = table(tmp_path, text)
    assert [(part.name, len(part.annotations)) for part in dataset.parts] == [("train", 1), ("val", 1)]
    assert any("columns not read: mood" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("file,class,x,y,w,h\na.png,car,1,2,3\n", r"train\.csv:2: expected 6 cells, found 5"),
        ("file,class,x,y,w,h\na.png,car,1,2,3,inf\n", r"train\.csv:2: expected a number, found 'inf'"),
        ("file,class,x,y,w,h\na.png,car,1,2,,4\n", r"train\.csv:2: expected a number, found ''"),
        ("file,class,x,y,w,h\na.png,,1,2,3,4\n", r"train\.csv:2: expected a class"),
        ("file,class,x,y,w,h\n../b.png,car,1,2,3,4\n", "expected a name inside"),
        ('file,class,x,y,w,h\na.png,"car,1,2,3,4\n', r"train\.csv: expected CSV"),
        ("file,class,x,y,w,h\nb.png,car,1,2,3,4\n", "expected the size of 'b.png'"),
        ("file,class,class_id,x,y,w,h\na.png,car,1,1,2,3,4\na.png,bus,1,1,2,3,4\n", "expected class 1 to be 'car'"),
        ("class,x,y,w,h\ncar,1,2,3,4\n", "expected columns of a file name and a box"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, found):
    with pytest.raises(ValueError, match=found):
        table(tmp_path / "set", text)


def test_two_classes_of_one_name_are_refused(tmp_path):
    dataset = on_disk(one_image(names=("car", "car")), tmp_path / "source")
    with pytest.raises(ValueError, match="found 'car' twice"):
        write_table(dataset, tmp_path / "out")


def test_a_name_that_would_break_the_rows_is_refused(tmp_path):
    dataset = on_disk(one_image(names=("a\rb",)), tmp_path / "source")
    with pytest.raises(ValueError, match="without carriage returns"):
        write_table(dataset, tmp_path / "out")
