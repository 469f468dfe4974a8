"""What the file beside a TensorRT engine says: what the engine takes and finds, and the machine that it is bound to.

An engine runs where it was built: same TensorRT, same GPU. It holds machine code: open none that you do not trust.
"""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kit.deploy.about import INPUTS, About
from kit.files import read_json, sha256, write_json

FORMAT = "kit-engine-1"

SizeHw = tuple[int, int]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Ranges:
    """Smallest, most frequent and largest input: TensorRT tunes for the middle one and takes all that lie between."""

    batch: tuple[int, int, int]
    sizes_hw: tuple[SizeHw, SizeHw, SizeHw]

    def shapes(self, about: About) -> dict[str, list[tuple[int, ...]]]:
        """Three shapes for each input."""
        images: list[tuple[int, ...]] = [
            (count, about.channels, *size) if about.input == "float" else (count, *size, about.channels)
            for count, size in zip(self.batch, self.sizes_hw, strict=True)
        ]
        sizes: list[tuple[int, ...]] = [(count, 2) for count in self.batch]
        return dict(zip(INPUTS, (images, sizes), strict=True))


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to."""

    tensorrt: str
    gpu: str
    compute_capability: str
    cuda: str  # told, not compared: TensorRT brings its own
    platform: str

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} ({self.compute_capability}), {self.platform}"


@dataclass(frozen=True)
class Engine:
    """What the file beside an engine says: `<engine>.json`."""

    about: About
    ranges: Ranges
    machine: Machine
    onnx: str  # name of the file it was built from
    onnx_sha256: str
    engine_sha256: str

    def write(self, path: Path) -> Path:
        """path: of the engine."""
        values = {name: getattr(self, name) for name in ("onnx", "onnx_sha256", "engine_sha256")}
        about = asdict(self.about)
        whole = {"format": FORMAT, "about": about, **asdict(self.ranges), "machine": asdict(self.machine), **values}
        return write_json(sidecar(path), whole, indent=1)


def sidecar(path: Path | str) -> Path:
    return Path(f"{path}.json")


def of_ranges(about: About, ranges: Ranges) -> About:
    """What is left of the file's freedom in an engine for these ranges."""
    height, width = ranges.sizes_hw[1]
    return replace(
        about,
        batch=ranges.batch[0] if ranges.batch[0] == ranges.batch[2] else None,
        dynamic_size=ranges.sizes_hw[0] != ranges.sizes_hw[2],
        height_px=height,
        width_px=width,
    )


def this_machine(trt: Any) -> Machine:
    if not torch.cuda.is_available():
        raise RuntimeError("TensorRT needs an NVIDIA GPU, torch finds none")
    major, minor = torch.cuda.get_device_capability()
    return Machine(
        tensorrt=trt.__version__,
        gpu=torch.cuda.get_device_name(),
        compute_capability=f"{major}.{minor}",
        cuda=str(torch.version.cuda),
        platform=f"{platform.system()}-{platform.machine()}",
    )


def read_engine(path: Path | str, machine: Machine) -> Engine:
    """What is known of an engine that can run here; ValueError in one line where it cannot, and what to do."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a TensorRT engine, found nothing; check the path")
    if not sidecar(path).is_file():
        raise ValueError(
            f"{path}: {sidecar(path).name} is missing beside it; build it with kit.deploy.build_tensorrt, "
            "or call kit.deploy.tensorrt.describe_engine after trtexec"
        )
    engine = parse_engine(read_json(sidecar(path)), sidecar(path))
    mend = f"build it here: kit.deploy.build_tensorrt({engine.onnx!r}, {str(path)!r})"
    if engine.engine_sha256 != sha256(path):
        raise ValueError(f"{path}: is not the engine that {sidecar(path).name} tells of; {mend}")
    if replace(engine.machine, cuda=machine.cuda) != machine:
        raise ValueError(f"{path}: built for {engine.machine}; this is {machine}; {mend}")
    return engine


def parse_engine(values: Any, source: Path) -> Engine:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{source}: expected {FORMAT}, found another format; build the engine again")
    try:
        first, second, third = (tuple(size) for size in values["sizes_hw"])
        return Engine(
            about=About(**values["about"]),
            ranges=Ranges(tuple(values["batch"]), (first, second, third)),
            machine=Machine(**values["machine"]),
            **{name: values[name] for name in ("onnx", "onnx_sha256", "engine_sha256")},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: incomplete or written by another kit ({error}); build the engine again") from error


def ignore(text: str) -> None:
    """What nobody wants to hear."""


def new_listener(trt: Any, log: Log) -> Any:
    """A logger for TensorRT that keeps the errors; its class can only be made where TensorRT is."""

    class Listener(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                log(message)

    return Listener()
