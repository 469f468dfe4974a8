"""What test_launch starts: a training by several processes, of which the second has a fault the first time round.

`python -m tests.train.launched_training FOLDER STEP TIMES FAULT`: before that step, in its first TIMES lives. FAULT is
`kill`, `raise` (an error of its own), or `end`: the launcher and all that it started are asked to end, as SLURM does.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from kit.data.dataset import Batch
from kit.train import Fit
from tests.train.killed import sitting

folder, step, times, fault = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rank, life = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
original = Fit.train_step


def train_step(self: Fit, batches: list[Batch]) -> None:
    if rank == 1 and life < times and self.run.step == step:
        (folder / "fault_s").write_text(str(time.time()))
        if fault == "raise":
            raise ValueError("photo 17 has a fault of its own")
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        launcher = os.getppid()
        for process in (launcher, *Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
            os.kill(int(process), signal.SIGTERM)
    original(self, batches)


Fit.train_step = train_step  # type: ignore[method-assign]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
history = sitting(folder / str(rank), "../run", save_every_s=0.0)
torch.distributed.destroy_process_group()
sys.stdout.write(f"life {life}, rank {rank}: finished {history.finished}\n")
