"""Whether the memory of training loaders stays flat over many epochs: all processes together, after each epoch.

python benchmarks/loader_memory.py [--epochs 20] [--images 64] [--workers 2] [--cache ram] [--json FILE]
Counted is what the processes have taken themselves, anonymous and shared memory, of which pages that they share count
once. Pages of files (libraries, the cache on disk) are left out, as any other program that maps them moves the figure.
It is taken when the workers have made all that they may make ahead and wait, else the batches on their way would be
counted by chance. The verdict is the slope of a line through the epochs after the first quarter, in which allocators
and caches fill. Flat is less than 1 % of all over 20 epochs.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from loader import BATCH, SIDE, as_jpegs

from kit.data.augment import train_policy
from kit.data.cache import open_cache
from kit.data.dataset import CocoDataset, TrainSampler, train_loader
from kit.files import write_json

FLAT = 0.01  # share of the memory, over 20 epochs
QUIET_S = 0.3  # workers that compute nothing for so long wait


def let_workers_finish() -> None:
    workers = psutil.Process().children(recursive=True)
    before = -1.0
    while (now := sum(sum(each.cpu_times()[:2]) for each in workers)) > before:
        before = now
        time.sleep(QUIET_S)


def memory_mib() -> float:
    """Of this process and all its workers, from the kernel's proportional counts."""
    here = psutil.Process()
    return sum(taken_kib(each.pid) for each in (here, *here.children(recursive=True))) / 1024


def taken_kib(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(text.split()[0]) for name, _, text in (line.partition(":") for line in lines)}
    return sizes["Pss_Anon"] + sizes["Pss_Shmem"]


def epochs(folder: Path, options: argparse.Namespace) -> Iterator[float]:
    """Memory at the end of each epoch, while the workers wait."""
    coco, images = as_jpegs(folder, options.images)
    cache = open_cache(options.cache, coco, 3, 2**30, folder / "cache")
    policy = train_policy(options.epochs, mosaic=0.5, mixup=0.5, fisheye=0.2, rotate=0.2)
    sampler = TrainSampler(len(coco.records), BATCH, options.epochs, 0, [(SIDE, SIDE), (SIDE - 64, SIDE - 64)])
    loader = train_loader(CocoDataset(coco, images, policy, cache=cache), sampler, options.workers)
    for step, _batch in enumerate(loader, 1):
        if step % sampler.steps_per_epoch == 0:
            let_workers_finish()
            yield memory_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", choices=["none", "ram", "disk"], default="none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = []
    with tempfile.TemporaryDirectory() as name:
        for number, size_mib in enumerate(epochs(Path(name), options), 1):
            sizes.append(size_mib)
            print(f"epoch {number:3}   {size_mib:8.1f} MiB", flush=True)
    settled = np.array(sizes[len(sizes) // 4 :])
    slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0])
    growth = slope * 20 / settled.mean()
    verdict = "flat" if growth < FLAT else "GROWS"
    print(f"slope {slope:+.3f} MiB an epoch, {100 * growth:+.2f} % of all over 20 epochs: {verdict}")
    if options.json:
        row = {"name": f"loader MiB, {options.workers} workers, cache {options.cache}", "ours": settled[-1]}
        row |= {"peer": settled[0], "ratio": float(1 / (1 + growth)), "target": 1 / (1 + FLAT), "epochs": sizes}
        write_json(options.json, [row], indent=1)


if __name__ == "__main__":
    main()
