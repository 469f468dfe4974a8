"""INT8 as a graph says it: quantise and dequantise nodes (Q/DQ) before convolutions and matrix products.

In the form that TensorRT reads (explicit quantisation): all of it symmetric, zero points of 0; activations with one
scale for a tensor, weights with one for each channel of the output, both of them as a Q and a DQ; biases, sums, norms
and all else stay as they are. A runtime finds the pairs around an operator and computes it in 8 bits.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kit.deploy.about import INPUTS
from kit.deploy.graph import layer_of
from kit.deploy.runtimes import onnx_session

LEVELS = 127  # of each sign
SMALLEST_SCALE = 1e-6  # of a tensor that is always 0: a scale must be positive, in half precision too
BINS = 2048  # of a histogram
SAMPLED = 65_536  # values of a tensor that are counted, per run
AT_ONCE = 32  # tensors that are looked at in one run: at 1280 px all would take gigabytes


def quantisable(model: onnx.ModelProto, parts: Sequence[str]) -> list[onnx.NodeProto]:
    """Convolutions and matrix products with constant weights whose layer lies in one of the parts of the model."""
    constants = {each.name for each in model.graph.initializer}
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in constants]
    nodes = [node for node in weighted if within(layer_of(node), parts)]
    if not nodes:
        found = sorted({layer_of(node).split(".")[0] for node in weighted})
        raise ValueError(f"parts must name layers with weights, such as {', '.join(found)}; got {', '.join(parts)}")
    return nodes


def within(layer: str, parts: Sequence[str]) -> bool:
    return any(layer == part or layer.startswith(f"{part}.") for part in parts)


class Histogram:
    """How often absolute values occur; its range grows as they come, so that one pass over the images suffices."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS)
        self.top = 0.0  # the upper end of the last bin

    def add(self, values: np.ndarray) -> None:
        """Of a large tensor every n-th value is counted, but the largest always has its place."""
        largest = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(largest):
            raise ValueError("values that are not finite")
        self.grow(largest)
        if self.top:
            flat = np.abs(values.reshape(-1)[:: max(1, values.size // SAMPLED)])
            bins = np.minimum((flat * (BINS / self.top)).astype(np.int64), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def grow(self, largest: float) -> None:
        """Doubles the range, two bins becoming one, until the largest lies within."""
        self.top = self.top or largest
        while self.top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2)])
            self.top *= 2

    def scale(self) -> float:
        """The step in which 8 bits lose the least: smaller cuts off more, larger rounds more (squared error)."""
        if not self.top:
            return SMALLEST_SCALE
        centres = (np.arange(BINS) + 0.5) * (self.top / BINS)  # (bins,)
        steps = np.linspace(0.1, 1.0, 91)[:, None] * (self.top / LEVELS)  # (steps, 1)
        rounded = np.minimum(np.round(centres / steps), LEVELS) * steps  # (steps, bins)
        lost = ((centres - rounded) ** 2 * self.counts).sum(axis=1)
        return max(float(steps[lost.argmin(), 0]), SMALLEST_SCALE)


def activation_scales(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The scale of what each node takes in, by the node's name, measured in ONNX Runtime on what it is fed with."""
    takes = {node.name: node.input[0] for node in nodes}
    tensors = list(dict.fromkeys(takes.values()))
    scales: dict[str, float] = {}
    for start in range(0, len(tensors), AT_ONCE):
        scales |= tensor_scales(model, tensors[start : start + AT_ONCE], feeds)
    return {name: scales[tensor] for name, tensor in takes.items()}


def tensor_scales(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    histograms = {tensor: Histogram() for tensor in tensors}
    outputs = [tensor for tensor in tensors if tensor not in INPUTS]
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(onnx_with_outputs(model, outputs, Path(folder) / "opened.onnx"), "cpu")
    for feed in feeds:
        values = dict(zip(outputs, session.run(outputs, dict(feed)), strict=True)) if outputs else {}
        for tensor, histogram in histograms.items():
            try:
                histogram.add(values[tensor] if tensor in values else feed[tensor])
            except ValueError as error:
                raise ValueError(f"calibration: the tensor {tensor} has {error}; is the model trained?") from error
    return {tensor: histogram.scale() for tensor, histogram in histograms.items()}


def onnx_with_outputs(model: onnx.ModelProto, tensors: Sequence[str], path: Path) -> Path:
    """A file that gives these tensors besides its own outputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in tensors)
    onnx.save(opened, str(path))
    return path


def with_qdq(model: onnx.ModelProto, scales: Mapping[str, float]) -> onnx.ModelProto:
    """A copy in which the nodes named in `scales` take their inputs through a Q and a DQ; scales: by node name.

    A tensor that several of them take has one pair. Scales are of the type of the data, so the model may be mixed.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    constants = {each.name: each for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    seen: set[str] = set()
    for node in quantised.graph.node:
        if node.name in scales:
            weight = numpy_helper.to_array(constants[node.input[1]])
            axis = 0 if node.op_type == "Conv" else weight.ndim - 1  # of the output's channels
            steps = (np.array(scales[node.name]), None), (weight_scales(weight, axis), axis)
            for place, (scale, along) in enumerate(steps):
                tensor = node.input[place]
                if tensor not in seen:
                    seen.add(tensor)
                    nodes += add_pair(quantised.graph, tensor, scale.astype(weight.dtype), along)
                node.input[place] = f"{tensor}.dq"
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # they outlive what is cleared
    quantised.graph.ClearField("node")
    quantised.graph.node.extend(nodes)
    return quantised


def weight_scales(weight: np.ndarray, axis: int) -> np.ndarray:
    """One for each channel of the output -> (channels,)."""
    others = tuple(each for each in range(weight.ndim) if each != axis)
    return np.maximum(np.abs(weight).max(axis=others).astype(np.float64) / LEVELS, SMALLEST_SCALE)


def add_pair(graph: onnx.GraphProto, tensor: str, scale: np.ndarray, axis: int | None) -> list[onnx.NodeProto]:
    """The Q and the DQ that give `<tensor>.dq`; scale: () or (channels,), in the type of the data."""
    zeros = np.zeros(scale.shape, np.int8)
    graph.initializer.append(numpy_helper.from_array(scale, f"{tensor}.scale"))
    graph.initializer.append(numpy_helper.from_array(zeros, f"{tensor}.zero"))
    parameters = [f"{tensor}.scale", f"{tensor}.zero"]
    quantise = helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{tensor}.q"], f"{tensor}.quantise")
    back = helper.make_node("DequantizeLinear", [f"{tensor}.q", *parameters], [f"{tensor}.dq"], f"{tensor}.dequantise")
    if axis is not None:
        for node in (quantise, back):
            node.attribute.append(helper.make_attribute("axis", axis))
    return [quantise, back]
