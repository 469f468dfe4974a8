"""The detector without its post-processing, to tell what that costs: exported files are cut, a module is wrapped."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from kit.deploy.graph import Deployed, layer_of
from kit.deploy.openvino_runner import OpenVinoRunner
from kit.deploy.runtimes import OnnxRunner, Runner, TorchRunner

PARTS = ("backbone", "encoder", "decoder")
Work = Callable[[np.ndarray, np.ndarray], object]


class Raw(nn.Module):
    """Images to the detector's own answers. Shares its weights with `deployed`."""

    def __init__(self, deployed: Deployed):
        super().__init__()
        self.detector = deployed.detector

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, H, W, C) uint8, sizes_hw: not looked at -> logits (B, Q, K), boxes (B, Q, 4)."""
        output = self.detector((images.float() / 255).permute(0, 3, 1, 2))
        return output.logits, output.boxes


def without_post(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """An exported graph up to the detector's last layer; None where the layers cannot be told any more.

    The outputs are whatever the post-processing would have taken; inputs and metadata stay.
    """
    nodes = list(model.graph.node)
    needed = feeding(nodes)
    if not needed:
        return None
    post = [node for place, node in enumerate(nodes) if place not in needed]
    inside = {name for place in needed for name in nodes[place].output}
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:], cut.graph.output[:]
    cut.graph.node.extend(nodes[place] for place in sorted(needed))
    wanted = dict.fromkeys(name for node in post for name in node.input if name in inside)
    known = {each.name: each for each in onnx.shape_inference.infer_shapes(model).graph.value_info}
    cut.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in wanted)
    return cut


def feeding(nodes: Sequence[onnx.NodeProto]) -> set[int]:
    """Places of all nodes of the detector, and of those that they build on."""
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    open_places = [place for place, node in enumerate(nodes) if layer_of(node).split(".")[0] in PARTS]
    found = set(open_places)
    while open_places:
        for name in nodes[open_places.pop()].input:
            place = makers.get(name)
            if place is not None and place not in found:
                found.add(place)
                open_places.append(place)
    return found


def raw_work(runner: Runner, source: Path | str, folder: Path, threads: int | None = None) -> Work | None:
    """A call with the same arguments that leaves the post-processing out; folder: for the cut file; None where that
    cannot be had: a compiled module, an engine, an OpenVINO file, a graph that does not name its layers."""
    if isinstance(runner, TorchRunner) and isinstance(runner.module, Deployed):
        raw = copy.copy(runner)
        raw.module = Raw(runner.module)
        return raw.answer
    cut = without_post(onnx.load(str(source))) if Path(source).suffix == ".onnx" else None
    if cut is None:
        return None
    path = folder / f"{runner.runtime}.onnx"
    onnx.save(cut, str(path))
    kind = OnnxRunner if isinstance(runner, OnnxRunner) else OpenVinoRunner
    return kind(path, runner.device, threads).answer
