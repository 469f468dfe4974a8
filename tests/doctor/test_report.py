"""Verdicts, and the report on its way to the process that draws it."""

import numpy as np

from kit.doctor.report import Curve, Images, Report, few, judged, read_report, write_report


def a_report() -> Report:
    report = Report("data/x.json: 3 images", ["dark", "bright"])
    report.verdicts = [
        judged("loader", "Fast?", False, False, "10", "12", "workers"),
        judged("labels", "Right?", True, True, "0 to 1", "2", "count from 0"),
        judged("labels", "Large?", False, True, "4 px", "3 px", "a larger input"),
    ]
    report.curves["rate"] = Curve([1e-6, 1e-5], [3.0, 2.0], "rate", "loss", None, 1e-5, True)
    report.tables["loss"] = [{"term": "vfl", "expected": 1.0, "found": 1.5}]
    report.maps["place"] = np.arange(9.0).reshape(3, 3)
    boxes, labels = [np.array([[1.0, 2.0, 3.0, 4.0]]), np.zeros((0, 4))], [np.array([1]), np.zeros(0, np.int64)]
    report.images["batch"] = Images(np.zeros((2, 8, 8, 3), np.uint8), boxes, labels)
    return report


def test_the_mark_is_the_worst_and_the_mend_is_told_where_there_is_one():
    report = a_report()
    assert [verdict.mark for verdict in report.verdicts] == ["well", "wrong", "look"]
    assert [verdict.mend for verdict in report.verdicts] == ["", "count from 0", "a larger input"]
    assert report.mark == "wrong" and Report("nothing", []).mark == "well"


def test_the_table_has_the_worst_first():
    head, *lines = a_report().table().splitlines()
    assert head == "data/x.json: 3 images: 1 wrong, 1 look, 1 well"
    assert [line.split()[0] for line in lines] == ["wrong", "look", "well"] and "count from 0" in lines[0]


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = a_report()
    write_report(report, tmp_path)
    again = read_report(tmp_path)
    assert again.to_json() == report.to_json() and again.maps["place"].tolist() == report.maps["place"].tolist()
    images = again.images["batch"]
    assert [each.shape for each in images.boxes_xyxy_px] == [(1, 4), (0, 4)] and images.labels[0].tolist() == [1]


def test_of_many_names_a_few_are_told():
    assert few(["a", "b"]) == "a, b" and few(range(5)) == "0, 1, 2 and 2 more"
