import json

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Polygon

from kit.data.check_masks import problems_of_masks
from kit.data.check_report import SIDE_EDGES_PX
from kit.data.check_table import read_table
from kit.data.mask_shapes import compressed_entry
from kit.plots.check import (
    MASK,
    draw_reports,
    is_there,
    main,
    masks_of,
    plot_classes,
    plot_sizes,
    rings_of,
    show_problem,
    view,
)
from kit.plots.suspects import SUSPECT


def finding(name="a.png", box=(10, 10, 20, 20), part="train", **more):
    return {"kind": "odd", "part": part, "image_id": 1, "file_name": name, "annotation_ids": [5]} | {
        "box_xywh_px": box and list(box), "detail": "why $x$ it is odd", "partner": None
    } | more  # fmt: skip


def problem(*findings, kind="odd one", count=None):
    return {"kind": kind, "count": count or len(findings), "mend": "look", "findings": list(findings)}


def counted(name, boxes, place=5):
    sides = [boxes * (row == place) for row in range(len(SIDE_EDGES_PX) - 1)]
    return {"name": name, "boxes": boxes, "images": boxes, "sides": sides}


def report(part, classes=(), problems=(), folder=None):
    about = {"part": part, "folder": folder and str(folder), "side_edges_px": list(SIDE_EDGES_PX)}
    return about | {"classes": list(classes), "problems": list(problems)}


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(images / name), np.full((200, 300, 3), 90, np.uint8))
    (images / "broken.png").write_text("404")
    return images


def headings(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_a_box_is_shown_close_up_with_its_file_annotation_and_reason(folder):
    figure = show_problem(problem(finding(), count=1200), {"train": folder})
    (axes,) = (each for each in figure.axes if each.patches)
    assert headings(figure) == ["a.png\nannotation 5: why \\$x\\$ it is odd"]
    assert axes.patches[0].get_xy() == (9.5, 9.5) and axes.patches[0].get_width() == 20
    assert tuple(axes.patches[0].get_edgecolor()[:3]) == tuple(int(SUSPECT[at : at + 2], 16) / 255 for at in (1, 3, 5))
    assert axes.get_xlim() == (-0.5, 119.5) and axes.get_ylim() == (119.5, -0.5)
    assert figure.get_suptitle() == "Odd one, 1 of 1,200: look"


@pytest.mark.parametrize(
    ("box_xyxy_px", "low", "high"),
    [
        ([100, 50, 110, 60], [45, 0], [165, 120]),
        ([290, 50, 320, 60], [0, 0], [320, 200]),
        ([-900, 50, -800, 60], [-150, 0], [300, 200]),
        ([10, 500, 20, 600], [0, 0], [300, 300]),
    ],
)
def test_what_is_shown_holds_the_box_or_the_way_to_it(box_xyxy_px, low, high):
    found = view(np.array(box_xyxy_px, float), (200, 300))
    assert [each.tolist() for each in found] == [low, high]


def test_pairs_stand_beside_each_other(folder):
    own = finding(box=None, annotation_ids=[], partner=["train", "b.png"])
    figure = show_problem(problem(own), {"train": folder})
    assert headings(figure) == ["a.png\nwhy \\$x\\$ it is odd", "train: b.png"]


def test_what_no_image_shows_is_not_drawn(folder):
    assert show_problem(problem(finding("gone.png"), finding(""), finding(part="val")), {"train": folder}) is None
    assert not is_there(finding(), {"train": None}) and is_there(finding(), {"train": folder})


@pytest.mark.parametrize("name", ["../secret.png", ".", "a\0.png", "x" * 300, "a/" * 3000 + "b.png"])
def test_a_file_that_lies_elsewhere_or_nowhere_is_not_opened(folder, name):
    cv2.imwrite(str(folder.parent / "secret.png"), np.zeros((20, 30, 3), np.uint8))
    assert not is_there(finding(name), {"train": folder})


# --- masks ---

RING = [40, 20, 90, 20, 90, 50, 40, 50]


def with_masks(path, *annotations):
    """Written, and as the check tells of it."""
    size = {"height": 200, "width": 300}
    images = [{"id": 1, "file_name": "a.png"} | size, {"id": 2, "file_name": "b.png"} | size]
    content = {"images": images, "annotations": list(annotations), "categories": [{"id": 3, "name": "car"}]}
    path.write_text(json.dumps(content))
    problems = problems_of_masks(read_table(path, "train"))
    return {"path": str(path), "problems": [each.to_json() for each in problems if each.count]}


def masked(segmentation, id=5, image_id=1, bbox=(10, 10, 20, 20)):
    about = {"id": id, "image_id": image_id, "category_id": 3, "bbox": list(bbox), "area": 1500}
    return about | {"segmentation": segmentation}


def lines(axes):
    """Of masks: colour and corners."""
    return [(to_hex(each.get_edgecolor()), each.get_xy()) for each in axes.patches if isinstance(each, Polygon)]


def test_a_mask_is_drawn_beside_the_box_that_it_disagrees_with(folder, tmp_path):
    told = with_masks(tmp_path / "x.json", masked([RING]), masked([RING], bbox=(40, 20, 50, 30)))
    (own,) = told["problems"]
    figure = show_problem(own, {"train": folder}, masks_of(told))
    (axes,) = (each for each in figure.axes if each.patches)
    ((colour, corners),) = lines(axes)
    assert colour == MASK.lower() != SUSPECT and corners[:4].tolist() == (np.reshape(RING, (4, 2)) - 0.5).tolist()
    assert axes.get_xlim()[0] < 9 and axes.get_xlim()[1] > 90 and axes.get_ylim()[0] > 50
    assert [text.get_text() for text in figure.legends[0].texts] == ["box", "mask"]


def test_of_two_annotations_with_one_id_each_gets_its_own_mask(folder, tmp_path):
    other = [value + 100 for value in RING]
    told = with_masks(tmp_path / "x.json", masked([RING], 0), masked([other], 0), masked([RING], 0, 2, (1, 1, 9, 9)))
    found = masks_of(told)
    assert sorted(found) == [(1, 0, 10, 10, 20, 20), (2, 0, 1, 1, 9, 9)]
    same = with_masks(tmp_path / "y.json", masked([RING]), masked([other], bbox=(60, 10, 20, 20)))
    assert [json.loads(text)[0][0] for text in masks_of(same).values()] == [40, 140]


def test_runs_are_drawn_with_their_holes_and_what_is_broken_is_not():
    mask = np.zeros((40, 60), np.uint8)
    mask[5:30, 10:50] = 1
    mask[10:20, 20:30] = 0
    outer, hole = rings_of(json.dumps(compressed_entry(mask)).encode())
    assert [[*ring.min(axis=0), *ring.max(axis=0)] for ring in (outer, hole)] == [[10, 5, 50, 30], [20, 10, 30, 20]]
    broken = (b"[[1, 2]]", b"[", b'{"size": [4, 4], "counts": [1]}', b"[]", b"3", None, b"[" * 100_000)
    assert [rings_of(text) for text in broken] == [[]] * len(broken)


def test_where_no_finding_is_of_a_mask_no_file_is_read():
    assert masks_of({"path": "nowhere.json", "problems": [problem(finding())]}) == {}


def test_a_file_that_is_no_image_is_told_and_a_malformed_box_left_out(folder):
    figure = show_problem(problem(finding("broken.png"), finding(box=(None, 1, 2, 3))), {"train": folder})
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no image to be read"]
    assert not any(axes.patches for axes in figure.axes)


def test_classes_stand_by_their_boxes_and_those_without_any_are_counted():
    reports = [
        report("train", [counted("bus", 2), counted("car", 9), counted("van", 0)]),
        report("val", [counted("car", 1)]),
        report(""),
    ]
    figure = plot_classes(reports)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["car", "bus"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [9, 2, 1, 0]
    assert figure.get_suptitle() == "Boxes of each class; 1 more have none"


def test_of_very_many_classes_the_ends_are_shown():
    figure = plot_classes([report("train", [counted(f"c{row}", 100 - row) for row in range(50)])])
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(names) == 40 and names[0] == "c0" and names[-1] == "c49" and "c25" not in names


def test_sizes_are_shares_of_each_part():
    figure = plot_sizes(
        [report("train", [counted("car", 3, 2), counted("bus", 1, 4)]), report("test", [counted("car", 0)])]
    )
    (stairs,) = figure.axes[0].patches
    assert stairs.get_data().values.tolist() == [0, 0, 0.75, 0, 0.25] + 7 * [0]
    assert stairs.get_label() == "train: 4 boxes"


@pytest.mark.parametrize("reports", [[], [report("train")], [report("train", [counted("car", 0)])]])
def test_nothing_is_drawn_as_nothing(reports):
    assert plot_classes(reports).axes[0].texts[0].get_text() == "no classes"
    assert plot_sizes(reports).axes[0].texts[0].get_text() == "no boxes"


def test_every_problem_gets_a_file_of_its_own_whatever_its_part_is_called(folder, tmp_path):
    odd = problem(finding(part="../x"), kind="area/unlike")
    like = problem(finding(part="_x"), kind="area unlike")
    reports = [
        report("../x", [counted("car", 1)], [odd], folder),
        report("_x", [], [like], folder),
        report("", [], [odd]),
    ]
    paths = draw_reports(reports, tmp_path / "out")
    assert sorted(path.name for path in paths) == [
        "__x_area_unlike.png",
        "_x_area_unlike.png",
        "all_area_unlike.png",
        "classes.png",
        "sizes.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())


def test_the_command_reads_what_the_check_has_written(folder, tmp_path, capsys):
    path = tmp_path / "reports.json"
    path.write_text(json.dumps([report("train", [counted("car", 1)], [problem(finding())], folder)]))
    assert main([str(path), str(tmp_path / "out")]) == 0 and "3 pictures" in capsys.readouterr().out
    assert main([str(path), str(tmp_path / "out")]) == 2 and capsys.readouterr().err.startswith("error: ")
