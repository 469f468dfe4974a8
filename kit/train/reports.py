"""What a training tells: the figures of a validation, a line and a curve an epoch, where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.data.coco import CocoFile
from kit.metrics import evaluate, match, official_f1_curve
from kit.train.run import Run

Log = Callable[[dict[str, float]], None]


def scores(found: list[dict[str, Any]], annotations: dict[str, Any] | CocoFile) -> dict[str, float]:
    """The figures of a validation: AP, AP50, and the official F1 at the best single threshold."""
    result = evaluate(found, annotations)
    thresholds, f1 = official_f1_curve(match(found, annotations))
    best = int(f1.argmax()) if len(f1) else -1
    figures: dict[str, float] = {"ap": result.ap, "ap50": result.ap50, "f1": float(f1[best]) if len(f1) else 0.0}
    figures["f1_threshold"] = float(thresholds[best]) if len(f1) else 0.0
    return figures


def whereabouts(run: Run, steps_per_epoch: int, epochs: int, step_s: float) -> dict[str, float]:
    """For who watches: step and epoch, the mean loss of the epoch so far, the last scores, the seconds to go."""
    steps, in_epoch = steps_per_epoch * epochs, run.step % steps_per_epoch
    last = run.history[-1] if run.history else {}
    validation_s = max((figures["val_seconds"] for figures in run.history if "val_seconds" in figures), default=0.0)
    found: dict[str, float] = {"step": run.step, "steps": steps, "epoch": run.step // steps_per_epoch + 1}
    found |= {name: last[name] for name in ("ap", "ap50", "f1") if name in last}
    loss = run.sums["loss"] / in_epoch if in_epoch else last.get("loss", 0.0)
    eta_s = (steps - run.step) * (step_s + validation_s / steps_per_epoch)
    return found | {"epochs": epochs, "loss": loss, "eta_s": eta_s, "stage": run.stage}


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
