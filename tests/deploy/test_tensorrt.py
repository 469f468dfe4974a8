"""What can be known of the builder without TensorRT: what it asks for, in which order, and what it leaves behind."""

import dataclasses
import hashlib
from pathlib import Path

import onnx
import pytest

from kit.deploy import tensorrt as subject
from kit.deploy.engine import sidecar
from kit.deploy.tensorrt import Phases, build_tensorrt, describe_engine, main, missing, ranges_of, trtexec_command
from kit.files import read_json
from tests.deploy import fake_tensorrt
from tests.deploy.fake_tensorrt import DETECTOR, write_detector

BETWEEN = ((32, 64), (64, 96), (96, 96))
DYNAMIC = dataclasses.replace(DETECTOR, dynamic_size=True)
FIXED = dataclasses.replace(DETECTOR, batch=4)
BYTES = dataclasses.replace(DETECTOR, input="uint8")


@pytest.fixture
def calls() -> list[tuple]:
    """What TensorRT was asked for, in order."""
    return []


@pytest.fixture
def install(monkeypatch, calls):
    """Puts a fake TensorRT in place; its arguments are what goes wrong."""
    fake_tensorrt.pretend_gpu(monkeypatch)

    def put(**options) -> None:
        fake = fake_tensorrt.module(calls, {}, **options)
        monkeypatch.setattr(subject, "tensorrt", lambda: fake)

    put()
    return put


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_detector(tmp_path / "model.onnx")


def names(calls: list[tuple]) -> list[str]:
    return [call[0] for call in calls]


def test_an_engine_is_built_strongly_typed_without_tf32_and_with_a_profile(install, calls, source, tmp_path):
    path = build_tensorrt(source, tmp_path / "model.engine", effort=5)
    assert path == tmp_path / "model.engine"
    assert calls == [
        ("Builder",),
        ("create_network", 2),  # bit 1 is STRONGLY_TYPED in this version
        ("parse", source.stat().st_size),
        ("create_builder_config",),
        ("clear_flag", "TF32"),
        ("set_shape", "images", (1, 3, 64, 96), (1, 3, 64, 96), (8, 3, 64, 96)),
        ("set_shape", "sizes_hw", (1, 2), (1, 2), (8, 2)),
        ("add_optimization_profile",),
        ("build_serialized_network", 5),
    ]


@pytest.mark.parametrize(
    ("about", "arguments", "images"),
    [
        (BYTES, {}, [(1, 64, 96, 3), (1, 64, 96, 3), (8, 64, 96, 3)]),
        (DETECTOR, {"batch": (2, 3, 4)}, [(2, 3, 64, 96), (3, 3, 64, 96), (4, 3, 64, 96)]),
        (DYNAMIC, {"batch": (1, 1, 1)}, [(1, 3, 64, 96)] * 3),
        (DYNAMIC, {"sizes_hw": BETWEEN}, [(1, 3, 32, 64), (1, 3, 64, 96), (8, 3, 96, 96)]),
    ],
)
def test_profiles_follow_the_file_and_what_is_asked_for(install, calls, tmp_path, about, arguments, images):
    build_tensorrt(write_detector(tmp_path / "model.onnx", about), tmp_path / "model.engine", **arguments)
    assert [list(call[2:]) for call in calls if call[:2] == ("set_shape", "images")] == [images]


def test_a_file_of_one_shape_wants_no_profile(install, calls, tmp_path):
    build_tensorrt(write_detector(tmp_path / "model.onnx", FIXED), tmp_path / "model.engine")
    assert "set_shape" not in names(calls) and "build_serialized_network" in names(calls)


def test_memory_is_limited_where_asked_for(install, calls, source, tmp_path):
    build_tensorrt(source, tmp_path / "model.engine", workspace_mib=512)
    assert ("set_memory_pool_limit", "WORKSPACE", 512 * 1024 * 1024) in calls


def test_the_file_beside_the_engine_says_what_it_is(install, source, tmp_path):
    path = build_tensorrt(source, tmp_path / "model.engine", batch=(4, 4, 4))
    told = read_json(tmp_path / "model.engine.json")
    assert told["engine_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["onnx_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest() and told["onnx"] == "model.onnx"
    assert told["batch"] == [4, 4, 4] and told["sizes_hw"] == [[64, 96]] * 3
    assert told["about"] == dataclasses.asdict(DETECTOR) | {"batch": 4}
    assert told["machine"] == {
        "tensorrt": "10.13.2.6", "gpu": "Fake 1", "compute_capability": "8.7", "cuda": told["machine"]["cuda"],
        "platform": told["machine"]["platform"],
    }  # fmt: skip


def test_what_the_parser_does_not_understand_is_told_with_its_nodes_and_nothing_is_written(install, source, tmp_path):
    install(faults={"parser": ["no integers", "no luck"]})
    with pytest.raises(
        ValueError, match=r"model.onnx.*10.13.2.6.*node 0 \(Mod\): no integers; node 1 \(Mod\): no luck"
    ):
        build_tensorrt(source, tmp_path / "model.engine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_a_failed_build_tells_what_tensorrt_said_and_leaves_the_old_engine(install, source, tmp_path):
    path = build_tensorrt(source, tmp_path / "model.engine")
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    heard: list[str] = []
    install(faults={"builder": ["out of memory"]}, gives_plan=False)
    with pytest.raises(RuntimeError, match="built nothing: out of memory"):
        build_tensorrt(source, path, log=heard.append)
    assert heard == ["careful: out of memory", "out of memory"]
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_refused_shapes_are_told(install, source, tmp_path):
    install(faults={"profile": []})
    with pytest.raises(ValueError, match="refuses the input shapes"):
        build_tensorrt(source, tmp_path / "model.engine")


def test_a_file_with_other_tensors_is_refused(install, source, tmp_path):
    model = onnx.load(source)
    model.graph.output.pop()
    onnx.save(model, source)
    with pytest.raises(ValueError, match=r"expected.*boxes.*scores.*labels.*found"):
        build_tensorrt(source, tmp_path / "model.engine")


def test_operators_that_tensorrt_has_not_are_told_before_it_is_asked(install, calls, tmp_path):
    extra = 'bits = Cast<to = 2>(labels) odd = BitShift<direction = "LEFT">(bits, bits)'
    source = write_detector(tmp_path / "model.onnx", extra=extra)
    with pytest.raises(ValueError, match=r"cannot build it: .*BitShift.*no such operator"):
        build_tensorrt(source, tmp_path / "model.engine")
    assert calls == []


def test_the_timing_cache_begins_empty_and_is_kept(install, calls, source, tmp_path):
    cache = tmp_path / "timings"
    for expected in (b"+", b"++"):
        build_tensorrt(source, tmp_path / "model.engine", timing_cache=cache)
        assert cache.read_bytes() == expected
    assert [call[1:] for call in calls if call[0] == "set_timing_cache"] == [(b"", False), (b"+", False)]


def test_a_timing_cache_of_another_gpu_is_begun_anew_and_that_is_said(install, source, tmp_path):
    cache, heard = tmp_path / "timings", []
    cache.write_bytes(b"another GPU")
    build_tensorrt(source, tmp_path / "model.engine", timing_cache=cache, log=heard.append)
    assert cache.read_bytes() == b"+" and "timings: a timing cache of another GPU or TensorRT; begun anew" in heard[0]


def test_progress_rises_to_the_end(install, source, tmp_path):
    told: list[tuple[int, int]] = []
    build_tensorrt(source, tmp_path / "model.engine", progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [500, 625, 750, 875, 999, 999, 1000] and {total for _, total in told} == {1000}


def test_progress_of_two_builds_in_a_row_does_not_fall():
    told: list[int] = []
    phases = Phases(lambda done, total: told.append(done))
    for name in ("first", "second"):
        phases.start(name, None, 2)
        phases.step(name, 0)
        phases.step(name, 1)
    phases.finish("first")
    phases.finish("second")
    assert told == [500, 999, 999, 999, 1000]


@pytest.mark.parametrize(
    ("about", "batch", "sizes_hw", "message"),
    [
        (FIXED, (1, 1, 8), None, r"takes batches of 4 only, asked for \(1, 1, 8\)"),
        (DETECTOR, (2, 1, 8), None, r"batch must rise from at least 1, got \(2, 1, 8\)"),
        (DETECTOR, (0, 1, 8), None, "batch must rise"),
        (DETECTOR, None, BETWEEN, r"input of 32 x 64 px: expected 64 x 96"),
        (DYNAMIC, None, ((32, 64), (64, 90), (96, 96)), "multiples of 32"),
        (dataclasses.replace(DYNAMIC, min_area_px=4096), None, BETWEEN, "at least 4096 px"),
        (DYNAMIC, None, BETWEEN[::-1], "sizes_hw must rise"),
    ],
)
def test_shapes_that_cannot_be_are_refused(about, batch, sizes_hw, message):
    with pytest.raises(ValueError, match=message):
        ranges_of(about, batch, sizes_hw, Path("model.onnx"))


def test_the_file_of_an_engine_that_trtexec_built_can_be_written(install, source, tmp_path):
    (tmp_path / "model.engine").write_bytes(b"by trtexec")
    described = describe_engine(tmp_path / "model.engine", source, batch=(1, 2, 4))
    assert described == sidecar(tmp_path / "model.engine")
    assert read_json(described)["engine_sha256"] == hashlib.sha256(b"by trtexec").hexdigest()
    assert read_json(described)["batch"] == [1, 2, 4]


def test_the_trtexec_line_builds_the_same(tmp_path):
    source = write_detector(tmp_path / "my model.onnx")
    line = trtexec_command(source, "model.engine", workspace_mib=2048, timing_cache="timings")
    assert line == (
        f"trtexec '--onnx={source}' --saveEngine=model.engine --stronglyTyped --noTF32 "
        "--minShapes=images:1x3x64x96,sizes_hw:1x2 --optShapes=images:1x3x64x96,sizes_hw:1x2 "
        "--maxShapes=images:8x3x64x96,sizes_hw:8x2 --memPoolSize=workspace:2048 "
        "--timingCacheFile=timings --useCudaGraph"
    )
    assert "fp16" not in line and "int8" not in line


def test_the_trtexec_line_of_one_shape_names_no_shapes(tmp_path):
    assert "Shapes" not in trtexec_command(write_detector(tmp_path / "model.onnx", FIXED), "model.engine")


def test_what_is_missing_is_one_line(monkeypatch):
    def absent() -> None:
        raise ImportError("TensorRT is not installed: pip install it")

    monkeypatch.setattr(subject, "tensorrt", absent)
    assert missing() == "TensorRT is not installed: pip install it"
    monkeypatch.setattr(subject, "tensorrt", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert missing() == "TensorRT needs an NVIDIA GPU, torch finds none"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert missing() is None


def test_without_tensorrt_the_build_says_so_in_one_line(monkeypatch, source, tmp_path):
    monkeypatch.setattr("kit.deploy.runtimes.import_module", lambda name: __import__("no_such_module"))
    with pytest.raises(ImportError, match=r"^TensorRT is not installed"):
        build_tensorrt(source, tmp_path / "model.engine")


def test_the_command_prints_the_trtexec_line_and_builds(install, source, tmp_path, capsys):
    engine = tmp_path / "model.engine"
    assert main([str(source), str(engine), "--batch", "1", "2", "4", "--effort", "5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == trtexec_command(source, engine, batch=(1, 2, 4)) and printed[-1] == str(engine)
    assert read_json(sidecar(engine))["batch"] == [1, 2, 4]


def test_the_command_describes_an_engine_of_trtexec(install, calls, source, tmp_path, capsys):
    (tmp_path / "model.engine").write_bytes(b"by trtexec")
    assert main([str(source), str(tmp_path / "model.engine"), "--described"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(sidecar(tmp_path / "model.engine")) and calls == []


def test_the_command_says_in_one_line_what_is_missing(monkeypatch, source, tmp_path, capsys):
    monkeypatch.setattr(subject, "missing", lambda: "TensorRT is not installed")
    assert main([str(source), str(tmp_path / "model.engine")]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["TensorRT is not installed"]
    assert main([str(tmp_path / "absent.onnx"), str(tmp_path / "model.engine")]) == 2
    assert "absent.onnx: expected a file, found nothing" in capsys.readouterr().err
