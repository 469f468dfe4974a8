"""A checkpoint made ready for a device: at each input size and in each precision a file that has passed the gate."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from kit.data.coco import CocoFile, Split
from kit.deploy.about import Precision, read_checkpoint
from kit.deploy.export import export_onnx
from kit.deploy.gate import accept, judge, open_candidate
from kit.deploy.int8 import quantise_onnx, quantise_openvino
from kit.deploy.openvino import export_openvino
from kit.deploy.retry import accept_mixed
from kit.deploy.runtimes import Runner, Runtime, installed_runtimes, open_runner
from kit.deploy.tensorrt import build_tensorrt, missing
from kit.deploy.verdict import GateFailed, Verdict
from kit.files import atomic, write_json
from kit.metrics import Thresholds
from kit.predict import Progress

Size = tuple[int, int]
Kind = Literal["onnx", "openvino", "tensorrt"]
ENDINGS: Mapping[Kind, str] = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}
STRIDE = 32  # sides of the input are multiples of it


@dataclass(frozen=True)
class Target:
    """A checkpoint at one input size."""

    name: str  # such as s@960
    checkpoint: Path
    size_hw: Size


@dataclass(frozen=True)
class Made:
    """One file of a target, or why there is none."""

    target: Target
    precision: Precision
    kind: Kind
    path: Path | None
    verdict: Verdict | None = None
    said: str = ""  # why it was refused or not tried, or what it took to pass

    @property
    def name(self) -> str:
        return f"{self.target.name} {self.precision} {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all files are made with. The gate compares on images of val; int8 is calibrated on images of train."""

    folder: Path
    train: Split
    val: Split
    coco: CocoFile  # of val
    gate_images: int = 50
    attempts: int = 3  # at an fp16 file
    allow_drop: bool = False
    calibration_images: int = 300
    int8_drop: float = 0.01
    workspace_mib: int = 4096
    progress: Progress | None = None

    def path(self, target: Target, precision: Precision, kind: Kind) -> Path:
        return self.folder / f"{target.name.replace(' ', '_')}_{precision}{ENDINGS[kind]}"


# --- what is to be made ---


def targets_of(checkpoints: Sequence[Path], sides_px: Sequence[int] = ()) -> list[Target]:
    """Each checkpoint at each size; sides_px: longer sides of the input, none: as it was trained."""
    found: dict[str, Target] = {}
    for checkpoint in checkpoints:
        _, about = read_checkpoint(checkpoint)
        for size_hw in [with_side(about.size_hw, side) for side in sides_px] or [about.size_hw]:
            name = f"{about.size}@{max(size_hw)}"
            name = name if name not in found else f"{name} {checkpoint.parent.name}"
            if name in found:
                raise ValueError(f"{checkpoint}: two targets would be called {name}; deploy them in two runs")
            found[name] = Target(name, checkpoint, size_hw)
    return list(found.values())


def with_side(size_hw: Size, side_px: int) -> Size:
    """The same shape, as near as the stride allows, with another longer side."""
    height, width = (max(STRIDE, round(side * side_px / max(size_hw) / STRIDE) * STRIDE) for side in size_hw)
    return height, width


# --- making ---


def make_files(target: Target, precisions: Sequence[Precision], shop: Workshop) -> list[Made]:
    """All files of a target, fp32 and `precisions`; GateFailed where the fp32 ONNX file is refused, of which all others
    are made."""
    job = Job(target, shop, open_runner(target.checkpoint, "torch", size_hw=target.size_hw))
    base = job.accepted(
        "fp32", "onnx", lambda path: export_onnx(target.checkpoint, path, size_hw=target.size_hw, input="uint8")
    )
    file = shop.path(target, "fp32", "onnx")
    makers: list[tuple[Precision, Kind, Callable[[], Made]]] = [
        ("fp32", "onnx", lambda: base),
        ("fp16", "onnx", lambda: job.mixed(file)),
        ("int8", "onnx", lambda: job.accepted("int8", "onnx", lambda path: job.in_8_bits(quantise_onnx, file, path))),
        ("fp32", "openvino", lambda: job.accepted("fp32", "openvino", lambda path: export_openvino(file, path))),
        ("int8", "openvino", lambda: job.accepted(
            "int8", "openvino", lambda path: job.in_8_bits(quantise_openvino, file, path)
        )),
    ]  # fmt: skip
    kinds = ("onnx", "openvino") if find_spec("openvino") else ("onnx",)
    wanted = ("fp32", *precisions)
    made = [job.tried(*each) for each in makers if each[0] in wanted and each[1] in kinds]
    return made + [job.engine(each) for each in made if each.kind == "onnx" and each.path]


@dataclass(frozen=True)
class Job:
    """A target while its files are made. reference: its checkpoint in torch, which the gate compares with."""

    target: Target
    shop: Workshop
    reference: Runner

    def accepted(self, precision: Precision, kind: Kind, write: Callable[[Path], object]) -> Made:
        """The file, once it has passed."""
        shop, path = self.shop, self.shop.path(self.target, precision, kind)

        def judged(written: Path) -> Verdict:
            how: dict[str, Any] = {"count": shop.gate_images, "progress": shop.progress}
            return judge(self.reference, open_candidate(written), shop.val.images, shop.coco, **how)

        return Made(self.target, precision, kind, path, accept(path, write, judged, allow_drop=shop.allow_drop))

    def tried(self, precision: Precision, kind: Kind, make: Callable[[], Made]) -> Made:
        """What make gives, or the reason why there is no such file: the others are worth having without it."""
        try:
            return make()
        except GateFailed as error:
            said = f"refused: {'; '.join(error.verdict.reasons)}"
            return Made(self.target, precision, kind, None, error.verdict, said)
        except (ImportError, ValueError) as error:  # not installed, or it lost too much before the gate
            return Made(self.target, precision, kind, None, None, str(error).splitlines()[0])

    def mixed(self, file: Path) -> Made:
        shop, path = self.shop, self.shop.path(self.target, "fp16", "onnx")
        how: dict[str, Any] = {"count": shop.gate_images, "progress": shop.progress, "allow_drop": shop.allow_drop}
        attempts = accept_mixed(file, path, self.reference, shop.val.images, shop.coco, attempts=shop.attempts, **how)
        said = f"fp32 in {', '.join(attempts.islands)} too" if attempts.islands else ""
        return Made(self.target, "fp16", "onnx", path, attempts.verdict, said)

    def in_8_bits(self, quantise: Callable[..., object], file: Path, path: Path) -> object:
        how = {"images": self.shop.calibration_images, "drop": self.shop.int8_drop, "allow_drop": self.shop.allow_drop}
        return quantise(file, path, train=self.shop.train, progress=self.shop.progress, **how)

    def engine(self, source: Made) -> Made:
        """The TensorRT engine of an ONNX file, for one image; without GPU or TensorRT the line that says so."""
        precision, file, fault = source.precision, source.path, missing()
        if fault or file is None:
            return Made(self.target, precision, "tensorrt", None, None, fault or source.said)
        how: dict[str, Any] = {"batch": (1, 1, 1), "workspace_mib": self.shop.workspace_mib}
        how |= {"timing_cache": self.shop.folder / "tensorrt.timing", "progress": self.shop.progress}
        return self.tried(
            precision,
            "tensorrt",
            lambda: self.accepted(precision, "tensorrt", lambda path: build_tensorrt(file, path, **how)),
        )


def files_table(made: Sequence[Made]) -> pd.DataFrame:
    """One row a file, made or refused."""
    rows = []
    for each in made:
        verdict = each.verdict
        gate = (
            "not tried" if verdict is None else "passed" if verdict.passed else "refused" if not each.path else "kept"
        )
        rows.append(
            {
                "file": each.name,
                "MB": megabytes(each.path) if each.path else None,
                "gate": gate,
                "boxes matched": verdict.share_matched if verdict else None,
                "score difference (99 %)": verdict.score_p99 if verdict else None,
                "AP before": verdict.before.ap if verdict and verdict.before else None,
                "AP after": verdict.after.ap if verdict and verdict.after else None,
                "said": each.said,
            }
        )
    return pd.DataFrame(rows).set_index("file")


def megabytes(path: Path) -> float:
    """With the weights of an OpenVINO pair."""
    return sum(each.stat().st_size for each in {path, path.with_suffix(".bin")} if each.is_file()) / 1e6


# --- measuring ---


@dataclass(frozen=True)
class Contender:
    """A checkpoint or a file, in the runtime that it is made for."""

    name: str  # such as s@960 fp16 onnxruntime
    target: Target
    source: Path
    runtime: Runtime
    is_timed: bool = True  # False: what a CPU takes for an fp16 file tells nothing of a GPU

    def open(self) -> Runner:
        """To be timed."""
        size_hw = self.target.size_hw if self.runtime in ("torch", "compiled") else None
        return open_runner(self.source, self.runtime, size_hw=size_hw)

    def open_as_judged(self) -> Runner:
        """To be scored: fp16 is rounded as on a GPU."""
        return self.open() if self.is_timed else open_candidate(self.source)


RUNTIME_OF: Mapping[Kind, Runtime] = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}


def contenders(targets: Sequence[Target], made: Sequence[Made], wanted: Sequence[Runtime] = ()) -> list[Contender]:
    """All that can run here. wanted: only these runtimes; none: all but torch.compile."""
    found = []
    for target in targets:
        for runtime in installed_runtimes(target.checkpoint):
            if runtime in (wanted or ("torch",)):
                found.append(Contender(f"{target.name} {runtime}", target, target.checkpoint, runtime))
    on_gpu = torch.cuda.is_available()
    for each in made:
        runtime = RUNTIME_OF[each.kind]
        if each.path and runtime in installed_runtimes(each.path) and runtime in (wanted or [runtime]):
            is_timed = on_gpu or each.precision != "fp16" or each.kind != "onnx"
            name = f"{each.target.name} {each.precision} {runtime}"
            found.append(Contender(name, each.target, each.path, runtime, is_timed))
    if not found:
        raise ValueError(f"runtimes: expected one that can run here, got {', '.join(wanted)}; leave the list empty")
    return found


def least_scores(thresholds: Thresholds) -> dict[int, float]:
    """By category id, the lowest of day and night: what a detection needs at least."""
    return {each: min(row) for each, row in zip(thresholds.category_ids, thresholds.scores, strict=True)}


# --- what goes to the device ---


def for_device(made: Sequence[Made], name: str = "") -> Made:
    """The ONNX file to send. name: of the best candidate, which tells target and precision as far as they are known."""
    files = [each for each in made if each.kind == "onnx" and each.path]
    if not files:
        raise ValueError("expected an ONNX file that has passed the gate, found none; look at what was refused")
    own = [each for each in files if name.split(" ")[0] == each.target.name.split(" ")[0]] or files
    told = [each for each in own if each.precision in name]
    order: list[Precision] = ["fp16", "fp32", "int8"]
    return min(told or own, key=lambda each: order.index(each.precision))


def pack(file: Made, thresholds: Thresholds, folder: Path) -> list[Path]:
    """What jetson/detect.py reads from /models: one ONNX file and the thresholds. What an earlier run left goes."""
    assert file.path is not None
    folder.mkdir(parents=True, exist_ok=True)
    for old in [each for each in folder.iterdir() if each.suffix in (".onnx", ".engine", ".json", ".timing")]:
        old.unlink()
    with atomic(folder / file.path.name) as temporary:
        shutil.copyfile(file.path, temporary)
    return [folder / file.path.name, write_json(folder / "thresholds.json", thresholds.as_dict(), indent=1)]
