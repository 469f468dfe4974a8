"""Several processes of one module, on this machine or on many: torchrun, started as a process of its own.

A notebook cannot be forked into workers; it starts them here, shows their lines, and takes them all down with it.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

from kit.params import ROOT

STOP_S = 15.0  # for the workers to leave after they have been asked to
LAST_LINES = 25  # of the output, in an error
TORCHRUN = "torch.distributed.run"
LAUNCHER = "KIT_LAUNCHER"  # in the environment of the workers: the process that called `launch`
WORKER_FAILED = "failed (exitcode: "  # torchrun's first line on it


def launch(
    module: str,
    arguments: Sequence[str],
    processes: int,
    say: Callable[[str], None],
    threads: int = 1,
) -> None:
    """Runs `python -m module arguments` in so many processes of this machine until all are done; say gets their lines.

    They start in the root of the repository, each with RANK, LOCAL_RANK and WORLD_SIZE in its environment. If one
    fails, or this call is interrupted, all end. Torchrun makes them unbuffered, so `print` writes a line and its end
    apart, and lines of two processes mix: let them `sys.stdout.write(line + "\\n")`.
    """
    command = [sys.executable, "-m", TORCHRUN, "--standalone", *torchrun_arguments(module, arguments, processes)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), LAUNCHER: str(os.getpid())}
    last: deque[str] = deque(maxlen=LAST_LINES)  # up to where torchrun says at length that a worker failed
    is_over = False
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout or ():
            last.extend([] if is_over else [line.rstrip()])
            is_over = is_over or WORKER_FAILED in line
            say(line.rstrip())
        status = process.wait()
    finally:
        stop(process)
    if status:
        raise RuntimeError(f"{module}: expected {processes} processes to end well, {failure(status, list(last))}")


def is_orphan() -> bool:
    """In a worker: the process that launched it was killed without taking it along. Nobody will read what it says."""
    launcher = os.environ.get(LAUNCHER)
    try:
        os.kill(int(launcher) if launcher else os.getpid(), 0)  # signal 0 only asks whether it is there
    except ProcessLookupError:
        return True
    return False


def torchrun_arguments(module: str, arguments: Sequence[str], processes: int) -> list[str]:
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    return ["--nproc-per-node", str(processes), "--max-restarts", "0", "-m", module, *arguments]


def stop(process: subprocess.Popen[str]) -> None:
    """Torchrun takes its workers down when it is asked to end; it is made to where it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


def failure(status: int, lines: Sequence[str]) -> str:
    how = f"killed by signal {-status}" if status < 0 else f"got exit status {status}"
    return "\n".join([f"{how}; what was said last:", *(f"    {line}" for line in lines)])


def hosts_command(module: str, arguments: Sequence[str], processes: int, hosts: int) -> str:
    """The line to start on each of several hosts, in the root of a repository that they share; HOST is one of them."""
    where = ["--nnodes", str(hosts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    return shlex.join(["python", "-m", TORCHRUN, *where, *torchrun_arguments(module, arguments, processes)])
