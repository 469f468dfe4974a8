import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kit.data.coco import find_split, read_coco
from kit.deploy import deployment
from kit.deploy.deployment import (
    Contender,
    Made,
    Target,
    Workshop,
    contenders,
    files_table,
    for_device,
    least_scores,
    make_files,
    pack,
    targets_of,
    with_side,
)
from kit.deploy.export import read_onnx
from kit.deploy.gate import judge, open_candidate
from kit.deploy.verdict import GateFailed
from kit.files import read_json
from kit.metrics import Thresholds


@pytest.fixture
def target(checkpoint) -> Target:
    return targets_of([checkpoint])[0]


@pytest.fixture
def shop(scenes, tmp_path) -> Workshop:
    train, val = find_split(scenes, "train"), find_split(scenes, "val")
    return Workshop(folder=tmp_path / "files", train=train, val=val, coco=read_coco(val.annotations), gate_images=2)


@pytest.fixture
def quick(exported, monkeypatch):
    """The export is there already; each further one would take seconds."""
    asked = []

    def export(checkpoint, path, **how):
        asked.append(how)
        return shutil.copy(exported, path)

    monkeypatch.setattr(deployment, "export_onnx", export)
    return asked


def names(made) -> list[str]:
    return [each.name for each in made]


def file(name: str, precision="fp32", kind="onnx", path="a.onnx") -> Made:
    return Made(Target(name, Path("best.pt"), (64, 64)), precision, kind, Path(path) if path else None)


# --- targets ---


def test_a_target_is_named_by_size_and_longer_side(checkpoint):
    assert [(each.name, each.size_hw) for each in targets_of([checkpoint])] == [("n@320", (320, 320))]
    sides = targets_of([checkpoint], [256, 640])
    assert [(each.name, each.size_hw) for each in sides] == [("n@256", (256, 256)), ("n@640", (640, 640))]


def test_two_trainings_of_one_size_are_told_apart_by_their_folders(checkpoint, tmp_path):
    (tmp_path / "05_stage2").mkdir()
    other = Path(shutil.copy(checkpoint, tmp_path / "05_stage2" / "best.pt"))
    assert [each.name for each in targets_of([checkpoint, other])] == ["n@320", "n@320 05_stage2"]
    with pytest.raises(ValueError, match="two targets would be called n@320 05_stage2"):
        targets_of([checkpoint, other, other])


@pytest.mark.parametrize(
    ("size_hw", "side", "expected"),
    [
        ((640, 640), 960, (960, 960)),
        ((384, 640), 320, (192, 320)),
        ((1080, 1920), 960, (544, 960)),
        ((32, 640), 64, (32, 64)),
    ],
)
def test_another_longer_side_keeps_the_shape_as_far_as_the_stride_allows(size_hw, side, expected):
    assert with_side(size_hw, side) == expected


# --- making ---


def test_every_precision_becomes_a_file_that_has_passed(target, shop, quick):
    made = make_files(target, ["fp16"], shop)
    assert quick == [{"size_hw": (320, 320), "input": "uint8"}]
    written = [each for each in made if each.path]
    assert names(written)[:2] == ["n@320 fp32 onnx", "n@320 fp16 onnx"]
    assert all(each.verdict.passed and each.path.is_file() for each in written)
    assert read_onnx(written[1].path)[1].precision == "fp16"
    assert {"n@320_fp32.onnx", "n@320_fp16.onnx"} <= {path.name for path in shop.folder.iterdir()}


def test_openvino_gets_files_of_its_own_where_it_is(target, shop, quick, monkeypatch):
    pytest.importorskip("openvino")
    assert "n@320 fp32 openvino" in names(each for each in make_files(target, [], shop) if each.path)
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    assert "n@320 fp32 openvino" not in names(make_files(target, [], shop))


def test_without_a_gpu_each_engine_is_one_line(target, shop, quick, monkeypatch):
    monkeypatch.setattr(deployment, "missing", lambda: "TensorRT is not installed")
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    made = make_files(target, [], shop)
    assert [(each.name, each.path, each.said) for each in made[1:]] == [
        ("n@320 fp32 tensorrt", None, "TensorRT is not installed")
    ]


def test_with_a_gpu_the_engine_is_built_for_one_image_and_judged(target, shop, quick, monkeypatch, tmp_path):
    """The builder is a copy of the ONNX file here, and what is built is run as such."""
    asked = {}

    def build(onnx_file, path, **how):
        asked.update(how)
        return shutil.copy(onnx_file, path)

    def opened(path):
        return open_candidate(shutil.copy(path, tmp_path / "copy.onnx"))

    monkeypatch.setattr(deployment, "missing", lambda: None)
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    monkeypatch.setattr(deployment, "build_tensorrt", build)
    monkeypatch.setattr(deployment, "open_candidate", opened)
    made = make_files(target, [], shop)
    assert made[1].path == shop.folder / "n@320_fp32.engine" and made[1].verdict.passed
    assert asked["batch"] == (1, 1, 1) and asked["workspace_mib"] == 4096


def test_a_refused_file_is_told_and_the_others_are_made(target, shop, quick, monkeypatch):
    pytest.importorskip("openvino")
    refuse(monkeypatch, "openvino")
    made = {each.name: each for each in make_files(target, [], shop)}
    assert made["n@320 fp32 onnx"].path
    assert made["n@320 fp32 openvino"].path is None and made["n@320 fp32 openvino"].said == "refused: too bad"
    assert not list(shop.folder.glob("*.xml"))


def test_a_drop_can_be_allowed(target, shop, quick, monkeypatch):
    refuse(monkeypatch, "onnxruntime")
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    with pytest.raises(GateFailed, match="too bad"):
        make_files(target, [], shop)
    made = make_files(target, [], replace(shop, allow_drop=True))
    assert made[0].path and files_table(made[:1])["gate"].tolist() == ["kept"]


def refuse(monkeypatch, runtime) -> None:
    def strict(reference, candidate, *arguments, **how):
        verdict = judge(reference, candidate, *arguments, **how)
        return replace(verdict, reasons=("too bad",)) if candidate.runtime == runtime else verdict

    monkeypatch.setattr(deployment, "judge", strict)


def test_int8_is_calibrated_on_train_and_its_failure_is_one_line(target, shop, quick, monkeypatch):
    asked = []

    def quantise(onnx_file, path, **how):
        asked.append(how)
        raise ValueError("AP falls by 0.2\nsecond line")

    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    monkeypatch.setattr(deployment, "quantise_onnx", quantise)
    made = make_files(target, ["int8"], replace(shop, calibration_images=7, int8_drop=0.05))
    assert (made[1].name, made[1].path, made[1].said) == ("n@320 int8 onnx", None, "AP falls by 0.2")
    assert asked[0]["train"] == shop.train and asked[0]["images"] == 7 and asked[0]["drop"] == 0.05


def test_the_table_tells_each_file_and_its_gate(target, shop, quick, monkeypatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    table = files_table(make_files(target, [], shop))
    assert table.loc["n@320 fp32 onnx", "gate"] == "passed" and table.loc["n@320 fp32 onnx", "MB"] > 5
    assert table.loc["n@320 fp32 onnx", "boxes matched"] > 0.99
    assert table.loc["n@320 fp32 tensorrt", "gate"] == "not tried"


# --- measuring ---


def test_contenders_are_the_checkpoint_and_each_file_in_its_own_runtime(target, exported, monkeypatch):
    monkeypatch.setattr(deployment.torch.cuda, "is_available", lambda: False)
    made = [Made(target, "fp32", "onnx", exported), Made(target, "fp16", "onnx", exported), file("n@320", path=None)]
    found = contenders([target], made)
    assert [(each.name, each.runtime, each.is_timed) for each in found] == [
        ("n@320 torch", "torch", True),
        ("n@320 fp32 onnxruntime", "onnxruntime", True),
        ("n@320 fp16 onnxruntime", "onnxruntime", False),
    ]
    assert [each.runtime for each in contenders([target], made, ["compiled"])] == ["compiled"]
    assert {each.runtime for each in contenders([target], made, ["onnxruntime"])} == {"onnxruntime"}
    with pytest.raises(ValueError, match="runtimes: expected one that can run here, got tensorrt"):
        contenders([target], made, ["tensorrt"])


def test_a_contender_runs_at_the_size_of_its_target(checkpoint):
    target = targets_of([checkpoint], [256])[0]
    assert Contender("n@256 torch", target, checkpoint, "torch").open().about.size_hw == (256, 256)


def test_the_least_score_of_a_class_is_that_of_day_or_night():
    assert least_scores(Thresholds((4, 7), ("day", "night"), ((0.5, 0.3), (0.2, 0.4)))) == {4: 0.3, 7: 0.2}


# --- what goes to the device ---


def test_the_file_that_is_sent_is_that_of_the_winner_and_fp16_where_nothing_is_told():
    made = [
        file("s@640"),
        file("s@640", "fp16"),
        file("s@960"),
        file("s@960", "fp16"),
        file("s@960", "fp32", "openvino"),
        file("s@960", "int8"),
    ]
    assert for_device(made).name == "s@640 fp16 onnx"
    assert for_device(made, "s@960").name == "s@960 fp16 onnx"
    assert for_device(made, "s@960 fp32 openvino").name == "s@960 fp32 onnx"
    assert for_device(made, "s@960 int8").name == "s@960 int8 onnx"
    assert for_device(made, "m@1280").name == "s@640 fp16 onnx"
    assert for_device([file("s@640"), file("s@640", "fp16", path=None)]).name == "s@640 fp32 onnx"
    with pytest.raises(ValueError, match="expected an ONNX file that has passed the gate, found none"):
        for_device([file("s@640", path=None)])


def test_the_folder_for_the_device_holds_one_model_and_its_thresholds(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("old.onnx", "old.engine", "old.engine.json", "README.md"):
        (folder / name).write_text("old")
    (tmp_path / "s@960_fp16.onnx").write_text("new")
    thresholds = Thresholds((0, 1), (), ((0.3,), (0.4,)))
    packed = pack(file("s@960", "fp16", path=tmp_path / "s@960_fp16.onnx"), thresholds, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "s@960_fp16.onnx", "thresholds.json"]
    assert packed[0].read_text() == "new" and read_json(packed[1])["scores"] == [[0.3], [0.4]]
