import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.launch import LAUNCHER, hosts_command, is_orphan, launch


def test_the_line_for_several_hosts_names_their_meeting_place_and_comes_before_the_module() -> None:
    command = hosts_command("kit.shards", ["runs/a b", "--batch", "4"], processes=8, hosts=3)
    assert command.startswith("python -m torch.distributed.run --nnodes 3 --rdzv-backend c10d --rdzv-endpoint HOST:")
    assert command.endswith("--nproc-per-node 8 --max-restarts 0 -m kit.shards 'runs/a b' --batch 4")


def test_no_process_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        launch("kit.shards", [], 0, print)


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


def ends(process: int) -> bool:
    for _ in range(500):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
