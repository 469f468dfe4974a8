"""INT8 for OpenVINO by NNCF, which gives layers back to floating point until the accuracy is within its limit."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kit.data.coco import as_coco, parse_coco
from kit.deploy.about import About
from kit.deploy.calibration import RANKED, Feeds, Pool, Pools, Steps, average_precision, part
from kit.deploy.runtimes import Found, as_input, openvino
from kit.files import read_json, write_json
from kit.params import ROOT

LOOKED = "image looked at"  # a line of the process, for each


def by_nncf(
    onnx_file: Path, names: set[str], pools: Pools, about: About, limits: tuple[float, int], step: Steps, folder: Path
) -> tuple[Any, set[str]]:
    """The model in 8 bits as far as its accuracy allows, and the nodes that were so before it was looked at.

    names: ONNX names of the nodes to quantise; limits: the largest drop of AP, and how often layers may be given back;
    folder: for files that may go afterwards. NNCF works in a process of its own, and all that it leaves goes with it.
    """
    job = {"onnx": str(onnx_file.resolve()), "names": sorted(names), "limits": limits, "about": about.as_json()}
    write_json(folder / "job.json", job)
    for name, pool in (("calibration", pools.calibration), ("control", pools.control)):
        write_json(folder / f"{name}.json", as_coco(pool.coco))
        np.save(folder / f"{name}_pixels.npy", pool.pixels)
        np.save(folder / f"{name}_sizes.npy", pool.original_sizes_hw)
    follow(folder, step)
    return openvino().Core().read_model(str(folder / "quantised.xml")), set(read_json(folder / "first.json"))


def follow(folder: Path, step: Steps) -> None:
    """Runs the process; RuntimeError with its last line where it fails."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "kit.deploy.nncf_control", str(folder)]
    with (
        (folder / "stderr.txt").open("w+") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=os.environ | {"PYTHONPATH": path}
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.rstrip("\n") == LOOKED:
                    step()
        except BaseException:
            process.kill()
            raise
        if process.wait():
            said.seek(0)
            last = (said.read().strip().splitlines() or [f"it ended with {process.returncode} and said nothing"])[-1]
            raise RuntimeError(f"NNCF could not quantise the model: {last}")


def read_pool(folder: Path, name: str) -> Pool:
    """As by_nncf has left it; pixels stay in the file."""
    coco = parse_coco(read_json(folder / f"{name}.json"), folder / f"{name}.json")
    pixels = np.load(folder / f"{name}_pixels.npy", mmap_mode="c")
    return Pool(coco, pixels, np.load(folder / f"{name}_sizes.npy"))


def controlled(
    compressor: Any, model: Any, ignored: list[str], pools: Pools, about: About, job: dict[str, Any], looked: Steps
) -> Any:
    """NNCF's own loop, in job["folder"]."""
    most_drop, rounds = job["limits"]
    advanced = compressor.quantization.advanced_parameters

    def validate(compiled: Any, rows: Iterable[int]) -> tuple[float, None]:
        def find(images: np.ndarray, sizes_hw: np.ndarray) -> Found:
            answers = compiled([as_input(images, about), sizes_hw])
            return Found(*(np.array(answers[index]) for index in range(3)))

        return average_precision(find, part(pools.control, np.array(list(rows))), about, looked), None

    with quiet():
        return compressor.quantize_with_accuracy_control(
            model,
            compressor.Dataset(Feeds(pools.calibration, about)),
            compressor.Dataset(range(len(pools.control))),
            validate,
            max_drop=most_drop,
            drop_type=compressor.DropType.ABSOLUTE,
            subset_size=len(pools.calibration),
            ignored_scope=compressor.IgnoredScope(names=ignored, validate=False),
            advanced_quantization_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=advanced.OverflowFix.ENABLE
            ),
            advanced_accuracy_restorer_parameters=advanced.AdvancedAccuracyRestorerParameters(
                max_num_iterations=rounds,
                ranking_subset_size=RANKED,
                num_ranking_workers=1,
                intermediate_model_dir=job["folder"],
            ),
        )


def main(arguments: Sequence[str]) -> int:
    """The process that by_nncf starts; arguments: the folder with the job."""
    folder = Path(arguments[0])
    job = read_json(folder / "job.json") | {"folder": str(folder)}
    about, names = About.from_json(job["about"], folder / "job.json"), set(job["names"])
    pools = Pools(read_pool(folder, "calibration"), read_pool(folder, "control"))
    out = sys.stdout  # NNCF prints to what is put in its place
    looked = Steps(lambda *_: print(LOOKED, file=out, flush=True))
    core = openvino().Core()
    model = core.read_model(job["onnx"])
    ignored = [op.get_friendly_name() for op in model.get_ops() if onnx_name(op, names) is None]
    quantised = controlled(nncf(), model, ignored, pools, about, job, looked)
    del quantised.rt_info["nncf"]  # its own account: every ignored name, and a temporary folder
    openvino().save_model(quantised, str(folder / "quantised.xml"), compress_to_fp16=False)
    first = core.read_model(str(folder / "intermediate_model.xml"))
    write_json(folder / "first.json", sorted(names_in_8_bits(first, names)))
    return 0


def onnx_name(op: Any, names: set[str]) -> str | None:
    """Of the names that which an operator was made of: stem/Conv becomes stem/Conv and stem/Conv/WithoutBiases."""
    name = str(op.get_friendly_name())
    return next((each for each in (name, name.rpartition("/")[0]) if each in names), None)


def names_in_8_bits(model: Any, names: set[str]) -> set[str]:
    """Those of the names that stand for a convolution or a product with weights 8 bits wide, or rounded to that."""
    weighted = {"Convolution", "GroupConvolution", "MatMul"}
    ops = [op for op in model.get_ops() if op.get_type_name() in weighted and has_8_bit_weights(op)]
    return {name for name in (onnx_name(op, names) for op in ops) if name is not None}


def has_8_bit_weights(op: Any) -> bool:
    """Looks from the weights up to their constant."""
    source = op.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        source = source.input_value(0).get_node()
    if source.get_type_name() == "FakeQuantize":
        return True
    return source.get_type_name() == "Constant" and source.get_element_type().to_string() in ("i8", "u8")


def refuse_without_nncf() -> None:
    """Before anything takes time: where it is not installed, an ImportError of one line."""
    if find_spec("nncf") is None:
        raise ImportError("NNCF, which makes INT8, is not installed: pip install -e '.[openvino]'")


def nncf() -> Any:
    """The NNCF module, without its telemetry, which is settled when it is imported."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with quiet():
            return import_module("nncf")
    finally:
        del os.environ["NNCF_CI"]
        if before is not None:
            os.environ["NNCF_CI"] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without NNCF's bars and lines; what it finds is in what is returned."""
    loggers = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is written; native libraries that are taken down in an unlucky order may crash
