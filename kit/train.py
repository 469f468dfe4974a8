"""Training: one loop that can be killed at any moment and goes on exactly where it was."""

import hashlib
import json
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as Parallel

from kit.data.coco import CocoFile, as_coco, columns_of
from kit.data.dataset import Batch, CocoDataset, TrainSampler, train_loader
from kit.dfine.decoder import TrainOutput
from kit.dfine.denoising import make_denoising
from kit.dfine.detector import Detector
from kit.dfine.losses import Losses, losses
from kit.dfine.weights import UNREADABLE, save_weights
from kit.files import atomic, one_line, write_json
from kit.metrics import evaluate, match, official_f1_curve
from kit.optimisation import Average, Plan, make_optimizer, rate_share, set_rates
from kit.predict import Progress, predict_dataset, to_unit

Log = Callable[[dict[str, float]], None]

CHECKPOINT, BEST, BEST_STATE, HISTORY, PROGRESS = "last.pt", "best.pt", "best_state.pt", "history.json", "progress.json"


@dataclass
class Run:
    """All that moves while training; what a checkpoint holds."""

    detector: Detector
    average: Average
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0  # optimizer steps done
    stage: int = 1
    best: float = -1.0
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)  # of the loss terms, in the running epoch
    history: list[dict[str, float]] = field(default_factory=list)  # one entry an epoch
    seconds: float = 0.0  # of training, over all sittings

    def state(self) -> dict[str, Any]:
        moving = ("step", "stage", "best", "best_epoch", "sums", "history", "seconds")
        return {
            "detector": self.detector.state_dict(),
            "average": self.average.detector.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in moving},
        }

    def load_weights_of(self, state: dict[str, Any]) -> None:
        """Weights, average and optimizer; the place in the run stays."""
        self.detector.load_state_dict(state["detector"])
        self.average.detector.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def load(self, state: dict[str, Any]) -> None:
        self.load_weights_of(state)
        for name in ("step", "stage", "best", "best_epoch", "sums", "history", "seconds"):
            setattr(self, name, state[name])


@dataclass(frozen=True)
class History:
    """What `fit` gives back. epochs: one dict an epoch; best_epoch counts from 0; finished: False when time ran out."""

    epochs: list[dict[str, float]]
    best: float
    best_epoch: int
    best_weights: Path
    finished: bool


def fit(
    detector: Detector,
    train_set: CocoDataset,
    val_set: CocoDataset | None,
    *,
    out: Path | str,
    plan: Plan,
    resume: bool = True,
    log: Log | None = None,
    progress: Progress | None = None,
) -> History:
    """Trains, validates each epoch, and keeps the best weights (of the moving average) in out/best.pt.

    With plan.keep_epochs those after each epoch stay too, where `epoch_weights` says.
    Started again with the same arguments it goes on from out/last.pt, to the same losses as if it had not been stopped.
    In a process group (torchrun) each rank takes its share of every step. progress: gets (steps done, of how many).
    """
    run = Fit(detector, train_set, val_set, Path(out), plan, log or (lambda figures: None))
    run.progress = progress
    return run.run_all(resume)


class Fit:
    """One call of `fit`: what stays fixed, and the steps of the loop."""

    def __init__(
        self, detector: Detector, train_set: CocoDataset, val_set: CocoDataset | None, out: Path, plan: Plan, log: Log
    ):
        self.train_set, self.val_set, self.out, self.plan, self.log = train_set, val_set, out, plan, log
        self.device = next(detector.parameters()).device
        self.rank, self.world = rank_and_world()
        scaler = torch.amp.GradScaler(self.device.type, enabled=plan.amp == "fp16")
        recipe = plan.recipe
        average = Average(detector, recipe.ema_decay, recipe.ema_ramp)
        self.run = Run(detector, average, make_optimizer(detector, recipe), scaler)
        self.model: nn.Module = distributed(detector, self.device) if self.world > 1 else detector
        self.sampler = self.make_sampler(0)
        self.steps_per_epoch = self.sampler.steps_per_epoch // plan.accumulate
        self.total_steps = self.steps_per_epoch * plan.epochs
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"expected at least {plan.batch_size} training images for one step, got {len(train_set)}; "
                "lower batch_size"
            )
        self.stage_2_step = self.steps_per_epoch * (
            plan.epochs if plan.strong_until_epoch is None else plan.strong_until_epoch
        )
        self.saved_at = self.started_at = time.monotonic()
        self.progress: Progress | None = None
        self.recent: deque[float] = deque(maxlen=50)  # seconds of the last steps

    def make_sampler(self, start_step: int) -> TrainSampler:
        """Forward passes, not optimizer steps, are what the loader counts."""
        plan = self.plan
        return TrainSampler(
            len(self.train_set),
            max(1, plan.batch_size // plan.accumulate // self.world),
            plan.epochs,
            plan.seed,
            plan.sizes or [plan.size_hw],
            start_step,
            self.rank,
            self.world,
            sizes_until_epoch=plan.strong_until_epoch,
            size_hw=plan.size_hw if plan.strong_until_epoch is not None else None,
        )

    # --- the loop ---

    def run_all(self, resume: bool) -> History:
        self.out.mkdir(parents=True, exist_ok=True)
        self.restore() if resume else self.forget()
        run, plan = self.run, self.plan
        batches = self.batches()
        while run.step < self.total_steps and not self.lost_patience():
            if run.stage == 1 and run.step >= self.stage_2_step:
                self.enter_stage_2()
            began = time.monotonic()
            self.train_step([next(batches) for _ in range(plan.accumulate)])
            self.after_step(time.monotonic() - began)
            if self.out_of_time():
                break
        finished = run.step >= self.total_steps or self.lost_patience()
        if run.best_epoch < 0:  # not validated yet: the present average is the best known
            self.save_best()
        self.save()
        return History(run.history, run.best, run.best_epoch, self.out / BEST, finished)

    def batches(self) -> Any:
        """From the present place in the run to its end; an epoch's odd forward passes at the end are left out."""
        passes_per_epoch = self.sampler.steps_per_epoch
        epoch, step = divmod(self.run.step, self.steps_per_epoch)
        start = epoch * passes_per_epoch + step * self.plan.accumulate
        used = self.steps_per_epoch * self.plan.accumulate
        loader = train_loader(self.train_set, self.make_sampler(start), self.plan.workers)
        for index, batch in enumerate(loader, start):
            if index % passes_per_epoch < used:
                yield batch

    def train_step(self, batches: list[Batch]) -> None:
        run, plan = self.run, self.plan
        run.detector.train()
        share = rate_share(run.step, self.total_steps, plan.recipe.warmup_steps, plan.flat_until, plan.final_share)
        set_rates(run.optimizer, share)
        for index, batch in enumerate(batches):
            with self.without_exchange(index < len(batches) - 1):
                result = self.forward(batch.to(self.device), index)
                run.scaler.scale(result.total / len(batches)).backward()
            figures = result.figures()  # the host waits here, once, while the device is busy with the backward pass
            self.refuse_non_finite(figures, batch)
            self.add_to_sums(figures, 1 / len(batches))
        if plan.clip_norm:
            run.scaler.unscale_(run.optimizer)
            nn.utils.clip_grad_norm_(run.detector.parameters(), plan.clip_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        run.average.update(run.detector)
        run.step += 1

    def forward(self, batch: Batch, part: int) -> Losses:
        """The only chance in it, the denoising noise, depends on the seed, the step and the rank alone."""
        plan, detector = self.plan, self.run.detector
        seed = random.Random(f"{plan.seed} {self.run.step} {part} {self.rank}").getrandbits(63)
        generator = torch.Generator(self.device).manual_seed(seed)
        with torch.autocast(self.device.type, precision(plan.amp), enabled=plan.amp != "no"):
            noise = make_denoising(
                batch.targets, detector.num_classes, num_matching=detector.size.queries, generator=generator
            )
            output: TrainOutput = self.model(to_unit(batch.images), noise)
        return losses(
            output,
            batch.targets,
            reg_scale=detector.size.reg_scale,
            classification=plan.classification,
            mean_over_ranks=mean_over_ranks if self.world > 1 else None,
        )

    def without_exchange(self, wanted: bool) -> Any:
        """Ranks exchange gradients only in the last of the accumulated passes."""
        return self.model.no_sync() if wanted and isinstance(self.model, Parallel) else torch.enable_grad()

    def refuse_non_finite(self, figures: dict[str, float], batch: Batch) -> None:
        """Before any weight has moved."""
        if math.isfinite(figures["loss"]):
            return
        bad = [name for name, value in figures.items() if name != "loss" and not math.isfinite(value)]
        raise FloatingPointError(
            f"step {self.run.step}: the loss is not finite in {', '.join(bad) or 'the sum'}, on images "
            f"{batch.image_ids}; the last good state is {self.out / CHECKPOINT}. Lower lr, or take amp bf16, or no amp"
        )

    def add_to_sums(self, figures: dict[str, float], share: float) -> None:
        for name, value in figures.items():
            self.run.sums[name] = self.run.sums.get(name, 0.0) + value * share

    # --- between the steps ---

    def after_step(self, seconds: float) -> None:
        run = self.run
        self.recent.append(seconds)
        run.seconds += seconds
        ends_epoch = run.step % self.steps_per_epoch == 0
        if ends_epoch:
            self.end_epoch()
        if ends_epoch or time.monotonic() - self.saved_at > self.plan.save_every_s:
            self.save()
        self.report()

    def end_epoch(self) -> None:
        run, plan = self.run, self.plan
        epoch = run.step // self.steps_per_epoch - 1
        began = time.monotonic()
        figures: dict[str, float] = {"epoch": epoch, "stage": run.stage, "lr": run.optimizer.param_groups[-1]["lr"]}
        figures |= {name: total / self.steps_per_epoch for name, total in averaged(run.sums, self.world).items()}
        if self.val_set is not None and ((epoch + 1) % plan.val_every == 0 or run.step == self.total_steps):
            figures |= self.validate(self.val_set) | {"val_seconds": time.monotonic() - began}
            if figures[plan.select_by] > run.best:
                run.best, run.best_epoch = figures[plan.select_by], epoch
                self.save_best()
        if plan.keep_epochs:
            self.save_average(epoch_weights(self.out, epoch), figures)
        run.seconds += time.monotonic() - began
        figures["seconds"] = run.seconds
        run.sums = {}
        run.history.append(figures)
        if self.rank == 0:
            write_json(self.out / HISTORY, run.history, indent=1)
            self.log(figures)

    def validate(self, val_set: CocoDataset) -> dict[str, float]:
        """AP of the moving average, and the official F1 at its best single threshold; every image counts once."""
        found = predict_dataset(
            self.run.average.detector,
            val_set.coco,
            val_set.images,
            size_hw=self.plan.size_hw,
            batch_size=max(1, self.plan.batch_size // self.plan.accumulate // self.world),
            workers=self.plan.workers,
            rank=self.rank,
            world=self.world,
        )
        found = gathered(found, self.world)  # all ranks take part
        figures = scores(found, as_coco(val_set.coco)) if self.rank == 0 else {}
        return from_first_rank(figures, self.world)

    def enter_stage_2(self) -> None:
        """Strong augmentation has ended; go on from the best weights so far (D-FINE's two-stage schedule)."""
        wait_for_all(self.world)
        if self.plan.best_into_stage_2 and self.run.best_epoch >= 0:  # else nothing was validated, so none is the best
            self.run.load_weights_of(read_state(self.out / BEST_STATE, self.device))
        self.run.stage = 2
        self.save()

    def lost_patience(self) -> bool:
        run, patience = self.run, self.plan.patience
        validated = [figures["epoch"] for figures in run.history if self.plan.select_by in figures]
        return patience is not None and sum(epoch > run.best_epoch for epoch in validated) >= patience

    def out_of_time(self) -> bool:
        if self.plan.max_minutes is None:
            return False
        late = time.monotonic() - self.started_at > 60 * self.plan.max_minutes
        return bool(from_first_rank({"late": float(late)}, self.world)["late"])

    # --- files ---

    def restore(self) -> None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        state = read_state(path, self.device)
        if state["fingerprint"] != self.fingerprint():
            raise ValueError(
                f"{path}: expected a checkpoint of this run, found one that differs in "
                f"{differences(state['fingerprint'], self.fingerprint())}; "
                "use another run name, or resume=False (of the pipeline: --force) to begin again"
            )
        self.run.load(state["run"])

    def forget(self) -> None:
        wait_for_all(self.world)
        if self.rank == 0:
            for name in (CHECKPOINT, BEST, BEST_STATE, HISTORY, PROGRESS):
                (self.out / name).unlink(missing_ok=True)
            for path in self.out.glob("epoch_*.pt"):
                path.unlink()
        wait_for_all(self.world)

    def fingerprint(self) -> str:
        """What has to be the same for a run to go on; time limits, workers and patience may change."""
        free = ("max_minutes", "workers", "patience", "save_every_s", "val_every", "keep_epochs")
        plan = {name: value for name, value in asdict(self.plan).items() if name not in free}
        detector = self.run.detector
        kind = {"size": asdict(detector.size), "num_classes": detector.num_classes, "channels": detector.channels}
        data = {"labels": mark_of(self.train_set.coco), "val": self.val_set and mark_of(self.val_set.coco)}
        return json.dumps(plan | kind | data | {"images": len(self.train_set), "world": self.world}, sort_keys=True)

    def save(self) -> None:
        if self.rank == 0:
            write_state(self.out / CHECKPOINT, {"fingerprint": self.fingerprint(), "run": self.run.state()})
        self.saved_at = time.monotonic()

    def save_best(self) -> None:
        if self.rank == 0:
            self.save_average(self.out / BEST, {self.plan.select_by: self.run.best})
            if self.plan.best_into_stage_2 and self.run.stage == 1:
                write_state(self.out / BEST_STATE, self.run.state())

    def save_average(self, path: Path, figures: dict[str, float]) -> None:
        """The moving average, with all that a predictor needs and, if known, the figure that chooses."""
        if self.rank == 0:
            coco, name = self.train_set.coco, self.plan.select_by
            about = {"classes": coco.names, "category_ids": coco.category_ids, "size_hw": list(self.plan.size_hw)}
            extra = about | ({name: figures[name]} if name in figures else {})
            save_weights(self.run.average.detector, path, extra)

    def report(self) -> None:
        """progress.json: where the run is, for whoever watches it."""
        run = self.run
        if self.rank:
            return
        last = run.history[-1] if run.history else {}
        validation_s = max((e["val_seconds"] for e in run.history if "val_seconds" in e), default=0.0)
        epochs_left = (self.total_steps - run.step) / self.steps_per_epoch
        eta_s = (self.total_steps - run.step) * sum(self.recent) / len(self.recent) + epochs_left * validation_s
        done_in_epoch = run.step % self.steps_per_epoch
        loss = run.sums["loss"] / done_in_epoch if done_in_epoch else last.get("loss", 0.0)
        where = {"step": run.step, "steps": self.total_steps, "epoch": run.step // self.steps_per_epoch + 1}
        figures: dict[str, float] = {name: last[name] for name in ("ap", "ap50", "f1") if name in last}
        figures |= {"epochs": self.plan.epochs, "loss": loss, "eta_s": eta_s, "stage": run.stage}
        write_json(self.out / PROGRESS, where | figures)
        if self.progress:
            self.progress(run.step, self.total_steps)


def mark_of(coco: CocoFile) -> str:
    """Changes with the images and their boxes and labels."""
    columns, mark = columns_of(coco), hashlib.sha256()
    for name in columns.file_names:
        mark.update(f"{name}\0".encode())
    boxes = (columns.boxes_xywh_px, columns.labels, columns.is_crowd)
    for values in (columns.image_ids, columns.offsets, *boxes):
        mark.update(np.ascontiguousarray(values).view(np.uint8).data)
    return mark.hexdigest()[:16]


def scores(found: list[dict[str, Any]], annotations: dict[str, Any]) -> dict[str, float]:
    """The figures of a validation: AP, AP50, and the official F1 at the best single threshold."""
    result = evaluate(found, annotations)
    thresholds, f1 = official_f1_curve(match(found, annotations))
    best = int(f1.argmax()) if len(f1) else -1
    figures: dict[str, float] = {"ap": result.ap, "ap50": result.ap50, "f1": float(f1[best]) if len(f1) else 0.0}
    figures["f1_threshold"] = float(thresholds[best]) if len(f1) else 0.0
    return figures


def epoch_weights(out: Path | str, epoch: int) -> Path:
    """Where plan.keep_epochs leaves the weights of an epoch. It counts from 0, as in the history; the file from 1."""
    return Path(out) / f"epoch_{epoch + 1}.pt"


def precision(amp: str) -> torch.dtype:
    return torch.float16 if amp == "fp16" else torch.bfloat16


def differences(old: str, new: str) -> str:
    a, b = json.loads(old), json.loads(new)
    return ", ".join(
        f"{name} ({a.get(name)}, now {b.get(name)})" for name in sorted(a | b) if a.get(name) != b.get(name)
    )


def write_state(path: Path, state: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        torch.save(state, temporary)


def read_state(path: Path, device: torch.device | str) -> dict[str, Any]:
    """ValueError names the file where it is cut off, or another one."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        mend = "is it cut off? take it out, and the training begins anew"
        raise ValueError(f"{path}: expected the state of a training, found {one_line(error)[:200]}; {mend}") from error
    return state


def tensorboard(folder: Path | str) -> Log:
    """A `log` for fit that writes what TensorBoard shows."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, int(figures["epoch"]))
        writer.flush()

    return log


def epoch_line(figures: dict[str, float]) -> str:
    """One epoch in one line, for a log that people read."""
    scores = "  ".join(f"{name} {figures[name]:.4f}" for name in ("ap", "ap50", "f1") if name in figures)
    return f"epoch {figures['epoch'] + 1:3.0f}  loss {figures['loss']:.3f}  {scores}  {figures['seconds'] / 60:.1f} min"


# --- several processes ---


def rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def distributed(detector: Detector, device: torch.device) -> Parallel:
    model: nn.Module = detector
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    return Parallel(model, device_ids=[device] if device.type == "cuda" else None)


def mean_over_ranks(value: Tensor) -> Tensor:
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()


def gathered(found: list[dict[str, Any]], world: int) -> list[dict[str, Any]]:
    """All ranks' detections."""
    if world == 1:
        return found
    parts: list[list[dict[str, Any]]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(parts, found)
    return [detection for part in parts for detection in part]


def averaged(sums: dict[str, float], world: int) -> dict[str, float]:
    """The mean over the ranks, which all have the same names."""
    if world == 1:
        return sums
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    if torch.distributed.get_backend() == "nccl":
        values = values.cuda()
    return dict(zip(sums, mean_over_ranks(values).tolist(), strict=True))


def from_first_rank(figures: dict[str, float], world: int) -> dict[str, float]:
    if world == 1:
        return figures
    box = [figures]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all(world: int) -> None:
    if world > 1:
        torch.distributed.barrier()
