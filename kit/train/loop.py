"""Training: one loop that can be killed at any moment and goes on exactly where it was."""

import math
import random
import time
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel as Parallel

from kit.data.dataset import Batch, CocoDataset
from kit.data.sampling import class_weights
from kit.dfine.decoder import TrainOutput
from kit.dfine.denoising import make_denoising
from kit.dfine.detector import Detector
from kit.dfine.losses import Losses, losses
from kit.files import write_json
from kit.optimisation import Average, Held, Plan, make_optimizer, rate_share, set_rates
from kit.predict import Progress, predict_dataset, to_unit
from kit.train.checkpoints import CHECKPOINT, Say, disk_errors_told, stride
from kit.train.faults import (
    DIED,
    StopSignals,
    deaths_told_at_the_next_batch,
    why_not_finite,
)
from kit.train.ranks import (
    averaged,
    distributed,
    from_first_rank,
    gathered,
    mean_over_ranks,
    rank_and_world,
    share_of,
    wait_for_all,
)
from kit.train.reading import Reading
from kit.train.reports import Log, scores, whereabouts
from kit.train.run import History, Run
from kit.train.store import BEST, HISTORY, PROGRESS, Store, epoch_weights, identity_of

REPORT_EVERY_S = 0.5  # at least, between two states of progress.json


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
    adapt: bool = False,
    say: Say = warnings.warn,
) -> History:
    """Trains, validates each epoch, and keeps the best weights (of the moving average) in out/best.pt.

    With plan.keep_epochs those after each epoch stay too, where `epoch_weights` says.
    Started again with the same arguments it goes on from out/last.pt, to the same losses as if it had not been stopped.
    In a process group (torchrun) each rank takes its share of every step. progress: gets (steps done, of how many).
    adapt: also with another batch size, number of processes, rate or precision, from as many images as were seen.
    SIGTERM ends the step, saves, and leaves with the status 143, a first SIGINT with KeyboardInterrupt. say: gets a
    line on each fault that the run survives, and on where it stopped.
    """
    run = Fit(detector, train_set, val_set, Path(out), plan, log or (lambda figures: None))
    run.progress, run.adapt, run.say = progress, adapt, say
    run.store.say = run.reading.say = say
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
        self.held = Held(detector, plan.held)  # the optimizer has to know these weights, the exchange must not wait
        self.held.hold()
        self.model: nn.Module = distributed(detector, self.device) if self.world > 1 else detector
        weights = class_weights(train_set.coco, plan.class_balance)
        self.class_weights = None if weights is None else torch.tensor(weights, device=self.device)
        self.stride = stride(len(train_set), plan.batch_size, plan.accumulate, self.world)
        self.steps_per_epoch = self.stride.steps_per_epoch
        self.reading = Reading(train_set, plan, self.steps_per_epoch)
        self.total_steps = self.steps_per_epoch * plan.epochs
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"expected at least {plan.batch_size} training images for one step, got {len(train_set)}; "
                f"lower batch_size to {len(train_set)} or less"
            )
        self.stage_2_step = self.steps_per_epoch * (
            plan.epochs if plan.strong_until_epoch is None else plan.strong_until_epoch
        )
        self.started_at = time.monotonic()
        coco = train_set.coco
        about = {"classes": coco.names, "category_ids": coco.category_ids, "size_hw": list(plan.size_hw)}
        identity = identity_of(plan, detector, train_set, val_set, self.world)
        self.store = Store(out, self.run, plan, identity, about)
        self.progress: Progress | None = None
        self.adapt, self.say, self.signals = False, cast(Say, warnings.warn), StopSignals()
        self.processors: Any = None  # the group of ranks in which tensors of the CPU are exchanged
        self.recent: deque[float] = deque(maxlen=50)  # seconds of the last steps
        self.last_images: list[int] = []  # ids in the last step
        self.shown_at = -REPORT_EVERY_S

    # --- the loop ---

    def run_all(self, resume: bool) -> History:
        self.out.mkdir(parents=True, exist_ok=True)
        if self.world > 1 and torch.distributed.get_backend() == "nccl":
            self.processors = torch.distributed.new_group(backend="gloo")
        with self.signals, disk_errors_told(self.out):
            self.store.restore(self.adapt) if resume else self.store.forget()
            if self.run.stage == 2:
                self.thaw()
            try:
                self.loop()
            except RuntimeError as error:
                if DIED not in str(error):
                    raise
                self.end_without_reader(error)
            run = self.run
            if run.best_epoch < 0:  # not validated yet: the present average is the best known
                self.store.save_best()
            self.store.save()
            if self.signals.received:
                self.leave()
        finished = run.step >= self.total_steps or self.lost_patience()
        return History(run.history, run.best, run.best_epoch, self.out / BEST, finished)

    def end_without_reader(self, error: RuntimeError) -> NoReturn:
        """Between two steps, so the state of one process is whole; that of several is not summed up."""
        if self.world == 1:
            self.store.write()
        if self.signals.received:  # by the readers too, as from a terminal
            self.leave()
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"a process that reads images died ({reason}); if the memory ran out, lower workers. {self.where()}"
        ) from error

    def loop(self) -> None:
        run, late = self.run, False
        if run.step and run.step % self.steps_per_epoch == 0 and len(run.history) < run.step // self.steps_per_epoch:
            self.end_epoch()  # it was stopped in the validation
            self.store.save()
        batches = self.batches()
        while run.step < self.total_steps and not self.lost_patience() and not late:
            if run.stage == 1 and run.step >= self.stage_2_step:
                with deaths_told_at_the_next_batch():
                    self.enter_stage_2()
            began = time.monotonic()
            step_batches = [next(batches) for _ in range(self.plan.accumulate)]
            with deaths_told_at_the_next_batch():
                self.train_step(step_batches)
                late = self.after_step(time.monotonic() - began)

    def batches(self) -> Iterator[Batch]:
        """From the present place in the run to its end."""
        return self.reading.batches(self.run)

    def train_step(self, batches: list[Batch]) -> None:
        run, plan = self.run, self.plan
        run.detector.train()
        self.held.hold()
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
        self.last_images = [image_id for batch in batches for image_id in batch.image_ids]

    def forward(self, batch: Batch, part: int) -> Losses:
        """The only chance in it, the denoising noise, depends on the seed and the step, and is drawn for all ranks."""
        plan, detector = self.plan, self.run.detector
        seed = random.Random(f"{plan.seed} {self.run.step} {part} 0").getrandbits(63)
        generator = torch.Generator(self.device).manual_seed(seed)
        with torch.autocast(self.device.type, precision(plan.amp), enabled=plan.amp != "no"):
            noise = make_denoising(
                batch.targets,
                detector.num_classes,
                num_matching=detector.size.queries,
                generator=generator,
                share=share_of(batch.targets, self.rank, self.world, self.processors),
            )
            output: TrainOutput = self.model(to_unit(batch.images), noise)
        return losses(
            output,
            batch.targets,
            reg_scale=detector.size.reg_scale,
            classification=plan.classification,
            mean_over_ranks=mean_over_ranks if self.world > 1 else None,
            world=self.world,
            class_weights=self.class_weights,
        )

    def without_exchange(self, wanted: bool) -> Any:
        """Ranks exchange gradients only in the last of the accumulated passes."""
        return self.model.no_sync() if wanted and isinstance(self.model, Parallel) else torch.enable_grad()

    def refuse_non_finite(self, figures: dict[str, float], batch: Batch) -> None:
        """Before any weight has moved."""
        if math.isfinite(figures["loss"]):
            return
        bad = [name for name, value in figures.items() if name != "loss" and not math.isfinite(value)]
        found = f"the loss is not finite in {', '.join(bad) or 'the sum'}, on images {batch.image_ids}"
        why = why_not_finite(batch, self.run.detector, self.run.step, self.last_images)
        raise FloatingPointError(f"step {self.run.step}: {found}: {why}. {self.where()}")

    def add_to_sums(self, figures: dict[str, float], share: float) -> None:
        for name, value in figures.items():
            self.run.sums[name] = self.run.sums.get(name, 0.0) + value * share

    # --- between the steps ---

    def after_step(self, seconds: float) -> bool:
        """Validates, saves and reports where it is time; whether the time of the run is over."""
        run = self.run
        self.recent.append(seconds)
        run.seconds += seconds
        ends_epoch = run.step % self.steps_per_epoch == 0
        if ends_epoch:
            if self.validates(run.step // self.steps_per_epoch - 1):
                self.store.save()  # a stop in the validation loses no step
            self.end_epoch()
        stop, late, due = self.asked()
        if ends_epoch or due or stop:
            self.store.save()
        self.report()
        if stop:
            self.leave()
        return late

    def asked(self) -> list[bool]:
        """Stop? Out of time? Time to save? Of all ranks alike, if one of them is to."""
        now, minutes = time.monotonic(), self.plan.max_minutes
        late = minutes is not None and now - self.started_at > 60 * minutes
        flags = torch.tensor(
            [bool(self.signals.received), late, now - self.store.saved_at > self.plan.save_every_s]
        ).byte()
        if self.world > 1:
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, self.processors)
        return [bool(flag) for flag in flags.tolist()]

    def leave(self) -> None:
        """The state of this step is on the disk."""
        name = self.signals.received.name if self.signals.received else "a signal to another process"
        if self.rank == 0:
            self.say(f"{name}: {self.where()}")
        self.signals.stop(self.where())

    def where(self) -> str:
        if not self.store.saved_step:
            return "Nothing was saved yet; start the same again"
        saved = f"saved after step {self.store.saved_step} of {self.total_steps} in {self.out / CHECKPOINT}"
        return f"{saved}; start the same again and it goes on"

    def validates(self, epoch: int) -> bool:
        due = (epoch + 1) % self.plan.val_every == 0 or self.run.step == self.total_steps
        return self.val_set is not None and due

    def end_epoch(self) -> None:
        run, plan = self.run, self.plan
        epoch = run.step // self.steps_per_epoch - 1
        began = time.monotonic()
        figures: dict[str, float] = {"epoch": epoch, "stage": run.stage, "lr": run.optimizer.param_groups[-1]["lr"]}
        figures |= {name: total / self.steps_per_epoch for name, total in averaged(run.sums, self.world).items()}
        figures["unreadable_images"] = len(set(gathered(run.unreadable, self.world)))
        if self.val_set is not None and self.validates(epoch):
            figures |= self.validate(self.val_set) | {"val_seconds": time.monotonic() - began}
            if figures[plan.select_by] > run.best:
                run.best, run.best_epoch = figures[plan.select_by], epoch
                self.store.save_best()
        if plan.keep_epochs:
            self.store.save_average(epoch_weights(self.out, epoch), figures)
        run.seconds += time.monotonic() - began
        figures["seconds"] = run.seconds
        run.sums, run.unreadable = {}, []
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
            progress=lambda done, of: self.leave() if self.signals.received else None,  # saved before it began
        )
        found = gathered(found, self.world)  # all ranks take part
        figures = scores(found, val_set.coco) if self.rank == 0 else {}
        return from_first_rank(figures, self.world)

    def enter_stage_2(self) -> None:
        """Strong augmentation has ended; go on from the best weights so far (D-FINE's two-stage schedule)."""
        wait_for_all(self.world)
        if self.plan.best_into_stage_2 and self.run.best_epoch >= 0:  # else nothing was validated, so none is the best
            self.store.load_best()
        self.thaw()
        self.run.stage = 2
        self.store.save()

    def thaw(self) -> None:
        """What was held for stage 1 moves from now on."""
        if self.held.weights:
            self.held.release()
            if self.world > 1:
                self.model = distributed(self.run.detector, self.device)

    def lost_patience(self) -> bool:
        run, patience = self.run, self.plan.patience
        validated = [figures["epoch"] for figures in run.history if self.plan.select_by in figures]
        return patience is not None and sum(epoch > run.best_epoch for epoch in validated) >= patience

    def report(self) -> None:
        """progress.json: where the run is, for whoever watches it."""
        run, now = self.run, time.monotonic()
        if self.rank:
            return
        if now - self.shown_at >= REPORT_EVERY_S or run.step % self.steps_per_epoch == 0:
            self.shown_at = now
            step_s = sum(self.recent) / len(self.recent)
            write_json(self.out / PROGRESS, whereabouts(run, self.steps_per_epoch, self.plan.epochs, step_s))
        if self.progress:
            self.progress(run.step, self.total_steps)


def precision(amp: str) -> torch.dtype:
    return torch.float16 if amp == "fp16" else torch.bfloat16
