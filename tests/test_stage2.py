from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kit import save_weights
from kit.data.coco import CocoFile, as_coco, read_coco, write_coco
from kit.data.dataset import CocoDataset
from kit.dfine.weights import read_weights
from kit.files import read_json, write_json
from kit.soup import greedy_soup
from kit.stage2 import (
    Candidate,
    Judge,
    best_checkpoint,
    best_of,
    checkpoints,
    continued,
    control_file,
    forget_other_inputs,
    further_ingredients,
    gain,
    inputs_of,
    judged,
    read_labels,
    refuse_other_classes,
    validated,
    without_images_of,
)
from kit.train import Fit, History, fit
from tests import tiny
from tests.train.test_loop import killed_at, losses_of, weights_of

ABOUT = {"classes": ["dark", "bright"], "category_ids": [3, 7], "size_hw": [tiny.SIDE, tiny.SIDE]}


def stage_1(folder: Path) -> Path:
    return save_weights(tiny.detector(seed=4), folder / "stage_1" / "best.pt", ABOUT)


def names(coco: CocoFile) -> list[str]:
    return [record.file_name for record in coco.records]


# --- what it begins with ---


def test_a_checkpoint_of_other_labels_is_not_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "05_stage2"
    assert forget_other_inputs(out, {"labels": "a", "weights": "w"}) == []  # nothing has been trained yet
    write_json(out / "last.pt", "stands for a checkpoint")
    assert forget_other_inputs(out, {"labels": "a", "weights": "w"}) == [] and (out / "last.pt").exists()
    write_json(out / "previous.pt", "stands for the one before")
    assert forget_other_inputs(out, {"labels": "b", "weights": "w"}) == ["labels"]
    assert not list(out.glob("*.pt")) and read_json(out / "inputs.json")["labels"] == "b"


def test_a_checkpoint_whose_inputs_nobody_wrote_down_is_not_trusted(tmp_path: Path) -> None:
    write_json(tmp_path / "last.pt", "stands for a checkpoint")
    assert forget_other_inputs(tmp_path, {"labels": "a"}) == ["labels"] and not (tmp_path / "last.pt").exists()


def test_a_kill_before_the_inputs_are_written_leaves_no_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_other_inputs(tmp_path, {"labels": "a"})
    write_json(tmp_path / "last.pt", "stands for a checkpoint")

    def killed(*arguments: object, **more: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.stage2.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        forget_other_inputs(tmp_path, {"labels": "b"})
    assert not (tmp_path / "last.pt").exists()


def test_the_inputs_are_weights_labels_and_the_images_to_choose_on(tmp_path: Path) -> None:
    coco = tiny.dataset(tmp_path / "val", images=3).coco
    weights, labels = stage_1(tmp_path), tmp_path / "val" / "all.json"
    before = inputs_of(weights, labels, coco)
    fewer = inputs_of(weights, labels, replace(coco, records=coco.records[:2]))
    assert [name for name in before if before[name] != fewer[name]] == ["images to choose on"]
    save_weights(tiny.detector(seed=5), weights, ABOUT)
    assert inputs_of(weights, labels, coco)["weights of stage 1"] != before["weights of stage 1"]


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    coco = tiny.dataset(tmp_path).coco
    refuse_other_classes(ABOUT, coco)
    with pytest.raises(
        ValueError, match=r"all.json: expected the classes of stage 1, \[\(3, 'bright'\), .* train stage"
    ):
        refuse_other_classes(ABOUT | {"classes": ["bright", "dark"]}, coco)


def test_further_ingredients_are_folders_or_files_and_are_tried_before_the_training(tmp_path: Path) -> None:
    weights, other = stage_1(tmp_path), save_weights(tiny.detector(seed=5), tmp_path / "other.pt", ABOUT)
    assert further_ingredients([weights.parent, other], weights) == [weights, other]
    with pytest.raises(ValueError, match="expected a weights file, found nothing"):
        further_ingredients([tmp_path / "missing.pt"], weights)
    with pytest.raises(ValueError, match="expected num_classes 2, found 3"):
        further_ingredients([save_weights(tiny.detector(3), tmp_path / "three.pt", ABOUT)], weights)


def test_the_detector_goes_on_from_stage_1_with_what_was_frozen(tmp_path: Path) -> None:
    weights = stage_1(tmp_path)
    detector = continued(weights, tiny.SIZE, "backbone", "cpu")
    expected = tiny.detector(seed=4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in detector.state_dict().items())
    assert not any(weight.requires_grad for weight in detector.backbone.parameters())


def test_labels_are_counted_by_class_and_by_where_they_come_from(tmp_path: Path) -> None:
    content = as_coco(tiny.dataset(tmp_path, images=2, objects=1).coco)
    pseudo = [
        {"image_id": 2, "category_id": 3, "bbox": [0, 0, 9, 9], "pseudo": {"models": ["a"]}},
        {"image_id": 2, "category_id": 3, "bbox": [9, 9, 9, 9], "pseudo": {"models": ["a", "b"]}},
    ]
    plain = [{k: v for k, v in each.items() if k != "id"} for each in content["annotations"]]
    write_coco(tmp_path / "merged.json", content["images"], plain + pseudo, content["categories"])
    labels = read_labels(tmp_path / "merged.json")
    assert labels.pseudo == {"dark": 2, "bright": 0} and sum(labels.truth.values()) == 2
    assert labels.pseudo_image_ids == {2}


def test_images_that_are_held_out_are_known_under_another_name(tmp_path: Path) -> None:
    train = tiny.dataset(tmp_path / "images" / "train", images=4).coco
    longer = [replace(record, file_name=f"images/train/{record.file_name}") for record in train.records]
    merged, held_out = replace(train, records=longer), replace(train, records=train.records[1:3])
    left = without_images_of(merged, tmp_path, held_out, tmp_path / "images" / "train")
    assert names(left) == ["images/train/1.png", "images/train/4.png"]
    other = without_images_of(merged, tmp_path, held_out, tmp_path / "images" / "val")  # other pictures, like names
    assert len(other.records) == 4


def test_the_control_has_as_many_images_an_epoch_and_takes_all_in_turns(tmp_path: Path) -> None:
    coco = tiny.dataset(tmp_path, images=4).coco
    longer = control_file(coco, 10, seed=0)
    counts = [names(longer).count(name) for name in names(coco)]
    assert len(longer.records) == 10 and sorted(counts) == [2, 2, 3, 3]
    assert names(control_file(coco, 10, seed=0)) == names(longer) != names(control_file(coco, 10, seed=1))
    with pytest.raises(ValueError, match="expected images for the control, found none; set control = False"):
        control_file(replace(coco, records=[]), 10, seed=0)


# --- what comes out ---


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CocoDataset]:
    """Four labelled images, the same with two more that stand for pseudo-labelled ones, and three to choose on."""
    folder = tmp_path_factory.mktemp("data")
    merged = tiny.dataset(folder / "train", images=6, objects=1, strong=False)
    plain = replace(merged.coco, records=merged.coco.records[:4])
    control = control_file(plain, 6, seed=0)
    return {
        "stage 2": merged,
        "control": CocoDataset(control, merged.images, merged.policy),
        "val": tiny.dataset(folder / "val", images=3, objects=1, strong=False, seed=1),
    }


def trained(folder: Path, name: str, data: dict[str, CocoDataset], out: str) -> History:
    """Two epochs of three steps from the weights of stage 1, as the notebook does it."""
    plan = tiny.plan(epochs=2, strong_until_epoch=None, best_into_stage_2=False, keep_epochs=True)
    detector = continued(stage_1(folder), tiny.SIZE, "none", "cpu")
    forget_other_inputs(folder / out, {"labels": name})
    return fit(detector, data[name], data["val"], out=folder / out, plan=plan)


@pytest.fixture(scope="module")
def runs(data: dict[str, CocoDataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, History]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, {name: trained(folder, name, data, name) for name in ("stage 2", "control")}


@pytest.fixture
def judge(data: dict[str, CocoDataset]) -> Judge:
    size_hw = (tiny.SIDE, tiny.SIDE)
    return Judge(tiny.detector(), data["val"].coco, data["val"].images, data["stage 2"], size_hw, 2, norm_batches=2)


@pytest.mark.slow
@pytest.mark.parametrize("name, step", [("stage 2", 4), ("control", 1)])  # in the second epoch, and in the first
def test_stage_2_and_its_control_are_killed_and_go_on_exactly(
    name: str, step: int, runs: tuple[Path, dict[str, History]], data: dict[str, CocoDataset], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, histories = runs
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Fit, "train_step", killed_at(step))
        trained(tmp_path, name, data, name)
    again = trained(tmp_path, name, data, name)
    assert losses_of(again) == losses_of(histories[name]) and again.finished
    expected, found = weights_of(folder / name), weights_of(tmp_path / name)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for whole, resumed in zip(checkpoints(folder / name, again), checkpoints(tmp_path / name, again), strict=True):
        pairs = [read_weights(path)[0] for path in (whole, resumed)]
        assert all(torch.equal(value, pairs[1][key]) for key, value in pairs[0].items())


@pytest.mark.slow
def test_the_control_makes_the_same_steps_at_the_same_rates(runs: tuple[Path, dict[str, History]]) -> None:
    folder, histories = runs
    steps = [read_json(folder / name / "progress.json")["steps"] for name in histories]
    rates = [[epoch["lr"] for epoch in history.epochs] for history in histories.values()]
    assert steps == [6, 6] and rates[0] == rates[1]


@pytest.mark.slow
def test_the_judge_finds_what_the_training_found(runs: tuple[Path, dict[str, History]], judge: Judge) -> None:
    folder, histories = runs
    out, history = folder / "stage 2", histories["stage 2"]
    for files, figures in validated(out, history).items():
        found = judge.figures(files)
        assert {name: figures[name] for name in found} == found
    assert best_checkpoint(out, history)[0] == checkpoints(out, history)[history.best_epoch]


@pytest.mark.slow
def test_what_is_saved_is_what_was_judged(
    runs: tuple[Path, dict[str, History]], judge: Judge, data: dict[str, CocoDataset], tmp_path: Path
) -> None:
    """An average with its own statistics, read back as any other checkpoint."""
    folder, histories = runs
    swa = tuple(checkpoints(folder / "stage 2", histories["stage 2"]))
    figures, path = judge.figures(swa), judge.save(swa, tmp_path / "swa.pt")
    again = Judge(tiny.detector(seed=9), judge.part, judge.images, judge.train_set, judge.size_hw, 2, norm_batches=0)
    assert again.predictions((path,)) == judge.predictions(swa) and again.figures((path,)) == figures
    info = read_weights(path)[1]
    assert {name: info[name] for name in ABOUT} == ABOUT and info["ap"] == figures["ap"]


@pytest.mark.slow
def test_norm_batches_of_0_keep_the_averaged_statistics(runs: tuple[Path, dict[str, History]], judge: Judge) -> None:
    folder, histories = runs
    swa = tuple(checkpoints(folder / "stage 2", histories["stage 2"]))
    name = "backbone.stem.stem1.bn.running_mean"
    averaged = torch.stack([read_weights(file)[0][name] for file in swa]).mean(0)
    kept = replace(judge, norm_batches=0).load(swa).state_dict()[name].clone()
    assert torch.allclose(kept, averaged) and not torch.allclose(judge.load(swa).state_dict()[name], averaged)


@pytest.mark.slow
def test_candidates_are_told_on_both_parts_and_chosen_by_one(
    runs: tuple[Path, dict[str, History]], judge: Judge, data: dict[str, CocoDataset]
) -> None:
    folder, histories = runs
    report = replace(judge, part=replace(judge.part, records=judge.part.records[:1]), known={}, results={})
    files = {name: best_checkpoint(folder / name, history) for name, history in histories.items()}
    found = judged(files | {"SWA": ()}, judge, report)
    assert [each.name for each in found] == ["stage 2", "control"]  # what has no files is no candidate
    row = found[0].row()
    assert (
        row["checkpoints"] == f"{folder.name}/stage 2/{files['stage 2'][0].name}" and row["ap"] == found[0].tune["ap"]
    )
    assert row["report_f1"] == report.told(files["stage 2"], found[0].tune["f1_threshold"])["f1"]
    worth = gain(found[1], found[0], judge)
    assert worth.ap.value == pytest.approx(found[0].tune["ap"] - found[1].tune["ap"])
    assert set(worth.as_dict()) == {"ap", "f1", "ap_of_class"}


def test_of_equals_the_first_candidate_goes_on() -> None:
    found = [
        Candidate(name, (Path(name),), {"ap": ap, "f1": f1}) for name, ap, f1 in (("a", 3, 9), ("b", 5, 1), ("c", 5, 2))
    ]
    assert best_of(found, "ap").name == "b" and best_of(found, "f1").name == "a"


def test_a_judge_predicts_each_average_once(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(Judge, "load", lambda self, files: asked.append(files))
    monkeypatch.setattr("kit.stage2.predict_dataset", lambda *arguments, **more: [])
    a, b = Path("a.pt"), Path("b.pt")
    soup = greedy_soup([a, b], lambda files: judge.figures(files)["ap"])
    judge.figures(soup.files)
    assert asked == [(a,), (b,), (a, b)]


def test_a_training_that_never_was_has_no_checkpoints(tmp_path: Path) -> None:
    early = History([], -1.0, -1, tmp_path / "best.pt", False)  # time ran out in the first epoch
    for history in (None, early):
        assert checkpoints(tmp_path, history) == [] and best_checkpoint(tmp_path, history) == ()
        assert validated(tmp_path, history) == {}


def test_a_file_without_pseudo_labels_reads_as_well(tmp_path: Path) -> None:
    tiny.dataset(tmp_path, images=1, objects=0)
    labels = read_labels(tmp_path / "all.json")
    assert labels.pseudo == labels.truth == {"dark": 0, "bright": 0} and not labels.pseudo_image_ids
    assert len(read_coco(tmp_path / "all.json").records) == 1
