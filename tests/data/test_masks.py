import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.coco import read_coco
from kit.data.mask_shapes import compressed_entry, mask_of_entry, uncompressed_entry
from kit.data.masks import converted, main

SIZE_HW = (12, 15)
masks = st.randoms(use_true_random=False).map(
    lambda drawn: np.array([[drawn.random() < 0.6 for _ in range(SIZE_HW[1])] for _ in range(SIZE_HW[0])], np.uint8)
)


def content(*segmentations: object, crowd: int = 0) -> dict:
    images = [{"id": 1, "file_name": "a.png", "height": SIZE_HW[0], "width": SIZE_HW[1], "licence": 3}]
    rows = [
        {"id": number, "image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "area": 81.0, "iscrowd": crowd, "note": 1}
        | {"segmentation": segmentation}
        for number, segmentation in enumerate(segmentations, 1)
    ]
    return {"info": {"year": 1}, "images": images, "annotations": rows, "categories": [{"id": 7, "name": "car"}]}


def ring_mask() -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[2:9, 3:11] = 1
    mask[4:6, 5:8] = 0
    return mask


@given(masks, st.sampled_from([compressed_entry, uncompressed_entry]), st.sampled_from(["rle", "runs"]))
def test_run_lengths_come_back_from_polygons_and_from_the_other_form(mask, write, back):
    before = content(write(mask))
    expected = (compressed_entry if back == "rle" else uncompressed_entry)(mask)
    there = converted(before, "polygons")
    assert isinstance(there.content["annotations"][0]["segmentation"], list) and there.losses == []
    assert converted(there.content, back).content["annotations"][0]["segmentation"] == expected
    assert converted(before, back).content["annotations"][0]["segmentation"] == expected
    assert before == content(write(mask))


def test_all_but_the_mask_stays_and_the_log_names_what_changed():
    result = converted(content(compressed_entry(ring_mask())), "polygons")
    (row,) = result.content["annotations"]
    assert row["note"] == 1 and result.content["info"] == {"year": 1} and result.content["images"][0]["licence"] == 3
    assert result.rows == [
        {"annotation_id": 1, "area_error_px2": 0, "iou": 1.0, "parts": 1, "holes": 1, "holes_filled": 0}
    ]


def test_filled_holes_are_a_loss_that_is_told():
    result = converted(content(compressed_entry(ring_mask())), "polygons", holes="fill")
    assert result.losses[0] == "1 holes of 1 masks are filled" and "by 6 px2" in result.losses[1]
    assert mask_of_entry(result.content["annotations"][0]["segmentation"], SIZE_HW).sum() == 7 * 8


def test_polygons_between_pixels_lose_their_corners_and_that_is_told():
    slanted, straight = [[1.5, 1.5, 9.2, 2.0, 5.0, 10.1]], [[1, 1, 5, 1, 5, 6, 1, 6]]
    result = converted(content(slanted, straight), "rle")
    assert len(result.losses) == 1 and result.losses[0].startswith("1 polygons are drawn onto whole pixels")
    assert [row["iou"] for row in result.rows] == [None, 1.0]
    assert mask_of_entry(result.content["annotations"][1]["segmentation"], SIZE_HW).sum() == 20


def test_crowds_stay_run_lengths():
    runs = uncompressed_entry(ring_mask())
    result = converted(content(runs, crowd=1), "polygons")
    assert result.content["annotations"][0]["segmentation"] == runs
    assert result.counts == {"crowd, kept as run lengths": 1}
    crowd = converted(content(runs, crowd=1), "rle").content["annotations"][0]
    assert crowd["segmentation"] == compressed_entry(ring_mask())


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [12, 15], "counts": [1]}, "expected 180 pixels"),
        ({"size": [12, 15], "counts": [180]}, "no pixel"),
        ({"size": [1, 1], "counts": [0, 1]}, "the mask is of 1 x 1, the image of 12 x 15"),
        ([[1, 2]], "3 points"),
        (7, "expected polygons or run lengths"),
    ],
)
def test_what_is_no_mask_stays_as_it_is_and_is_told(segmentation, words):
    result = converted(content(segmentation), "polygons")
    assert result.content == content(segmentation) and result.counts == {"left as it was": 1}
    assert words in result.problems[0] and "annotation 1" in result.problems[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=12,
)


@given(values, st.sampled_from(["polygons", "rle", "runs"]), st.integers(0, 1))
def test_no_entry_is_too_strange(segmentation, to, crowd):
    result = converted(content(segmentation, crowd=crowd), to)
    assert sum(result.counts.values()) == 1 and len(result.problems) == result.counts.get("left as it was", 0)


def test_annotations_without_a_mask_are_no_problem():
    result = converted(content([], None), "rle")
    assert result.content == content([], None) and result.counts == {"without a mask": 2} and not result.problems


def written(folder, value) -> str:
    path = folder / "labels.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_the_command_converts_into_a_new_file_alone(tmp_path, capsys):
    source, out = written(tmp_path, content(compressed_entry(ring_mask()))), str(tmp_path / "out.json")
    assert main(["convert", source, out, "--to", "polygons", "--json", str(tmp_path / "log.json")]) == 0
    assert read_coco(out).records[0].outlines is not None
    assert json.loads((tmp_path / "log.json").read_text())["rows"][0]["iou"] == 1
    assert main(["convert", source, source, "--to", "rle"]) == 2
    assert "expected a new file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["convert", "--to", "rle"], ["boxes"]])
def test_a_source_that_is_no_json_when_written_again_is_named(tmp_path, capsys, command):
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": [], "info": {"odd": NaN}}')
    assert main([*command, str(tmp_path / "x.json"), str(tmp_path / "new.json")]) == 2
    assert "x.json: cannot be written again" in capsys.readouterr().err and not (tmp_path / "new.json").exists()


def test_the_command_tells_disagreements_by_its_status(tmp_path, capsys):
    source = written(tmp_path, content(compressed_entry(ring_mask())))
    assert main(["check", source]) == 1
    assert "1 masks, 2 disagreements" in capsys.readouterr().out  # box and area
    assert main(["boxes", source, str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["annotations"][0]["bbox"] == [3, 2, 8, 7]
    assert main(["check", str(tmp_path / "nothing.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_cuts_out_objects(tmp_path, capsys):
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "train" / "a.png"), np.zeros((*SIZE_HW, 3), np.uint8))
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content([[2, 2, 9, 2, 9, 9]], [])))
    arguments = ["extract", str(tmp_path), str(tmp_path / "out"), "--least", "3"]
    assert main(arguments) == 0
    assert "left out: without a mask; a.png, annotation 2" in capsys.readouterr().out
    assert main(arguments) == 2 and len(list((tmp_path / "out").rglob("*.png"))) == 1


def test_real_masks_are_exact_as_polygons(shared):
    for name in ("pennfudan_mini", "coco_mini"):
        before = json.loads((shared(f"data/{name}/annotations") / "instances_train.json").read_text())
        result = converted(converted(before, "rle").content, "polygons")
        assert result.rows and not result.losses and not result.problems
        assert min(row["iou"] for row in result.rows) == 1 and sum(row["holes"] for row in result.rows) > 0
