import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kit.files import read_json
from kit.train import History, job
from kit.train.job import Voice, fit_in_processes, main, refuse_unequal_shares
from kit.train.job_file import JOB
from tests import tiny


def test_a_batch_that_cannot_be_dealt_evenly_is_refused() -> None:
    refuse_unequal_shares(tiny.plan(batch_size=12, accumulate=2), 3)
    with pytest.raises(
        ValueError, match=r"batch_size: expected a multiple of 6 \(accumulate 2 x 3 processes\).* got 8"
    ):
        refuse_unequal_shares(tiny.plan(batch_size=8, accumulate=2), 3)


def test_the_line_for_several_hosts_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/a/03_train/job.json", "--hosts", "2", "--processes", "8"]) == 0
    line = capsys.readouterr().out
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 8 --max-restarts 3" in line
    assert line.endswith("-m kit.train.job runs/a/03_train/job.json\n")


def test_a_process_whose_notebook_is_gone_asks_once_to_stop_and_says_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, number: signals.append((process, number)))
    voice, gone = Voice(0, 2), False
    monkeypatch.setattr(job, "is_orphan", lambda: gone)
    voice.step(1, 9)
    gone = True
    voice.step(9, 9)
    voice.step(9, 9)
    voice.say("saved")
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert capsys.readouterr().out == "step 1 of 9\n"


def train(folder: Path, processes: int, **how: Any) -> History:
    data = tiny.dataset(folder / "train", images=5), tiny.dataset(folder / "val", images=3, seed=1)
    plan = tiny.plan(epochs=2, strong_until_epoch=1)
    return fit_in_processes(processes, tiny.detector(), *data, out=folder / "run", plan=plan, **how)


@pytest.mark.slow
def test_a_notebook_trains_in_two_processes_and_hears_of_each_step_and_epoch_once(tmp_path: Path) -> None:
    figures: list[dict[str, float]] = []
    steps: list[tuple[int, int]] = []
    history = train(tmp_path, 2, log=figures.append, progress=lambda done, of: steps.append((done, of)), say=print)
    assert history.finished and history.best_weights.is_file() and history.best_epoch in (0, 1)
    assert figures == history.epochs == read_json(tmp_path / "run" / "history.json")
    assert [each["epoch"] for each in figures] == [0, 1] and steps[-1] == (4, 4)
    assert steps == sorted(set(steps))
    assert [path.name for path in tmp_path.glob("run/*.json")].count(JOB) == 1
    with pytest.raises(ValueError, match=r"differs in world \(2, now 1\)"):
        train(tmp_path, 1)


@pytest.mark.slow
def test_what_a_process_fails_of_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(b"cut off")
    with pytest.raises(
        RuntimeError, match=r"(?s)kit.train.job: expected 2 processes to end well.*last\.pt: expected a"
    ):
        train(tmp_path, 2, say=lambda line: None)
