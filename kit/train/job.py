"""A training by several processes, of this machine or of many: what they need lies in one file of plain JSON.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m kit.train.job runs/mine/03_train/job.json

`fit_in_processes` writes it, starts them, and shows from a notebook what they say. Each reads the file, the labels and
the start weights beside it, and calls `fit`; whoever is killed and started again goes on from the last checkpoint.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed

from kit.data.dataset import CocoDataset
from kit.dfine.detector import Detector
from kit.files import read_json, write_json
from kit.launch import LAUNCHER, hosts_command, is_orphan, launch
from kit.optimisation import Plan
from kit.params import ROOT
from kit.predict import Progress
from kit.shards import local_device
from kit.train.checkpoints import Say
from kit.train.job_file import INPUTS, Job, from_root, read_job, write_job
from kit.train.loop import fit
from kit.train.ranks import wait_for_all
from kit.train.reports import Log, epoch_line
from kit.train.run import History
from kit.train.store import BEST, HISTORY

TELL_EVERY_S = 1.0
STEP, FIGURES = "step", "figures"  # how the lines begin that tell a notebook where the first process is
STEPS_DONE = re.compile(rf"{STEP} (\d+) of (\d+)")


def fit_in_processes(
    processes: int,
    detector: Detector,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    *,
    out: Path | str,
    plan: Plan,
    resume: bool = True,
    log: Log | None = None,
    progress: Progress | None = None,
    adapt: bool = False,
    say: Say = warnings.warn,
) -> History:
    """`fit` by so many new processes of this machine, each with a GPU of its own where there are any; 1: in this one.

    The same images make a step whatever their number. Interrupted, they save, and end with this call. The detector
    stays as it was handed over; workers are those of each process.
    """
    out = Path(out)
    if processes == 1:
        return fit(detector, train_set, val_set, out=out, plan=plan, resume=resume, log=log, progress=progress,
                   adapt=adapt, say=say)  # fmt: skip
    refuse_unequal_shares(plan, processes)
    job = write_job(out, detector, train_set, val_set, plan)
    result_file(out).unlink(missing_ok=True)
    say(f"on each of 2 hosts: {line_for_hosts(from_root(job), processes, 2)}")
    flags = ([] if resume else ["--begin-anew"]) + (["--adapt"] if adapt else [])

    def hear(line: str) -> None:
        steps = STEPS_DONE.fullmatch(line)
        if steps and progress:
            progress(int(steps[1]), int(steps[2]))
        elif line.startswith(f"{FIGURES} {{") and log:
            log(json.loads(line.removeprefix(f"{FIGURES} ")))
        elif not steps and not line.startswith(f"{FIGURES} {{"):
            say(line)

    threads = max(1, (os.cpu_count() or 1) // processes)
    launch("kit.train.job", [from_root(job), *flags], processes, hear, threads)
    return History(read_json(out / HISTORY), best_weights=out / BEST, **read_json(result_file(out)))


def line_for_hosts(job: str, processes: int, hosts: int) -> str:
    """To be started on each of them, in place of this call; what is killed is started again three times."""
    return hosts_command("kit.train.job", [job], processes, hosts, max_restarts=3)


def refuse_unequal_shares(plan: Plan, processes: int) -> None:
    shares = plan.accumulate * processes
    if plan.batch_size % shares:
        raise ValueError(
            f"batch_size: expected a multiple of {shares} (accumulate {plan.accumulate} x {processes} processes), so "
            f"that all have as many images, got {plan.batch_size}"
        )


def result_file(out: Path) -> Path:
    return out / INPUTS / "result.json"


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """One of the processes that torchrun starts; without it, the only one."""
    parser = argparse.ArgumentParser(prog="python -m kit.train.job", description=__doc__.partition("\n")[0])
    parser.add_argument("job", type=Path, help="a job.json of fit_in_processes")
    parser.add_argument("--adapt", action="store_true", help="go on with another batch or number of processes")
    parser.add_argument("--begin-anew", action="store_true", help="forget the checkpoints of the run")
    parser.add_argument("--hosts", type=int, help="train nothing: print the line to start on each of so many hosts")
    parser.add_argument("--processes", type=int, default=1, help="with --hosts: on each")
    options = parser.parse_args(arguments)
    if options.hosts:
        print(line_for_hosts(str(options.job), options.processes, options.hosts))
        return 0
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    voice, device = Voice(rank, world), local_device()
    with process_group(world, device):
        job = read_job(options.job)
        refuse_unequal_shares(job.plan, world)
        was_restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        history = do_job(job, device, voice, resume=not options.begin_anew or was_restarted, adapt=options.adapt)
        if rank == 0:
            result = {"best": history.best, "best_epoch": history.best_epoch, "finished": history.finished}
            write_json(result_file(ROOT / job.out), result)
        wait_for_all(world)
    return 0


def do_job(job: Job, device: torch.device, voice: "Voice", resume: bool, adapt: bool) -> History:
    rank, world = voice.rank, voice.world
    if job.cache and int(os.environ.get("LOCAL_RANK", 0)):
        wait_for_all(world)  # for the first of this host, which makes the file
    train_set = job.train_set()
    if job.cache and world > 1 and not int(os.environ.get("LOCAL_RANK", 0)):
        wait_for_all(world)
    return fit(
        job.detector().to(device),
        train_set,
        job.val_set(),
        out=ROOT / job.out,
        plan=job.plan,
        resume=resume,
        adapt=adapt,
        log=voice.figures if rank == 0 else None,
        progress=voice.step,
        say=voice.say,
    )


@contextmanager
def process_group(world: int, device: torch.device) -> Iterator[None]:
    """NCCL between GPUs, gloo between processors; left as it is after an error, for which the others do not wait."""
    if world == 1:
        yield
        return
    on_gpu = device.type == "cuda"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if on_gpu and local > torch.cuda.device_count():
        raise ValueError(f"processes: expected at most one a GPU, {torch.cuda.device_count()}, got {local}")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    yield
    torch.distributed.destroy_process_group()


class Voice:
    """What one process says: whole lines; and it asks to stop, once, when nobody is there any more to hear them."""

    def __init__(self, rank: int, world: int):
        self.rank, self.world = rank, world
        self.parent, self.is_heard, self.told_at = os.getppid(), True, -TELL_EVERY_S
        self.for_notebook = LAUNCHER in os.environ

    def write(self, line: str) -> None:
        if self.is_heard:
            sys.stdout.write(line + "\n")  # in one piece, as kit.launch asks for
            sys.stdout.flush()

    def say(self, text: str) -> None:
        self.write(f"process {self.rank + 1} of {self.world}: {text}")

    def figures(self, figures: dict[str, float]) -> None:
        self.write(f"{FIGURES} {json.dumps(figures)}" if self.for_notebook else epoch_line(figures))

    def step(self, done: int, of: int) -> None:
        """Of the first process, after each step."""
        now = time.monotonic()
        if self.is_heard and (is_orphan() or os.getppid() != self.parent):
            self.is_heard = False
            os.kill(os.getpid(), signal.SIGTERM)  # the end of the next step saves, and all processes leave
        if now - self.told_at >= TELL_EVERY_S or done == of:
            self.told_at = now
            self.write(f"{STEP} {done} of {of}")


if __name__ == "__main__":
    sys.exit(main())
