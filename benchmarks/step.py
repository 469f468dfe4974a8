"""A whole training step, here and in `transformers`, part by part: same weights, images and objects, turn by turn.

python benchmarks/step.py --sizes n s --side 640 --images 2 --objects 20 [--kinds bf16 compiled]
    [--json FILE] [--picture FILE]
A ratio over 1 means that ours is faster. Both sides train all norms, as n and s were published (`transformers` would
freeze the backbone's unless it is told), take noisy copies of the objects, clip, step the same AdamW and move an
average of the weights, theirs by torch's own. Each side is as its users run it: ours with channels last, as in
`kit.fit`. `transformers` leaves out some terms of the loss that the official code and ours have. Medians over the
rounds, in each of which the sides take turns; the ratio is the median of the rounds' ratios. Memory is what one step
adds to a process of its own. The machine should do nothing else.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import DFineForObjectDetection
from transformers.loss.loss_d_fine import DFineLoss
from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

from kit import Detector, load_weights
from kit.boxes import Target
from kit.dfine import losses as loss_module
from kit.dfine.denoising import make_denoising
from kit.files import write_bytes, write_json
from kit.limits import resident_bytes
from kit.optimisation import RECIPES, Average, make_optimizer, parameter_groups
from kit.plots.canvas import PALETTE, legend, panels, png, tidy, title
from kit.predict import to_unit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.forward import check_detectors
from tests.dfine.peer import oracle

CLASSES, CLIP, DECAY = 80, 0.1, 0.999
PARTS = ("forward", "matching", "losses", "backward", "optimizer", "average")
TARGETS = {"whole step": 1.05, "whole step, compiled": 1.2}
Times = dict[str, float]  # seconds of each part


class Clock:
    """Seconds of each part of a step; a part inside another is taken from it."""

    def __init__(self) -> None:
        self.times: Times = {}

    @contextmanager
    def part(self, name: str, inside: str | None = None) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.times[name] = self.times.get(name, 0.0) + seconds
        if inside:
            self.times[inside] = self.times.get(inside, 0.0) - seconds

    def timed(self, work: Callable[..., Any], name: str, inside: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            with self.part(name, inside):
                return work(*values, **named)

        return call


Step = Callable[[], Times]


def objects(images: int, count: int, classes: int) -> list[Target]:
    random = torch.Generator().manual_seed(0)
    centre = 0.2 + 0.6 * torch.rand(images, count, 2, generator=random)
    size = 0.05 + 0.25 * torch.rand(images, count, 2, generator=random)
    labels = torch.randint(classes, (images, count), generator=random)
    return [Target(*each) for each in zip(torch.cat([centre, size], dim=2), labels, strict=True)]


def drawn_images(images: int, side: int) -> Tensor:
    """(B, 3, side, side) uint8, as a loader gives them."""
    return torch.randint(256, (images, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def sides(size: str) -> tuple[Detector, DFineForObjectDetection]:
    """Both with the same weights, checked by their answers."""
    model = oracle(size, CLASSES, freeze_backbone_batch_norms=False)
    detector = Detector(size, CLASSES).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        assert load_weights(detector, folder).replaced == ()
    with torch.no_grad():
        check_detectors(size, detector, model)
    return detector.train(), model.train()


def step_of_ours(detector: Detector, images: Tensor, targets: list[Target], compiled: bool, amp: bool) -> Step:
    """What kit.train does in a step."""
    optimizer, average = make_optimizer(detector, RECIPES["s"]), Average(detector, DECAY, 1)
    if compiled:
        detector.backbone.compile()
        detector.encoder.compile()

    def step() -> Times:
        clock = Clock()
        with clock.part("forward"), torch.autocast("cpu", torch.bfloat16, enabled=amp):
            output = detector(to_unit(images), make_denoising(targets, CLASSES))
        match = clock.timed(loss_module.match, "matching", inside="losses")
        with patch.object(loss_module, "match", match), clock.part("losses"):
            loss = loss_module.losses(output, targets, reg_scale=detector.size.reg_scale).total
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            descend(detector, optimizer)
        with clock.part("average"):
            average.update(detector)
        return clock.times

    return step


def step_of_theirs(model: DFineForObjectDetection, images: Tensor, targets: list[Target], amp: bool) -> Step:
    """The usual loop around the model of `transformers`, with torch's own average."""
    groups = parameter_groups(model, lr=2e-4, backbone_lr=1e-4, decay=1e-4)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]

    def step() -> Times:
        clock = Clock()
        match = clock.timed(RTDetrHungarianMatcher.forward, "matching", inside="losses")
        terms = clock.timed(DFineLoss.forward, "losses", inside="forward")
        with (
            patch.object(RTDetrHungarianMatcher, "forward", match),
            patch.object(DFineLoss, "forward", terms),
            clock.part("forward"),
            torch.autocast("cpu", torch.bfloat16, enabled=amp),
        ):
            loss = model(pixel_values=images.float() / 255, labels=labels).loss
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            descend(model, optimizer)
        with clock.part("average"):
            average.update_parameters(model)
        return clock.times

    return step


def descend(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def steps_of(size: str, options: argparse.Namespace, kind: str = "") -> dict[str, Step]:
    """Both sides with the same weights; kind: `compiled`, ours alone, or `bf16`."""
    images, targets = drawn_images(options.images, options.side), objects(options.images, options.objects, CLASSES)
    detector, model = sides(size)
    return {
        "ours": step_of_ours(detector, images, targets, kind == "compiled", kind == "bf16"),
        "transformers": step_of_theirs(model, images, targets, kind == "bf16"),
    }


def in_turn(steps: dict[str, Step], rounds: int) -> dict[str, list[Times]]:
    """Times of every round but two to warm up; the side that begins changes from round to round."""
    times: dict[str, list[Times]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            times[name].append(steps[name]())
    return {name: each[2:] for name, each in times.items()}


def rows_of(size: str, kind: str, times: dict[str, list[Times]]) -> list[dict[str, Any]]:
    """Every part of the plain step; of the other kinds the whole."""
    ours, peer = times["ours"], times["transformers"]
    if kind:
        return [row_of(f"whole step, {kind}, {size}", "whole step", ours, peer)]
    return [row_of(f"{part}, {size}", part, ours, peer) for part in (*PARTS, "matching and losses", "whole step")]


def row_of(name: str, part: str, ours: list[Times], peer: list[Times]) -> dict[str, Any]:
    """Medians in seconds, and the median of the rounds' ratios, which other work on the machine moves less."""
    pairs = [(seconds_of(a, part), seconds_of(b, part)) for a, b in zip(ours, peer, strict=True)]
    return {
        "name": name,
        "ours": statistics.median(a for a, _ in pairs),
        "peer": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "target": TARGETS.get(name.rpartition(", ")[0]),
    }


def seconds_of(times: Times, part: str) -> float:
    sums = {"whole step": PARTS, "matching and losses": ("matching", "losses")}
    return sum(times[each] for each in sums.get(part, (part,)))


# --- memory, each side in a process of its own ---


def memory_row(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the third of three steps has added at its highest to a process that has made its model."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        ours, peer = (pool.apply(added_mib, (size, side, options)) for side in ("ours", "transformers"))
    return {"name": f"peak memory in MiB, {size}", "ours": ours, "peer": peer, "ratio": peer / ours, "target": 1.0}


def added_mib(size: str, side: str, options: argparse.Namespace) -> float:
    torch.set_num_threads(options.threads)
    return most_added_mib(steps_of(size, options)[side])


def most_added_mib(step: Step) -> float:
    """What three steps add at their highest to the process as it is."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident_bytes("VmRSS")
    for _ in range(3):
        step()
    return (resident_bytes("VmHWM") - before) / 2**20


# --- the picture ---


def profile_picture(times: dict[str, dict[str, list[Times]]], heading: str) -> bytes:
    """Where the time goes: a bar a side, its parts stacked, the sizes side by side."""
    figure, axes = panels(1, len(times), (6.2 * len(times), 1.9 + 0.5 * max(map(len, times.values()))))
    for panel, (size, sides_) in zip(axes[0], times.items(), strict=True):
        for place, rounds in enumerate(sides_.values()):
            start = 0.0
            for part, colour in zip(PARTS, PALETTE, strict=False):
                seconds = statistics.median(each[part] for each in rounds)
                panel.barh(place, seconds, left=start, color=colour, height=0.6, label=part if place == 0 else None)
                start += seconds
            panel.annotate(
                f"{start:.2f} s", (start, place), (4, 0), textcoords="offset points", va="center", fontsize=9
            )
        panel.set_yticks(range(len(sides_)), list(sides_), fontsize=9)
        panel.set_ylim(len(sides_) - 0.5, -0.5)
        panel.margins(x=0.14)
        tidy(panel, f"Size {size}", x="seconds a step, median of each part")
        panel.grid(visible=False, axis="y")
    legend(axes[0, 0], loc="upper left", bbox_to_anchor=(0.0, -0.28), ncols=len(PARTS))
    title(figure, heading)
    return png(figure)


def line_of(row: dict[str, Any]) -> str:
    unit = "MiB" if "MiB" in row["name"] else "s"
    digits = 0 if unit == "MiB" else 4
    wanted = f"  target {row['target']}" if row["target"] else ""
    figures = f"ours {row['ours']:8.{digits}f} {unit}  transformers {row['peer']:8.{digits}f} {unit}"
    return f"{row['name']:40} {figures}  ratio {row['ratio']:5.2f}{wanted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["n", "s"], choices=["n", "s"])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", default=[], choices=["compiled", "bf16"], help="other kinds of the step")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    times: dict[str, dict[str, list[Times]]] = {size: {} for size in options.sizes}
    for size in options.sizes:
        for kind in ["", *options.kinds]:  # one after another: models that wait take memory from those that run
            found = in_turn(steps_of(size, options, kind), options.rounds)
            times[size] |= {f"{name}, {kind}".removesuffix(", "): each for name, each in found.items()}
            rows += rows_of(size, kind, found)
        rows.append(memory_row(size, options))
    print("\n".join(line_of(row) for row in rows))
    print(f"load of the machine, {options.threads} threads here: {os.getloadavg()[0]:.1f}")
    if options.json:
        write_json(options.json, rows, indent=1)
    if options.picture:
        heading = f"A training step: {options.images} images of {options.side} px, {options.objects} objects in each"
        write_bytes(options.picture, profile_picture(times, heading))


if __name__ == "__main__":
    main()
