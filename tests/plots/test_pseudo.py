from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from kit.data.views import TRACK4_VIEW
from kit.plots.canvas import PALETTE, png
from kit.plots.pseudo import (
    plot_added,
    plot_agreement,
    plot_label_scores,
    plot_worth,
    rule_colour,
    show_pseudo_labels,
)
from kit.pseudo import join, sift, worth_of
from kit.pseudo_rules import parse_rules
from tests.test_pseudo import IMAGES, NAMES, box, label, listing, truth

RULES = parse_rules(["0.4", "Bus: 0.7"], NAMES)


def heading(figure: Any) -> str:
    return figure.get_suptitle()


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_scores_tell_how_many_of_each_class_are_kept() -> None:
    result = sift([(IMAGES, [box(1, 7, 0.5), box(1, 7, 0.2, at=90), box(1, 3, 0.5, at=50)])], RULES, truth(), None)
    figure = plot_label_scores(result, NAMES)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Bus: 0 of 1", "Car: 1 of 2",
    ]  # fmt: skip
    assert heading(figure).startswith("1 of 3 boxes are labels, by score") and png(figure)


def test_agreement_counts_the_voices_behind_each_label_and_compares_them_in_pairs() -> None:
    table = np.array([[True, True], [True, False], [False, False], [True, True]])
    figure = plot_agreement(table, [1, 1, 1, 0], ["a", "b"], NAMES)
    assert texts(figure.axes[1]) == ["100%", "67%", "100%", "100%"]
    assert "All 2 on 50% of the labels" in heading(figure) and png(figure)


def test_one_voice_or_no_label_is_nothing_to_compare() -> None:
    assert texts(plot_agreement(np.ones((3, 1), bool), [0, 0, 0], ["a"], NAMES).axes[0]) == [
        "one model and one view: nothing to compare"
    ]
    assert texts(plot_agreement(np.ones((0, 2), bool), [], ["a", "b"], NAMES).axes[0]) == ["no labels"]


def test_worth_says_how_many_labels_would_be_right_and_marks_each_class() -> None:
    boxes = [box(10, 7, 0.9), box(10, 3, 0.8, at=60), box(10, 7, 0.2, at=150)]
    figure = plot_worth(worth_of(boxes, boxes[:2], truth()))
    assert heading(figure) == "Judged on val: 50% of the labels would be right, 50% of the objects labelled"
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xydata().tolist() for line in dots] == [[[0.0, 0.0]], [[1.0, 1.0]]]


def test_worth_without_a_single_label_says_so() -> None:
    assert heading(plot_worth(worth_of([], [], truth()))) == "Judged on val: no labels there"


def test_what_is_added_is_told_per_image_beside_the_truth() -> None:
    joined = join(truth(), "t", listing(), [label(2), label(2, at=60), label(2, at=100, category_id=3)], 0.5)
    figure = plot_added(truth(), joined, TRACK4_VIEW)
    assert heading(figure).startswith("3 pseudo labels beside 2 true ones")
    assert texts(figure.axes[0]) == ["0.5 (1)", "0.5 (1)", "1 (1)", "2 (2)"]  # two true images, one added
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == ["camera 1", "camera 2"]
    assert texts(figure.axes[1]) == ["1 (2)", "0 (0)", "0 (0)", "3 (3)"] and png(figure)


def test_without_cameras_all_images_are_one_row() -> None:
    figure = plot_added(truth(), join(truth(), "t", listing(), [], 0.5), None)
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == ["all"] and png(figure)


def test_labels_are_coloured_by_their_rule_and_what_is_nearly_one_is_dotted(tmp_path: Path) -> None:
    images = [image | {"file_name": f"{image['id']}.png"} for image in IMAGES]
    for image in images:
        cv2.imwrite(str(tmp_path / image["file_name"]), np.zeros((100, 200, 3), np.uint8))
    boxes = [box(1, 7, 0.5), box(1, 3, 0.8, at=60), box(1, 7, 0.3, at=100), box(1, 7, 0.1, at=150)]
    result = sift([(images, boxes)], RULES, truth(), None, frozenset({1, 2}))
    figure = show_pseudo_labels(images, result, RULES, truth(), tmp_path)
    outlines = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [(patch.get_linestyle(), to_hex(patch.get_edgecolor())) for patch in outlines] == [
        (":", PALETTE[5]), ("-", rule_colour(result.labels[0], RULES)), ("-", rule_colour(result.labels[1], RULES)),
    ]  # fmt: skip
    assert len({to_hex(patch.get_edgecolor()) for patch in outlines}) == 3
    assert figure.axes[0].get_title(loc="left") == "1.png: 2 labels, 1 nearly" and png(figure)
    assert figure.axes[1].get_title(loc="left") == "2.png: 0 labels, 0 nearly"
