"""The first layer in which an ONNX file leaves its fp32 reference: both run on one image, tensor by tensor.

Two things make the tensors comparable: results that a GPU would round to fp16 are rounded (kit.deploy.rounding), and
both files take the queries and the boxes that the reference has chosen, since rounding swaps near ties. OpenVINO and
TensorRT files show no tensors under these names: trace the ONNX file that they were made from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from kit.data.augment import resized
from kit.deploy.about import INPUTS, About
from kit.deploy.export import read_onnx
from kit.deploy.graph import layer_of
from kit.deploy.rounding import has_half, plain_session, rounded
from kit.deploy.runtimes import as_input

LIMITS = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5}  # relative error of a tensor beyond which it is another one
GROWTH = 3.0  # an error that is this many times that of what the node was given has been made there
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
GIVEN = "/given"  # ending of the name by which a file is told what to choose


@dataclass(frozen=True)
class Compared:
    """One tensor that both files have."""

    layer: str  # module path, such as decoder.layers.1.norm2; outside the detector preprocessing or post-processing
    node: str
    operator: str
    tensor: str
    error: float  # length of the difference, as a share of the length of the reference's; inf: not finite
    received: float  # the largest error among what the node was given

    @property
    def made(self) -> float:
        """What the node has added."""
        return 0.0 if np.isinf(self.received) else max(self.error - self.received, 0.0)

    @property
    def was_made_here(self) -> bool:
        return self.made > (GROWTH - 1) * self.received


@dataclass(frozen=True)
class Divergence:
    """All tensors in the order they are computed."""

    tensors: list[Compared]
    limit: float

    @property
    def breaks(self) -> list[Compared]:
        """Those beyond the limit whose error was made there, and not handed down."""
        beyond = [each for each in self.tensors if each.error > self.limit]
        return [each for each in beyond if each.was_made_here or each.received <= self.limit]

    @property
    def first(self) -> Compared | None:
        """The first beyond the limit: always a break, since what it was given is not."""
        return next(iter(self.breaks), None)

    @property
    def layer(self) -> str:
        """In the module's words; empty where nothing diverges."""
        return self.first.layer if self.first else ""

    def worst(self, count: int = 10) -> list[Compared]:
        """One a layer, by how much larger its error is than that of what it was given."""
        best: dict[str, Compared] = {}
        for each in sorted(self.tensors, key=lambda each: each.made, reverse=True):
            best.setdefault(each.layer, each)
        return list(best.values())[:count]

    def table(self, count: int = 10) -> str:
        """To be printed."""
        first = self.first
        told = f"{self.layer} ({first.operator} {first.node})" if first else f"none of {len(self.tensors)} tensors"
        rows = [
            f"  {each.layer:44} {each.operator:20} {each.error:>9.1e} {each.received:>9.1e}"
            for each in self.worst(count)
        ]
        head = f"  {'layer':44} {'operator':20} {'error':>9} {'received':>9}"
        return "\n".join([f"first beyond {self.limit:g}: {told}", head, *rows])


def find_divergence(
    reference: Path | str,
    candidate: Path | str,
    image: np.ndarray,
    *,
    limit: float | None = None,
    memory_mib: int = 1024,
) -> Divergence:
    """image: (H, W, C) uint8. reference: an fp32 ONNX file of the same checkpoint and input size.

    limit: None takes that of the candidate's precision.
    """
    (ours, about), (theirs, other) = read_traceable(reference), read_traceable(candidate)
    if about.size_hw != other.size_hw:
        raise ValueError(f"{candidate}: expected the input size {about.size_hw} of {reference}, found {other.size_hw}")
    names = comparable(ours, theirs)
    if not names:
        raise ValueError(f"{candidate}: expected tensors named as in {reference}, found none; export both with one kit")
    feeds, others = (feeds_of(image, each) for each in (about, other))
    ours, theirs, choices = with_choices(ours, theirs, feeds)
    errors = dict(compare(ours, theirs, feeds | choices, others | choices, names, memory_mib * 2**20))
    return Divergence(in_order(ours, errors), LIMITS[other.precision] if limit is None else limit)


def read_traceable(path: Path | str) -> tuple[onnx.ModelProto, About]:
    if Path(path).suffix != ".onnx":
        raise ValueError(f"{path}: only ONNX files can be traced; give the ONNX file that it was made from")
    model, about = read_onnx(path)
    return (rounded(model) if has_half(model) else model), about


def feeds_of(image: np.ndarray, about: About) -> dict[str, np.ndarray]:
    """The image alone, as often as the file's batch wants it."""
    count = about.batch or 1
    images = np.stack([resized(image, about.size_hw)] * count)
    sizes_hw = np.array([image.shape[:2]] * count, np.float32)
    return dict(zip(INPUTS, (as_input(images, about), sizes_hw), strict=True))


def comparable(ours: onnx.ModelProto, theirs: onnx.ModelProto) -> list[str]:
    """Names of float tensors that both compute, in the reference's order."""
    known = onnx.shape_inference.infer_shapes(ours).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in (*known.value_info, *known.output)}
    there = {name for node in theirs.graph.node for name in node.output}
    made = [name for node in ours.graph.node for name in node.output]
    return [name for name in made if name in there and kinds.get(name) in FLOATS]


# --- the same choices in both ---


def with_choices(
    ours: onnx.ModelProto, theirs: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, np.ndarray]]:
    """Both made to take the rows that the reference's top-k nodes choose, and these rows as feeds.

    Where the files do not choose equally often nothing is forced: rows then may stand in another order from there on.
    """
    places, others = choices_of(ours), choices_of(theirs)
    if not places or len(places) != len(others):
        return ours, theirs, {}
    chosen = run(ours, feeds, places)
    given = {f"{number}{GIVEN}": rows for number, rows in enumerate(chosen)}
    return forced(ours, places), forced(theirs, others), given


def choices_of(model: onnx.ModelProto) -> list[str]:
    """The index outputs of top-k nodes that something reads."""
    read = {name for node in model.graph.node for name in node.input}
    return [node.output[1] for node in model.graph.node if node.op_type == "TopK" and node.output[1] in read]


def forced(model: onnx.ModelProto, places: Sequence[str]) -> onnx.ModelProto:
    """Who reads a choice is given it from outside."""
    names = {place: f"{number}{GIVEN}" for number, place in enumerate(places)}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    changed.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in names.values())
    return changed


# --- tensor by tensor ---


def compare(
    ours: onnx.ModelProto,
    theirs: onnx.ModelProto,
    feeds: dict[str, np.ndarray],
    others: dict[str, np.ndarray],
    names: Sequence[str],
    memory_bytes: int,
) -> Iterator[tuple[str, float]]:
    """The error of each tensor. As many are fetched at a time as the memory allows, by the size of the last ones."""
    start, count = 0, 16
    while start < len(names):
        group = names[start : start + count]
        mine, yours = run(ours, feeds, group), run(theirs, others, group)
        yield from ((name, relative_error(*both)) for name, *both in zip(group, mine, yours, strict=True))
        start += len(group)
        largest = max(max(each.nbytes for each in mine), 1)
        count = int(np.clip(memory_bytes // (4 * largest), 1, 128))


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """The tensors of these names. Only what leads to them is computed."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = plain_session(shown)
    found: list[np.ndarray] = session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})
    return found


def relative_error(reference: np.ndarray, candidate: np.ndarray) -> float:
    """inf where the shapes differ, or the candidate is not finite where the reference is."""
    if reference.shape != candidate.shape:
        return float("inf")
    finite = np.isfinite(reference)
    a, b = reference[finite].astype(np.float64), candidate[finite].astype(np.float64)
    if not np.isfinite(b).all():
        return float("inf")
    length = np.linalg.norm(a) + 1e-6 * np.sqrt(a.size)
    return float(np.linalg.norm(a - b) / length) if a.size else 0.0


def in_order(model: onnx.ModelProto, errors: dict[str, float]) -> list[Compared]:
    """By the reference's graph; what was not compared hands on what it received."""
    carried: dict[str, float] = {}
    rows, outside = [], "preprocessing"
    for node in model.graph.node:
        received = max((carried.get(name, 0.0) for name in node.input), default=0.0)
        layer = layer_of(node)
        outside = "post-processing" if layer else outside
        for name in node.output:
            carried[name] = errors.get(name, received)
            if name in errors:
                rows.append(Compared(layer or outside, node.name, node.op_type, name, errors[name], received))
    return rows
