import json
from pathlib import Path

import numpy as np
import pytest

from kit.data.check_report import EXAMPLES, LISTED, Finding, Found, Problem, Report

NAN = float("nan")


def finding(row=1, **more):
    return Finding("odd", "train", row, f"{row}.png", **more)


@pytest.mark.parametrize(
    ("own", "text"),
    [
        (finding(), "1.png"),
        (finding(detail="a b"), "1.png: a b"),
        (finding(annotation_ids=(2, 3), box_xywh_px=(1.0, 2.5, 3.0, 4.0)), "1.png: annotations 2, 3, [1, 2.5, 3, 4]"),
        (Finding("odd", "train", detail="category 3"), "category 3"),
        (Finding("odd", "train", 1, "a\n\x1b[2J\ud800é.png"), "a \\x1b[2J\\ud800é.png"),
        (Finding("odd", "train", 1, "x" * 301), "x" * 296 + " ..."),
    ],
)
def test_a_finding_reads_as_one_line(own, text):
    assert own.text() == text


def test_a_finding_is_strict_json():
    own = finding(annotation_ids=(2,), box_xywh_px=(1.0, NAN, float("inf"), 4.0), partner=("val", "b.png"))
    told = json.loads(json.dumps(own.to_json(), allow_nan=False))
    assert told["box_xywh_px"] == [1, None, None, 4] and told["annotation_ids"] == [2]
    assert told["partner"] == ["val", "b.png"] and told["image_id"] == 1


def test_findings_are_made_when_they_are_looked_at():
    made = []
    found = Found(np.arange(100), lambda row: made.append(row) or finding(row))
    assert len(found) == 100 and made == []
    assert [each.image_id for each in found[3:5]] == [3, 4] and made == [3, 4]
    assert found[-1].image_id == 99 and len(list(found)) == 100


def test_all_findings_are_counted_some_are_listed_and_a_few_are_in_the_table():
    problem = Problem("odd", Found(np.arange(LISTED + 5), finding), "look", is_fatal=False)
    report = Report(Path("a.json"), 9, 99, [problem])
    told = report.to_json()["problems"][0]
    assert told["count"] == LISTED + 5 and len(told["findings"]) == LISTED
    lines = report.table().splitlines()
    assert "no problems, 1 of what is odd" in lines[0] and lines[-1].strip() == "..." and len(lines) == EXAMPLES + 3


def test_findings_are_gathered_by_part_and_image():
    problems = [Problem("odd", [finding(1), finding(2), Finding("odd", "val", 1)], ""), Problem("no", [finding(1)], "")]
    found = Report(Path("a.json"), 2, 0, [*problems, Problem("of no image", [Finding("x", "train")], "")]).by_image()
    assert {key: len(own) for key, own in found.items()} == {("train", 1): 2, ("train", 2): 1, ("val", 1): 1}


def test_only_what_bars_images_names_images_that_cannot_be_used():
    own = [finding(4), Finding("odd", "train")]
    assert Problem("odd", own, "").image_ids == () and Problem("odd", own, "", bars_images=True).image_ids == (4,)
