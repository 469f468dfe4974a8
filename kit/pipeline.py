"""The chain of notebooks, resumable: python -m kit.pipeline params/demo.yaml.

A finished notebook is skipped as long as its parameters, its text, kit, the data and the notebook it builds on stay as
they were. One that was cut off runs again, and the training in it goes on from its last checkpoint.
"""

import argparse
import csv
import fcntl
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from kit.files import read_json, sha256, write_json
from kit.params import NOTEBOOKS, ROOT, Params, SceneParams, commit, read_chain

BUILDS_ON = {  # as far as a run has them; the others need the data alone
    "03_train": ("02_augment",),
    "04_pseudo_label": ("03_train",),
    "05_stage2": ("03_train", "04_pseudo_label"),
    "06_ensemble": ("03_train", "05_stage2"),
    "07_jetson_export": ("03_train", "05_stage2"),
    "08_errors": ("03_train", "04_pseudo_label", "05_stage2", "06_ensemble"),
}
INPUTS = (
    "weights",
    "perspective",
    "trained",
    "teachers",
    "soup",
    "models",
    "deploy_models",
    "results",
    "results_submit",
)  # parameters that name files
UNCHANGING = ("resume", "adapt", "notebooks")  # parameters that say how a run goes on, not what it gives

ENVIRONMENT = {  # of the notebooks' kernels, where the user has not set them
    "OMP_WAIT_POLICY": "PASSIVE",  # busy waiting on shared cores slows torch up to 25 times
    "MALLOC_MMAP_MAX_": "0",  # large tensors are given back and taken anew at every step otherwise
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "NO_ALBUMENTATIONS_UPDATE": "1",  # it asks the network for its latest version otherwise
}


@dataclass(frozen=True)
class Step:
    """One notebook of one run."""

    notebook: Path
    out: Path
    parameters: Mapping[str, Any]  # what the file gives; the notebook's own cell holds the defaults
    resolved: Mapping[str, Any]  # with the defaults
    builds_on: tuple[Path, ...] = ()  # folders of steps before

    @property
    def name(self) -> str:
        return self.notebook.stem

    @property
    def executed(self) -> Path:
        return self.out / self.notebook.name


def plan(path: Path | str, force: bool = False) -> list[Step]:
    """The steps of a params file; every parameter is checked before anything runs."""
    given, steps = read_chain(path), []
    wanted = Params.from_yaml(path).notebooks
    for name, params_class in NOTEBOOKS.items():
        values = {key: value for key, value in given.items() if key in params_class.names()}
        if force and "resume" in params_class.names():
            values["resume"] = False
        params = params_class.from_dict(values)
        if name not in wanted:  # its parameters have been checked all the same
            continue
        before = [*BUILDS_ON.get(name, ()), *(["01_eda"] if getattr(params, "train_fold", None) is not None else [])]
        builds_on = tuple(params.folder_of(each) for each in before if each in wanted)
        steps.append(Step(ROOT / "notebooks" / f"{name}.ipynb", params.out, values, asdict(params), builds_on))
    return steps


# --- what is finished ---


def fingerprint(step: Step, data: str) -> str:
    """Changes with whatever the step's outputs depend on. data: the fingerprint of the data set."""
    parts = {
        "parameters": {key: value for key, value in step.resolved.items() if key not in UNCHANGING},
        "inputs": [mark_of(path) for path in inputs_of(step)],
        "notebook": [cell["source"] for cell in read_json(step.notebook)["cells"]],
        "kit": sources(),
        "before": {folder.name: mark_of(folder / "done.json") for folder in step.builds_on},
        "data": data,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def inputs_of(step: Step) -> list[str]:
    """Files and folders beside the data set's annotations that a step reads."""
    found = [path for name in INPUTS for path in listed(step.resolved.get(name))]
    if "unlabelled" not in step.resolved:
        return found
    return found + (step.resolved["unlabelled"] or [f"{step.resolved['data']}/images/unlabelled"])


def listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def mark_of(source: Path | str) -> str | None:
    """Of a file, of a training's weights, of a data set, or of the names and lengths in another folder; source: from
    the repository root. None of a URL or a hub id."""
    path = ROOT / source
    if (path / "annotations").is_dir():
        return data_fingerprint(path)
    if path.is_dir() and not (path / "best.pt").is_file():
        marks = [(str(each.relative_to(path)), each.stat().st_size) for each in sorted(path.rglob("*"))]
        return hashlib.sha256(json.dumps(marks).encode()).hexdigest()
    path = path / "best.pt" if path.is_dir() else path
    return sha256(path) if path.is_file() else None


def sources() -> dict[str, str]:
    folder = Path(__file__).parent
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.py"))}


def data_fingerprint(folder: Path) -> str:
    """Of the annotations; images are taken to stay with them."""
    marks = {path.name: sha256(path) for path in sorted((folder / "annotations").glob("*.json*"))}
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def is_finished(step: Step, mark: str) -> bool:
    stamp = step.out / "done.json"
    return stamp.is_file() and step.executed.is_file() and read_json(stamp).get("fingerprint") == mark


# --- running ---


class StepFailed(Exception):
    """A notebook stopped with an error; the text is for the terminal."""


def run_chain(steps: list[Step], data: Path, terminal: "Terminal", only: list[str], force: bool = False) -> None:
    """Run what is not finished, in order. data: folder of the data set; only: names of notebooks, empty = all."""
    data_mark = data_fingerprint(data)
    for step in steps:
        if only and step.name not in only:
            continue
        mark = fingerprint(step, data_mark)
        if not force and is_finished(step, mark):
            terminal.say(f"{step.name}  finished before, skipped")
            continue
        refuse_too_early(step)
        run_step(step, mark, terminal)


def refuse_too_early(step: Step) -> None:
    """Only with `only` can a step come before one that it builds on."""
    left = ("metrics.json", "done.json")  # by the notebook alone, or by the pipeline
    missing = [folder.name for folder in step.builds_on if not any((folder / name).is_file() for name in left)]
    if missing:
        raise ValueError(
            f"{step.name}: it builds on {', '.join(missing)}, which this run has not finished; run that first"
        )


def refuse_missing_folders(steps: list[Step]) -> None:
    """Said before anything runs, not after days of training. Scenes have been drawn by now."""
    for step in steps:
        wanted = [step.resolved["data"]]
        if step.name == "04_pseudo_label":
            wanted += inputs_of(step)
        for source in wanted:
            if not (ROOT / source).exists():
                raise ValueError(
                    f"{ROOT / source}: {step.name} expected this, found nothing; check the path in the params"
                )


def run_step(step: Step, mark: str, terminal: "Terminal") -> None:
    stamp = step.out / "done.json"
    stamp.unlink(missing_ok=True)
    write_json(step.out / "params.json", {**step.resolved, "commit": commit()}, indent=1)
    started = time.time()
    execute(step, terminal)
    seconds, ended = time.time() - started, time.strftime("%Y-%m-%d %H:%M:%S")
    complete = is_complete(step)
    about = {"fingerprint": mark if complete else None, "commit": commit(), "ended": ended, "seconds": seconds}
    write_json(stamp, about, indent=1)
    rest = "" if complete else "; out of time, the same command trains on"
    terminal.say(f"{step.name}  done in {clock(seconds)}{rest}")


def is_complete(step: Step) -> bool:
    """False where the training stopped in good order before its last epoch (max_minutes)."""
    metrics = step.out / "metrics.json"
    return not metrics.is_file() or read_json(metrics).get("finished") is not False


def execute(step: Step, terminal: "Terminal") -> None:
    """One notebook in a fresh kernel of this Python; its output notebook is written while it runs."""
    import papermill  # takes seconds, and a chain that is finished does not need it
    from nbclient.exceptions import DeadKernelError

    kernels: list[Any] = []
    cells = len(read_json(step.notebook)["cells"])
    watch = Watch(step, cells, terminal)
    try:
        with watch.running(), interrupts(kernels, terminal) as stopped:
            papermill.execute_notebook(
                str(step.notebook),
                str(step.executed),
                parameters=dict(step.parameters),
                kernel_manager_class=noted_in(kernels),
                kernel_name="python3",
                language="python",
                cwd=str(step.notebook.parent),
                progress_bar=False,
                on_cell_start=partial(watch.at_cell, stopped=stopped),
                extra_arguments=["--log-level=50"],  # it warns that it talks over TCP, and complains when it is stopped
            )
    except papermill.PapermillExecutionError as error:
        if stopped and error.ename in ("KeyboardInterrupt", "SystemExit"):
            raise KeyboardInterrupt(error.evalue) from error
        raise StepFailed(failure(step, error.ename, error.evalue, error.traceback)) from error
    except RuntimeError as error:
        if stopped:
            raise KeyboardInterrupt from error
        if not isinstance(error, DeadKernelError):
            raise
        raise StepFailed(failure(step, "the kernel died", "out of memory, or killed from outside?", [])) from error


def noted_in(kernels: list[Any]) -> type:
    """A kernel of Jupyter's that adds itself to the list, for `interrupts` to find its process."""
    from jupyter_client.manager import AsyncKernelManager

    class Noted(AsyncKernelManager):
        def __init__(self, **how: Any):
            super().__init__(**how)
            kernels.append(self)

    return Noted


@contextmanager
def interrupts(kernels: Sequence[Any], terminal: "Terminal") -> Iterator[list[int]]:
    """While entered, the first SIGINT or SIGTERM goes on to the kernel: a training there saves before it ends. The
    second ends this process, and the kernel with it.

    -> the signal, once there was one.
    """
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        pid = getattr(kernels[-1].provisioner, "pid", None) if kernels else None
        if received or pid is None:
            signal.default_int_handler(number, frame)
        received.append(number)
        terminal.say("stopping; a training saves after its step. Once more to stop at once")
        os.kill(pid, signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():  # others cannot be told of signals
        yield received
        return
    before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


def failure(step: Step, name: str, message: str, traceback: list[str]) -> str:
    """The end of the traceback, and where the rest is."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))
    last_lines = [f"    {line}" for line in text.rstrip().splitlines()[-12:]]
    head = f"{step.name} stopped: {name}: {message}" if not last_lines else f"{step.name} stopped"
    return "\n".join([head, *last_lines, f"the executed notebook: {shown(step.executed)}"])


# --- the terminal ---


class Terminal:
    """Lines that stay, and one that moves; where the output is no terminal, a plain line now and then."""

    def __init__(self, stream: TextIO, every_s: float = 20.0):
        self.stream, self.every_s = stream, every_s
        self.moves = stream.isatty()
        self.shown_at, self.last = time.monotonic(), ""

    def say(self, text: str) -> None:
        self.stream.write(("\r\x1b[K" if self.moves else "") + text + "\n")
        self.stream.flush()

    def show(self, text: str) -> None:
        """A state that the next one replaces."""
        now = time.monotonic()
        if self.moves:
            columns = os.get_terminal_size(self.stream.fileno()).columns or 80  # 0: the terminal does not know
            self.stream.write("\r\x1b[K" + text[: columns - 1])
            self.stream.flush()
        elif now - self.shown_at >= self.every_s and text != self.last:
            self.shown_at, self.last = now, text
            self.say(text)

    def counter(self, name: str) -> Callable[[int, int], None]:
        """A callable (done, total) that shows how far a loop is and how long it will take."""
        started = time.monotonic()

        def show(done: int, total: int) -> None:
            elapsed = time.monotonic() - started
            left = f", {clock(elapsed / done * (total - done))} to go" if done else ""
            self.show(f"{name}  {done}/{total}  {clock(elapsed)}{left}")

        return show


class Watch:
    """Shows once a second where a running notebook is: its cell, and what the training writes to progress.json."""

    def __init__(self, step: Step, cells: int, terminal: Terminal):
        self.step, self.cells, self.terminal = step, cells, terminal
        self.cell, self.started, self.stop = 0, time.time(), threading.Event()

    def at_cell(self, cell: Any, cell_index: int, stopped: Sequence[int] = ()) -> None:
        if stopped:  # between two cells, where the kernel takes no notice of signals
            raise KeyboardInterrupt
        self.cell = cell_index + 1

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()

    def look(self) -> None:
        while not self.stop.wait(1.0):
            self.terminal.show(self.line())

    def line(self) -> str:
        where = f"{self.step.name}  cell {min(self.cell, self.cells)}/{self.cells}  {clock(time.time() - self.started)}"
        return where + progress_line(self.step.out, since=self.started)


def progress_line(folder: Path, since: float) -> str:
    """What a training or a long loop last wrote there; nothing of an earlier run. since: seconds, Unix time."""
    files = [*folder.glob("progress.json"), *folder.glob("*/progress.json")]
    latest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    if latest is None or latest.stat().st_mtime < since:
        return ""
    progress = read_json(latest)
    return training_line(progress) if "epoch" in progress else loop_line(progress)


def loop_line(progress: Mapping[str, Any]) -> str:
    line = f"  {progress['what']} {progress['done']}/{progress['total']}"
    return line if progress["eta_s"] is None else f"{line}  {clock(progress['eta_s'])} to go"


def training_line(progress: Mapping[str, Any]) -> str:
    epoch = min(progress["epoch"], progress["epochs"])  # the file counts one more at the very end
    line = f"  epoch {epoch}/{progress['epochs']}  step {progress['step']}/{progress['steps']}"
    for key, name in (("loss", "loss"), ("ap50", "AP50"), ("f1", "F1")):
        if progress.get(key) is not None:
            line += f"  {name} {progress[key]:.3f}"
    eta_s = progress.get("eta_s")
    return line if eta_s is None else f"{line}  {clock(eta_s)} to go"


def clock(seconds: float) -> str:
    """3:05, or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def summary(run: Path) -> list[str]:
    """What a run has come to: scores, the submission, pictures, notebooks."""
    lines = []
    for step in sorted(path.parent for path in run.glob("*/metrics.json")):
        metrics = read_json(step / "metrics.json")
        scores = [
            f"{name.upper()} {metrics[name]:.3f}" for name in ("ap", "ap50", "f1") if metrics.get(name) is not None
        ]
        lines += [f"{step.name}  " + "  ".join(scores)] if scores else []
        told = metrics.get("report") or {name[7:]: metrics[name] for name in metrics if name.startswith("report_")}
        if told:
            line = "  ".join(f"{name.upper()} {told[name]:.3f}" for name in ("ap", "ap50", "f1") if name in told)
            lines.append(f"  on the images kept for the report  {line}")
        if metrics.get("final"):
            lines.append(f"  {metrics['final']}")
        if metrics.get("submission"):
            lines.append(f"submission  {metrics['submission']}")
    lines += gain_lines(run)
    pictures = sorted(run.glob("*/*.png"))
    notebooks = sorted(run.glob("*/*.ipynb"))
    lines += (
        [f"pictures    {shown(pictures[0].parent)}/ ... {len(pictures)} in {shown(run)}/*/*.png"] if pictures else []
    )
    lines += ["notebooks   " + "  ".join(shown(path) for path in notebooks)] if notebooks else []
    return lines


def gain_lines(run: Path) -> list[str]:
    """What each step gave, whichever way it went: from the tables that 05_stage2 and 06_ensemble leave."""
    lines = []
    for name, mark in (("05_stage2/candidates.csv", "chosen"), ("06_ensemble/steps.csv", "kept")):
        if not (run / name).is_file():
            continue
        with (run / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        what = next(iter(rows[0]))
        width = max(len(row[what]) for row in rows)
        lines.append(f"{name.split('/')[0]}  {what}s, F1 {'held out' if mark == 'kept' else 'at its best threshold'}")
        lines += [
            f"  {row[what]:{width}}  {figures_of(row)}{'' if row[mark] == 'True' else f'  not {mark}'}" for row in rows
        ]
    return lines


def figures_of(row: Mapping[str, str]) -> str:
    """AP, AP50 and F1 of a line, and its gain where it has one, with the span that chance leaves to it."""
    text = "  ".join(f"{name.upper()} {float(row[name]):.3f}" for name in ("ap", "ap50", "f1"))
    if not row.get("gain"):
        return text
    span = f" ({float(row['gain_low']):+.3f} to {float(row['gain_high']):+.3f})" if row.get("gain_low") else ""
    return f"{text}  gain {float(row['gain']):+.3f}{span}"


# --- the command ---


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Two chains in one folder would write into each other's checkpoints."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{shown(run)}: another pipeline is at work here; wait for it, or set another run"
            ) from None
        yield


def draw_scenes(params: SceneParams, terminal: Terminal) -> None:
    """The notebooks draw missing scenes too; here the terminal shows how far it is."""
    from kit.data.scenes import write_scenes

    write_scenes(params.data_folder, **params.scenes, progress=terminal.counter("scenes"))


def run_file(path: Path, terminal: Terminal, only: list[str], force: bool = False) -> None:
    """Scenes where they are asked for, then the chain, then the summary."""
    steps = plan(path, force)
    missing = [name for name in only if name not in [step.name for step in steps]]
    if missing:
        raise ValueError(f"{path}: --only {missing[0]} is not among its notebooks; add it to them")
    data = SceneParams.from_yaml(path)
    run = steps[0].out.parent
    started = time.time()
    with alone_in(run):
        if data.draws_scenes:
            draw_scenes(data, terminal)
        refuse_missing_folders(steps)
        run_chain(steps, data.data_folder, terminal, only, force)
    for line in [*summary(run), f"{clock(time.time() - started)} in all"]:
        terminal.say(line)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kit.pipeline", description="Run the chain of notebooks.")
    parser.add_argument("params", type=Path, help="for example params/demo.yaml")
    parser.add_argument("--only", action="append", default=[], choices=list(NOTEBOOKS), help="may be given repeatedly")
    parser.add_argument("--force", action="store_true", help="run finished notebooks too, and train from the start")
    options = parser.parse_args(arguments)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave in good order, with the kernel
    try:
        run_file(options.params, Terminal(sys.stdout), options.only, options.force)
    except (ValueError, TypeError, StepFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\nstopped; the same command goes on from here. {stop}".rstrip(), file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
