import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.competitions.track4 import TRACK4
from kit.data.coco import parse_coco
from kit.media import Unreadable
from kit.media.frame import Kind
from kit.predict import Detections
from kit.predictor import Prediction
from kit.predictor.prediction import nothing_found
from kit.predictor.results import Found, Stems, json_list, numbering, write_crops, write_drawn, write_yolo
from tests.predictor.conftest import NAMES, bright


def prediction(name: str = "a.png", kind: Kind = "image", index: int = 0) -> Prediction:
    detections = Detections(torch.tensor([[40.0, 20.0, 120.0, 60.0]]), torch.tensor([0.9]), torch.tensor([1]))
    return Prediction(name, kind, bright(), detections, index=index)


def test_files_are_named_after_their_picture():
    stems = Stems()
    names = [stems(prediction(name)) for name in ("a.png", "b.c/a.png", "a.jpg", "a.jpg", "a.jpg")]
    assert names == ["a", "b.c/a", "a_jpg", "a_jpg_2", "a_jpg_3"]


def test_frames_and_pages_have_their_number_and_never_the_name_of_another_file():
    stems = Stems()
    first = [stems(prediction("street.mp4", "video", index)) for index in (0, 2, 4)]
    assert first == ["street_000000", "street_000002", "street_000004"]
    assert stems(prediction("street.avi", "video", 6)) == "street_avi_000006"
    assert stems(prediction("street.avi", "video", 1)) == "street_avi_2_000001"  # it begins again: given twice
    assert stems(prediction("report.pdf", "pdf", 0)) == "report_page_001"


def test_a_list_is_json_at_every_length(tmp_path: Path):
    for count in range(3):
        with (tmp_path / "list.json").open("w") as file, json_list(file, '{"rows": [', "]}") as write:
            for row in range(count):
                write({"row": row})
        assert json.loads((tmp_path / "list.json").read_text()) == {"rows": [{"row": row} for row in range(count)]}


def test_pictures_are_numbered_as_they_come_or_as_the_annotations_say():
    number = numbering(None, None)
    assert [number(prediction(name)) for name in ("b.png", "a.png")] == [1, 2]

    image = {"height": 128, "width": 256}
    images = [image | {"id": 9, "file_name": "x/a.png"}, image | {"id": 4, "file_name": "x/b.png"}]
    images += [image | {"id": 5, "file_name": "y/b.png"}, {"id": 6, "file_name": "c.png", "height": 1, "width": 1}]
    listed = numbering(parse_coco({"images": images, "categories": []}, Path("all.json")), None)
    assert [listed(prediction(name)) for name in ("x/a.png", "a.png", "y/b.png")] == [9, 9, 5]
    for name, reason in (("b.png", "not listed"), ("z.png", "not listed"), ("c.png", r"height, width \(1, 1\)")):
        with pytest.raises(Unreadable, match=f"{name}: expected .*{reason}"):
            listed(prediction(name))


def test_track_4_numbers_by_the_file_name():
    number = numbering(None, TRACK4)
    assert number(prediction("camera3_A_12.png")) == 3112
    with pytest.raises(Unreadable, match=r"street\.png: file name must be camera"):
        number(prediction("street.png"))


def test_yolo_lines_read_back(tmp_path: Path):
    write_yolo(tmp_path, Found(prediction(), 1, "sub/a"))
    label, *numbers = (tmp_path / "sub" / "a.txt").read_text().split()
    assert label == "1"
    assert [float(number) for number in numbers] == pytest.approx(
        [80 / 256, 40 / 128, 80 / 256, 40 / 128, 0.9], abs=1e-6
    )
    empty = Prediction("b.png", "image", bright(), nothing_found())
    write_yolo(tmp_path, Found(empty, 2, "b"))
    assert (tmp_path / "b.txt").read_text() == ""


def test_crops_lie_in_a_folder_for_each_class(tmp_path: Path):
    import cv2

    write_crops(tmp_path, Found(prediction(), 1, "a"), ["lamp", "sun/moon"], padding=0.25)
    image = cv2.imread(str(tmp_path / "sun_moon" / "a_000.jpg"))
    assert image.shape == (40 + 2 * 10, 80 + 2 * 20, 3)
    assert image[30, 60].tolist() == [255] * 3 and image[2, 2].max() < 40


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_drawn_copies_keep_their_colours(tmp_path: Path, channels: int):
    import cv2

    image = np.zeros((200, 200, channels), np.uint8)
    image[..., 0] = 200
    shown = Prediction("a.png", "image", image, nothing_found())
    write_drawn(tmp_path, Found(shown, 1, "a"), NAMES)
    red = cv2.imread(str(tmp_path / "a.jpg"))[100, 100, ::-1]
    assert red.tolist() == pytest.approx([200] * 3 if channels == 1 else [200, 0, 0], abs=3)
