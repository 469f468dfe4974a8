"""Whether the memory of training loaders stays flat over many epochs: all processes together, after each epoch.

python benchmarks/loader_memory.py [--epochs 20] [--images 64] [--workers 2] [--cache ram] [--json FILE]
Counted is what the processes have taken themselves, anonymous and shared memory, of which pages that they share count
once. Pages of files (libraries, the cache on disk) are left out, as any other program that maps them moves the figure.
It is taken when the workers have made all that they may make ahead and wait, else the batches on their way would be
counted by chance. The verdict is the slope of a line through the epochs after the first quarter, in which allocators
and caches fill. Flat is less than 1 % of all over 20 epochs. Beside it stands, without a verdict, the most that the
processes held while they worked, added up: there files count too, and what is shared counts in each.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from loader import BATCH, SIDE, as_jpegs

from kit.data.augment import train_policy
from kit.data.cache import open_cache
from kit.data.dataset import CocoDataset, TrainSampler, train_loader
from kit.data.workers import REST_S
from kit.files import write_json

FLAT = 0.01  # share of the memory, over 20 epochs
QUIET_S = 2.5 * REST_S  # workers that compute nothing for so long wait, and have given back what they do not need


def let_workers_finish() -> None:
    workers = psutil.Process().children(recursive=True)
    before = -1.0
    while (now := sum(sum(each.cpu_times()[:2]) for each in workers)) > before:
        before = now
        time.sleep(QUIET_S)


def processes() -> list[int]:
    """This one and all its workers."""
    here = psutil.Process()
    return [here.pid, *(each.pid for each in here.children(recursive=True))]


def at_rest_mib() -> float:
    """From the kernel's proportional counts."""
    return sum(in_kib(f"/proc/{each}/smaps_rollup", "Pss_Anon", "Pss_Shmem") for each in processes()) / 1024


def most_mib() -> float:
    """Since the last call."""
    most_kib = sum(in_kib(f"/proc/{each}/status", "VmHWM") for each in processes())
    for each in processes():
        Path(f"/proc/{each}/clear_refs").write_text("5")  # the mark starts anew
    return most_kib / 1024


def in_kib(file: str, *names: str) -> int:
    lines = (line.partition(":") for line in Path(file).read_text().splitlines())
    return sum(int(text.split()[0]) for name, _, text in lines if name in names)


def epochs(folder: Path, options: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Memory at the end of each epoch, while the workers wait, and the most while they worked."""
    coco, images = as_jpegs(folder, options.images)
    cache = open_cache(options.cache, coco, 3, 2**30, folder / "cache")
    policy = train_policy(options.epochs, mosaic=0.5, mixup=0.5, fisheye=0.2, rotate=0.2)
    more = options.epochs + 1  # so that there is work ahead in the last epoch as well
    sampler = TrainSampler(len(coco.records), BATCH, more, 0, [(SIDE, SIDE), (SIDE - 64, SIDE - 64)])
    loader = train_loader(CocoDataset(coco, images, policy, cache=cache), sampler, options.workers)
    for step, _batch in enumerate(islice(loader, options.epochs * sampler.steps_per_epoch), 1):
        if step % sampler.steps_per_epoch == 0:
            gc.collect()  # comes sooner or later, and writes to what the workers share with this process: copies
            let_workers_finish()
            yield at_rest_mib(), most_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", choices=["none", "ram", "disk"], default="none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes_mib = []
    with tempfile.TemporaryDirectory() as name:
        for number, sizes in enumerate(epochs(Path(name), options), 1):
            sizes_mib.append(sizes)
            print(f"epoch {number:3}   at rest {sizes[0]:8.1f} MiB   most {sizes[1]:8.1f} MiB", flush=True)
    at_rest, most = (np.array(column) for column in zip(*sizes_mib, strict=True))
    growth = growth_of(at_rest)
    verdict = "flat" if growth < FLAT else "GROWS"
    print(f"at rest {growth:+.2%} over 20 epochs: {verdict}; the most {growth_of(most):+.2%}")
    if options.json:
        row = {"name": f"loader MiB, {options.workers} workers, cache {options.cache}", "ours": at_rest[-1]}
        row |= {"peer": at_rest[len(at_rest) // 4], "ratio": 1 / (1 + growth), "target": 1 / (1 + FLAT)}
        write_json(options.json, [row | {"epochs": at_rest.tolist(), "most": most.tolist()}], indent=1)


def growth_of(sizes_mib: np.ndarray) -> float:
    """Share of all that comes in 20 epochs, by the line through those after the first quarter."""
    settled = sizes_mib[len(sizes_mib) // 4 :]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0] * 20 / settled.mean())


if __name__ == "__main__":
    main()
