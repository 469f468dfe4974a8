"""After each fault: nothing is lost beyond what is stated, no figure differs, and it is said what happened."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from kit.data.dataset import Batch
from kit.files import read_json
from kit.params import ROOT
from kit.train import Fit, History, faults
from kit.train.checkpoints import PREVIOUS, read_state
from kit.train.faults import StopSignals
from tests.train.killed import losses_of, sitting

Step = Callable[[Fit, list[Batch]], None]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that are killed: with more, sums are rounded otherwise, and losses are compared exactly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """Also where the tests were started in the background, which ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> History:
    """What a run gives to which nothing happens: 2 epochs of 4 steps."""
    return sitting(tmp_path_factory.mktemp("whole"), "run")


def at_step(step: int, act: Callable[[], object]) -> Step:
    """A train_step that does something before that step."""
    original = Fit.train_step

    def train_step(self: Fit, batches: list[Batch]) -> None:
        if self.run.step == step:
            act()
        original(self, batches)

    return train_step


def interrupted(folder: Path, patch: pytest.MonkeyPatch, step: int) -> None:
    """A run that ends before that step as by a kill, with its last checkpoint just behind it."""

    def end() -> None:
        raise ZeroDivisionError

    with patch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Fit, "train_step", at_step(step, end))
        sitting(folder, "run", save_every_s=0.0)


def saved_step(folder: Path, name: str = "last.pt") -> int:
    return int(read_state(folder / "run" / name, "cpu")["run"]["step"])


# --- signals ---


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals, ending: type[BaseException], whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch, pytest.raises(ending) as stopped:
        patch.setattr(Fit, "train_step", at_step(2, lambda: os.kill(os.getpid(), number)))
        sitting(tmp_path, "run", say=said.append)
    assert getattr(stopped.value, "code", 143) == 143 and saved_step(tmp_path) == 3
    assert said == [f"{number.name}: saved after step 3 of 8 in {tmp_path / 'run' / 'last.pt'}; "
                    "start the same again and it goes on"]  # fmt: skip
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert losses_of(sitting(tmp_path, "run")) == losses_of(whole)


@pytest.mark.slow
def test_a_signal_in_the_validation_is_not_waited_with_and_costs_the_validation_only(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fit.validate

    def validate(self: Fit, val_set: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, val_set)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Fit, "validate", validate)
        sitting(tmp_path, "run", say=lambda line: None)
    assert saved_step(tmp_path) == 4 and not (tmp_path / "run" / "history.json").exists()
    again = sitting(tmp_path, "run")
    assert losses_of(again) == losses_of(whole) and again.best_epoch == whole.best_epoch


def test_the_second_signal_acts_and_an_echo_of_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        for echo in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), echo)
        assert signals.received == signal.SIGINT
        monkeypatch.setattr(faults, "ONE_WISH_S", 0.0)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # by nohup
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is None
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.slow
def test_twenty_kills_at_random_moments_and_in_writes_lose_no_saved_step_and_change_no_figure(
    whole: History, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.train.killed", str(tmp_path), "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lives = read_json(tmp_path / "lives.json")
    assert sum(life["killed"] for life in lives) == 20
    assert {"fsync", "link", "replace"} <= {life["moment"] for life in lives if life["killed"]}
    assert all(life["saved"] >= life["shown"] for life in lives)  # saved after every step, before it is shown
    assert all(b["saved"] >= a["saved"] for a, b in pairwise(lives) if a["out"] == b["out"])
    for out in sorted(tmp_path.glob("run*")):
        assert losses_of(sitting(tmp_path, out.name)) == losses_of(whole)
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


# --- files ---


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_one_interval_and_changes_no_figure(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    interrupted(tmp_path, monkeypatch, 6)
    assert (saved_step(tmp_path), saved_step(tmp_path, PREVIOUS)) == (6, 5)
    last = tmp_path / "run" / "last.pt"
    os.truncate(last, last.stat().st_size // 2)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):  # and once more, before anything is saved
        patch.setattr(Fit, "train_step", at_step(5, lambda: 1 // 0))
        sitting(tmp_path, "run", say=said.append)
    assert len(said) == 1 and said[0].endswith("going on from previous.pt, step 5")
    assert losses_of(sitting(tmp_path, "run", say=said.append)) == losses_of(whole) and len(said) == 2


def test_a_damaged_best_state_is_told_and_stage_2_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    cut = lambda: os.truncate(tmp_path / "run" / "best_state.pt", 1000)  # noqa: E731
    original = Fit.enter_stage_2
    monkeypatch.setattr(Fit, "enter_stage_2", lambda self: (cut(), original(self)))
    assert sitting(tmp_path, "run", say=said.append).finished
    assert len(said) == 1 and said[0].endswith("from the last weights of stage 1 instead of the best")


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, saves = torch.save, []

    def save(state: object, file: object) -> None:
        saves.append(file)
        if len(saves) > 3:
            file.write(b"half of it")  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        original(state, file)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"run, No space left on device \(\d+ MiB free\)"):
        patch.setattr("kit.train.checkpoints.torch.save", save)
        sitting(tmp_path, "run", save_every_s=0.0)
    assert saved_step(tmp_path) == 3 and saved_step(tmp_path, PREVIOUS) == 2
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert losses_of(sitting(tmp_path, "run")) == losses_of(whole)


@pytest.mark.slow
def test_a_run_goes_on_in_another_folder_with_its_data_elsewhere(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "here", monkeypatch, 5)
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    assert losses_of(sitting(Path("there"), "run")) == losses_of(whole)


def test_a_clock_that_jumps_ends_nothing_and_saves_nothing(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
    history = sitting(tmp_path, "run", max_minutes=600.0, save_every_s=36000.0)
    assert history.finished and losses_of(history) == losses_of(whole)
    assert all(0 <= epoch["seconds"] < 36000 for epoch in history.epochs)


# --- images and the processes that read them ---


def spoil(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number}.png").write_bytes(b"no image")


def test_an_image_that_breaks_in_an_epoch_is_stood_in_for_told_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Fit, "train_step", at_step(4, lambda: spoil(tmp_path / "train", 3)))
    history = sitting(tmp_path, "run", say=said.append)
    assert [epoch["unreadable_images"] for epoch in history.epochs] == [0, 1] and history.finished
    assert len(said) == 1 and said[0].startswith("epoch 2: another image stands in for one: ")
    assert "3.png: expected an image, the file cannot be decoded" in said[0]


def test_too_many_images_that_cannot_be_read_end_the_run_with_their_names(tmp_path: Path) -> None:
    sitting(tmp_path, "first", epochs=1, strong_until_epoch=None)
    spoil(tmp_path / "train", 3, 5)
    with pytest.raises(ValueError, match=r"at most 1 unreadable of 8 training images in an epoch, found 2: .*3\.png, "):
        sitting(tmp_path, "run", say=lambda line: None, fresh=False)


def test_an_image_that_cannot_be_validated_on_is_an_error(tmp_path: Path) -> None:
    sitting(tmp_path, "first", epochs=1, strong_until_epoch=None)
    spoil(tmp_path / "val", 2)
    with pytest.raises(ValueError, match=r"2\.png: expected an image, the file cannot be decoded"):
        sitting(tmp_path, "run", fresh=False)
    assert saved_step(tmp_path) == 4


@pytest.mark.slow
def test_a_reading_process_that_is_killed_ends_the_run_between_two_steps_with_nothing_lost(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a process that reads images died") as error:
        patch.setattr(Fit, "train_step", at_step(1, kill))
        sitting(tmp_path, "run", workers=1)
    step = saved_step(tmp_path)
    assert step >= 2 and f"saved after step {step} of 8" in str(error.value)
    assert losses_of(sitting(tmp_path, "run", workers=1)) == losses_of(whole)


@pytest.mark.slow
def test_a_signal_that_ends_the_reading_processes_too_ends_the_run_as_one_to_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_all() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="saved after step 2 of 8"):
        monkeypatch.setattr(Fit, "train_step", at_step(1, interrupt_all))
        sitting(tmp_path, "run", workers=1, say=lambda line: None)
    assert saved_step(tmp_path) == 2


# --- figures that are none ---


def test_a_number_that_is_none_in_one_image_stops_before_any_weight_moves_and_names_it(
    whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, spoilt = Fit.train_step, []

    def train_step(self: Fit, batches: list[Batch]) -> None:
        if self.run.step == 2:
            batches[0].targets[1].boxes[0, 2] = float("nan")
            spoilt.extend(batches[0].image_ids)
        original(self, batches)

    with monkeypatch.context() as patch, pytest.raises(FloatingPointError) as error:
        patch.setattr(Fit, "train_step", train_step)
        sitting(tmp_path, "run", save_every_s=0.0)
    assert f"on images {spoilt}: the boxes of image [{spoilt[1]}] are not finite" in str(error.value)
    assert "saved after step 2 of 8" in str(error.value) and saved_step(tmp_path) == 2
    assert losses_of(sitting(tmp_path, "run")) == losses_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("save_every_s", [0.0, 3600.0])
def test_a_gradient_that_is_no_number_never_comes_into_a_checkpoint(
    save_every_s: float, whole: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fit.train_step

    def train_step(self: Fit, batches: list[Batch]) -> None:
        if self.run.step == 5:
            weight = self.run.detector.decoder.score[0].weight
            weight.register_hook(lambda gradient: gradient * float("nan"))
        original(self, batches)

    words = r"expected finite weights" if save_every_s == 0 else r"step 6: .* a gradient of step 5, on images \["
    with monkeypatch.context() as patch, pytest.raises(FloatingPointError, match=words):
        patch.setattr(Fit, "train_step", train_step)
        sitting(tmp_path, "run", save_every_s=save_every_s)
    assert saved_step(tmp_path) == (5 if save_every_s == 0 else 4)
    assert losses_of(sitting(tmp_path, "run")) == losses_of(whole)


# --- another batch size ---


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[int]]]]:
    """(step, image ids) of every step."""
    steps: list[tuple[int, list[int]]] = []
    original = Fit.train_step

    def train_step(self: Fit, batches: list[Batch]) -> None:
        steps.append((self.run.step, [image_id for batch in batches for image_id in batch.image_ids]))
        original(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "train_step", train_step)
        yield steps


@pytest.mark.slow
def test_another_batch_size_is_by_choice_and_keeps_the_place_by_images(
    seen: list[tuple[int, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, monkeypatch, 7)  # 6 of the 8 images of the second epoch
    before = [image_id for step, ids in seen if step >= 4 for image_id in ids]
    with pytest.raises(ValueError, match=r"differs in batch_size \(2, now 4\); adapt=True goes on"):
        sitting(tmp_path, "run", batch_size=4)
    seen.clear()
    said: list[str] = []
    history = sitting(tmp_path, "run", batch_size=4, adapt=True, say=said.append)
    after = [image_id for _, ids in seen for image_id in ids]
    assert [step for step, _ in seen] == [3] and sorted({*before, *after}) == list(range(1, 9))
    assert said == ["going on with other batch_size (2, now 4): step 7 of old is step 3 now, in epoch 2; "
                    "2 of its images are seen again"]  # fmt: skip
    assert len(history.epochs) == 2 and history.finished
    assert history.epochs[1]["loss"] == pytest.approx(history.epochs[0]["loss"], rel=0.5)
