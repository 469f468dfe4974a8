import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kit.data.coco import find_split, read_coco
from kit.data.intake import main, take_in
from kit.data.plain_pixels import Limits
from kit.files import read_json, sha256


def photo(height: int = 30, width: int = 50) -> np.ndarray:
    """Grey, with one bright object in (20, 3) to (41, 12)."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[3:12, 20:41] = (250, 240, 230)
    return pixels


def save(path, pixels, orientation: int = 1, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)


def data_set(folder, *, orientation: int, size_hw=(30, 50), name="a.jpg"):
    save(folder / "images" / "train" / name, photo(), orientation, quality=100)
    image = {"id": 1, "file_name": name, "height": size_hw[0], "width": size_hw[1], "camera": "c1"}
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 3, 21, 9], "area": 189, "iscrowd": 0}
    box |= {"segmentation": [[20, 3, 41, 3, 41, 12, 20, 12]]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 7, "name": "car"}], "info": {"x": 1}}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder


def bright_box(path) -> list[int]:
    """xywh of the object, looked for in the pixels."""
    is_bright = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) > 150
    rows, columns = np.flatnonzero(is_bright.any(axis=1)), np.flatnonzero(is_bright.any(axis=0))
    return [int(columns[0]), int(rows[0]), len(columns), len(rows)]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_labels_turn_with_their_pixels(tmp_path, orientation):
    source = data_set(tmp_path / "source", orientation=orientation)
    before = sha256(source / "annotations" / "instances_train.json")
    log = take_in(source, tmp_path / "out")
    split = find_split(tmp_path / "out", "train")
    (record,) = read_coco(split.annotations).records
    assert record.boxes_xywh_px[0].tolist() == bright_box(split.images / record.file_name)
    assert record.size_hw == ((50, 30) if orientation >= 5 else (30, 50)) and record.file_name == "a.png"
    assert record.outlines and record.outlines[0][0].min(axis=0).tolist() == record.boxes_xywh_px[0, :2].tolist()
    assert len(log.labels) == 1 and not log.problems and sha256(source / "annotations/instances_train.json") == before


def test_labels_of_the_shown_picture_stay_as_their_size_tells(tmp_path):
    source = data_set(tmp_path / "source", orientation=6, size_hw=(50, 30))
    log = take_in(source, tmp_path / "out")
    content = read_json(tmp_path / "out" / "annotations" / "instances_train.json")
    assert content["annotations"][0]["bbox"] == [20, 3, 21, 9] and content["info"] == {"x": 1}
    assert content["images"][0]["camera"] == "c1" and "stay, as their size tells" in log.labels[0]


def test_where_the_size_does_not_tell_the_option_decides(tmp_path):
    source = data_set(tmp_path / "source", orientation=3)
    take_in(source, tmp_path / "out", labels="shown")
    content = read_json(tmp_path / "out" / "annotations" / "instances_train.json")
    assert content["annotations"][0]["bbox"] == [20, 3, 21, 9]


def test_a_size_that_fits_neither_is_a_problem(tmp_path):
    log = take_in(data_set(tmp_path / "source", orientation=6, size_hw=(31, 50)), tmp_path / "out")
    assert len(log.problems) == 1 and "size 31 x 50 in the file, 50 x 30 in the picture" in log.problems[0]


def test_what_is_plain_is_copied_byte_for_byte(tmp_path):
    source = data_set(tmp_path / "source", orientation=1, name="a.JPG")
    log = take_in(source, tmp_path / "out")
    (picture,) = log.pictures
    assert picture.steps == ["plain already, copied"] and picture.losses == []
    assert sha256(tmp_path / "out" / "images" / "train" / "a.JPG") == picture.source_sha256
    content = (source / "annotations" / "instances_train.json").read_text()
    assert json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text()) == json.loads(content)


def test_names_that_fall_together_are_kept_apart(tmp_path):
    for name, value in (("a.png", 10), ("a.tif", 20), ("a.bmp", 30), ("sub/a.bmp", 40)):
        save(tmp_path / "source" / name, np.full((5, 6, 3), value, np.uint8))
    palette = Image.new("P", (6, 5), 1)
    palette.putpalette([0, 0, 0, 50, 50, 50])
    palette.save(tmp_path / "source" / "a.gif")
    palette.save(tmp_path / "source" / "a_gif.png")  # no plain picture either
    log = take_in(tmp_path / "source", tmp_path / "out")
    names = {picture.source: picture.name for picture in log.pictures}
    assert len(set(names.values())) == len(names) == 6 and names["sub/a.bmp"] == "sub/a.png"
    for source, name in names.items():
        expected = {"a.png": 10, "a.tif": 20, "a.bmp": 30, "sub/a.bmp": 40}.get(source, 50)
        assert (cv2.imread(str(tmp_path / "out" / name)) == expected).all()


def test_pages_become_pictures_and_the_labels_go_with_the_first(tmp_path):
    source = data_set(tmp_path / "source", orientation=1, name="a.png")
    pages = [Image.fromarray(photo()), Image.new("RGB", (50, 30))]
    pages[0].save(source / "images" / "train" / "b.tif", save_all=True, append_images=pages[1:])
    path = source / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("a.png", "b.tif"))
    take_in(source, tmp_path / "out")
    (record,) = read_coco(tmp_path / "out" / "annotations" / "instances_train.json").records
    assert record.file_name == "b_p0001.png"
    assert bright_box(tmp_path / "out/images/train/b_p0001.png") == record.boxes_xywh_px[0].tolist()
    assert (cv2.imread(str(tmp_path / "out/images/train/b_p0002.png")) == 0).all()


def test_broken_files_and_others_are_named(tmp_path, capsys):
    source = data_set(tmp_path / "source", orientation=1)
    (source / "notes.txt").write_text("x")
    path = source / "images" / "train" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert main([str(source), str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    log = read_json(tmp_path / "out" / "intake.json")
    assert list(log["refused"]) == ["images/train/a.jpg"] and log["others"] == ["notes.txt"]
    assert "entry stays as it was" in log["problems"][0] and "refused" in printed and "notes.txt" in printed
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_a_file_with_a_broken_page_leaves_nothing(tmp_path):
    (tmp_path / "source").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    pages = [Image.fromarray(each) for each in noise]
    path = tmp_path / "source" / "a.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    path.write_bytes(path.read_bytes()[:-1500])
    log = take_in(tmp_path / "source", tmp_path / "out")
    assert list(log.refused) == ["a.gif"] and sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "intake.json"
    ]


def test_a_huge_picture_is_refused_with_a_way_on(tmp_path):
    save(tmp_path / "source" / "a.bmp", photo())
    log = take_in(tmp_path / "source", tmp_path / "out", limits=Limits(most_pixels=1000))
    assert "1000 pixels" in log.refused["a.bmp"] and "--most-pixels" in log.refused["a.bmp"]
    assert not take_in(tmp_path / "source", tmp_path / "more", limits=Limits(most_pixels=1500)).refused


def test_a_name_that_leaves_its_folder_is_refused_and_nothing_is_made(tmp_path, capsys):
    source = data_set(tmp_path / "source", orientation=1)
    path = source / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"a.jpg"', '"../../../secret.jpg"'))
    assert main([str(source), str(tmp_path / "out")]) == 2
    assert "expected a name inside" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source"]


def test_neither_the_source_nor_a_full_folder_is_written_to(tmp_path, capsys):
    source = data_set(tmp_path / "source", orientation=1)
    assert main([str(source), str(source)]) == 2 and main([str(source), str(source / "new")]) == 2
    assert main([str(source), str(tmp_path)]) == 2 and main([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("error: ") == 4


def test_jpeg_is_written_if_asked_for_and_its_loss_told(tmp_path):
    save(tmp_path / "source" / "a.bmp", photo())
    (picture,) = take_in(tmp_path / "source", tmp_path / "out", to="jpg").pictures
    assert picture.name == "a.jpg" and picture.losses == ["pixels are rounded by JPEG"]
    assert bright_box(tmp_path / "out" / "a.jpg") == [20, 3, 21, 9]


def test_a_real_pdf_becomes_pictures(shared, tmp_path):
    log = take_in(shared("data/media/pdf"), tmp_path / "out")
    assert len(log.pictures) > 1 and not log.refused
    assert all(picture.name.startswith("road_photos_report_p") for picture in log.pictures)


def test_a_folder_given_from_where_one_stands_is_taken_in_with_its_labels(tmp_path, monkeypatch):
    data_set(tmp_path / "in", orientation=6)
    monkeypatch.chdir(tmp_path)
    log = take_in(Path("in"), Path("out"))
    assert (
        not log.problems
        and read_json(Path("out/annotations/instances_train.json"))["images"][0]["file_name"] == "a.png"
    )
