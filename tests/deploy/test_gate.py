import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from kit.data.coco import CocoFile, Split, find_split, read_coco, write_coco
from kit.deploy.about import About
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.gate import LIMITS, GateFailed, Verdict, accept, judge, main, open_candidate, pass_gate, spread
from kit.deploy.rounding import RoundedRunner
from kit.deploy.runtimes import Found, OnnxRunner, open_runner

TOP_K = 40
ABOUT = About(
    size="n",
    names=["Bus", "Bike", "Car", "Pedestrian", "Truck"],
    category_ids=list(range(5)),
    channels=3,
    height_px=32,
    width_px=32,
    top_k=TOP_K,
)


class Oracle:
    """Finds what is annotated, image by image in order, with scores that fall; then `change` spoils it."""

    runtime, device = "torch", "cpu"

    def __init__(self, coco: CocoFile, change: Callable[[Found], Found] = lambda found: found, about: About = ABOUT):
        self.records, self.change, self.about = iter(coco.records), change, about

    def __call__(self, images: np.ndarray, sizes_hw: np.ndarray) -> Found:
        record = next(self.records)
        count = min(len(record.labels), TOP_K)
        boxes, scores, labels = np.zeros((1, TOP_K, 4)), np.zeros((1, TOP_K)), np.zeros((1, TOP_K), np.int32)
        corner, size = record.boxes_xywh_px[:count, :2], record.boxes_xywh_px[:count, 2:]
        boxes[0, :count] = np.concatenate([corner, corner + size], axis=1)
        scores[0, :count], labels[0, :count] = 0.95 - 0.02 * np.arange(count), record.labels[:count]
        return self.change(Found(boxes.astype(np.float32), scores.astype(np.float32), labels))


@pytest.fixture(scope="module")
def val(scenes: Path) -> Split:
    return find_split(scenes, "val")


@pytest.fixture
def coco(val: Split) -> CocoFile:
    return read_coco(val.annotations)


@pytest.fixture
def verdict_on(val: Split, coco: CocoFile) -> Callable[..., Verdict]:
    def of(change: Callable[[Found], Found], **options: object) -> Verdict:
        return judge(Oracle(coco), Oracle(coco, change), val.images, coco, batch_size=1, **options)

    return of


def test_the_same_detections_pass_and_lose_nothing(verdict_on):
    verdict = verdict_on(lambda found: found)
    assert verdict.passed and verdict.reasons == ()
    assert (verdict.share_matched, verdict.iou_min, verdict.score_max) == (1, 1, 0)
    assert verdict.before == verdict.after and verdict.before.ap > 0.9
    assert verdict.images == 8 and verdict.boxes > 8


def test_rows_in_another_order_pass(verdict_on):
    order = np.random.default_rng(0).permutation(TOP_K)
    verdict = verdict_on(lambda f: Found(f.boxes_xyxy[:, order], f.scores[:, order], f.labels[:, order]))
    assert verdict.passed and verdict.share_matched == 1


SPOILT = {
    "boxes as centre and size": (lambda f: replace(f, boxes_xyxy=cxcywh(f.boxes_xyxy)), "boxes is found by both"),
    "boxes a little off": (lambda f: replace(f, boxes_xyxy=f.boxes_xyxy + 1.5), "mean IoU of matched boxes"),
    "scores too low": (lambda f: replace(f, scores=f.scores * 0.9), "scores differ by"),
    "all scores zero": (lambda f: replace(f, scores=f.scores * 0), "boxes is found by both"),
    "scores that are no numbers": (lambda f: replace(f, scores=f.scores * np.nan), "numbers that are not finite"),
    "boxes that are infinite": (lambda f: replace(f, boxes_xyxy=f.boxes_xyxy + np.inf), "numbers that are not finite"),
    "other labels": (lambda f: replace(f, labels=(f.labels + 1) % 5), "boxes is found by both"),
    "half of the boxes": (
        lambda f: replace(f, scores=np.where(np.arange(TOP_K) % 2, f.scores, 0)),
        "of the boxes matched",
    ),
    "accuracy": (lambda f: replace(f, scores=np.where(np.arange(TOP_K) % 2, f.scores, 0)), "AP falls from"),
}


def cxcywh(boxes_xyxy: np.ndarray) -> np.ndarray:
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_is_refused_and_named(fault, verdict_on):
    change, reason = SPOILT[fault]
    verdict = verdict_on(lambda found: change(found))
    assert not verdict.passed and reason in "; ".join(verdict.reasons)
    json.dumps(verdict.as_dict(), allow_nan=False)
    assert f"refused: {verdict.reasons[0]}" in verdict.table()


def test_a_reference_that_finds_nothing_proves_nothing(val, coco):
    nothing = [Oracle(coco, lambda f: replace(f, scores=f.scores * 0)) for _ in range(2)]
    verdict = judge(*nothing, val.images, coco, batch_size=1)
    assert verdict.reasons == ("the reference itself finds nothing on these images, so nothing can be compared",)


def test_limits_decide(verdict_on):
    change = SPOILT["scores too low"][0]
    wide = replace(LIMITS["fp32"], score_p99=0.1, f1_drop=1.0, ap_drop=1.0)
    assert verdict_on(change, limits=wide).passed and not verdict_on(change).passed


def test_the_precision_of_the_file_chooses_the_limits(val, coco):
    half = Oracle(coco, lambda f: replace(f, scores=f.scores * np.float32(0.995)), replace(ABOUT, precision="fp16"))
    verdict = judge(Oracle(coco), half, val.images, coco, batch_size=1)
    assert verdict.passed and verdict.limits == LIMITS["fp16"]


def test_without_annotations_boxes_and_scores_are_judged(val, coco):
    verdict = judge(Oracle(coco), Oracle(coco), val.images, batch_size=1)
    assert verdict.passed and verdict.before is None and "AP" not in verdict.table()


def test_images_are_spread_over_all(val, coco):
    seen = []
    three = replace(coco, records=[coco.records[index] for index in (0, 2, 5)])
    verdict = judge(
        Oracle(three), Oracle(three), val.images, coco, count=3, batch_size=1, progress=lambda *at: seen.append(at)
    )
    assert verdict.passed and verdict.before.ap > 0.9  # these three images, or the boxes would lie elsewhere
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert spread([1, 2], 5) == [1, 2]
    with pytest.raises(ValueError, match="count must be at least 1"):
        spread([1, 2], 0)


def test_a_failed_gate_raises_with_its_verdict_unless_a_drop_is_allowed(val, coco):
    def gate(allow_drop: bool) -> Verdict:
        spoilt = Oracle(coco, lambda found: SPOILT["other labels"][0](found))
        return pass_gate(Oracle(coco), spoilt, val.images, coco, batch_size=1, allow_drop=allow_drop)

    with pytest.raises(GateFailed, match="refused by the parity gate: none of") as failed:
        gate(False)
    assert not failed.value.verdict.passed
    assert not gate(True).passed


@pytest.mark.parametrize("change", [{"names": ["Car"] * 5}, {"channels": 1}, {"height_px": 64}])
def test_files_that_cannot_be_compared_are_told(change, val, coco):
    with pytest.raises(ValueError, match="expected a reference and a candidate of the same"):
        judge(Oracle(coco), Oracle(coco, about=replace(ABOUT, **change)), val.images, coco)


def test_annotations_of_other_classes_are_told(val, coco, tmp_path):
    write_coco(tmp_path / "other.json", [], [], [{"id": 1, "name": "cat"}])
    other = replace(read_coco(tmp_path / "other.json"), records=coco.records)
    with pytest.raises(ValueError, match="expected the classes of the checkpoint"):
        judge(Oracle(coco), Oracle(coco), val.images, other, batch_size=1)


def test_a_folder_without_images_is_told(tmp_path, coco):
    with pytest.raises(ValueError, match="expected a folder with images, found none"):
        judge(Oracle(coco), Oracle(coco), tmp_path)


# --- taking a name ---


def write_engine(path: Path) -> None:
    path.write_text("new")
    path.with_name(f"{path.name}.json").write_text("about")


def test_what_passes_takes_its_name_with_all_that_lies_beside_it(tmp_path, verdict_on):
    good = verdict_on(lambda found: found)
    path = tmp_path / "out" / "model.engine"
    assert accept(path, write_engine, lambda written: good) == good
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["model.engine", "model.engine.gate.json", "model.engine.json"]
    assert json.loads((path.parent / "model.engine.gate.json").read_text())["passed"] is True


def test_what_fails_leaves_the_old_file_and_says_why(tmp_path, verdict_on):
    bad = verdict_on(lambda found: SPOILT["other labels"][0](found))
    path = tmp_path / "model.engine"
    path.write_text("old")
    with pytest.raises(GateFailed):
        accept(path, write_engine, lambda written: bad)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.engine", "model.engine.refused.json"]
    assert path.read_text() == "old"
    assert json.loads((tmp_path / "model.engine.refused.json").read_text())["reasons"] == list(bad.reasons)
    accept(path, write_engine, lambda written: bad, allow_drop=True)
    assert path.read_text() == "new" and not (tmp_path / "model.engine.refused.json").exists()
    assert json.loads((tmp_path / "model.engine.gate.json").read_text())["passed"] is False


def test_a_writer_that_fails_leaves_nothing(tmp_path, verdict_on):
    with pytest.raises(ZeroDivisionError):
        accept(tmp_path / "model.engine", lambda path: 1 / 0, lambda written: verdict_on(lambda found: found))
    assert list(tmp_path.iterdir()) == []


# --- real files ---


def test_the_export_passes_and_remembers_it(checkpoint, exported, val, coco, tmp_path):
    reference = open_runner(checkpoint)

    verdict = accept(
        tmp_path / "scenes.onnx",
        lambda written: shutil.copy(exported, written),
        lambda written: judge(reference, open_candidate(written), val.images, coco, count=4),
    )
    assert verdict.passed and verdict.boxes > 20 and verdict.score_max < 1e-3
    told = read_onnx(tmp_path / "scenes.onnx")[1].notes["gate"]
    assert told["passed"] is True and told["share_matched"] == verdict.share_matched
    assert open_runner(tmp_path / "scenes.onnx").about.notes["gate"] == told


def test_on_a_cpu_an_fp32_file_runs_as_it_is_and_an_fp16_file_rounded(exported, tmp_path):
    assert isinstance(open_candidate(exported, device="cpu"), OnnxRunner)
    model, about = read_onnx(exported)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float16), "unused"))
    path = write_onnx(model, tmp_path / "half.onnx", replace(about, precision="fp16"))
    assert isinstance(open_candidate(path, device="cpu"), RoundedRunner)
    assert open_candidate(path, "openvino").runtime == "openvino"


def test_the_command_judges_and_draws(checkpoint, exported, scenes, tmp_path, capsys):
    report, picture = tmp_path / "gate.json", tmp_path / "gate.png"
    arguments = [str(checkpoint), str(exported), "--data", str(scenes), "--images", "2"]
    assert main([*arguments, "--json", str(report), "--picture", str(picture)]) == 0
    assert "passed" in capsys.readouterr().out and json.loads(report.read_text())["images"] == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([str(checkpoint), str(exported), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_command_lets_a_drop_pass_where_it_is_allowed(verdict_on, monkeypatch, capsys):
    bad = verdict_on(lambda found: SPOILT["other labels"][0](found))
    monkeypatch.setattr("kit.deploy.gate.judge_files", lambda options: bad)
    assert main(["a.pt", "b.xml", "--data", "x"]) == 1
    assert main(["a.pt", "b.xml", "--data", "x", "--allow-drop"]) == 0
    assert "only ONNX files can be traced" in capsys.readouterr().out
