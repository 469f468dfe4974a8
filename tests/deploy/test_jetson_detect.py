import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from kit.competitions.track4 import track4_image_id
from kit.data import augment
from kit.data.coco import as_coco, read_coco
from kit.data.pixels import read_image
from kit.deploy.fps import run_as_judged
from kit.deploy.runtimes import OnnxRunner, as_input
from kit.files import read_json, write_json
from kit.metrics.thresholds import Thresholds, apply_thresholds
from kit.predict import Detections, coco_results
from kit.submission import rules_of, validate
from tests.deploy.jetson import FOLDER, detect, model, script, with_uint8_input

ABOUT = {"names": ["Bus", "Car"], "category_ids": [4, 7], "channels": 3, "height_px": 64, "width_px": 96}
LIBRARIES = {"argparse", "ctypes", "hashlib", "importlib", "json", "os", "pathlib", "platform", "re", "sys", "tempfile"}
LIBRARIES |= {"time", "numpy", "cv2", "PIL", "model", "engine"}
QUICK = ["--runtime", "onnxruntime", "--warm-up", "1"]


def options(*arguments):
    return detect.arguments().parse_args([str(each) for each in arguments])


def picture(folder: Path, name: str, size_hw=(48, 64), seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8))
    return folder / name


# --- the device's Python ---


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_python_3_10_can_read_it_and_it_imports_what_the_container_has(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} <= LIBRARIES


@pytest.mark.parametrize("path", sorted(FOLDER.glob("Dockerfile.*")), ids=lambda path: path.name)
def test_a_container_holds_every_file_of_the_folder_and_starts_the_command(path):
    text = path.read_text()
    copied = re.search(r"^COPY (.+) \./$", text, re.MULTILINE)
    assert copied and sorted(copied[1].split()) == sorted(each.name for each in FOLDER.glob("*.py"))
    assert text.rstrip().endswith('ENTRYPOINT ["python3", "detect.py"]')


# --- images and ids ---


def test_the_first_of_the_organisers_folders_that_holds_images_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "IMAGE_FOLDERS", [str(tmp_path / name) for name in ("a", "b", "c")])
    (tmp_path / "a").mkdir()
    with pytest.raises(model.Refused, match=r"found none in .*a, .*b, .*c; mount it"):
        detect.image_folder(None)
    picture(tmp_path / "c", "camera1_A_1.PNG"), picture(tmp_path / "b", "camera1_A_2.jpg")
    assert detect.image_folder(None) == tmp_path / "b" and detect.image_folder(tmp_path / "c") == tmp_path / "c"


def test_the_default_folders_are_those_of_the_organisers():
    assert detect.IMAGE_FOLDERS[0] == "/data/Fisheye1K_eval/images" and options().model == "/models"


@pytest.mark.parametrize("name", ["camera1_A_0.png", "camera19_M_7.jpg", "camera29_N_1234.jpeg", "camera3_E_10.png"])
def test_ids_are_those_of_kit(name):
    assert detect.track4_id(Path(name)) == track4_image_id(name)


def test_names_without_an_id_and_two_of_one_id_are_refused():
    with pytest.raises(model.Refused, match=r"street\.png: expected camera<C>_<M, A, E or N>_<F>"):
        detect.image_ids([Path("street.png")], None)
    with pytest.raises(model.Refused, match=r"camera1_M_11\.png and camera10_A_1\.png one id"):  # 1 0 11 and 10 1 1
        detect.image_ids([Path("camera1_M_11.png"), Path("camera10_A_1.png")], None)


def test_ids_of_an_annotation_file_come_before_the_rule(tmp_path):
    known = write_json(tmp_path / "a.json", {"images": [{"file_name": "val/street.png", "id": 42}]})
    assert detect.image_ids([Path("street.png")], known) == [42]
    with pytest.raises(model.Refused, match=r"1 images are not listed, such as other\.png"):
        detect.image_ids([Path("street.png"), Path("other.png")], known)


# --- before and after the detector ---


@pytest.mark.parametrize(("size_hw", "most"), [((48, 64), 0), ((100, 70), 0), ((31, 40), 1), ((31, 80), 1)])
def test_an_image_is_resized_as_in_training(size_hw, most):
    """Pillow where it shrinks, which differs from torch by the last digit at most; else the same function."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    ours, kits = detect.resized(image, size_hw), augment.resized(image, size_hw)
    assert ours.shape == kits.shape and np.abs(ours.astype(int) - kits).max() <= most


def test_the_quick_resize_does_not_average():
    stripes = np.tile(np.array([0, 255], np.uint8), (32, 32))  # (32, 64)
    assert detect.resized(stripes, (8, 16)).std() < 20
    assert detect.resized(stripes, (8, 13), True).std() > 40


@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_detector_gets_what_kit_would_give_it(tmp_path, kind, channels):
    path = picture(tmp_path, "a.png", (64, 96))
    about = ABOUT | {"channels": channels, "input": kind}
    ours, sizes_hw = detect.preprocessed(detect.read_image(path, about), about)
    image = read_image(path, channels)[None]
    theirs = as_input(image, type("About", (), {"input": kind})())
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs) and sizes_hw.tolist() == [[64.0, 96.0]]


def test_a_model_of_four_channels_is_refused(tmp_path):
    with pytest.raises(model.Refused, match="expected a model of 1 or 3 channels, found 4"):
        detect.read_image(picture(tmp_path, "a.png"), ABOUT | {"channels": 4})


def test_detections_become_the_entries_that_kit_writes():
    random = np.random.default_rng(1)
    corners = random.uniform(-20, 100, (50, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(0, 50, (50, 2)).astype(np.float32)], axis=1)
    scores, labels = np.sort(random.random(50).astype(np.float32))[::-1].copy(), random.integers(0, 2, 50)
    ours = detect.postprocessed((boxes, scores, labels), np.array([0.3, 0.6]), [4, 7], 12, (80, 90))
    found = Detections(*map(torch.from_numpy, (boxes, scores, labels)))
    kits = coco_results(found, 12, (80, 90), [4, 7], 0.01)
    assert ours == apply_thresholds(kits, Thresholds((4, 7), (), ((0.3,), (0.6,)))) and 5 < len(ours) < 50


def test_of_a_class_the_best_hundred_of_an_image_remain():
    boxes = np.tile(np.array([0, 0, 5, 5], np.float32), (150, 1))
    scores, labels = np.linspace(1, 0.5, 150, dtype=np.float32), np.arange(150) % 150 // 140
    entries = detect.postprocessed((boxes, scores, labels), np.zeros(2), [4, 7], 1, (9, 9))
    assert [each["category_id"] for each in entries] == [4] * 100 + [7] * 10
    assert detect.postprocessed((boxes[:0], scores[:0], labels[:0]), np.zeros(2), [4, 7], 1, (9, 9)) == []


# --- thresholds ---


def test_thresholds_come_from_a_file_of_kit_in_the_order_of_the_models_classes(tmp_path):
    table = Thresholds((7, 4), ("day", "night"), ((0.1, 0.2), (0.3, 0.4)))
    limits = detect.Limits(ABOUT, write_json(tmp_path / "a.json", table.as_dict()), ["Car=0.9"])
    assert limits.at(Path("camera1_A_3.png")).tolist() == [0.3, 0.9]
    assert limits.at(Path("camera1_N_3.png")).tolist() == [0.4, 0.9]


def test_without_a_file_one_score_serves_and_can_be_changed():
    assert detect.Limits(ABOUT).at(Path("a.png")).tolist() == [0.4, 0.4]
    assert detect.Limits(ABOUT, None, ["0.25", "Bus=.5"]).at(Path("a.png")).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("text", ["Buss=0.5", "x", "Bus=", "-1", "Bus=nan"])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(model.Refused, match=r"expected a score, or class and score such as Bus=0\.7"):
        detect.Limits(ABOUT, None, [text])


def test_thresholds_that_lack_a_class_are_refused(tmp_path):
    path = write_json(tmp_path / "a.json", Thresholds((4,), (), ((0.5,),)).as_dict())
    with pytest.raises(model.Refused, match=r"expected thresholds for every class of the model, found none for \[7\]"):
        detect.Limits(ABOUT, path)


# --- which model ---


def test_the_only_model_of_a_folder_is_taken_and_of_several_none(tmp_path):
    with pytest.raises(model.Refused, match=r"expected an \.onnx or \.engine file, found none"):
        detect.model_file(tmp_path)
    for name in ("b.engine", "a.onnx"):
        (tmp_path / name).touch()
        assert detect.model_file(tmp_path) == tmp_path / name
    (tmp_path / "c.onnx").touch()
    with pytest.raises(model.Refused, match=r"expected one \*\.onnx, found a\.onnx, c\.onnx; name one"):
        detect.model_file(tmp_path)
    with pytest.raises(model.Refused, match="found nothing; mount it"):
        detect.model_file(tmp_path / "none")


# --- the whole command ---


def test_the_rate_leaves_out_the_reading():
    """Two images: 10 s of reading each, then 0.1 + 0.2 + 0.1 s and 0.1 + 0.4 + 0.1 s."""
    lines = detect.report(np.array([[10, 0.1, 0.2, 0.1], [10, 0.1, 0.4, 0.1]]), [1, 2, 3])
    assert lines[0] == "Processed 2 images, 3 detections." and "Avg detector: 300.00 ms" in lines
    assert "FPS: 2.00" in lines and "Normalized FPS: 0.0800" in lines and "FPS with reading: 0.10" in lines


def test_a_folder_becomes_a_submission_with_what_kit_finds(exported, scenes, tmp_path):
    out, coco = tmp_path / "predictions.json", read_coco(scenes / "annotations" / "instances_val.json")
    write_json(tmp_path / "thresholds.json", Thresholds(tuple(range(5)), (), ((0.3,),) * 5).as_dict())
    path = shutil.copy(exported, tmp_path / "model.onnx")
    done = script("--images", scenes / "images" / "val", "--model", path, "--out", out)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^FPS: \d+\.\d\d$", done.stdout, re.MULTILINE) and "ONNX Runtime" in done.stdout
    entries = read_json(out)
    assert validate(entries, rules_of(as_coco(coco)["images"], range(5), allow_missing_images=True)) == []
    kits = run_as_judged(OnnxRunner(exported, "cpu"), coco, scenes / "images" / "val", least_scores=0.3).predictions
    assert len(kits) > 10 and agreement(entries, kits) > 0.95 and abs(len(entries) - len(kits)) <= 0.05 * len(kits)


def agreement(entries, others, most_px=2.0, most_score=0.02) -> float:
    """Share with a twin: same image and class, nearly the same box and score."""
    twins = 0
    for entry in entries:
        same = [each for each in others if all(each[key] == entry[key] for key in ("image_id", "category_id"))]
        near = [each for each in same if np.abs(np.subtract(each["bbox"], entry["bbox"])).max() < most_px]
        twins += any(abs(each["score"] - entry["score"]) < most_score for each in near)
    return twins / max(len(entries), 1)


def test_images_of_the_detectors_own_size_give_the_same_entries(exported, tmp_path, scenes, capsys):
    """Nothing is resized, so what differs is rounding; uint8 files take another way to the same numbers."""
    coco = read_coco(scenes / "annotations" / "instances_val.json")
    one = replace(coco, records=coco.records[:1])
    name = one.records[0].file_name
    small = augment.resized(read_image(scenes / "images" / "val" / name), (320, 320))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / name), small[..., ::-1])
    kits = run_as_judged(OnnxRunner(exported, "cpu"), one, tmp_path / "images", least_scores=0.1).predictions
    arguments = [*QUICK, "--images", tmp_path / "images", "--threshold", "0.1"]
    for each in (exported, with_uint8_input(exported, tmp_path / "uint8.onnx")):
        assert detect.run(options("--model", each, *arguments), print) == 0
        found = read_json(tmp_path / "predictions.json")  # beside the folder named images
        assert len(kits) > 5 and min(agreement(found, kits, 0.5, 5e-3), agreement(kits, found, 0.5, 5e-3)) >= 0.99
    assert "written: " in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_skipped_and_told_by_the_exit_status(exported, scenes, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(scenes / "images" / "val", images)
    broken = sorted(images.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    arguments = [*QUICK, "--model", str(exported), "--images", str(images)]
    assert detect.main(arguments) == 2
    assert f"could not be read, skipped: {broken.name}" in capsys.readouterr().out
    ids = {entry["image_id"] for entry in read_json(tmp_path / "predictions.json")}
    assert ids and track4_image_id(broken.name) not in ids
    for path in images.iterdir():
        path.write_bytes(b"no image")
    assert detect.main(arguments) == 1 and "none of 8 images could be read" in capsys.readouterr().err


def test_a_folder_in_which_nothing_is_found_is_told(exported, tmp_path, capsys):
    picture(tmp_path, "camera1_A_1.png")
    arguments = [*QUICK, "--model", str(exported), "--images", str(tmp_path)]
    assert detect.main([*arguments, "--threshold", "0.99"]) == 0
    assert (
        "nothing was found in any image" in capsys.readouterr().out and read_json(tmp_path / "predictions.json") == []
    )


def test_what_the_user_has_to_mend_is_one_line(tmp_path, capsys):
    assert detect.main(["--images", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: expected a folder with .png, .jpg, .jpeg files, found none in ")


# --- the check ---


def damaged(source: Path, target: Path, factor: float) -> Path:
    """The largest weight scaled."""
    content = onnx.load(source)
    weight = max(content.graph.initializer, key=lambda each: np.prod(each.dims))
    array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(content, target)
    return target


def test_the_check_passes_like_and_refuses_unlike(exported, scenes, tmp_path, capsys):
    other = damaged(exported, tmp_path / "other.onnx", 1.5)
    arguments = [*QUICK, "--images", str(scenes / "images" / "val"), "--out", str(tmp_path / "a.json")]
    arguments += ["--check-images", "3", "--model"]
    assert detect.main([*arguments, str(exported), "--check"]) == 0
    assert "100.0% found by both, greatest difference of their scores 0.0000: passed" in capsys.readouterr().out
    assert detect.main([*arguments, str(other), "--check", str(exported)]) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "does not find what the file does" in captured.err
    assert detect.main([*arguments, str(other), "--check", str(exported), "--allow-unlike"]) == 0


def test_a_check_in_which_nothing_is_sure_fails(capsys):
    class Nothing:
        about, note = ABOUT | {"input": "uint8"}, "nothing"

        def __call__(self, images, sizes_hw):
            return np.zeros((3, 4)), np.zeros(3), np.zeros(3, int)

    assert not detect.check(Nothing(), Nothing(), [], print)
    assert "0 sure detections" in capsys.readouterr().out


def test_the_nearest_box_is_of_the_same_class():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5.0]])
    found = detect.nearest(np.array([0, 0, 10, 10.0]), 0.9, 1, boxes, np.array([0.8, 0.6]), np.array([0, 1]))
    assert found == pytest.approx((0.5, 0.3))
    assert detect.nearest(boxes[0], 0.9, 2, boxes, np.array([0.8, 0.6]), np.array([0, 1])) == (0.0, 1.0)


# --- real files ---


@pytest.mark.slow
def test_real_frames_give_what_kit_finds_in_them(exported, shared, tmp_path):
    data = shared("data/fisheye8k_mini")
    out, coco = tmp_path / "predictions.json", read_coco(data / "annotations" / "instances_train.json")
    done = script("--images", data / "images" / "train", "--model", exported, "--out", out, "--threshold", "0.05")
    assert done.returncode == 0, done.stderr
    runner = OnnxRunner(exported, "cpu")
    kits = run_as_judged(runner, coco, data / "images" / "train", least_scores=0.05).predictions
    entries = json.loads(out.read_text())
    assert {each["image_id"] for each in entries} <= {record.image_id for record in coco.records}
    assert len(entries) > 20 and agreement(entries, kits) > 0.9
