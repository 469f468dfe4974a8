from pathlib import Path

import numpy as np
import pytest

from kit.data.augment import resized
from kit.data.coco import find_split, read_coco
from kit.data.pixels import read_image
from kit.deploy.about import About
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.openvino import export_openvino, write_openvino
from kit.deploy.runtimes import open_runner

ov = pytest.importorskip("openvino", reason="needs pip install -e '.[openvino]'")


@pytest.fixture(scope="module")
def pair(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_openvino(exported, tmp_path_factory.mktemp("openvino") / "scenes.xml")


def two_scenes(scenes: Path) -> tuple[np.ndarray, np.ndarray]:
    split = find_split(scenes, "val")
    images = [read_image(split.images / each.file_name) for each in read_coco(split.annotations).records[:2]]
    sizes_hw = np.array([image.shape[:2] for image in images], np.float32)
    return np.stack([resized(image, (320, 320)) for image in images]), sizes_hw


def test_the_pair_finds_what_the_checkpoint_finds(checkpoint: Path, pair: Path, scenes: Path):
    images, sizes_hw = two_scenes(scenes)
    ours, theirs = (open_runner(path)(images, sizes_hw) for path in (checkpoint, pair))
    sure = ours.scores > 0.3
    assert sure.sum() >= 4
    assert np.abs(np.sort(ours.scores) - np.sort(theirs.scores)).max() < 1e-3
    assert np.abs(ours.boxes_xyxy[sure] - theirs.boxes_xyxy[sure]).max() < 0.05
    assert (ours.labels[sure] == theirs.labels[sure]).all()


def test_any_batch_is_still_taken(pair: Path, scenes: Path):
    model = ov.Core().read_model(str(pair))
    assert [each.get_partial_shape()[0].is_dynamic for each in model.inputs] == [True, True]
    images, sizes_hw = two_scenes(scenes)
    runner = open_runner(pair)
    both, second = runner(images, sizes_hw), runner(images[1:], sizes_hw[1:])
    assert np.abs(both.scores[1, :5] - second.scores[0, :5]).max() < 1e-4


def test_names_and_types_of_inputs_and_outputs_stay(pair: Path, exported: Path, tmp_path: Path):
    half = export_openvino(exported, tmp_path / "half.xml", precision="fp16")
    for path in (pair, half):
        model = ov.Core().read_model(str(path))
        assert [each.get_any_name() for each in model.inputs] == ["images", "sizes_hw"]
        assert [each.get_any_name() for each in model.outputs] == ["boxes", "scores", "labels"]
        assert [each.get_element_type().to_string() for each in model.outputs] == ["f32", "f32", "i32"]


def test_half_precision_halves_the_weights_and_finds_nearly_the_same(
    exported: Path, pair: Path, scenes: Path, tmp_path
):
    half = export_openvino(exported, tmp_path / "half.xml", precision="fp16")
    sizes = [path.with_suffix(".bin").stat().st_size for path in (half, pair)]
    assert 0.49 < sizes[0] / sizes[1] < 0.55
    assert open_runner(half).about.precision == "fp16"
    full, rounded = (open_runner(path)(*two_scenes(scenes)).scores[:, :5] for path in (pair, half))
    assert 0 < np.abs(full - rounded).max() < 0.02


def test_the_pair_says_of_itself_what_the_onnx_file_said(exported: Path, pair: Path):
    assert open_runner(pair).about == read_onnx(exported)[1]


def test_a_failed_export_leaves_what_was_there(pair: Path, exported: Path, tmp_path: Path, monkeypatch):
    path = export_openvino(exported, tmp_path / "model.xml")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fails(model: object, file: str, **options: object) -> None:
        Path(file).write_text("half a graph")
        raise OSError("disk full")

    monkeypatch.setattr(ov, "save_model", fails)
    with pytest.raises(OSError, match="disk full"):
        export_openvino(exported, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_graph_never_meets_the_weights_of_another(exported: Path, tmp_path: Path, monkeypatch):
    path = export_openvino(exported, tmp_path / "model.xml")
    replace = Path.replace

    def fails_at_the_graph(self: Path, target: Path) -> Path:
        if target.suffix == ".xml":
            raise OSError("cut off")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_at_the_graph)
    with pytest.raises(OSError, match="cut off"):
        export_openvino(exported, path, precision="fp16")
    assert not path.exists()


def test_files_that_are_rounded_already_are_refused(onnx_file: Path, tmp_path: Path):
    model, about = read_onnx(onnx_file)
    write_onnx(model, onnx_file, About(**{**about.__dict__, "precision": "int8"}))
    with pytest.raises(ValueError, match=r"scenes\.onnx: expected an ONNX file of precision fp32, found int8; export"):
        export_openvino(onnx_file, tmp_path / "model.xml")


def test_other_names_and_precisions_are_refused(exported: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"model\.onnx: OpenVINO's files must end in \.xml"):
        export_openvino(exported, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="precision must be fp32 or fp16, got 'int8'; for int8 see"):
        export_openvino(exported, tmp_path / "model.xml", precision="int8")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_absence_of_openvino_is_one_clear_line(exported: Path, tmp_path: Path, monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("kit.deploy.runtimes.import_module", missing)
    with pytest.raises(ImportError, match="OpenVINO is not installed: pip install") as error:
        export_openvino(exported, tmp_path / "model.xml")
    assert "\n" not in str(error.value)


def test_what_a_step_remembers_is_kept(exported: Path, tmp_path: Path):
    about = read_onnx(exported)[1]
    noted = About(**{**about.__dict__, "notes": {"gate": {"ap": 0.25, 'a "name"': "ä"}}})
    path = write_openvino(ov.Core().read_model(str(exported)), tmp_path / "model.xml", noted)
    assert open_runner(path).about.notes == noted.notes
