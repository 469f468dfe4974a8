"""Every preset for the same time on the same set: AP and AP50 on val, over seeds, with curves.

python benchmarks/presets.py --data FOLDER [--minutes 10] [--sizes n] [--side 320] [--seeds 0 1 2] [--weights FILE]
    [--presets dfine deim finetune scratch_small] [--epochs 30] [--out runs/presets] [--json FILE] [--picture FILE]
A preset may freeze another part than its own: finetune:backbone.
FOLDER: COCO (annotations/ and images/), or YOLO, which is converted first. How many epochs of a preset fit into the
minutes is measured once for all seeds, and every run ends its schedule. On a machine that does other work meanwhile
that is not fair: there --epochs gives all the same number of epochs. What is finished lies in --out and is not done
again; a run that was cut off goes on. Without weights `finetune` is left out, and nothing is frozen. The figure is that
of the best validation, as a user would keep it; `last` that of the last one. A ratio over 1 means better than `dfine`.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit import Detector, fit, load_weights
from kit.budget import run_length
from kit.data.augment import plain_policy
from kit.data.coco import CocoFile, find_split, read_coco
from kit.data.convert import convert, recognised
from kit.data.dataset import CocoDataset
from kit.dfine.detector import unfrozen
from kit.files import read_json, write_json
from kit.optimisation import FREEZABLE, freeze
from kit.plots.canvas import PALETTE, legend, panels, save_figure, tidy, title
from kit.presets import PRESETS, Preset, plan_of, policy_of, preset_of, strongest_policy
from kit.progress import Bar
from kit.train import epoch_line

Result = dict[str, Any]
COLOURS = (6, 4, 2, 0, 3, 1, 7)  # far apart, of the palette


def parts_of(data: Path, out: Path) -> tuple[tuple[CocoFile, Path], tuple[CocoFile, Path]]:
    """Train and val, each with its folder of images."""
    if recognised(data) != "coco":
        if not (out / "data").exists():
            convert(data, out / "data", "coco")
        data = out / "data"
    train, val = (find_split(data, name) for name in ("train", "val"))
    return (read_coco(train.annotations), train.images), (read_coco(val.annotations), val.images)


def run(size: str, name: str, seed: int, options: argparse.Namespace) -> Result:
    """One training, or what it has left."""
    out = (
        options.out
        / options.data.name
        / f"{size}_{options.side}px_{budget_of(options).replace(' ', '_')}"
        / name.replace(":", "_")
        / f"seed{seed}"
    )
    if (out / "result.json").exists():
        return dict(read_json(out / "result.json"))
    (train, images), (val, val_images) = parts_of(options.data, options.out / options.data.name)
    preset = preset_named(name) if options.weights else replace(preset_of(name), freeze="none")
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector(size if options.weights else unfrozen(size), len(train.names)).to(device)
    if options.weights:
        load_weights(detector, options.weights)
    freeze(detector, preset.frozen)
    val_set = CocoDataset(val, val_images, plain_policy())
    size_hw = (options.side, options.side)
    make = partial(plan_of, preset, size, images=len(train.records), size_hw=size_hw)
    trial_set = CocoDataset(train, images, strongest_policy(preset), seed)
    how: dict[str, Any] = {"make_plan": make, "epochs": 1, "batch_size": options.batch, "workers": options.workers}
    length = run_length(budget_of(options), detector, trial_set, val_set, file=out.parent / "length.json", **how)
    plan = replace(
        make(epochs=length.epochs, batch_size=length.batch_size),
        val_every=length.val_every,
        workers=options.workers,
        seed=seed,
        amp="bf16" if device.type == "cuda" else "no",
    )
    train_set = CocoDataset(train, images, policy_of(preset, length.epochs), seed)
    bar = Bar(f"{size} {name} seed {seed}")
    bar.say(length.why)
    history = fit(
        detector, train_set, val_set, out=out, plan=plan, log=lambda row: bar.say(epoch_line(row)), progress=bar
    )
    found = [row for row in history.epochs if "ap" in row]
    best = max(found, key=lambda row: row["ap"])
    result = {
        "ap": best["ap"],
        "ap50": best["ap50"],
        "last_ap": found[-1]["ap"],
        "epochs": len(history.epochs),
        "batch_size": length.batch_size,
        "finished": history.finished,
        "minutes": history.epochs[-1]["seconds"] / 60,
        "curve": [[row["seconds"] / 60, row["ap"], row["ap50"]] for row in found],
    }
    write_json(out / "result.json", result, indent=1)
    return result


def preset_named(text: str) -> Preset:
    """dfine, or finetune:backbone, which freezes so much."""
    name, _, part = text.partition(":")
    if part and part not in FREEZABLE:
        raise argparse.ArgumentTypeError(f"freeze must be one of {', '.join(FREEZABLE)}, got {part!r}")
    try:
        return preset_of(name).changed({"freeze": part or None})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def known(text: str) -> str:
    preset_named(text)
    return text


def budget_of(options: argparse.Namespace) -> str:
    return f"{options.epochs} epochs" if options.epochs else f"{options.minutes:g} minutes"


def spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def line_of(size: str, name: str, results: Sequence[Result]) -> str:
    def figure(key: str) -> str:
        values = [each[key] for each in results]
        return f"{statistics.mean(values):.4f} +- {spread(values):.4f}"

    lengths = "/".join(f"{each['epochs']}x{each['batch_size']}" for each in results)
    late = "" if all(each["finished"] for each in results) else "  cut off"
    return (
        f"{size} {name:14} AP {figure('ap')}  AP50 {figure('ap50')}  last AP {figure('last_ap')}  "
        f"minutes {max(each['minutes'] for each in results):5.1f}  epochs x batch {lengths}{late}"
    )


def rows_of(results: dict[tuple[str, str], list[Result]]) -> list[dict[str, Any]]:
    """Mean AP of each preset beside that of dfine."""
    rows = []
    for (size, name), each in results.items():
        ours = statistics.mean(result["ap"] for result in each)
        peers = results.get((size, "dfine"))
        peer = statistics.mean(result["ap"] for result in peers) if peers else None
        about: dict[str, Any] = {"ap": [r["ap"] for r in each], "ap50": [r["ap50"] for r in each]}
        ratio = ours / peer if peer else None
        rows.append(
            {"name": f"{name}, {size}", "ours": ours, "peer": peer, "ratio": ratio, "target": None} | {"seeds": about}
        )
    return rows


def curves(results: dict[tuple[str, str], list[Result]], heading: str) -> Any:
    """AP of every run so far against minutes; the mean of the seeds is the strong line."""
    sizes = sorted({size for size, _ in results})
    figure, axes = panels(len(sizes), 2, (11, 3.8 * len(sizes)))
    for row, size in zip(axes, sizes, strict=True):
        for column, (panel, metric) in enumerate(zip(row, ("AP", "AP50"), strict=True), 1):
            for place, name in enumerate(dict.fromkeys(name for _, name in results)):
                runs = [np.array([[0.0, 0.0, 0.0], *each["curve"]]) for each in results.get((size, name), ())]
                colour = PALETTE[COLOURS[place % len(COLOURS)]]
                for run_curve in runs:
                    panel.plot(run_curve[:, 0], run_curve[:, column], color=colour, linewidth=0.7, alpha=0.4)
                if runs:
                    minutes = np.linspace(0, min(r[-1, 0] for r in runs), 60)
                    mean = np.mean([np.interp(minutes, r[:, 0], r[:, column]) for r in runs], axis=0)
                    panel.plot(minutes, mean, color=colour, linewidth=2, label=name, marker="o", markevery=[-1])
            tidy(panel, f"{metric} on val, size {size}", x="minutes of training and validation")
            panel.set_ylim(bottom=0)
        legend(row[0], loc="upper left")
    title(figure, heading)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--epochs", type=int, help="the same for all, instead of the minutes")
    parser.add_argument("--sizes", nargs="+", default=["n"], choices=["n", "s", "m", "l", "x"])
    parser.add_argument("--presets", nargs="+", type=known, default=list(PRESETS))
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16, help="images a step at most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", type=Path, help="all presets start from them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/presets"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = [name for name in options.presets if not name.startswith("finetune") or options.weights]
    if len(names) < len(options.presets):
        print("finetune is left out: it needs --weights")
    results: dict[tuple[str, str], list[Result]] = {}
    for seed in options.seeds:  # all presets turn by turn, so that a run cut short still compares them
        for size in options.sizes:
            for name in names:
                results.setdefault((size, name), []).append(run(size, name, seed, options))
                print(line_of(size, name, results[size, name]), flush=True)
    print("\n".join(["", *(line_of(size, name, each) for (size, name), each in results.items())]))
    if options.json:
        write_json(options.json, rows_of(results), indent=1)
    picture = options.picture or options.out / options.data.name / "curves.png"
    start = f"from {options.weights.name}" if options.weights else "from random weights"
    save_figure(curves(results, f"Presets: {budget_of(options)} each on {options.data.name}, {start}"), picture)
    print(picture)


if __name__ == "__main__":
    main()
