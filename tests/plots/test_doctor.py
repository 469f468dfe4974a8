"""The doctor's page."""

import numpy as np
import pytest

from kit.doctor.report import Curve, Images, Report, judged, write_report
from kit.plots.doctor import main, page_of, plot_place, show_boxes, write_doctor_page


@pytest.fixture
def report():
    report = Report("data/<x>.json: 3 images", ["dark", "bright"])
    report.verdicts = [
        judged("loader", "Fast?", False, False, "10", "12", "workers"),
        judged("labels", "Right?", True, True, "0 to 1", "2 <script>", "count from 0 & not from 1"),
    ]
    rising, falling = [0.0, 1.0], [2.0, 1.0]
    report.curves = {
        "overfit ap": Curve([20.0, 40.0], rising, "step", "AP", 0.9),
        "overfit loss": Curve([1.0, 2.0], falling, "step", "loss"),
        "rate": Curve([1e-6, 1e-5], falling, "learning rate", "loss", None, 1e-5, True),
    }
    report.tables["loss"] = [{"term": "vfl", "expected": 1.0, "found": 1.5}]
    report.maps["place"] = np.arange(625.0).reshape(25, 25)
    boxes, labels = [np.array([[1.0, 2.0, 30.0, 40.0]]), np.zeros((0, 4))], [np.array([5]), np.zeros(0, np.int64)]
    images = Images(np.zeros((2, 64, 64, 3), np.uint8), boxes, labels)
    report.images = {"batch": images, "overfit": images}
    return report


def test_the_page_tells_the_worst_first_in_plain_text(report):
    page = page_of(report)
    assert page.index("Right?") < page.index("Fast?") and "1 wrong, 0 look at it, 1 well" in page
    assert "2 &lt;script&gt;" in page and "<script>" not in page and "count from 0 &amp; not" in page
    assert page.count("data:image/png;base64,") == 5 and "http" not in page.replace("http-equiv", "")


def test_a_page_of_a_report_without_pictures_has_only_verdicts(report):
    report.curves, report.tables, report.maps, report.images = {}, {}, {}, {}
    assert "<img" not in page_of(report) and "Right?" in page_of(report)


def test_a_label_that_is_no_class_is_drawn_with_its_number(report):
    figure = show_boxes(report.images["batch"], report.names, "A batch")
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {"no class: 5"}
    report.images["batch"].labels[0][:] = -1
    texts = {text.get_text() for text in show_boxes(report.images["batch"], report.names, "").legends[0].get_texts()}
    assert texts == {"no class"}


def test_the_best_shift_is_marked(report):
    as_they_are, best = plot_place(report).axes[0].get_lines()
    assert as_they_are.get_xydata().tolist() == [[0.0, 0.0]]
    assert np.allclose(best.get_xydata(), [[7.5, 7.5]])  # the last of 25 cells, 12 of 160 from the middle


def test_the_command_reads_what_the_doctor_has_written(report, tmp_path, capsys):
    write_report(report, tmp_path)
    assert main([str(tmp_path), str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == write_doctor_page(report, tmp_path / "other.html").read_text()
    assert main([str(tmp_path / "none"), str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
