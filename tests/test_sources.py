from pathlib import Path

import pytest

from kit.dfine.weights import save_weights
from kit.files import write_json
from kit.sources import origins, read_results, read_source
from tests import tiny

BOX = {"image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}
HOW = {"batch_size": 2, "min_score": 0.0, "top_k": 5}


def test_models_and_files_have_the_shortest_names_that_differ() -> None:
    models = [Path("runs/a/03_train/best.pt"), Path("runs/a/05_stage2/best.pt")]
    assert [each.name for each in origins(models, [Path("x/yolo.json")])] == ["03_train", "05_stage2", "yolo"]
    models = [Path("runs/a/03_train/best.pt"), Path("runs/b/03_train/best.pt")]
    assert [each.name for each in origins(models, [])] == ["a/03_train", "b/03_train"]
    with pytest.raises(ValueError, match="each model and results file once"):
        origins(models[:1] * 2, [])


def test_each_has_its_weight_and_a_wrong_number_of_weights_is_refused() -> None:
    named = origins([Path("m/best.pt")], [Path("yolo.json")], [2.0, 1.0])
    assert [(each.weight, each.is_results) for each in named] == [(2.0, False), (1.0, True)]
    with pytest.raises(ValueError, match=r"one for each of 2 models and results files \(m, yolo\), got 1"):
        origins([Path("m/best.pt")], [Path("yolo.json")], [2.0])


def test_a_results_file_of_others_is_read_with_the_four_keys_alone(tmp_path: Path) -> None:
    coco = tiny.dataset(tmp_path, images=2).coco
    file = write_json(tmp_path / "yolo.json", [BOX | {"segmentation": [], "id": 7}])
    assert read_results(file, coco) == [BOX]
    source = read_source(origins([], [file])[0], coco, tmp_path, {})
    assert (source.name, source.views, source.seconds) == ("yolo", {"whole": [BOX]}, {})


@pytest.mark.parametrize(
    ("wrong", "text"),
    [({"image_id": 99}, "image_id not in the annotations: 99"), ({"category_id": 0}, "category_id not in"),
     ({"bbox": [1.0, 2.0]}, "entry 0: bbox must be"), ({"score": float("nan")}, "must be finite")],
)  # fmt: skip
def test_a_results_file_for_other_data_is_refused_by_name(tmp_path: Path, wrong: dict, text: str) -> None:
    coco = tiny.dataset(tmp_path, images=2).coco
    path = tmp_path / "other.json"
    path.write_text(str([BOX | wrong]).replace("'", '"').replace("nan", "NaN"))
    with pytest.raises(ValueError, match=rf"other\.json: predictions: .*{text}"):
        read_results(path, coco)


def test_a_model_is_asked_for_the_views_that_are_wanted(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path, images=2)
    info = {"size_hw": [64, 64], "classes": data.coco.names}
    path = save_weights(tiny.detector(), tmp_path / "best.pt", info)
    source = read_source(
        origins([path], [], [2.0])[0], data.coco, data.images, {"flip": True, "tiles": 2}, only=["whole", "flip"], **HOW
    )
    assert list(source.views) == list(source.seconds) == ["whole", "flip"] and source.weight == 2.0
    assert len(source.views["flip"]) > 0


def test_a_model_of_other_classes_or_without_its_input_size_is_refused(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path, images=1)
    other = {"size_hw": [64, 64], "classes": ["bright", "dark"]}
    for info, text in ((other, "expected the classes of .*dark, bright, got bright, dark"), ({}, "expected the input")):
        path = save_weights(tiny.detector(), tmp_path / "best.pt", info)
        with pytest.raises(ValueError, match=text):
            read_source(origins([path], [])[0], data.coco, data.images, {}, **HOW)
