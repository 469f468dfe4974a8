"""Images a second over a folder, from files to results, beside what each stage manages when it has the machine alone.

python benchmarks/folder.py [--model best.pt] [--images photos/] [--size-hw 640 640] [--rounds 5] [--json FILE]
The ratio is that of the whole to the slowest stage; 1 would mean that the others cost nothing. Medians of rounds in
which everything is measured in turn. Without --images, drawn scenes as JPEG of 1000 x 1000 px; without --model, size n.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2

from kit.data.scenes import write_scenes
from kit.deploy.threads import settle
from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights, save_weights
from kit.files import write_json
from kit.media import frames
from kit.params import ROOT
from kit.predictor import Prediction, Predictor
from kit.predictor.overlap import Clock, in_order
from kit.predictor.predictor import Prepared, batches
from kit.predictor.results import Found
from kit.predictor.running import Wanted, writers

TARGET = 0.9
CLASSES = ["Bus", "Bike", "Car", "Pedestrian", "Truck"]


def starter(folder: Path) -> Path:
    detector = Detector("n", len(CLASSES)).eval()
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    return save_weights(detector, folder / "n.pt", {"classes": CLASSES, "size_hw": [640, 640]})


def drawn_photos(folder: Path, count: int, drawn: int = 8) -> Path:
    """A few scenes, each several times."""
    scenes = write_scenes(folder / "scenes", train=1, val=drawn, size_px=1000, cameras=2, seed=1, workers=1)
    files = sorted((scenes / "images" / "val").iterdir())
    photos = folder / "photos"
    photos.mkdir()
    for number in range(count):
        cv2.imwrite(str(photos / f"{number:04}.jpg"), cv2.imread(str(files[number % len(files)])))
    return photos


def prepared_by(predictor: Predictor, photos: Path) -> list[Prepared]:
    """Decoding and resizing alone."""
    prepare = partial(predictor.prepared, clock=Clock())
    with ThreadPoolExecutor(predictor.workers) as pool:
        depth = predictor.batch_size + predictor.workers
        return [each for each in in_order(pool, prepare, frames(photos), depth) if each.place]


def predicted_by(predictor: Predictor, ready: list[Prepared]) -> list[Prediction]:
    """Inference alone, as the whole has it, with all that follows until there are boxes."""
    return list(predictor.inferred(batches(iter(ready), predictor.batch_size), predictor.thresholds, Clock()))


def written_by(predictor: Predictor, predictions: list[Prediction], out: Path) -> None:
    """Writing alone."""
    wanted = Wanted(("coco",), None, crops=False, crop_padding=0.0, drawn=False, video=False)
    with ExitStack() as stack:
        write = writers(stack, predictor, out, wanted, 1, Clock())
        for number, prediction in enumerate(predictions, 1):
            write(Found(prediction, number, prediction.name))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=100, help="of the drawn photos")
    parser.add_argument("--size-hw", type=int, nargs=2)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--runtime")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(settle())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        predictor = Predictor(
            options.model or starter(folder),
            runtime=options.runtime,
            size_hw=tuple(options.size_hw) if options.size_hw else None,
            batch_size=options.batch_size,
            workers=options.workers,
            say=print,
        )
        print(f"{predictor.runtime} on {predictor.device} ({predictor.why}), batches of {predictor.batch_size}")
        photos = options.images or drawn_photos(folder, options.count)
        ready = prepared_by(predictor, photos)
        predictions = predicted_by(predictor, ready)
        works: dict[str, Callable[[], object]] = {
            "decoding": lambda: prepared_by(predictor, photos),
            "inference": lambda: predicted_by(predictor, ready),
            "writing": lambda: written_by(predictor, predictions, folder / "again"),
            "whole": lambda: predictor.run(photos, folder / "whole"),
        }
        rounds = [{stage: seconds(work) for stage, work in works.items()} for _ in range(options.rounds)]
    rates = {stage: len(ready) / statistics.median(each[stage] for each in rounds) for stage in works}
    slowest = min(("decoding", "inference", "writing"), key=rates.__getitem__)
    ratio = statistics.median(each[slowest] / each["whole"] for each in rounds)
    for stage, rate in rates.items():
        print(f"{stage:10} {rate:8.1f} images/s{'  alone' if stage != 'whole' else ''}")
    print(f"the whole runs at {ratio:.2f} of the slowest stage, {slowest} (target {TARGET})")
    if options.json:
        row = {"name": f"folder, {predictor.about.size} in {predictor.runtime}: whole against {slowest}"}
        measured = {"ours": rates["whole"], "peer": rates[slowest], "ratio": ratio, "target": TARGET}
        write_json(options.json, [row | measured | {"images_per_s": rates}], indent=1)


if __name__ == "__main__":
    main()
