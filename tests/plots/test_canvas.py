import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from kit.plots.canvas import chips, class_colour, draw_image, ink_on, number_table, outline, panels, png, save_figure


def drawn_texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.fixture
def axes():
    """Of a black image of 100 x 100 px."""
    _, grid = panels(1, 1, (4, 4))
    draw_image(grid[0, 0], np.zeros((100, 100, 3), np.uint8))
    return grid[0, 0]


def test_the_first_hundred_classes_have_a_colour_each():
    colours = [class_colour(label) for label in range(100)]
    assert len(set(colours)) == 100 and colours[2] == "#009e73"


def test_letters_on_a_class_colour_can_be_read():
    luminance = {label: np.dot([0.299, 0.587, 0.114], to_rgb(class_colour(label))) for label in range(40)}
    inks = {label: ink_on(class_colour(label)) for label in luminance}
    assert all((ink == "black") == (luminance[label] > 0.45) for label, ink in inks.items())


def test_a_box_is_drawn_where_it_is(axes):
    outline(axes, np.array([10.0, 20.0, 30.5, 60.0]), "red")
    (box,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (9.5, 19.5, 20.5, 40.0)  # pixel 0 ends at 0.5


def test_a_label_stands_above_its_box_and_where_there_is_no_room_below(axes):
    boxes = np.array([[10.0, 50.0, 40.0, 90.0], [60.0, 0.0, 90.0, 30.0]])
    chips(axes, boxes, ["Car", "Bus"], ["red", "blue"], (100, 100), points=6, px_per_point=0.35)
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights["Car"] < 50 and heights["Bus"] > 30


def test_a_label_that_would_cover_another_box_is_left_out(axes):
    inner = [40.0, 40.0, 45.0, 45.0]
    around = [[30.0, 20.0, 60.0, 40.0], [30.0, 45.0, 60.0, 70.0], [20.0, 30.0, 40.0, 60.0], [45.0, 30.0, 70.0, 60.0]]
    boxes = np.array([inner, *around])
    chips(axes, boxes, ["Pedestrian", *"abcd"], ["red"] * 5, (100, 100), points=6, px_per_point=0.35)
    assert "Pedestrian" not in drawn_texts(axes)


def test_no_boxes_need_no_labels(axes):
    chips(axes, np.zeros((0, 4)), [], [], (100, 100), points=6, px_per_point=0.35)
    assert drawn_texts(axes) == []


def test_a_table_leaves_zeros_blank(axes):
    number_table(axes, np.array([[1200, 0], [0, 7]]), ["a", "b"], ["c", "d"])
    assert drawn_texts(axes) == ["1,200", "7"]


def test_a_saved_figure_is_a_whole_png_and_the_notebook_shows_the_same(tmp_path):
    figure, _ = panels(1, 1, (2, 1))
    saved = save_figure(figure, tmp_path / "deep" / "a.png")
    assert saved._repr_png_() == (tmp_path / "deep" / "a.png").read_bytes() and repr(saved) == "a.png"
    assert saved.data.startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_a_notebook_shows_a_figure_without_pyplot():
    figure, _ = panels(1, 1, (2, 1))
    assert figure._repr_png_() == png(figure)
