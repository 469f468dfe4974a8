"""What a training leaves on the disk, and how it comes back.

last.pt and previous.pt hold all that moves, best.pt the best average for a predictor, best_state.pt what stage 2 goes
on from, history.json a line an epoch.
"""

import hashlib
import json
import time
import warnings
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from kit.data.coco import CocoFile, columns_of
from kit.data.dataset import CocoDataset
from kit.dfine.detector import Detector
from kit.dfine.weights import save_weights
from kit.files import write_json
from kit.optimisation import Plan
from kit.train.checkpoints import (
    CHECKPOINT,
    FORGOTTEN,
    PREVIOUS,
    DamagedError,
    Say,
    Stride,
    clear_remains,
    differences,
    read_newest,
    read_state,
    refuse_other_run,
    stride,
    write_generation,
    write_state,
)
from kit.train.faults import CALMER, are_finite
from kit.train.ranks import averaged, from_first_rank, gathered, rank_and_world, wait_for_all
from kit.train.run import Run

BEST, BEST_STATE, HISTORY, PROGRESS = "best.pt", "best_state.pt", "history.json", "progress.json"
FREE = ("max_minutes", "workers", "patience", "save_every_s", "val_every", "keep_epochs")  # may change in a run
DEFAULTS = {  # of what older checkpoints do not know yet
    each.name: list(each.default) if isinstance(each.default, tuple) else each.default
    for each in fields(Plan)
    if each.default is not MISSING and each.name not in FREE
}


class Store:
    """The files of one run. In a process group only the first process writes.

    identity: what has to be the same for a run to go on, as `identity_of` makes it; about: goes into the weights.
    """

    def __init__(self, out: Path, run: Run, plan: Plan, identity: str, about: dict[str, Any]):
        self.out, self.run, self.plan, self.identity, self.about = out, run, plan, identity, about
        self.device = next(run.detector.parameters()).device
        self.rank, self.world = rank_and_world()
        self.say = cast(Say, warnings.warn)
        self.last_is_whole = True  # CHECKPOINT, if it is there, may become PREVIOUS
        self.saved_at, self.saved_step = time.monotonic(), 0

    def restore(self, adapt: bool) -> None:
        """The run as it was saved last, if it was; adapt: also one of another batch size or number of processes."""
        if self.rank == 0:
            clear_remains(self.out, self.say)
        wait_for_all(self.world)
        found = read_newest(self.out, self.device, self.say if self.rank == 0 else lambda line: None)
        step = found[0]["run"]["step"] if found else 0
        if from_first_rank({"step": step}, self.world)["step"] != step:
            raise ValueError(
                f"{self.out}: expected what the first process finds, found step {step}; is the disk shared?"
            )
        if found is None:
            return
        state, self.last_is_whole = found
        was = DEFAULTS | json.loads(state["fingerprint"])
        differing = differences(was, json.loads(self.identity))
        refuse_other_run(self.out / CHECKPOINT, differing, adapt)
        self.run.load(state["run"])
        if differing:
            self.adapt_place(was, differing)
        self.saved_step = self.run.step
        if self.rank == 0:
            write_json(self.out / HISTORY, self.run.history, indent=1)  # may have been ahead

    def adapt_place(self, was: dict[str, Any], differing: dict[str, str]) -> None:
        """Sums and the age of the average are counted in steps; the place in the run in images."""
        run, ours, old = self.run, stride_of(json.loads(self.identity)), stride_of(was)
        step, old_step = ours.step_at(run.step, old), run.step
        in_epoch = old_step % old.steps_per_epoch
        share = step % ours.steps_per_epoch / in_epoch if in_epoch else ours.steps_per_epoch / old.steps_per_epoch
        run.step, run.sums = step, {name: total * share for name, total in run.sums.items()}
        run.average.updates = round(run.average.updates * old.images_per_step / ours.images_per_step)
        if self.rank == 0:
            changes = "; ".join(f"{name} ({text})" for name, text in differing.items())
            again = in_epoch * old.images_per_step - step % ours.steps_per_epoch * ours.images_per_step
            self.say(
                f"going on with other {changes}: step {old_step} of old is step {step} now, in epoch "
                f"{step // ours.steps_per_epoch + 1}; {again if in_epoch else 0} of its images are seen again"
            )

    def forget(self) -> None:
        wait_for_all(self.world)
        if self.rank == 0:
            for name in (CHECKPOINT, PREVIOUS, FORGOTTEN, BEST, BEST_STATE, HISTORY, PROGRESS):
                (self.out / name).unlink(missing_ok=True)
            for path in self.out.glob("epoch_*.pt"):
                path.unlink()
            clear_remains(self.out, self.say)
        wait_for_all(self.world)

    def save(self) -> None:
        """All ranks together: the file of the first also holds what the others have summed and could not read."""
        run = self.run
        run.sums = averaged(run.sums, self.world)
        run.unreadable = sorted(set(gathered(run.unreadable, self.world)))
        self.write()

    def write(self) -> None:
        self.refuse_broken()
        if self.rank == 0:
            state = {"fingerprint": self.identity, "run": self.run.state()}
            write_generation(self.out, state, keep=self.last_is_whole)
            self.last_is_whole = True
        self.saved_at, self.saved_step = time.monotonic(), self.run.step

    def refuse_broken(self) -> None:
        """A gradient that is not finite shows in the loss a step late; until then nothing of it comes to the disk."""
        if not are_finite(self.run.detector, self.run.average.detector):
            raise FloatingPointError(
                f"step {self.run.step}: expected finite weights, a gradient of a step since {self.saved_step} was not; "
                f"{self.out / CHECKPOINT} stays as it was after step {self.saved_step}; {CALMER}"
            )

    def save_best(self) -> None:
        if self.rank == 0:
            self.save_average(self.out / BEST, {self.plan.select_by: self.run.best})
            if self.plan.best_into_stage_2 and self.run.stage == 1:
                write_state(self.out / BEST_STATE, self.run.state())

    def save_average(self, path: Path, figures: dict[str, float]) -> None:
        """The moving average, with all that a predictor needs and, if known, the figure that chooses."""
        self.refuse_broken()
        if self.rank == 0:
            name = self.plan.select_by
            extra = {name: figures[name]} if name in figures else {}
            save_weights(self.run.average.detector, path, self.about | extra)

    def load_best(self) -> None:
        """The state that was best in stage 1; where it is damaged the present one stays, and this is said."""
        try:
            self.run.load_weights_of(read_state(self.out / BEST_STATE, self.device))
        except DamagedError as error:
            self.say(f"{error}; stage 2 goes on from the last weights of stage 1 instead of the best")


def identity_of(plan: Plan, detector: Detector, train_set: CocoDataset, val_set: CocoDataset | None, world: int) -> str:
    """What has to be the same for a run to go on; time limits, workers and patience may change."""
    fixed = {name: value for name, value in asdict(plan).items() if name not in FREE}
    kind = {"size": asdict(detector.size), "num_classes": detector.num_classes, "channels": detector.channels}
    data = {"labels": mark_of(train_set.coco), "val": val_set and mark_of(val_set.coco)}
    return json.dumps(fixed | kind | data | {"images": len(train_set), "world": world}, sort_keys=True)


def stride_of(identity: dict[str, Any]) -> Stride:
    return stride(identity["images"], identity["batch_size"], identity["accumulate"], identity["world"])


def mark_of(coco: CocoFile) -> str:
    """Changes with the images and their boxes and labels."""
    columns, mark = columns_of(coco), hashlib.sha256()
    for name in columns.file_names:
        mark.update(f"{name}\0".encode())
    boxes = (columns.boxes_xywh_px, columns.labels, columns.is_crowd)
    for values in (columns.image_ids, columns.offsets, *boxes):
        mark.update(np.ascontiguousarray(values).view(np.uint8).data)
    return mark.hexdigest()[:16]


def epoch_weights(out: Path | str, epoch: int) -> Path:
    """Where plan.keep_epochs leaves the weights of an epoch. It counts from 0, as in the history; the file from 1."""
    return Path(out) / f"epoch_{epoch + 1}.pt"
