"""Two hosts, as far as one machine can have them: two torchrun agents of one process each that meet on the loopback."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kit.files import read_json
from kit.launch import hosts_command
from kit.params import ROOT
from kit.train import read_state
from kit.train.job_file import write_job
from tests import tiny


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("localhost", 0))
        return int(door.getsockname()[1])


@pytest.mark.slow
def test_two_hosts_train_one_run_from_the_line_that_is_printed_for_them(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "train", images=4), tiny.dataset(tmp_path / "val", images=3, seed=1)
    plan = tiny.plan(epochs=2, strong_until_epoch=1)
    job = write_job(tmp_path / "run", tiny.detector(), *data, plan)
    line = hosts_command("kit.train.job", [str(job)], processes=1, hosts=2)
    words = shlex.split(line.replace("HOST:29500", f"localhost:{free_port()}"))
    command = ["env", *(sys.executable if word == "python" else word for word in words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    hosts = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        said = [host.communicate(timeout=300)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
            host.wait()
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(said)
    assert [sum("epoch   2  loss" in text for text in said), *map(lambda text: "Traceback" in text, said)] == [1, 0, 0]
    history = read_json(tmp_path / "run" / "history.json")
    assert [each["epoch"] for each in history] == [0, 1] and "ap" in history[1]
    assert read_state(tmp_path / "run" / "last.pt", "cpu")["run"]["step"] == 4
    assert read_json(tmp_path / "run" / "job" / "result.json")["finished"]
