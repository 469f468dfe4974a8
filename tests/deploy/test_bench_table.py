import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kit.deploy.bench_table import Bench, Row, told, with_knees, write_bench

LATENCIES = {f"{kind}_p{rank}_ms": float(rank) for kind in ("finished", "decoded") for rank in (50, 90, 99)}
ROW = Row(
    model="best.pt", size="n", runtime="openvino", device="cpu", precision="fp32", input="uint8", height_px=320,
    width_px=640, batch=1, parameters=3_734_393.0, gflop=7.3, images_per_s=20.0, **LATENCIES,
)  # fmt: skip


def series(throughputs: dict[int, float], **changes: str) -> list[Row]:
    return [replace(ROW, batch=batch, images_per_s=speed, **changes) for batch, speed in throughputs.items()]


@pytest.mark.parametrize(
    ("throughputs", "knee"),
    [
        ({1: 50.0, 2: 80.0, 4: 91.0, 8: 100.0}, 4),  # 91 is within a tenth of 100
        ({1: 50.0, 2: 80.0, 4: 89.0, 8: 100.0}, 8),
        ({1: 100.0, 2: 90.0, 4: 50.0}, 1),
        ({4: 1.0}, None),  # a single size bends nowhere
    ],
)
def test_the_knee_is_the_smallest_batch_near_the_best_throughput(throughputs: dict[int, float], knee: int | None):
    marked = with_knees(series(throughputs))
    assert [row.batch for row in marked if row.is_knee] == ([knee] if knee else [])


def test_each_series_has_a_knee_of_its_own():
    rows = (
        series({1: 10.0, 2: 20.0})
        + series({1: 10.0, 2: 10.0}, runtime="torch")
        + series({1: 9.0, 2: 10.0}, precision="fp16")
    )
    assert [(row.runtime, row.precision, row.batch) for row in with_knees(rows) if row.is_knee] == [
        ("openvino", "fp32", 2),
        ("torch", "fp32", 1),
        ("openvino", "fp16", 1),
    ]


def test_the_printed_table_leaves_out_what_was_not_measured():
    row = replace(ROW, is_knee=True, ap=0.31234, model_p50_ms=41.26)
    text = str(Bench([row, replace(ROW, batch=2)], "a processor; 2 threads", ["left out: x"]))
    lines = text.splitlines()
    assert lines[0] == "a processor; 2 threads" and lines[-1] == "left out: x"
    assert lines[1].split() == [
        "detector",
        "runtime",
        "px",
        "batch",
        "M",
        "par.",
        "GFLOP",
        "model",
        "p50",
        "p90",
        "p99",
        "decoded",
        "images/s",
        "AP",
    ]
    assert lines[2].split() == [
        "best.pt",
        "openvino",
        "320x640",
        "1*",
        "3.73",
        "7.30",
        "41.3",
        "50.0",
        "90.0",
        "99.0",
        "50.0",
        "20.0",
        "0.312",
    ]
    assert lines[3].split()[3:7] == ["2", "3.73", "7.30", "-"]


def test_a_runtime_is_told_with_what_is_unusual_about_it():
    assert told(ROW) == "openvino"
    assert told(replace(ROW, runtime="torch", precision="fp16", device="cuda")) == "torch fp16 GPU"


def test_csv_json_and_picture_are_written(tmp_path: Path):
    bench = Bench([ROW, replace(ROW, batch=2, ap=0.5, f1=0.4)], "a processor", [])
    csv, json_file, picture = write_bench(bench, tmp_path / "out")
    assert pd.read_csv(csv).to_dict("list").keys() == bench.table().to_dict("list").keys()
    assert pd.read_csv(csv)["finished_p99_ms"].tolist() == [99.0, 99.0]
    rows = json.loads(json_file.read_text())["rows"]
    assert rows[0]["ap"] is None and rows[1]["ap"] == 0.5 and math.isnan(bench.rows[0].ap)
    assert picture.read_bytes().startswith(b"\x89PNG")
