"""INT8 with its accuracy under control: for OpenVINO by NNCF, for TensorRT and ONNX Runtime as Q/DQ nodes.

Both are calibrated on the same training images; both measure AP before and after on the same control images, give the
layers that cost too much back to floating point, and refuse to write a file that still falls too far. Backbone and
encoder are quantised, where the time goes; the decoder's heads, its islands and the post-processing stay float.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx

from kit.data.coco import Split
from kit.deploy.about import About
from kit.deploy.calibration import RANKED, Feeds, Pool, Pools, Steps, average_precision, part, read_pools, spread_rows
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.graph import layer_of
from kit.deploy.nncf_control import by_nncf, names_in_8_bits, refuse_without_nncf
from kit.deploy.openvino import write_openvino
from kit.deploy.precision import mixed_precision
from kit.deploy.qdq import activation_scales, quantisable, with_qdq
from kit.deploy.runtimes import Runtime, open_runner
from kit.predict import Progress

PARTS = ("backbone", "encoder")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What was written, and what it costs."""

    path: Path
    ap_before: float  # in the same runtime, on the same control images
    ap_after: float
    quantised: list[str]  # layers that compute in 8 bits
    reverted: list[str]  # layers that cost too much, and are floating point again
    calibration_images: int
    control_images: int
    seconds: float

    @property
    def drop(self) -> float:
        return self.ap_before - self.ap_after

    @property
    def table(self) -> dict[str, str]:
        """For reading."""
        return {
            "file": self.path.name,
            "AP before": f"{self.ap_before:.4f}",
            "AP after": f"{self.ap_after:.4f}",
            "layers in 8 bits": str(len(self.quantised)),
            "given back": ", ".join(self.reverted) or "none",
            "images": f"{self.calibration_images} to calibrate, {self.control_images} to control",
            "seconds": f"{self.seconds:.0f}",
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"path": str(self.path), "drop": self.drop}


@dataclass(frozen=True)
class Work:
    """What both ways begin with."""

    model: onnx.ModelProto
    about: About
    layers: dict[str, str]  # of the nodes to quantise, by their names, in the order of the graph
    pools: Pools
    ap_before: float
    step: Steps
    started: float

    def average_precision(self, path: Path, runtime: Runtime) -> float:
        """Of a file that has been made of it, on all control images."""
        return average_precision(open_runner(path, runtime, "cpu"), self.pools.control, self.about, self.step)


def quantise_openvino(
    onnx_file: Path | str,
    path: Path | str,
    *,
    train: Split,
    control: Split | None = None,
    images: int = 300,
    control_images: int = 200,
    drop: float = 0.01,
    parts: Sequence[str] = PARTS,
    rounds: int = 20,
    allow_drop: bool = False,
    progress: Progress | None = None,
) -> Quantised:
    """OpenVINO's pair of files in 8 bits, by NNCF, from an fp32 ONNX file of ours.

    Calibrated on `images` of train. Where AP on the control images (None: further ones of train) falls by more than
    `drop`, layers return to floating point one group after the other, at most `rounds` of them; ValueError where that
    does not suffice, unless allow_drop. Weights keep to 7 of the 8 bits, so that no CPU's sums overflow.
    """
    refuse_without_nncf()
    wanted = Wanted(train, control, images, control_images, drop)
    work = begun(onnx_file, "openvino", parts, wanted, Steps(progress, looks=6))
    names = set(work.layers)
    with tempfile.TemporaryDirectory() as folder:
        limits = (drop, rounds)
        model, first = by_nncf(Path(onnx_file), names, work.pools, work.about, limits, work.step, Path(folder))
        trial = write_openvino(model, Path(folder) / "trial.xml", replace(work.about, precision="int8"))
        after = work.average_precision(trial, "openvino")
    result = ended(work, path, after, first, names_in_8_bits(model, names))
    refuse_drop(result, drop, allow_drop)
    write_openvino(model, path, with_notes(work.about, result))
    work.step.finish()
    return result


def quantise_onnx(
    onnx_file: Path | str,
    path: Path | str,
    *,
    train: Split,
    control: Split | None = None,
    images: int = 300,
    control_images: int = 200,
    drop: float = 0.01,
    parts: Sequence[str] = PARTS,
    rest: Literal["fp32", "fp16"] = "fp32",
    allow_drop: bool = False,
    progress: Progress | None = None,
) -> Quantised:
    """An ONNX file with Q/DQ nodes, for TensorRT and ONNX Runtime, from an fp32 one of ours; see quantise_openvino.

    rest: what computes in floating point does so in fp32, or in fp16 with fp32 islands, as TensorRT is quick with.
    Not for OpenVINO: on CPUs without VNNI its sums of full 8-bit products overflow.
    """
    wanted = Wanted(train, control, images, control_images, drop)
    work = begun(onnx_file, "onnxruntime", parts, wanted, Steps(progress, looks=2))
    feeds = Feeds(work.pools.calibration, work.about)
    scales = activation_scales(work.model, quantisable(work.model, parts), feeds)
    floating = in_half(work.model) if rest == "fp16" else work.model

    def scales_without(reverted: set[str]) -> dict[str, float]:
        return {name: scales[name] for name, layer in work.layers.items() if group_of(layer) not in reverted}

    def measure(reverted: set[str], pool: Pool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            model, about = with_qdq(floating, scales_without(reverted)), replace(work.about, precision="int8")
            trial = write_onnx(model, Path(folder) / "trial.onnx", about)
            return average_precision(open_runner(trial, "onnxruntime", "cpu"), pool, about, work.step)

    groups = list(dict.fromkeys(group_of(layer) for layer in work.layers.values()))
    reverted, after = revert(measure, groups, work.pools.control, work.ap_before - drop)
    kept = scales_without(reverted)
    result = ended(work, path, after, set(scales), set(kept))
    refuse_drop(result, drop, allow_drop)
    write_onnx(with_qdq(floating, kept), path, with_notes(work.about, result))
    work.step.finish()
    return result


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the images, how many of each, and by how much AP may fall."""

    train: Split
    control: Split | None
    images: int
    control_images: int
    drop: float


def begun(onnx_file: Path | str, runtime: Runtime, parts: Sequence[str], wanted: Wanted, step: Steps) -> Work:
    """The images are read, and AP is measured before anything is changed."""
    started = time.monotonic()
    if wanted.drop < 0:
        raise ValueError(f"drop must be at least 0, got {wanted.drop:g}")
    model, about = read_fp32(onnx_file)
    layers = {node.name: layer_of(node) for node in quantisable(model, parts)}
    pools = read_pools(about, wanted.train, wanted.control, wanted.images, wanted.control_images, step)
    before = average_precision(open_runner(onnx_file, runtime, "cpu"), pools.control, about, step)
    return Work(model, about, layers, pools, before, step, started)


def ended(work: Work, path: Path | str, after: float, wanted: set[str], kept: set[str]) -> Quantised:
    """wanted, kept: names of the nodes that were in 8 bits at first, and at last."""
    return Quantised(
        path=Path(path),
        ap_before=work.ap_before,
        ap_after=after,
        quantised=named(kept, work.layers),
        reverted=named(wanted - kept, work.layers),
        calibration_images=len(work.pools.calibration),
        control_images=len(work.pools.control),
        seconds=time.monotonic() - work.started,
    )


def revert(
    measure: Callable[[set[str], Pool], float], groups: Sequence[str], control: Pool, least: float
) -> tuple[set[str], float]:
    """Which groups of layers must return to floating point for an AP of at least `least`, and the AP then.

    Each is tried alone on some of the images; then they return in the order of what that gained, until it suffices.
    """
    after = measure(set(), control)
    if after >= least:
        return set(), after
    some = part(control, spread_rows(len(control), RANKED))
    order = sorted(groups, key=lambda group: measure({group}, some), reverse=True)
    for count in range(1, len(order)):  # the last one stays: a file without 8 bits is none of INT8
        after = measure(set(order[:count]), control)
        if after >= least:
            return set(order[:count]), after
    return set(order[:-1]), after


def group_of(layer: str) -> str:
    """Layers that return to floating point together: encoder.top_down.0.enter.conv is one of encoder.top_down.0."""
    return ".".join(layer.split(".")[:3])


def named(names: set[str], layers: Mapping[str, str]) -> list[str]:
    """The layers of some nodes, in the order of the graph."""
    return list(dict.fromkeys(layer for name, layer in layers.items() if name in names))


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """As mixed_precision gives it, with Q/DQ nodes allowed to have half-precision scales.

    They are from opset 19 on; what else that opset changed leaves the meaning of the operators used here as it was.
    """
    mixed = mixed_precision(model)
    for each in mixed.opset_import:
        if each.domain == "":
            each.version = max(each.version, 19)
    return mixed


def read_fp32(onnx_file: Path | str) -> tuple[onnx.ModelProto, About]:
    model, about = read_onnx(onnx_file)
    if about.precision != "fp32":
        raise ValueError(
            f"{onnx_file}: expected an ONNX file of precision fp32, found {about.precision}; calibration needs exact "
            "values: export it again with kit.deploy.export_onnx"
        )
    return model, about


def refuse_drop(result: Quantised, drop: float, allow_drop: bool) -> None:
    if result.drop > drop and not allow_drop:
        raise ValueError(
            f"{result.path}: expected AP to fall by at most {drop:g} on {result.control_images} images, it fell from "
            f"{result.ap_before:.4f} to {result.ap_after:.4f}, {len(result.reverted)} layers given back "
            f"({', '.join(result.reverted[:5]) or 'none'}); nothing was written. Calibrate on more images, quantise "
            'fewer parts (parts=["backbone"]), or allow_drop=True'
        )


def with_notes(about: About, result: Quantised) -> About:
    """What the file will say of how it came about, the same each time."""
    values = {name: value for name, value in result.as_dict().items() if name not in ("path", "seconds")}
    return replace(about, precision="int8", notes=about.notes | {"int8": values})
