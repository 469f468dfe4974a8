import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from kit.deploy import choice
from kit.deploy.about import read_checkpoint
from kit.deploy.choice import cache_folder, cached_export, choose, in_turn, measured, open_fastest, processor
from kit.deploy.runtimes import Found, installed_runtimes
from tests.deploy.small import ABOUT


@pytest.fixture
def exports(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A cache of the test's own, and an export that is copied: what was exported, with its wishes."""
    done = list[dict]()

    def copied(checkpoint: Path, path: Path, **wishes: object) -> Path:
        done.append(wishes)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(exported, path))

    monkeypatch.setattr(choice, "export_onnx", copied)
    monkeypatch.setattr(choice, "read_checkpoint", cache(read_checkpoint))
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    return done


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened to be measured."""
    monkeypatch.setattr(choice, "open_runner", lambda *file, **wishes: None)


class Fixed:
    """A runner whose every score is `score`."""

    runtime, device = "onnxruntime", "cpu"

    def __init__(self, score: float):
        self.about, self.score = replace(ABOUT, dynamic_size=True), score

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        shape = (len(images), 1)
        return Found(
            np.zeros((*shape, 4), np.float32), np.full(shape, self.score, np.float32), np.zeros(shape, np.int32)
        )


def test_the_quickest_is_taken_and_remembered(
    checkpoint: Path, exports: list[dict], unopened: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(choice, "measured", lambda *_: ({"onnxruntime": 30.0, "openvino": 20.0}, []))
    said = list[str]()
    first = choose(checkpoint, device="cpu", runtimes=["onnxruntime", "openvino"], say=said.append)
    assert (first.runtime, first.remembered) == ("openvino", False)
    assert first.why == "openvino 20.0 ms, onnxruntime 30.0 ms" and first.times_ms["onnxruntime"] == 30.0
    assert said == ["exporting scenes.pt to ONNX, once", "measuring onnxruntime and openvino, once"]

    monkeypatch.setattr(choice, "measured", lambda *_: pytest.fail("measured again"))
    again = choose(checkpoint, device="cpu", runtimes=["onnxruntime", "openvino"], say=pytest.fail)
    assert again.remembered and again.why.endswith(", measured before")
    assert replace(again, why="", remembered=False) == replace(first, why="")
    assert len(exports) == 1 and exports[0]["input"] == "uint8"


@pytest.mark.parametrize("text", ["{", "[]", '{"times_ms": {}}'])
def test_a_damaged_memory_is_measured_anew(
    checkpoint: Path, exports: list[dict], unopened: None, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setattr(choice, "measured", lambda *_: ({"onnxruntime": 1.0, "openvino": 2.0}, []))
    wishes = {"device": "cpu", "runtimes": ["onnxruntime", "openvino"]}
    choose(checkpoint, **wishes)
    (memory,) = (cache_folder() / "choices").iterdir()
    memory.write_text(text)
    assert not choose(checkpoint, **wishes).remembered
    assert json.loads(memory.read_text())["times_ms"] == {"onnxruntime": 1.0, "openvino": 2.0}


def test_other_threads_batches_and_sizes_are_measured_apart(
    checkpoint: Path, exports: list[dict], unopened: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(choice, "measured", lambda *_: ({"onnxruntime": 1.0, "torch": 2.0}, []))
    wishes = {"device": "cpu", "runtimes": ["onnxruntime", "torch"]}
    for other in ({}, {"batch": 2}, {"threads": 7}, {"size_hw": (320, 352)}, {"top_k": 10}):
        assert not choose(checkpoint, **wishes, **other).remembered
    assert choose(checkpoint, **wishes, batch=2).remembered
    assert [each["size_hw"] for each in exports] == [(320, 320), (320, 352), (320, 320)]  # of size and top_k alone


def test_a_single_runtime_is_taken_unmeasured(checkpoint: Path, exports: list[dict], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "measured", lambda *_: pytest.fail("nothing to measure"))
    runner = open_fastest(checkpoint, runtimes=["onnxruntime"], device="cpu", threads=1)
    assert runner.runtime == "onnxruntime" and choose(checkpoint, runtimes=["torch"]).file == checkpoint
    assert (
        choose(checkpoint, runtimes=["torch"]).why == "asked for"
        and choose(checkpoint, runtimes=["torch"]).open().runtime == "torch"
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_is_measured_finds_what_torch_finds(checkpoint: Path, exports: list[dict], runtime: str):
    chosen = choose(checkpoint, device="cpu", runtimes=[runtime, "torch"])
    assert set(chosen.times_ms) == {runtime, "torch"} and min(chosen.times_ms.values()) > 0
    assert chosen.times_ms[chosen.runtime] == min(chosen.times_ms.values())


def test_who_finds_something_else_is_not_taken(checkpoint: Path, exports: list[dict], monkeypatch: pytest.MonkeyPatch):
    times_ms, refused = measured({"onnxruntime": Fixed(0.5), "openvino": Fixed(0.53)}, Fixed(0.5), batch=2)
    assert list(times_ms) == ["onnxruntime"]
    assert refused == ["openvino is not taken: its scores differ from torch's by 0.03"]
    assert measured({"onnxruntime": Fixed(float("nan"))}, Fixed(0.5), batch=1)[0] == {}
    monkeypatch.setattr(choice, "measured", lambda *_: ({}, ["a is wrong", "b is wrong"]))
    chosen = choose(checkpoint, device="cpu", runtimes=["onnxruntime", "openvino"])
    assert (chosen.runtime, chosen.file, chosen.why) == ("torch", checkpoint, "a is wrong; b is wrong")


def test_rounds_are_taken_turn_by_turn_and_those_to_warm_up_do_not_count():
    calls = list[str]()
    times_s = in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5 and [len(each) for each in times_s.values()] == [3, 3]


# --- the cache ---


def test_another_checkpoint_is_another_export(checkpoint: Path, exports: list[dict], tmp_path: Path):
    other = Path(shutil.copy(checkpoint, tmp_path / "other.pt"))
    same = cached_export(checkpoint)
    assert (
        cached_export(checkpoint) == same and cached_export(other).stem.partition("-")[2] == same.stem.partition("-")[2]
    )
    with other.open("ab") as file:
        file.write(b"one byte more")
    assert cached_export(other).stem.partition("-")[2] != same.stem.partition("-")[2]


def test_another_version_of_a_package_or_of_the_code_is_another_export(
    checkpoint: Path, exports: list[dict], monkeypatch: pytest.MonkeyPatch
):
    found = {cached_export(checkpoint)}
    monkeypatch.setattr(choice, "version", lambda name: "9")
    found.add(cached_export(checkpoint))
    monkeypatch.setattr(choice, "code_digest", lambda: "changed")
    found.add(cached_export(checkpoint))
    assert len(found) == 3 == len(exports)


def test_two_at_once_both_get_a_whole_file(checkpoint: Path, exports: list[dict]):
    found = list[Path]()
    threads = [Thread(target=lambda: found.append(cached_export(checkpoint))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def test_a_cache_that_cannot_be_written_is_told(
    checkpoint: Path, exports: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ValueError, match="file: expected a folder to keep exports in, cannot write there; set KIT_CACHE"
    ):
        cached_export(checkpoint)
    with pytest.raises(ValueError, match=r"none\.pt: expected a checkpoint, found no file"):
        cached_export(tmp_path / "none.pt")


def test_without_a_wish_the_users_cache_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "kit" and cache_folder().is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache_folder() == tmp_path / "other" / "kit"


def test_processors_of_one_name_that_can_do_other_things_differ(tmp_path: Path):
    texts = [f"processor: 0\nmodel name\t: EPYC\nflags\t\t: {able}\n\nprocessor: 1\n" for able in ("sse avx2", "sse")]
    found = []
    for text in texts:
        (tmp_path / "cpuinfo").write_text(text)
        found.append(processor(tmp_path / "cpuinfo"))
    assert found[0] != found[1] and all(each.startswith("EPYC ") for each in found)
    assert processor(tmp_path / "none").startswith("unknown ")


def test_on_a_cpu_what_runs_an_export_is_the_default():
    assert choice.default_runtimes("cpu") == installed_runtimes("any.onnx", "cpu") and choice.default_runtimes(
        "cuda"
    ) == ["torch"]
