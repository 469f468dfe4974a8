"""What test_faults trains, and kills: `python -m tests.train.killed FOLDER TIMES` leaves lives.json, a line a life.

Each life is a fork of one process that has torch loaded; it is killed by SIGKILL a random time after its start or after
a step began, or in the middle of a write: before a file is flushed, before the checkpoint of before is kept, before a
file takes its name.
"""

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kit import files
from kit.data.dataset import Batch, CocoDataset
from kit.files import read_json, write_json
from kit.train import Fit, History, checkpoints, fit
from kit.train.checkpoints import read_state
from tests import tiny

CHANGES: dict[str, Any] = {"epochs": 2, "strong_until_epoch": 1, "save_every_s": 3600.0}  # saved after each epoch
MOMENTS = ("time", "fsync", "step", "link", "step", "replace")


def sitting(
    folder: Path,
    out: str,
    say: Callable[[str], object] = warnings.warn,
    adapt: bool = False,
    fresh: bool = True,
    **changes: Any,
) -> History:
    """A call of fit on the drawn squares; fresh: they are drawn anew, whatever has become of them."""

    def data(part: str, **how: int) -> CocoDataset:
        if fresh or not (folder / part / "all.json").exists():
            return tiny.dataset(folder / part, **how)
        made = tiny.dataset(folder / "fresh" / part, **how)
        return CocoDataset(made.coco, folder / part, made.policy, made.seed)

    return fit(
        tiny.detector(),
        data("train"),
        data("val", images=2, seed=1),
        out=folder / out,
        plan=tiny.plan(**(CHANGES | changes)),
        adapt=adapt,
        say=lambda line: (say(line), None)[1],
    )


def losses_of(history: History) -> list[dict[str, float]]:
    return [{name: value for name, value in each.items() if "seconds" not in name} for each in history.epochs]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(call: int, original: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            die()
        return original(*arguments)

    return counted


def live(folder: Path, out: str, moment: str, chance: random.Random) -> None:
    """One life, in a process of its own."""
    if moment == "time":
        threading.Timer(chance.uniform(0.02, 3.0), die).start()
    elif moment == "step":
        original, delay = Fit.train_step, chance.uniform(0.0, 1.0)

        def train_step(self: Fit, batches: list[Batch]) -> None:
            threading.Timer(delay, die).start()
            original(self, batches)

        Fit.train_step = train_step  # type: ignore[method-assign]
    elif moment == "fsync":
        checkpoints.os.fsync = dying_at(chance.randint(2, 5), os.fsync)  # type: ignore[attr-defined]
    elif moment == "link":
        checkpoints.link = dying_at(chance.randint(1, 2), files.link)  # type: ignore[attr-defined]
    else:
        Path.replace = dying_at(chance.randint(1, 8), Path.replace)  # type: ignore[method-assign]
    sitting(folder, out, save_every_s=0.0)


def step_of(path: Path) -> int:
    if not path.exists():
        return 0
    return int(read_json(path)["step"] if path.suffix == ".json" else read_state(path, "cpu")["run"]["step"])


def main(folder: Path, times: int) -> None:
    chance, lives, run = random.Random(0), [], 0
    torch.set_num_threads(1)
    tiny.dataset(folder / "train")
    while sum(life["killed"] for life in lives) < times:
        out, moment = f"run{run}", MOMENTS[len(lives) % len(MOMENTS)]
        own = random.Random(chance.random())
        process = os.fork()
        if process == 0:
            live(folder, out, moment, own)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status in (0, -signal.SIGKILL), f"life {len(lives)}, {moment}: status {status}"
        run += status == 0
        saved, shown = step_of(folder / out / "last.pt"), step_of(folder / out / "progress.json")
        lives.append({"moment": moment, "killed": status != 0, "saved": saved, "shown": shown, "out": out})
    write_json(folder / "lives.json", lives)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
