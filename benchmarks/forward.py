"""How long a D-FINE takes to look at an image: here and in `transformers`, same weights, one run, turn by turn.

python benchmarks/forward.py --sizes n s m --batches 1 8 [--runtimes openvino onnxruntime compiled] [--json FILE]
Three questions, each a ratio over 1 where ours is faster: torch as it is, folded here; the way a checkpoint is run by
default on a CPU, post-processing and uint8 images included, against torch in `transformers`; and our file against the
graph of `transformers`, with the usual post-processing, in the same runtime. The answers are compared first. Medians of
the rounds; the machine should do nothing else.
`--int8 CHECKPOINT --data FOLDER` adds INT8 beside fp32 in OpenVINO, with the AP of both.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from transformers import DFineForObjectDetection

from kit import Detector, load_weights, save_weights
from kit.data.coco import as_coco, find_split, read_coco
from kit.deploy.choice import cached_export, choose, in_turn
from kit.deploy.export import export_onnx, quiet
from kit.deploy.folding import folded
from kit.deploy.graph import best_boxes
from kit.deploy.openvino_runner import compiled_for
from kit.deploy.results import dataset_results
from kit.deploy.runtimes import onnx_session, open_runner, openvino
from kit.deploy.threads import settle, thread_count
from kit.files import write_json
from kit.metrics import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.dfine.peer import CONFIGS, oracle

CLASSES, TOP_K = 80, 300
SAME = 1e-3
UNEXPORTABLE = "transformers.models.d_fine.modeling_d_fine.torch_compilable_check"  # of shapes, nothing is computed
EAGER, GRAPH = 1.1, 1.0  # targets
DEFAULT = {"n": 2.5, "s": 1.5, "m": 1.5}
Work = Callable[[], Any]


class Official(nn.Module):
    """The model of `transformers` with the usual post-processing."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.model(pixel_values=images)
        return best_boxes(output.logits, output.pred_boxes, sizes_hw, TOP_K)


def drawn_images(batch: int, side: int) -> np.ndarray:
    """Patches of colour with some noise: (B, side, side, 3) uint8."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 216, (batch, side // 16, side // 16, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return (patches + random.integers(0, 40, patches.shape)).astype(np.uint8)


def same_weights(model: DFineForObjectDetection, size: str, side: int, folder: Path) -> tuple[Detector, Path]:
    """Our detector of the same weights, and its checkpoint."""
    model.save_pretrained(folder)
    detector = Detector(size, CLASSES).eval()
    assert load_weights(detector, folder).replaced == ()
    return detector, save_weights(detector, folder / f"{size}.pt", {"size_hw": [side, side]})


def official_onnx(model: nn.Module, images: np.ndarray, sizes_hw: np.ndarray, path: Path) -> Path:
    """As anyone would export it, for this batch alone."""
    example = (torch.from_numpy(images), torch.from_numpy(sizes_hw))
    names = ["images", "sizes_hw"]
    with torch.inference_mode(False), torch.no_grad(), quiet(), patch(UNEXPORTABLE, lambda *shapes: None):
        program = torch.onnx.export(Official(model), example, None, dynamo=True, input_names=names, verbose=False)
    onnx.save(program.model_proto, str(path))
    return path


def session_of(path: Path, runtime: str, images: np.ndarray, sizes_hw: np.ndarray, threads: int) -> Work:
    """A call of the file with float images, as little around it as can be."""
    if runtime == "onnxruntime":
        session = onnx_session(path, "cpu", threads)
        return lambda: session.run(None, {"images": images, "sizes_hw": sizes_hw})
    core = openvino().Core()
    compiled = compiled_for(core, core.read_model(str(path)), images.shape, threads)
    return lambda: [np.array(each) for each in compiled([images, sizes_hw], share_inputs=True).values()]


def differences(ours: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
    """Of the first image, its rows matched: near ties change places. Arrays (B, N, ...) -> (N,)."""
    one, other = (
        np.concatenate([np.asarray(each[0], float).reshape(len(each[0]), -1) for each in all_], axis=1)
        for all_ in (ours, theirs)
    )
    row, column = linear_sum_assignment(np.abs(one[:, None] - other[None]).max(axis=-1))
    return np.abs(one[row] - other[column]).max(axis=1)


def check_same(name: str, ours: list[np.ndarray], theirs: list[np.ndarray], share: float = 0.5) -> None:
    """Of that share of rows: random weights score many tokens alike, and rounding decides which become queries."""
    worst = float(np.quantile(differences(ours, theirs), share))
    assert worst < SAME, f"{name}: the answers differ by {worst:.2g}"


def check_detectors(size: str, detector: nn.Module, model: nn.Module) -> None:
    """On an image so small that nearly every token becomes a query, where nearly all rows must be the same."""
    side = 256 if size == "n" else 128  # 320 and 336 tokens for 300 queries
    images = torch.from_numpy(drawn_images(1, side)).permute(0, 3, 1, 2) / 255
    ours, theirs = detector(images), model(pixel_values=images)
    check_same(size, [ours.logits, ours.boxes], [theirs.logits, theirs.pred_boxes], share=0.85)


def measured(size: str, batch: int, side: int, runtimes: list[str], rounds: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of one size and batch."""
    threads, model = thread_count(), oracle(size, CLASSES)
    detector, checkpoint = same_weights(model, size, side, folder)
    check_detectors(size, folded(detector), model)
    pixels = drawn_images(batch, side)
    images, sizes_hw = (
        np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / 255,
        np.ones((batch, 2), np.float32),
    )
    tensor, ours = torch.from_numpy(images), folded(detector).to(memory_format=torch.channels_last)
    chosen = choose(checkpoint, batch=batch, device="cpu", say=print)
    default = chosen.open()
    works: dict[str, Work] = {
        "theirs": lambda: model(pixel_values=tensor),
        "ours": lambda: ours(tensor),
        "default": lambda: default(pixels, sizes_hw),
    }
    pairs = [
        ("torch", "ours", "theirs", EAGER),
        (f"default ({chosen.runtime}) against torch", "default", "theirs", DEFAULT[size]),
    ]
    theirs, mine = works["theirs"](), works["ours"]()
    check_same("torch", [mine.logits, mine.boxes], [theirs.logits, theirs.pred_boxes])
    finished = [
        each.numpy() for each in best_boxes(theirs.logits, theirs.pred_boxes, torch.from_numpy(sizes_hw), TOP_K)
    ]
    found = default(pixels, sizes_hw)
    check_same("default", [found.boxes_xyxy, found.scores, found.labels], finished)
    if "compiled" in runtimes:
        compiled = open_runner(checkpoint, "compiled", "cpu")
        works["compiled"] = lambda: compiled(pixels, sizes_hw)
        pairs.append(("torch.compile against torch", "compiled", "theirs", 1.0))
    graphs = [each for each in runtimes if each != "compiled"]
    if graphs:
        official = official_onnx(model, images, sizes_hw, folder / f"official_{size}_{batch}.onnx")
        own = export_onnx(checkpoint, folder / f"own_{size}_{batch}.onnx", batch=batch, top_k=TOP_K)
    for runtime in graphs:
        for name, path in (("own", own), ("official", official)):
            works[f"{name} {runtime}"] = session_of(path, runtime, images, sizes_hw, threads)
            check_same(f"{name} in {runtime}", works[f"{name} {runtime}"](), finished)
        pairs.append((f"graph in {runtime}", f"own {runtime}", f"official {runtime}", GRAPH))
    times_s = in_turn(works, rounds)
    return [
        row_of(f"{name}, {size}, batch {batch}", times_s[one], times_s[other], target)
        for name, one, other, target in pairs
    ]


def row_of(name: str, ours: list[float], peer: list[float], target: float | None) -> dict[str, Any]:
    """Medians in seconds; the ratio is the median of each round's, which other work on the machine moves less."""
    ratio = statistics.median(b / a for a, b in zip(ours, peer, strict=True))
    return {
        "name": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": ratio,
        "target": target,
    }


def int8_rows(checkpoint: Path, data: Path, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """INT8 and fp32 of one trained checkpoint in OpenVINO: the time, and as a row of its own the AP."""
    from kit.deploy.int8 import quantise_openvino

    train, val = find_split(data, "train"), find_split(data, "val")
    exported = cached_export(checkpoint)
    quantised = quantise_openvino(exported, folder / "int8.xml", train=train, allow_drop=True)
    runners = {"int8": open_runner(quantised.path), "fp32": open_runner(exported, "openvino")}
    size_hw, coco = runners["fp32"].about.size_hw, read_coco(val.annotations)
    images, sizes_hw = (
        np.random.default_rng(0).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8),
        np.ones((1, 2), np.float32),
    )
    times_s = in_turn(
        {name: lambda runner=runner: runner(images, sizes_hw) for name, runner in runners.items()}, rounds
    )
    ap = {
        name: evaluate(dataset_results(runner, coco, val.images), as_coco(coco)).ap for name, runner in runners.items()
    }
    accuracy = {
        "name": "AP of int8 against fp32",
        "ours": ap["int8"],
        "peer": ap["fp32"],
        "ratio": ap["int8"] / ap["fp32"],
    }
    return [
        row_of("int8 against fp32 in openvino", times_s["int8"], times_s["fp32"], None),
        accuracy | {"target": None},
    ]


def told(row: dict[str, Any]) -> str:
    target = "" if row["target"] is None else f"   target {row['target']:.1f}"
    return f"{row['name']:46} ours {row['ours']:8.4f}   peer {row['peer']:8.4f}   ratio {row['ratio']:5.2f}{target}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["n", "s", "m"], choices=list(CONFIGS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument(
        "--runtimes", nargs="*", default=["openvino", "onnxruntime"], choices=["openvino", "onnxruntime", "compiled"]
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--int8", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    print(settle())
    rows = []
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        os.environ["KIT_CACHE"] = name
        for size in options.sizes:
            for batch in options.batches:
                rows += measured(size, batch, options.side, options.runtimes, options.rounds, Path(name))
        if options.int8:
            rows += int8_rows(options.int8, options.data, options.rounds, Path(name))
    for row in rows:
        print(told(row))
    if options.json:
        write_json(options.json, rows, indent=1)


if __name__ == "__main__":
    main()
