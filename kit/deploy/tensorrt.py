"""An ONNX file to a TensorRT engine, the file beside it that says what it is, and the trtexec line that does the same.

One strongly typed builder for TensorRT 10.13 to 11.4: precision is in the ONNX file (fp16 with its fp32 islands as
casts, INT8 as Q/DQ nodes) and no flag speaks of it. TF32 is off: its 10 bits would make fp16 of the fp32 islands.
"""

import argparse
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kit.deploy.about import INPUTS, OUTPUTS, About
from kit.deploy.engine import Engine, Log, Ranges, SizeHw, ignore, new_listener, of_ranges, sidecar, this_machine
from kit.deploy.export import read_onnx
from kit.deploy.operators import check_operators
from kit.deploy.runtimes import tensorrt
from kit.files import sha256, write_bytes
from kit.progress import Bar

BATCHES = (1, 1, 8)


def build_tensorrt(
    onnx_file: Path | str,
    path: Path | str,
    *,
    batch: tuple[int, int, int] | None = None,
    sizes_hw: tuple[SizeHw, SizeHw, SizeHw] | None = None,
    workspace_mib: int | None = None,
    timing_cache: Path | str | None = None,
    effort: int = 3,
    progress: Callable[[int, int], None] | None = None,
    log: Log | None = None,
) -> Path:
    """The engine of one of kit's ONNX files, for the GPU of this machine; minutes, and again for each TensorRT.

    batch: smallest, most frequent and largest; None takes the file's own, or 1, 1 and 8. sizes_hw: the same for a file
    of dynamic size. workspace_mib: the most that a layer may borrow; None leaves it to TensorRT. timing_cache: measured
    kernels, read and written, so that the next build is quicker. effort: 0 to 5, how long TensorRT may search.
    progress: called with (done, total) in thousandths. log: given the warnings and errors of TensorRT.
    """
    onnx_file, path = Path(onnx_file), Path(path)
    about, ranges = read_buildable(onnx_file, batch, sizes_hw)
    trt = tensorrt()
    machine = this_machine(trt)
    listener = new_listener(trt, log or ignore)
    builder = trt.Builder(listener)
    network, parser = parsed(trt, builder, listener, onnx_file)
    config = configured(trt, builder, network, ranges.shapes(about), effort, workspace_mib)
    cache = None if timing_cache is None else read_timing_cache(config, Path(timing_cache), log or ignore)
    if progress:
        config.progress_monitor = new_monitor(trt, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"{onnx_file}: TensorRT {trt.__version__} built nothing: {'; '.join(listener.errors)}")
    sidecar(path).unlink(missing_ok=True)  # never an engine beside the words of another
    write_bytes(path, bytes(plan))
    if cache is not None and timing_cache is not None:
        write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()))
    del parser  # the network has lived on its weights
    engine_about = of_ranges(about, ranges)
    Engine(engine_about, ranges, machine, onnx_file.name, sha256(onnx_file), sha256(path)).write(path)
    return path


def read_buildable(
    onnx_file: Path, batch: tuple[int, int, int] | None, sizes_hw: tuple[SizeHw, SizeHw, SizeHw] | None
) -> tuple[About, Ranges]:
    """What the file says of itself and the inputs the engine is for. ValueError where TensorRT could not build it."""
    model, about = read_onnx(onnx_file)
    problems = check_operators(model)
    if problems:
        raise ValueError(f"{onnx_file}: TensorRT cannot build it: {'; '.join(problems)}")
    return about, ranges_of(about, batch, sizes_hw, onnx_file)


def ranges_of(
    about: About,
    batch: tuple[int, int, int] | None,
    sizes_hw: tuple[SizeHw, SizeHw, SizeHw] | None,
    source: Path,
) -> Ranges:
    fixed = about.batch and (about.batch,) * 3
    batch = batch or fixed or BATCHES
    if fixed and batch != fixed:
        raise ValueError(f"{source}: takes batches of {about.batch} only, asked for {batch}; export it with batch=None")
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ValueError(f"batch must rise from at least 1, got {batch}")
    sizes_hw = sizes_hw or (about.size_hw,) * 3
    for size_hw in sizes_hw:
        about.check_size_hw(size_hw)
    if any(sides != tuple(sorted(sides)) for sides in zip(*sizes_hw, strict=True)):
        raise ValueError(f"sizes_hw must rise, got {sizes_hw}")
    return Ranges(batch, sizes_hw)


def missing() -> str | None:
    """Why no engine can be built or run here, in one line; None where it can."""
    try:
        tensorrt()
    except ImportError as error:
        return str(error)
    return None if torch.cuda.is_available() else "TensorRT needs an NVIDIA GPU, torch finds none"


def parsed(trt: Any, builder: Any, listener: Any, onnx_file: Path) -> tuple[Any, Any]:
    """The network, and the parser, which must live until the engine is built. ValueError with what TensorRT says."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, listener)
    if not parser.parse(onnx_file.read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        told = [f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors]
        raise ValueError(f"{onnx_file}: TensorRT {trt.__version__} cannot read it: {'; '.join(told)}")
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    names += [network.get_output(index).name for index in range(network.num_outputs)]
    if names != [*INPUTS, *OUTPUTS]:
        raise ValueError(
            f"{onnx_file}: expected inputs and outputs {[*INPUTS, *OUTPUTS]}, found {names}; export it again"
        )
    return network, parser


def configured(
    trt: Any,
    builder: Any,
    network: Any,
    shapes: Mapping[str, list[tuple[int, ...]]],
    effort: int,
    workspace_mib: int | None,
) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = effort
    if workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if any(-1 in tuple(network.get_input(index).shape) for index in range(network.num_inputs)):
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in shapes.items():
            profile.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise ValueError(f"TensorRT refuses the input shapes {dict(shapes)}")
    return config


def read_timing_cache(config: Any, path: Path, log: Log) -> Any:
    """Attached to config, and to be kept until the engine is built. One of another GPU or TensorRT is begun anew."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        log(f"{path}: a timing cache of another GPU or TensorRT; begun anew")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def new_monitor(trt: Any, progress: Callable[[int, int], None]) -> Any:
    """TensorRT's progress as (done, 1000); its class can only be made where TensorRT is."""
    phases = Phases(progress)

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            phases.step(name, step)
            return True  # go on

        def phase_finish(self, name: str) -> None:
            phases.finish(name)

    return Monitor()


class Phases:
    """Nested phases of a build, told as one number that never falls. Called from several threads."""

    def __init__(self, progress: Callable[[int, int], None]):
        self.progress = progress
        self.running: dict[str, tuple[str | None, int, int]] = {}  # name: parent, steps, done
        self.told = 0
        self.lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self.lock:
            self.running[name] = (parent, steps, 0)

    def step(self, name: str, step: int) -> None:
        with self.lock:
            parent, steps, _ = self.running[name]
            self.running[name] = (parent, steps, step + 1)
            roots = [each for each, (above, _, _) in self.running.items() if above is None]
            self.told = max(self.told, *(int(1000 * self.share(root)) for root in roots))
            self.progress(min(self.told, 999), 1000)

    def finish(self, name: str) -> None:
        with self.lock:
            parent, _, _ = self.running.pop(name)
            if parent is None and not self.running:
                self.progress(1000, 1000)

    def share(self, name: str) -> float:
        _, steps, done = self.running[name]
        below = [self.share(each) for each, (parent, _, _) in self.running.items() if parent == name]
        return min((done + max(below, default=0.0)) / steps, 1.0)


def describe_engine(
    path: Path | str,
    onnx_file: Path | str,
    *,
    batch: tuple[int, int, int] | None = None,
    sizes_hw: tuple[SizeHw, SizeHw, SizeHw] | None = None,
) -> Path:
    """Writes the file beside an engine that trtexec built on this machine by trtexec_command of these arguments."""
    onnx_file, path = Path(onnx_file), Path(path)
    about, ranges = read_buildable(onnx_file, batch, sizes_hw)
    machine = this_machine(tensorrt())
    about = of_ranges(about, ranges)
    return Engine(about, ranges, machine, onnx_file.name, sha256(onnx_file), sha256(path)).write(path)


def trtexec_command(
    onnx_file: Path | str,
    path: Path | str,
    *,
    batch: tuple[int, int, int] | None = None,
    sizes_hw: tuple[SizeHw, SizeHw, SizeHw] | None = None,
    workspace_mib: int | None = None,
    timing_cache: Path | str | None = None,
) -> str:
    """The shell line that builds the same engine and measures it; after it, describe_engine. Needs no TensorRT."""
    about, ranges = read_buildable(Path(onnx_file), batch, sizes_hw)
    words = ["trtexec", f"--onnx={onnx_file}", f"--saveEngine={path}", "--stronglyTyped", "--noTF32"]
    if about.batch is None or about.dynamic_size:
        shapes = ranges.shapes(about)
        for index, option in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
            told = [f"{name}:{'x'.join(map(str, each[index]))}" for name, each in shapes.items()]
            words.append(f"{option}={','.join(told)}")
    if workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{workspace_mib}")
    if timing_cache is not None:
        words.append(f"--timingCacheFile={timing_cache}")
    return shlex.join([*words, "--useCudaGraph"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the trtexec line, then builds; 1 where TensorRT or a GPU is missing, 2 where it cannot be built."""
    command = argparse.ArgumentParser(
        prog="python -m kit.deploy.tensorrt", description=(__doc__ or "").partition("\n")[0]
    )
    command.add_argument("onnx", type=Path, help="a file of kit.deploy.export_onnx")
    command.add_argument("engine", type=Path, help="to write; <engine>.json goes beside it")
    command.add_argument("--batch", type=int, nargs=3, metavar=("LEAST", "USUAL", "MOST"))
    command.add_argument("--workspace-mib", type=int)
    command.add_argument("--timing-cache", type=Path)
    command.add_argument("--effort", type=int, default=3, choices=range(6))
    command.add_argument("--described", action="store_true", help="the engine is there, from trtexec: write its .json")
    options = command.parse_args(arguments)
    batch = tuple(options.batch) if options.batch else None
    limits = {"workspace_mib": options.workspace_mib, "timing_cache": options.timing_cache}
    try:
        print(trtexec_command(options.onnx, options.engine, batch=batch, **limits))
        if reason := missing():
            print(reason)
            return 1
        if options.described:
            print(describe_engine(options.engine, options.onnx, batch=batch))
            return 0
        bar = Bar("build")
        more = {"effort": options.effort, "progress": bar, "log": bar.say}
        print(build_tensorrt(options.onnx, options.engine, batch=batch, **limits, **more))
    except (ValueError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
