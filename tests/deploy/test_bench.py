import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from kit.data.coco import as_coco, find_split, read_coco
from kit.deploy import bench as bench_module
from kit.deploy.bench import bench, cost_of, drawn_picture, main, pairs
from kit.deploy.results import dataset_results
from kit.deploy.runtimes import installed_runtimes, open_runner
from kit.metrics import evaluate
from tests.deploy.small import ABOUT, small_onnx

HERE = installed_runtimes("a.onnx", "cpu")


def test_every_runtime_and_batch_has_a_row_with_latencies_in_order(tmp_path: Path):
    steps, said = list[tuple[int, int]](), list[str]()
    result = bench(
        [small_onnx(tmp_path / "small.onnx")],
        batches=[2, 1],
        rounds=3,
        device="cpu",
        memory=False,
        progress=lambda *step: steps.append(step),
        say=said.append,
    )
    assert [(row.runtime, row.batch) for row in result.rows] == [(each, batch) for each in HERE for batch in (1, 2)]
    for row in result.rows:
        assert 0 < row.finished_p50_ms <= row.finished_p90_ms <= row.finished_p99_ms
        assert row.images_per_s == pytest.approx(1e3 * row.batch / row.finished_p50_ms)
        assert row.decoded_p50_ms > row.finished_p50_ms  # a JPEG of a megapixel, and next to nothing to compute
        assert row.model_p50_ms != row.model_p50_ms and row.ap != row.ap  # no layers to cut at, no annotations
    assert sum(row.is_knee for row in result.rows) == len(HERE)
    assert steps == [(done, 2 + len(HERE)) for done in range(1, 3 + len(HERE))]
    assert said == [f"opening small.onnx in {each}" for each in HERE]
    assert result.notes == ["decoded: one drawn JPEG of 960 x 1280 px; give data for your own images"]


def test_a_file_of_fixed_batch_is_measured_with_that_alone(tmp_path: Path):
    sources = [small_onnx(tmp_path / "two.onnx", batch=2), small_onnx(tmp_path / "any.onnx")]
    rows = bench(sources, runtimes=["onnxruntime"], batches=[1, 2], rounds=1, device="cpu", memory=False).rows
    assert [(row.model, row.batch) for row in rows] == [("two.onnx", 2), ("any.onnx", 1), ("any.onnx", 2)]


def test_scores_stand_beside_the_speed_when_annotations_are_given(exported: Path, scenes: Path):
    split = find_split(scenes, "val")
    coco = read_coco(split.annotations)
    expected = evaluate(dataset_results(open_runner(exported, device="cpu"), coco, split.images), as_coco(coco))
    (row,) = bench(
        [exported], runtimes=["onnxruntime"], batches=[1], rounds=1, device="cpu", data=scenes, memory=False
    ).rows
    assert (row.ap, row.ap50) == (expected.ap, expected.ap50) and 0 < expected.f1 < row.f1 <= 1
    assert row.model_p50_ms > 0 and row.size == "n" and row.gflop == pytest.approx(2.45, abs=0.05)


def test_memory_is_that_of_the_file_the_runtime_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def memory_of(*arguments: object, **wishes: object) -> list[bench_module.Memory]:
        asked.append((arguments, wishes))
        return [bench_module.Memory(1, 700.0, 40.0, 0.0), bench_module.Memory(2, 720.0, 60.0, 0.0)]

    monkeypatch.setattr(bench_module, "memory_of", memory_of)
    path = small_onnx(tmp_path / "small.onnx")
    rows = bench([path], runtimes=["onnxruntime"], batches=[1, 2], rounds=1, device="cpu").rows
    assert [(row.peak_mib, row.model_mib) for row in rows] == [(700.0, 40.0), (720.0, 60.0)]
    assert asked == [((path, "onnxruntime", "cpu", [1, 2]), {"size_hw": None, "threads": None, "half": False})]


def test_a_checkpoint_runs_in_torch_and_its_export_in_the_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_module, "installed_runtimes", lambda source, device: ["torch", "compiled", "onnxruntime"])
    assert [runtime for _, runtime in pairs(["a.pt"], None, "cpu")] == ["torch", "onnxruntime"]
    assert [runtime for _, runtime in pairs(["a.pt"], ["compiled", "openvino"], "cpu")] == ["compiled", "openvino"]
    assert list(pairs(["a.onnx", "b.pt"], ["torch"], "cpu")) == [("b.pt", "torch")]


def test_what_cannot_run_is_left_out_and_told(tmp_path: Path):
    sources = [small_onnx(tmp_path / "small.onnx"), tmp_path / "none.onnx"]
    result = bench(sources, runtimes=["onnxruntime"], batches=[1], rounds=1, device="cpu", memory=False)
    assert [row.model for row in result.rows] == ["small.onnx"]
    assert result.notes[0].startswith("left out: none.onnx in onnxruntime: ")
    with pytest.raises(ValueError, match=r"left out: none\.onnx in onnxruntime: .*found nothing; check the path$"):
        bench(sources[1:], runtimes=["onnxruntime"], device="cpu")
    with pytest.raises(ValueError, match=r"expected a source that torch can run, got .*none\.onnx"):
        bench(sources[1:], runtimes=["torch"], device="cpu")


def test_a_detector_of_no_published_size_has_no_cost():
    known, other = cost_of(ABOUT), cost_of(replace(ABOUT, size="own"))
    assert known["parameters"] > 3e6 and other["gflop"] != other["gflop"]


def test_the_drawn_picture_is_the_same_each_time(tmp_path: Path):
    (tmp_path / "again").mkdir()
    one, two = drawn_picture(tmp_path), drawn_picture(tmp_path / "again")
    assert one.read_bytes() == two.read_bytes() and cv2.imread(str(one)).shape == (960, 1280, 3)
    assert 200_000 < one.stat().st_size < 900_000  # of the weight of a photo


def test_the_command_prints_a_table_and_writes_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, rows = small_onnx(tmp_path / "small.onnx"), tmp_path / "rows.json"
    wishes = ["--runtimes", "onnxruntime", "--batches", "1,2", "--rounds", "1", "--no-memory", "--device", "cpu"]
    assert main([str(path), *wishes, "--out", str(tmp_path / "out"), "--json", str(rows)]) == 0
    out = capsys.readouterr().out
    assert "small.onnx onnxruntime" in out and "written:" in out and "2 " in out
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["bench.csv", "bench.json", "bench.png"]
    assert [row["batch"] for row in json.loads(rows.read_text())] == [1, 2]


def test_the_command_tells_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none.onnx"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: left out: none.onnx in onnxruntime") and error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "none.onnx"), "--batches", "1,0"])
