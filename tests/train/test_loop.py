import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kit import load_weights
from kit.dfine.detector import Detector
from kit.dfine.weights import read_weights
from kit.files import read_json
from kit.optimisation import freeze
from kit.params import ROOT
from kit.train import Fit, History, epoch_line, epoch_weights, fit, read_state, tensorboard
from kit.train.checkpoints import write_state
from kit.train.store import Store, identity_of
from tests import tiny


def train(folder: Path, out: str, **changes: object) -> History:
    return fit(
        tiny.detector(),
        tiny.dataset(folder / "train"),
        tiny.dataset(folder / "val", images=2, seed=1),
        out=folder / out,
        plan=tiny.plan(**changes),
    )


def losses_of(history: History) -> list[dict[str, float]]:
    return [{name: value for name, value in each.items() if "seconds" not in name} for each in history.epochs]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    run = read_state(folder / "last.pt", "cpu")["run"]
    return run["detector"] | {f"average {name}": value for name, value in run["average"].items()}


def killed_at(step: int) -> Callable[..., None]:
    original = Fit.train_step

    def train_step(self: Fit, batches: list[object]) -> None:
        if self.run.step == step:
            raise KeyboardInterrupt
        original(self, batches)  # type: ignore[arg-type]

    return train_step


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_killed_in_an_epoch_and_in_stage_2_goes_on_exactly(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path, "whole")
    for step in (2, 5, 9):  # in the first epoch, in the second, in stage 2; 4 steps an epoch
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Fit, "train_step", killed_at(step))
            train(tmp_path, "killed", workers=workers)
    again = train(tmp_path, "killed", workers=workers)
    assert losses_of(again) == losses_of(whole) and again.finished
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_a_run_ended_by_sigkill_leaves_whole_files_and_goes_on_exactly(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole")
    script = f"""
        from pathlib import Path
        from tests.train.test_loop import train
        train(Path({str(tmp_path)!r}), "killed")
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)
    checkpoint, waited_from = tmp_path / "killed" / "last.pt", time.monotonic()
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() - waited_from < 240
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= read_state(checkpoint, "cpu")["run"]["step"] <= 12
    assert losses_of(train(tmp_path, "killed")) == losses_of(whole)


@pytest.mark.slow
def test_fit_learns_to_find_squares(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "train", images=4, objects=1, strong=False)
    plan = tiny.plan(epochs=80, strong_until_epoch=None, val_every=80, save_every_s=60.0, clip_norm=None)
    history = fit(tiny.detector(), data, data, out=tmp_path / "run", plan=plan)
    assert history.epochs[-1]["ap50"] > 0.9
    assert history.epochs[-1]["loss"] < 0.75 * history.epochs[0]["loss"]


def test_a_run_leaves_its_files_and_its_best_weights_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[int] = []
    monkeypatch.setattr("kit.train.store.mark_of", lambda coco: (marked.append(len(coco.records)), "")[1])
    history = train(tmp_path, "run", epochs=1, strong_until_epoch=None)
    report = load_weights(tiny.detector(seed=5), history.best_weights)
    assert report.info["classes"] == ["dark", "bright"] and report.info["category_ids"] == [3, 7]
    assert read_json(tmp_path / "run" / "history.json")[0]["ap"] == history.epochs[0]["ap"]
    progress = read_json(tmp_path / "run" / "progress.json")
    assert progress["step"] == progress["steps"] == 4 and progress["eta_s"] == 0
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert "epoch   1  loss" in epoch_line(history.epochs[0])
    assert marked == [8, 2]  # once a run each, of which there may be millions of images


@pytest.mark.slow
def test_stage_2_begins_from_the_best_weights_of_stage_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.2, 0.1])
    zeros = {"ap50": 0.0, "f1": 0.0}
    monkeypatch.setattr("kit.train.loop.scores", lambda found, annotations: {"ap": next(scores)} | zeros)
    monkeypatch.setattr(Store, "save", lambda self: None)  # the checkpoints are not what is looked at
    at_start: dict[int, torch.Tensor] = {}
    original = Fit.train_step

    def watched(self: Fit, batches: list[object]) -> None:
        at_start[self.run.step] = self.run.detector.decoder.score[0].weight.detach().clone()
        original(self, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Fit, "train_step", watched)
    history = train(tmp_path, "run")
    assert history.best_epoch == 0 and history.best == 0.5
    assert torch.equal(at_start[8], at_start[4]) and not torch.equal(at_start[8], at_start[7])


@pytest.mark.slow
def test_patience_ends_a_run_that_does_not_improve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"ap": 0.5, "ap50": 0.5, "f1": 0.5}
    monkeypatch.setattr("kit.train.loop.scores", lambda found, annotations: figures)
    history = train(tmp_path, "run", epochs=9, patience=2)
    assert len(history.epochs) == 3 and history.finished


def test_time_that_runs_out_leaves_weights_and_the_run_goes_on_later(tmp_path: Path) -> None:
    first = train(tmp_path, "run", epochs=1, strong_until_epoch=None, max_minutes=0.0)
    assert not first.finished and first.epochs == [] and first.best_weights.exists()
    assert train(tmp_path, "run", epochs=1, strong_until_epoch=None).finished


def test_stage_2_without_validation_goes_on_from_where_stage_1_ended_stopped_or_not(tmp_path: Path) -> None:
    def sitting(out: str, **changes: object) -> History:
        return fit(
            tiny.detector(), tiny.dataset(tmp_path / "train"), None, out=tmp_path / out, plan=tiny.plan(**changes)
        )

    whole = sitting("whole", epochs=2, strong_until_epoch=1)
    assert not sitting("stopped", epochs=2, strong_until_epoch=1, max_minutes=0.0).finished
    assert losses_of(sitting("stopped", epochs=2, strong_until_epoch=1)) == losses_of(whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_term_and_images(tmp_path: Path) -> None:
    detector = tiny.detector()
    torch.nn.init.constant_(detector.decoder.edges[2].layers[2].bias, float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 0: the loss is not finite in .*fgl.*, on images\s+\[\d, \d\]"):
        fit(detector, tiny.dataset(tmp_path / "train"), None, out=tmp_path / "run", plan=tiny.plan())


def test_a_checkpoint_of_another_plan_is_refused_by_what_differs(tmp_path: Path) -> None:
    train(tmp_path, "run", epochs=1, strong_until_epoch=None, max_minutes=0.0)
    with pytest.raises(ValueError, match=r"last.pt: .* differs in seed \(0, now 3\); use another run name"):
        train(tmp_path, "run", epochs=1, strong_until_epoch=None, seed=3)


def test_a_checkpoint_of_other_labels_is_refused_even_of_as_many_images(tmp_path: Path) -> None:
    plan = tiny.plan(epochs=1, strong_until_epoch=None, max_minutes=0.0)
    fit(tiny.detector(), tiny.dataset(tmp_path / "a"), None, out=tmp_path / "run", plan=plan)
    with pytest.raises(ValueError, match=r"differs in labels \("):
        fit(tiny.detector(), tiny.dataset(tmp_path / "b", seed=1), None, out=tmp_path / "run", plan=plan)


def test_a_checkpoint_from_before_a_knob_was_there_is_as_one_with_its_default(tmp_path: Path) -> None:
    changes = {"epochs": 1, "strong_until_epoch": None}
    train(tmp_path, "run", **changes, max_minutes=0.0)
    state = read_state(tmp_path / "run" / "last.pt", "cpu")
    known = json.loads(state["fingerprint"])
    del known["clip_norm"], known["classification"]
    write_state(tmp_path / "run" / "last.pt", state | {"fingerprint": json.dumps(known)})
    with pytest.raises(ValueError, match=r"differs in classification \(vfl, now mal\)"):
        train(tmp_path, "run", **changes, classification="mal")
    assert train(tmp_path, "run", **changes).finished


@pytest.mark.slow
def test_a_run_in_fp16_goes_on_without_it_by_choice_and_the_other_way_round(tmp_path: Path) -> None:
    changes = {"epochs": 1, "strong_until_epoch": None}
    train(tmp_path, "run", **changes, amp="fp16", max_minutes=0.0)
    with pytest.raises(ValueError, match=r"differs in amp \(fp16, now no\); adapt=True"):
        train(tmp_path, "run", **changes)
    plans = [tiny.plan(**changes, max_minutes=0.0), tiny.plan(**changes, amp="fp16")]
    data = [tiny.dataset(tmp_path / "train"), tiny.dataset(tmp_path / "val", images=2, seed=1)]
    said: list[str] = []
    for plan in plans:
        last = fit(tiny.detector(), *data, out=tmp_path / "run", plan=plan, adapt=True, say=said.append)
    assert last.finished and len(said) == 2 and "other amp (no, now fp16): step 2 of old is step 2 now" in said[1]


def test_too_few_images_for_a_step_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="at least 16 training images for one step, got 8; lower batch_size to 8 or less"
    ):
        train(tmp_path, "run", batch_size=16)


def test_what_is_frozen_does_not_move_statistics_included(tmp_path: Path) -> None:
    detector = tiny.detector()
    freeze(detector, "backbone")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    fit(detector, tiny.dataset(tmp_path / "train"), None, out=tmp_path / "run", plan=tiny.plan(epochs=1))
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(name.startswith("backbone.") for name in moved)
    assert any(name.endswith("running_mean") for name in moved)  # of the encoder, which is not frozen


def test_images_without_any_object_train_every_weight_that_can_be(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "train", objects=0)
    history = fit(tiny.detector(), data, None, out=tmp_path / "run", plan=tiny.plan(epochs=1))
    assert history.epochs[0]["loss"] > 0 and history.epochs[0]["l1"] == 0


def test_tensorboard_files_hold_the_figures(tmp_path: Path) -> None:
    tensorboard(tmp_path)({"epoch": 0.0, "loss": 1.5})
    assert list(tmp_path.glob("events.*"))


DISTRIBUTED = """
    import sys, torch
    from pathlib import Path
    from kit.train import fit
    from tests import tiny
    rank, world, folder = int(sys.argv[1]), 2, Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    history = fit(
        tiny.detector(), tiny.dataset(folder / f"train{rank}", images=4, objects=rank),
        tiny.dataset(folder / f"val{rank}", images=3, seed=1), out=folder / "run", plan=tiny.plan(epochs=2),
    )
    torch.distributed.destroy_process_group()
    assert history.finished and "ap" in history.epochs[0]
"""


@pytest.mark.slow
def test_two_processes_train_together_when_one_has_no_objects(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(DISTRIBUTED)]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT) for rank in range(2)]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    losses = [epoch["loss"] for epoch in read_json(tmp_path / "run" / "history.json")]
    assert min(losses) > 1  # the mean over both ranks, of which the first has nothing to find
    state = read_state(tmp_path / "run" / "last.pt", "cpu")["run"]
    assert state["step"] == 4 and isinstance(tiny.detector(), Detector)


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_near_to_full_precision(amp: str, tmp_path: Path) -> None:
    full = train(tmp_path, "full", epochs=1, strong_until_epoch=None)
    mixed = train(tmp_path, amp, epochs=1, strong_until_epoch=None, amp=amp)
    assert mixed.epochs[0]["loss"] == pytest.approx(full.epochs[0]["loss"], rel=0.05)


def test_accumulated_passes_make_one_step(tmp_path: Path) -> None:
    history = train(tmp_path, "run", epochs=1, strong_until_epoch=None, batch_size=4, accumulate=2)
    state = read_state(tmp_path / "run" / "last.pt", "cpu")["run"]
    assert state["step"] == 2 and state["average_updates"] == 2 and history.finished


@pytest.mark.slow
def test_the_average_after_each_epoch_is_kept_killed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"epochs": 2, "strong_until_epoch": 1, "keep_epochs": True}
    whole = train(tmp_path, "whole", **changes)
    for step in (2, 4):  # in the first epoch, and just after it; 4 steps an epoch
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Fit, "train_step", killed_at(step))
            train(tmp_path, "killed", **changes)
    train(tmp_path, "killed", **changes)
    for epoch in range(2):
        expected, found = (read_weights(epoch_weights(tmp_path / out, epoch)) for out in ("whole", "killed"))
        assert all(torch.equal(value, found[0][name]) for name, value in expected[0].items())
        assert found[1]["ap"] == whole.epochs[epoch]["ap"] and found[1]["classes"] == ["dark", "bright"]
    best = read_weights(whole.best_weights)[0]
    kept = read_weights(epoch_weights(tmp_path / "whole", whole.best_epoch))[0]
    assert all(torch.equal(value, kept[name]) for name, value in best.items())


def test_epochs_are_kept_on_demand_counted_from_1_and_go_with_the_run(tmp_path: Path) -> None:
    def files(**changes: object) -> list[str]:
        data, plan = tiny.dataset(tmp_path / "train", images=2), tiny.plan(epochs=1, **changes)
        fit(tiny.detector(), data, None, out=tmp_path / "run", plan=plan, resume=False)
        return sorted(path.name for path in (tmp_path / "run").glob("epoch_*"))

    assert files(keep_epochs=True) == ["epoch_1.pt"] and files() == []


def test_a_checkpoint_from_before_epochs_could_be_kept_is_gone_on_from(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "train")
    of = [identity_of(tiny.plan(keep_epochs=keep), tiny.detector(), data, None, 1) for keep in (False, True)]
    assert of[0] == of[1] and "keep_epochs" not in of[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_broken_state_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.pt: expected a checkpoint as it was written, found") as error:
        read_state(tmp_path / "state.pt", "cpu")
    assert str(error.value).isprintable()
