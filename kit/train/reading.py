"""What a training reads: its batches from any step on, the same for the same step whatever happened before."""

import warnings
from collections.abc import Iterator
from typing import cast

from kit.data.augment import Draw
from kit.data.dataset import Batch, CocoDataset, TrainSampler, train_loader
from kit.data.sampling import repeat_factors
from kit.optimisation import Plan
from kit.train.checkpoints import Say
from kit.train.faults import StandIns, refuse_too_many, unreadable
from kit.train.ranks import rank_and_world
from kit.train.run import Run


class Reading:
    """The batches of this process. Images that cannot be read are stood in for, told, and counted in the run."""

    def __init__(self, train_set: CocoDataset, plan: Plan, steps_per_epoch: int):
        self.train_set, self.plan, self.steps_per_epoch = train_set, plan, steps_per_epoch
        self.repeats = repeat_factors(train_set.coco, plan.repeat_below)
        self.say = cast(Say, warnings.warn)

    def batches(self, run: Run) -> Iterator[Batch]:
        """From the present place in the run to its end; an epoch's odd forward passes at the end are left out."""
        passes_per_epoch = self.sampler(0).steps_per_epoch
        epoch, step = divmod(run.step, self.steps_per_epoch)
        start = epoch * passes_per_epoch + step * self.plan.accumulate
        used = self.steps_per_epoch * self.plan.accumulate
        sampler = self.sampler(start)
        loader = train_loader(cast(CocoDataset, StandIns(self.train_set)), sampler, self.plan.workers)
        for index, (batch, draws) in enumerate(zip(loader, sampler, strict=True), start):
            if index % passes_per_epoch < used:
                self.tell_unreadable(draws, batch, run)
                yield batch

    def sampler(self, start: int) -> TrainSampler:
        """Forward passes, not optimizer steps, are what the loader counts."""
        plan, (rank, world) = self.plan, rank_and_world()
        return TrainSampler(
            len(self.train_set),
            max(1, plan.batch_size // plan.accumulate // world),
            plan.epochs,
            plan.seed,
            plan.sizes or [plan.size_hw],
            start,
            rank,
            world,
            sizes_until_epoch=plan.strong_until_epoch,
            size_hw=plan.size_hw if plan.strong_until_epoch is not None else None,
            repeats=self.repeats,
        )

    def tell_unreadable(self, draws: list[Draw], batch: Batch, run: Run) -> None:
        for name, reason in unreadable(self.train_set, draws, batch.image_ids).items():
            if name not in run.unreadable:
                run.unreadable = sorted([*run.unreadable, name])
                self.say(f"epoch {run.step // self.steps_per_epoch + 1}: another image stands in for one: {reason}")
                refuse_too_many(run.unreadable, len(self.train_set))
