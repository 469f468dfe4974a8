from dataclasses import replace

import pandas as pd
import pytest

from kit.deploy.bench_table import Bench, Row, with_knees
from kit.plots.bench import plot_bench, series_names
from tests.deploy.test_bench_table import ROW


def table(*rows: Row) -> pd.DataFrame:
    return Bench(with_knees(rows), "", []).table()


@pytest.fixture
def two() -> pd.DataFrame:
    """Two runtimes, two batch sizes: torch is slower, and only it tells the time of the model alone."""
    quick = [ROW, replace(ROW, batch=2, images_per_s=38.0)]
    slow = [replace(row, runtime="torch", finished_p50_ms=70.0, model_p50_ms=60.0, model_p99_ms=65.0) for row in quick]
    return table(*slow, *quick)


def test_bars_are_medians_of_the_smallest_batch_and_the_title_tells_the_quickest(two: pd.DataFrame):
    figure = plot_bench(two)
    widths = [bar.get_width() for bar in figure.axes[0].patches if bar.get_width() > 0]
    assert widths == [60.0, 70.0, 50.0, 50.0, 50.0]  # torch: model, finished, decoded; openvino: the last two
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["torch", "openvino"]
    assert figure._suptitle.get_text() == "Quickest: openvino, 50.0 ms"


def test_throughput_has_a_line_a_series_and_a_ring_at_its_knee(two: pd.DataFrame):
    lines = plot_bench(two).axes[1].get_lines()
    assert [list(line.get_ydata()) for line in lines[::2]] == [[20.0, 38.0]] * 2
    assert [list(line.get_xdata()) for line in lines[1::2]] == [[2]] * 2


def test_the_third_panel_tells_scores_or_memory_or_that_neither_was_measured(two: pd.DataFrame):
    assert plot_bench(two.assign(ap=0.4, f1=0.3)).axes[2].get_ylabel() == "score"
    memory = plot_bench(two.assign(peak_mib=900.0, model_mib=200.0)).axes[2]
    assert [bar.get_width() for bar in memory.patches] == [900.0, 200.0] * 2
    figure = plot_bench(two)
    assert figure.axes[2].texts[0].get_text() == "neither accuracy nor memory were measured"
    figure.canvas.draw()


def test_a_series_is_named_by_what_tells_it_from_others():
    rows = [ROW, replace(ROW, runtime="torch", precision="fp16", device="cuda")]
    assert series_names(table(*rows)) == ["openvino", "torch fp16 GPU"]
    assert series_names(table(*rows, replace(ROW, model="other.onnx"))) == [
        "best.pt openvino",
        "best.pt torch fp16 GPU",
        "other.onnx openvino",
    ]
