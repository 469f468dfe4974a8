from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.data.augment import plain_policy
from kit.data.coco import parse_coco
from kit.data.dataset import CocoDataset
from kit.label_mistakes import find_label_mistakes
from kit.plots.canvas import png
from kit.plots.label_mistakes import show_label_mistakes, window

COCO = {
    "images": [{"id": 1, "width": 200, "height": 100, "file_name": "a.png"}],
    "categories": [{"id": 0, "name": "Car"}, {"id": 1, "name": "Bus"}],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": 0, "bbox": [20, 10, 40, 50]},
        {"id": 6, "image_id": 1, "category_id": 1, "bbox": [120, 10, 40, 50]},
    ],
}
PREDICTIONS = [
    {"image_id": 1, "category_id": 0, "bbox": [20, 10, 40, 50], "score": 0.9},
    {"image_id": 1, "category_id": 0, "bbox": [120, 10, 40, 50], "score": 0.9},
    {"image_id": 1, "category_id": 0, "bbox": [180, 80, 20, 20], "score": 0.8},
]


@pytest.fixture
def datasets(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((100, 200, 3), 90, np.uint8))
    return {"val": CocoDataset(parse_coco(COCO, Path("x.json")), tmp_path, plain_policy())}


def test_each_suspect_is_asked_about_in_the_row_of_its_kind(datasets):
    table = find_label_mistakes(PREDICTIONS, COCO).assign(part="val")
    figure = show_label_mistakes(table, datasets, "Which?", columns=2)
    headings = [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes]
    assert headings == ["0.89 Car not labelled?", "", "1.00 Bus, or Car?", "", "", "", "", ""]
    boxes = [len(axes.patches) for axes in figure.axes]
    assert boxes == [1, 0, 2, 0, 0, 0, 0, 0] and png(figure).startswith(b"\x89PNG")


def test_no_suspects_is_said(datasets):
    figure = show_label_mistakes(find_label_mistakes([], COCO).assign(part="val"), datasets, "Which?", columns=2)
    texts = [axes.texts[0].get_text() for axes in figure.axes[::2]]
    assert texts[0] == "not labelled?\nno suspects" and len(texts) == 4


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ([100, 40, 120, 60], (70, 10, 150, 90)),  # 20 px and 30 px on each side
        ([180, 80, 200, 100], (120, 20, 200, 100)),  # moved into the image
        ([0, 0, 200, 100], (0, 0, 200, 100)),
    ],
)
def test_a_close_up_shows_the_surroundings_and_stays_in_the_image(box, seen):
    assert window(np.array([box], float), (100, 200)) == seen
