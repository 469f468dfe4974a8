"""What moves while a detector is trained, and what comes out of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kit.dfine.detector import Detector
from kit.optimisation import Average


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
    unreadable: list[str] = field(default_factory=list)  # files that others stood in for, in the running epoch

    def state(self) -> dict[str, Any]:
        return {
            "detector": self.detector.state_dict(),
            "average": self.average.detector.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in MOVING},
        }

    def load_weights_of(self, state: dict[str, Any]) -> None:
        """Weights, average and optimizer; the place in the run stays, and so do the peak rates."""
        ours = [{name: group[name] for name in ("peak_lr", "weight_decay")} for group in self.optimizer.param_groups]
        self.detector.load_state_dict(state["detector"])
        self.average.detector.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rates in zip(self.optimizer.param_groups, ours, strict=True):
            group.update(rates)
        if state["scaler"]:  # empty: it was trained without fp16
            self.scaler.load_state_dict(state["scaler"])

    def load(self, state: dict[str, Any]) -> None:
        self.load_weights_of(state)
        for name in MOVING:
            setattr(self, name, state.get(name, getattr(self, name)))  # checkpoints of old have no `unreadable`


MOVING = ("step", "stage", "best", "best_epoch", "sums", "history", "seconds", "unreadable")


@dataclass(frozen=True)
class History:
    """What `fit` gives back. epochs: one dict an epoch; best_epoch counts from 0; finished: False when time ran out."""

    epochs: list[dict[str, float]]
    best: float
    best_epoch: int
    best_weights: Path
    finished: bool
