"""INT8 for OpenVINO by NNCF, which gives layers back to floating point until the accuracy is within its limit."""

import contextlib
import io
import logging
import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kit.deploy.about import About
from kit.deploy.calibration import RANKED, Feeds, Pools, Steps, average_precision, part
from kit.deploy.runtimes import Found, as_input, openvino


def by_nncf(
    compressor: Any,
    model: Any,
    names: set[str],
    pools: Pools,
    about: About,
    limits: tuple[float, int],
    step: Steps,
    folder: Path,
) -> tuple[Any, set[str]]:
    """The model in 8 bits as far as its accuracy allows, and the nodes that were so before it was looked at.

    names: ONNX names of the nodes to quantise; limits: the largest drop of AP, and how often layers may be given back.
    """
    ignored = [op.get_friendly_name() for op in model.get_ops() if onnx_name(op, names) is None]
    most_drop, rounds = limits
    advanced = compressor.quantization.advanced_parameters

    def validate(compiled: Any, rows: Iterable[int]) -> tuple[float, None]:
        def find(images: np.ndarray, sizes_hw: np.ndarray) -> Found:
            answers = compiled([as_input(images, about), sizes_hw])
            return Found(*(np.array(answers[index]) for index in range(3)))

        return average_precision(find, part(pools.control, np.array(list(rows))), about, step), None

    with quiet():
        quantised = compressor.quantize_with_accuracy_control(
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
                intermediate_model_dir=str(folder),
            ),
        )
    del quantised.rt_info["nncf"]  # its own account: every ignored name, and a temporary folder
    first = openvino().Core().read_model(str(folder / "intermediate_model.xml"))
    return quantised, names_in_8_bits(first, names)


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


def nncf() -> Any:
    """The NNCF module, without its telemetry; where it is not installed, an ImportError of one line."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # read when it is imported: sends nothing home
    try:
        with quiet():
            return import_module("nncf")
    except ImportError as error:
        raise ImportError("NNCF, which makes INT8, is not installed: pip install -e '.[openvino]'") from error
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
