"""Several processes of one module, on this machine or on many: torchrun, started as a process of its own.

A notebook cannot be forked into workers; it starts them here, shows their lines, and takes them all down with it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

from kit.params import ROOT

STOP_S = 45.0  # for the workers to leave after they have been asked to; torchrun kills them after 30
LAST_LINES = 25  # of the output, in an error
TORCHRUN = "torch.distributed.run"
LAUNCHER = "KIT_LAUNCHER"  # in the environment of the workers: the process that called `launch`
WORKER_FAILED = "failed (exitcode: "  # torchrun's first line on it
OF_RANK = re.compile(r"\[rank(\d+)\]: ")  # before each line of a traceback
FIRST_FAILED = re.compile(r"^\s*rank\s*: (\d+)")  # below ROOT_CAUSE
ROOT_CAUSE = "Root Cause"
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else those started again read where the dead ones were


def launch(
    module: str,
    arguments: Sequence[str],
    processes: int,
    say: Callable[[str], None],
    threads: int = 1,
    max_restarts: int = 0,
) -> None:
    """Runs `python -m module arguments` in so many processes of this machine until all are done; say gets their lines.

    They start in the root of the repository, each with RANK, LOCAL_RANK and WORLD_SIZE in its environment. If one
    fails, or this call is interrupted, all end. Torchrun makes them unbuffered, so `print` writes a line and its end
    apart, and lines of two processes mix: let them `sys.stdout.write(line + "\\n")`. max_restarts: so often all are
    started again when one fails; a training goes on from its last checkpoint.
    """
    command = [
        sys.executable,
        "-m",
        TORCHRUN,
        "--standalone",
        *torchrun_arguments(module, arguments, processes, max_restarts),
    ]
    environment = os.environ | OWN_STORE | {"OMP_NUM_THREADS": str(threads), LAUNCHER: str(os.getpid())}
    said: deque[str] = deque(maxlen=40 * LAST_LINES)
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
            said.append(line.rstrip())
            say(line.rstrip())
        status = process.wait()
    finally:
        stop(process)
    if status:
        raise RuntimeError(f"{module}: expected {processes} processes to end well, {failure(status, list(said))}")


def is_orphan() -> bool:
    """In a worker: the process that launched it was killed without taking it along. Nobody will read what it says."""
    launcher = os.environ.get(LAUNCHER)
    try:
        os.kill(int(launcher) if launcher else os.getpid(), 0)  # signal 0 only asks whether it is there
    except ProcessLookupError:
        return True
    return False


def torchrun_arguments(module: str, arguments: Sequence[str], processes: int, max_restarts: int = 0) -> list[str]:
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    if max_restarts < 0:
        raise ValueError(f"max_restarts must be at least 0, got {max_restarts}")
    return ["--nproc-per-node", str(processes), "--max-restarts", str(max_restarts), "-m", module, *arguments]


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
    return "\n".join([f"{how}; what was said last:", *(f"    {line}" for line in telling(lines))])


def telling(lines: Sequence[str]) -> list[str]:
    """Of all that was said: the end, without what torchrun says at length, and of tracebacks the one that came first.

    The others have lost a process that they were talking to.
    """
    marks = [index for index, line in enumerate(lines) if WORKER_FAILED in line]
    own, first = lines[: marks[-1] + 1] if marks else lines, first_failed(lines)
    return [line for line in own if first is None or not (of := OF_RANK.search(line)) or of[1] == first][-LAST_LINES:]


def first_failed(lines: Sequence[str]) -> str | None:
    """The rank, as torchrun tells it in its last words."""
    causes = [index for index, line in enumerate(lines) if ROOT_CAUSE in line]
    found = [match[1] for line in lines[causes[-1] :] if (match := FIRST_FAILED.match(line))] if causes else []
    return found[0] if found else None


def hosts_command(module: str, arguments: Sequence[str], processes: int, hosts: int, max_restarts: int = 0) -> str:
    """The line to start on each of several hosts, in the root of a repository that they share; HOST is one of them."""
    where = ["--nnodes", str(hosts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    own_store = [f"{name}={value}" for name, value in OWN_STORE.items()]
    return shlex.join(
        [*own_store, "python", "-m", TORCHRUN, *where, *torchrun_arguments(module, arguments, processes, max_restarts)]
    )
