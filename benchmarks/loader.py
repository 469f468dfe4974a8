"""Images a second of the training loader, from JPEG files to batches, beside the same pipeline in two libraries.

python benchmarks/loader.py [--data FOLDER] [--images 64] [--rounds 5] [--json FILE]
1000 x 1000 JPEG to 640 px: photometric, zoom-out, IoU crop, flips, and mosaic of one half. In turn, so that all meet
the same machine; medians of the rounds. A ratio over 1 means that ours is faster than the better of the two libraries.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from plain_loaders import AlbumentationsDataset, PlainDataset, TorchvisionDataset, stacked
from torch.utils.data import DataLoader

from kit.data.augment import Source, train_policy
from kit.data.cache import PixelCache, open_cache
from kit.data.coco import CocoFile, find_split, read_coco
from kit.data.dataset import (
    CocoDataset,
    TrainSampler,
    train_loader,
)
from kit.data.pixels import read_image
from kit.data.scenes import write_scenes
from kit.data.workers import one_thread_each
from kit.files import write_json

SIDE, BATCH, STEPS = 640, 16, 13  # the first step is not timed: it starts the workers
TARGET, MOST_DECODES = 1.5, 4.0
PROCESSES = (1, 2)  # 1: the main process alone; 2: as many workers
PEERS = ("torchvision", "albumentations")

Loader = Iterable[object]
Figures = dict[tuple[str, int], list[float]]


def as_jpegs(folder: Path, images: int) -> tuple[CocoFile, Path]:
    """Drawn scenes of 1000 x 1000 as JPEG files, and their boxes."""
    scenes = write_scenes(folder / "scenes", train=images, val=1, size_px=1000, cameras=8, seed=1, workers=2)
    split = find_split(scenes, "train")
    content = split.annotations.read_text()
    for path in split.images.iterdir():
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, 92])
    annotations = folder / "jpegs.json"
    annotations.write_text(content.replace('.png"', '.jpg"'))
    return read_coco(annotations), split.images


def ours(
    coco: CocoFile, images: Path, workers: int, mosaic_from: Source = "batch", cache: PixelCache | None = None
) -> Loader:
    dataset = CocoDataset(coco, images, train_policy(9, mosaic=0.5, mosaic_from=mosaic_from), cache=cache)
    epochs = -(-STEPS // (len(dataset) // BATCH))
    return train_loader(dataset, TrainSampler(len(dataset), BATCH, epochs, 0, [(SIDE, SIDE)]), workers)


def peer(kind: type[PlainDataset], coco: CocoFile, images: Path, workers: int) -> Loader:
    dataset = kind(coco, str(images), SIDE)
    order = torch.arange(STEPS * BATCH) % len(dataset)
    how = {"num_workers": workers, "collate_fn": stacked, "worker_init_fn": one_thread_each}
    return DataLoader(dataset, batch_size=BATCH, sampler=order.tolist(), **how)


def images_per_s(loader: Loader) -> float:
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    for _ in range(STEPS - 1):
        next(batches)
    return BATCH * (STEPS - 1) / (time.perf_counter() - began)


def decode_ms(coco: CocoFile, images: Path) -> float:
    """Of one image, as our loader reads it."""
    began = time.perf_counter()
    for record in coco.records:
        read_image(images / record.file_name)
    return 1000 * (time.perf_counter() - began) / len(coco.records)


def loaders(coco: CocoFile, images: Path, folder: Path) -> dict[str, Callable[[int], Loader]]:
    """By name: from the number of workers to a loader. Boxes only, but for one: the libraries know no outlines."""
    boxes_only = replace(coco, records=[replace(record, outlines=None) for record in coco.records])
    room = 2 * sum(3 * height * width for height, width in (record.size_hw for record in coco.records))
    ram, disk = (open_cache(kind, coco, 3, room, folder) for kind in ("ram", "disk"))
    return {
        "kit": lambda workers: ours(boxes_only, images, workers),
        "torchvision": lambda workers: peer(TorchvisionDataset, boxes_only, images, workers),
        "albumentations": lambda workers: peer(AlbumentationsDataset, boxes_only, images, workers),
        "kit, mosaic from all": lambda workers: ours(boxes_only, images, workers, "all"),
        "kit, with outlines": lambda workers: ours(coco, images, workers),
        "kit, cache in memory": lambda workers: ours(boxes_only, images, workers, cache=ram),
        "kit, cache on disk": lambda workers: ours(boxes_only, images, workers, cache=disk),
    }


def measured(coco: CocoFile, images: Path, rounds: int) -> Figures:
    """Images a second of each loader and number of processes, and decodes a second, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = loaders(coco, images, Path(folder))
        for make in kinds.values():
            images_per_s(make(0))  # compiles, and fills the caches
        figures: Figures = {}
        for number in range(rounds):
            figures.setdefault(("a decode", 1), []).append(1000 / decode_ms(coco, images))
            for count in PROCESSES:
                for name, make in kinds.items():
                    rate = images_per_s(make(0 if count == 1 else count))
                    figures.setdefault((name, count), []).append(rate)
            print(f"round {number + 1} of {rounds}", flush=True)
    return figures


def rows_of(figures: Figures) -> list[dict[str, object]]:
    """Ratios are taken within a round, so that a machine that slows down slows both."""
    rows = []
    for count in PROCESSES:
        best = [max(pair) for pair in zip(*(figures[name, count] for name in PEERS), strict=True)]
        mine = figures["kit", count]
        for name in ("kit", "kit, mosaic from all"):
            target = TARGET if name == "kit" else 1.0
            rows.append(row(f"{name}, {count} process(es), images/s", figures[name, count], best, target))
        for name in ("kit, cache in memory", "kit, cache on disk"):
            rows.append(row(f"{name}, {count} process(es), images/s", figures[name, count], mine, 1.0))
    for name in ("kit", "kit, mosaic from all", "kit, with outlines"):
        four = [rate / MOST_DECODES for rate in figures["a decode", 1]]
        rows.append(row(f"{name}: against {MOST_DECODES:g} decodes, images/s", figures[name, 1], four, 1.0))
    return rows


def row(name: str, mine: list[float], others: list[float], target: float) -> dict[str, object]:
    ratio = statistics.median(a / b for a, b in zip(mine, others, strict=True))
    return {
        "name": name,
        "ours": statistics.median(mine),
        "peer": statistics.median(others),
        "ratio": ratio,
        "target": target,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="COCO data set to take in place of drawn scenes: its train part")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The image decoding and encoding")  # of torchvision: it will go one day
    one_thread_each(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if options.data:
            split = find_split(options.data, "train")
            coco, images = read_coco(split.annotations), split.images
        else:
            coco, images = as_jpegs(Path(name), options.images)
        figures = measured(coco, images, options.rounds)
    for (name, count), rates in figures.items():
        middle, spread = statistics.median(rates), f"{min(rates):.1f} to {max(rates):.1f}"
        print(f"{name:22} {count} process(es) {middle:8.1f} images/s, {1000 / middle:6.2f} ms  (rounds {spread})")
    rows = rows_of(figures)
    for each in rows:
        print("{name:48} {ours:7.1f}   against {peer:7.1f}   ratio {ratio:.2f} (target {target})".format(**each))
    if options.json:
        write_json(options.json, rows, indent=1)


if __name__ == "__main__":
    main()
