from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from kit.data.augment import plain_policy
from kit.data.coco import parse_coco
from kit.data.copy_paste import make_book
from kit.data.dataset import CocoDataset
from kit.data.picture import Picture, joined
from kit.data.views import TRACK4_VIEW
from kit.plots.augmented import plot_road_regions, show_pasted, show_pictures
from kit.plots.canvas import class_colour, png

NAMES = ["car", "bus"]


@pytest.fixture
def dataset(tmp_path):
    """Camera 1 with two images, camera 2 with one; a car and a bus on each image but the last."""
    images, annotations = [], []
    for index, name in enumerate(("camera1_M_1.png", "camera1_N_2.png", "camera2_M_1.png")):
        cv2.imwrite(str(tmp_path / name), np.full((60, 80, 3), 90, np.uint8))
        images.append({"id": index, "file_name": name, "height": 60, "width": 80})
        boxes = [[10, 10, 12, 14], [40 + index, 30, 20, 12]] if index < 2 else []
        annotations += [{"image_id": index, "category_id": k, "bbox": box} for k, box in enumerate(boxes)]
    numbered = [each | {"id": number} for number, each in enumerate(annotations, 1)]
    categories = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
    content = {"images": images, "annotations": numbered, "categories": categories}
    return CocoDataset(parse_coco(content, Path("a.json")), tmp_path, plain_policy())


def test_each_camera_shows_its_donors_in_the_colours_of_their_classes(dataset):
    figure = plot_road_regions(make_book(dataset.coco, TRACK4_VIEW), dataset)
    assert [axes.get_title("left") for axes in figure.axes] == ["camera 1: 4 donors", "camera 2: 0 donors"]
    dots = figure.axes[0].collections[-1]
    assert len(dots.get_offsets()) == 4
    assert {to_hex(colour) for colour in dots.get_facecolors()} == {class_colour(0), class_colour(1)}
    assert np.allclose(dots.get_offsets()[-1], [50.5, 35.5], atol=1.1)  # a bus
    assert png(figure).startswith(b"\x89PNG")


def test_without_names_of_cameras_all_images_are_one_panel(dataset):
    figure = plot_road_regions(make_book(dataset.coco, None), dataset)
    assert [axes.get_title("left") for axes in figure.axes] == ["all images: 4 donors"]


def test_after_copy_paste_only_the_new_objects_are_marked(dataset):
    before = dataset.load(0)
    new = Picture(before.image, np.array([[5.0, 40, 15, 50]]), np.array([1]))
    figure = show_pasted([(before, joined([before, new], before.image))], NAMES)
    titles = [axes.get_title("left") for axes in figure.axes]
    marked = [len([each for each in axes.patches if isinstance(each, Rectangle)]) for axes in figure.axes]
    assert titles == ["before: 2 boxes", "after: 1 more, marked"] and marked == [2, 1]


def test_pictures_are_shown_under_what_was_done_to_them(dataset):
    figure = show_pictures({"as it is": dataset.load(0), "flip: 0.5": dataset.load(1)}, NAMES, "Each effect alone")
    assert [axes.get_title("left") for axes in figure.axes] == ["as it is", "flip: 0.5"]
