"""An fp16 file that passes the gate: where it does not, the layers that go wrong become fp32 islands, and once more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.data.coco import CocoFile
from kit.data.pixels import read_image
from kit.deploy.divergence import Divergence, find_divergence
from kit.deploy.export import read_onnx, write_onnx
from kit.deploy.gate import accept, image_files, judge, open_candidate
from kit.deploy.precision import ISLANDS, mixed_precision
from kit.deploy.runtimes import Runner
from kit.deploy.verdict import Limits, Verdict
from kit.predict import Progress

FACTOR = 4  # as many layers more on each attempt


@dataclass(frozen=True)
class Attempt:
    """One file that was tried. islands: beyond those that every fp16 file has."""

    islands: tuple[str, ...]
    verdict: Verdict

    def __str__(self) -> str:
        islands = ", ".join(self.islands) or "no more islands"
        outcome = "passed" if self.verdict.passed else f"refused: {'; '.join(self.verdict.reasons)}"
        layer = f" (first layer: {self.verdict.first_layer})" if self.verdict.first_layer else ""
        return f"{islands}: {outcome}{layer}"


@dataclass(frozen=True)
class Attempts:
    """All that were tried; the last one is in the file."""

    tried: list[Attempt]

    @property
    def verdict(self) -> Verdict:
        return self.tried[-1].verdict

    @property
    def islands(self) -> tuple[str, ...]:
        return self.tried[-1].islands

    def table(self) -> str:
        """To be printed, one line each."""
        return "\n".join(f"{number}. {each}" for number, each in enumerate(self.tried, 1))


def accept_mixed(
    onnx_file: Path | str,
    path: Path | str,
    reference: Runner,
    images: Path | str,
    coco: CocoFile | None = None,
    *,
    attempts: int = 3,
    limits: Limits | None = None,
    count: int | None = 50,
    allow_drop: bool = False,
    progress: Progress | None = None,
) -> Attempts:
    """The fp32 file in mixed precision, with more islands at most `attempts` times; GateFailed where that is in vain.

    onnx_file: fp32, of the checkpoint that reference runs; images, coco, limits, count: as gate.judge takes them.
    """
    tried: list[Attempt] = []
    image = read_image(an_image(images, coco), reference.about.channels)

    def judged(written: Path) -> Verdict:
        candidate = open_candidate(written)
        return judge(reference, candidate, images, coco, limits=limits, count=count, progress=progress)

    accept(
        path,
        lambda written: tried.extend(try_islands(Path(onnx_file), written, judged, image, attempts)),
        lambda _: tried[-1].verdict,
        allow_drop=allow_drop,
    )
    return Attempts(tried)


def try_islands(
    onnx_file: Path, path: Path, judged: Callable[[Path], Verdict], image: np.ndarray, attempts: int
) -> list[Attempt]:
    """Writes path anew until it passes or the attempts are used up."""
    tried: list[Attempt] = []
    islands: tuple[str, ...] = ()
    for left in range(attempts, -1, -1):
        write_mixed(onnx_file, path, islands)
        verdict = judged(path)
        divergence = None if verdict.passed else find_divergence(onnx_file, path, image)
        verdict = replace(verdict, first_layer=divergence.layer if divergence else "")
        tried.append(Attempt(islands, verdict))
        more = more_islands(divergence, islands, FACTOR ** len(tried)) if divergence and left else ()
        if not more:
            break
        islands = (*islands, *more)
    return tried


def write_mixed(onnx_file: Path, path: Path, islands: Sequence[str]) -> Path:
    model, about = read_onnx(onnx_file)
    notes = {**about.notes, "islands": [*ISLANDS, *islands]}
    mixed = mixed_precision(model, (*ISLANDS, *islands))
    return write_onnx(mixed, path, replace(about, precision="fp16", notes=notes))


def more_islands(divergence: Divergence, islands: Sequence[str], count: int) -> tuple[str, ...]:
    """The layers that break; where none does, those that add most to the error; `count` at most.

    What is outside all layers, or directly in a large module, is named by its node: the module would take all with it.
    """
    layers = {each.layer for each in divergence.tensors}
    parents = {layer for layer in layers if any(other.startswith(f"{layer}.") for other in layers)}
    wanted = [
        each.node if each.layer in parents or "processing" in each.layer else each.layer
        for each in divergence.breaks or divergence.worst(len(layers))
        if each.error > 0
    ]
    new = [name for name in dict.fromkeys(wanted) if not is_within(name, islands)]
    return tuple(new[:count])


def is_within(layer: str, islands: Sequence[str]) -> bool:
    return any(layer == island or layer.startswith(f"{island}.") for island in islands)


def an_image(images: Path | str, coco: CocoFile | None) -> Path:
    return Path(images) / coco.records[0].file_name if coco else image_files(images)[0]
