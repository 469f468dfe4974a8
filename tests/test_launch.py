import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.files import read_json
from kit.launch import LAUNCHER, hosts_command, is_orphan, launch, telling
from kit.train import read_state
from tests.train.killed import sitting

WITHIN_S = 60  # after the fault the whole run is over: far more than it takes, far less than a lost peer is waited for


def test_the_line_for_several_hosts_names_their_meeting_place_and_comes_before_the_module() -> None:
    command = hosts_command("kit.shards", ["runs/a b", "--batch", "4"], processes=8, hosts=3)
    assert " python -m torch.distributed.run --nnodes 3 --rdzv-backend c10d --rdzv-endpoint HOST:" in command
    assert command.startswith("TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 python")
    assert command.endswith("--nproc-per-node 8 --max-restarts 0 -m kit.shards 'runs/a b' --batch 4")


def test_no_process_at_all_and_fewer_than_no_restarts_are_refused() -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        launch("kit.shards", [], 0, print)
    with pytest.raises(ValueError, match="max_restarts must be at least 0, got -1"):
        hosts_command("kit.shards", [], 2, 2, max_restarts=-1)


def test_a_worker_knows_when_the_process_that_launched_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAUNCHER, raising=False)
    assert not is_orphan()  # started by hand
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setenv(LAUNCHER, str(process.pid))
    assert not is_orphan()
    process.communicate(b"\n")
    assert is_orphan()


@pytest.mark.slow
def test_all_processes_run_and_their_lines_arrive() -> None:
    lines: list[str] = []
    launch("tests.launched", ["well"], 2, lines.append)
    assert sorted(line[:11] for line in lines) == ["rank 0 of 2", "rank 1 of 2"]


@pytest.mark.slow
def test_when_one_process_fails_the_others_are_taken_down_and_the_error_tells_what_it_said(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"(?s)2 processes to end well, got exit status 1.*rank 0 of 2.*exitcode: 3"):
        launch("tests.launched", ["badly", str(tmp_path)], 2, lines.append)
    (waiting,) = (int(path.name) for path in tmp_path.iterdir())
    assert ends(waiting)


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_run_goes_on_from_its_checkpoint_to_the_same_losses(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    launch("tests.train.launched_training", [str(tmp_path / "whole"), "5", "0", "kill"], 2, lines.append)
    launch(
        "tests.train.launched_training", [str(tmp_path / "killed"), "5", "1", "kill"], 2, lines.append, max_restarts=1
    )
    assert {"life 0, rank 0: finished True", "life 1, rank 1: finished True"} <= set(lines)
    whole, killed = (read_json(tmp_path / name / "run" / "history.json") for name in ("whole", "killed"))
    for one, other in zip(whole, killed, strict=True):
        assert {"loss", "ap", "fgl"} <= set(one) == set(other)
        assert all(other[name] == pytest.approx(one[name], rel=1e-6) for name in one if "seconds" not in name)


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_its_own_error_and_one_process_may_go_on_by_choice(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)2 processes to end well.*exitcode: -9"):
        launch("tests.train.launched_training", [str(tmp_path), "5", "1", "kill"], 2, lambda line: None)
    assert time.time() - float((tmp_path / "fault_s").read_text()) < WITHIN_S
    with pytest.raises(ValueError, match=r"differs in world \(2, now 1\); adapt=True goes on"):
        sitting(tmp_path / "0", "../run")
    said: list[str] = []
    history = sitting(tmp_path / "0", "../run", adapt=True, say=said.append)
    assert history.finished and [epoch["epoch"] for epoch in history.epochs] == [0, 1]
    assert said == ["going on with other world (2, now 1): step 5 of old is step 5 now, in epoch 2; "
                    "0 of its images are seen again"]  # fmt: skip


@pytest.mark.slow
def test_a_group_that_is_asked_to_end_saves_and_later_one_that_fails_tells_its_own_error(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match="2 processes to end well"):
        launch("tests.train.launched_training", [str(tmp_path), "2", "1", "end"], 2, lines.append)
    assert read_state(tmp_path / "run" / "last.pt", "cpu")["run"]["step"] in (2, 3)  # the end of the step it came in
    assert any("SIGTERM: saved after step" in line for line in lines)
    with pytest.raises(RuntimeError, match=r"(?s)2 processes to end well.*photo 17 has a fault of its own") as error:
        launch("tests.train.launched_training", [str(tmp_path), "3", "1", "raise"], 2, lines.append)
    assert time.time() - float((tmp_path / "fault_s").read_text()) < WITHIN_S
    assert "[rank0]" not in str(error.value)  # which only lost its peer
    assert read_state(tmp_path / "run" / "last.pt", "cpu")["run"]["step"] == 3


def test_of_what_several_processes_said_the_first_failure_is_told() -> None:
    lost = [f"[rank0]: line {number}" for number in range(50)]
    root = ["Root Cause (first observed failure):", "[0]:", "  time : 1", "  rank      : 1 (local_rank: 1)"]
    said = ["a", "[rank1]: ValueError: mine", *lost, "E1 failed (exitcode: 1) local_rank: 1", "at length", *root]
    assert telling(said) == ["a", "[rank1]: ValueError: mine", "E1 failed (exitcode: 1) local_rank: 1"]
    assert telling(["a", "b"]) == ["a", "b"] and telling([]) == []


def ends(process: int) -> bool:
    for _ in range(500):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
