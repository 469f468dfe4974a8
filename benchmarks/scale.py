"""COCO files of millions of images: time and peak memory to read, split, sample and write one, and how memory grows.

python benchmarks/scale.py [--images 100000] [--boxes 15] [--json FILE]      a minute
python benchmarks/scale.py --images 2000000                                  30 million boxes, a quarter of an hour
The files are drawn at random, their annotations in no order. Each step runs in a process of its own, whose peak counts.
Memory is told as bytes an image and bytes a box, from files with half the images and with half the boxes; json.load
of the same file is the peer, as far as it can be waited for.
"""

import argparse
import csv
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import msgspec
import numpy as np

from kit.data.coco import CocoFile, columns_of, read_coco, write_coco_file
from kit.files import read_json, write_json

CLASSES = 365
BLOCK = 50_000
DRAWS = 2000
PEER_BOXES = 3_000_000  # more than so many are too much for json.load on a small machine


def write_random(path: Path, images: int, boxes: int) -> None:
    """A file with so many images and boxes, the boxes of an image anywhere in it."""
    rng = np.random.default_rng(0)
    categories = [{"id": each + 1, "name": f"class {each}"} for each in range(CLASSES)]
    with path.open("wb") as file:
        file.write(b'{"info": {"year": 2026}, "images": [')
        for first in range(0, images, BLOCK):
            entries = [image_entry(number) for number in range(first, min(first + BLOCK, images))]
            file.write((b", " if first else b"") + msgspec.json.encode(entries)[1:-1])
        file.write(b'], "annotations": [')
        for first in range(0, boxes, BLOCK):
            entries = annotation_entries(rng, first, min(BLOCK, boxes - first), images)
            file.write((b", " if first else b"") + msgspec.json.encode(entries)[1:-1])
        file.write(b'], "categories": ' + msgspec.json.encode(categories) + b"}")


def image_entry(number: int) -> dict[str, object]:
    name = f"images/patch{number // 40_000}/objects365_{number:08d}.jpg"
    return {"id": number + 1, "file_name": name, "height": 480, "width": 640, "license": 1}


def annotation_entries(rng: np.random.Generator, first: int, count: int, images: int) -> list[dict[str, object]]:
    corner = rng.uniform(0, [600, 440], (count, 2)).round(2)
    size = rng.uniform(2, 40, (count, 2)).round(2)
    owners, labels = rng.integers(1, images + 1, count).tolist(), rng.integers(1, CLASSES + 1, count).tolist()
    crowds = (rng.random(count) < 0.01).astype(int).tolist()
    rows = zip(
        np.hstack([corner, size]).tolist(), (size[:, 0] * size[:, 1]).tolist(), owners, labels, crowds, strict=True
    )
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for number, (box, area, image, label, crowd) in enumerate(rows, first + 1)
    ]


# --- the steps: each gets the file, and returns what it has found to be right ---


def step_import(_: Path) -> str:
    return "nothing read"


def step_read(path: Path) -> str:
    columns = columns_of(read_coco(path))
    arrays = [each for each in vars(columns).values() if isinstance(each, np.ndarray)]
    names = columns.file_names.packed
    held_mb = (sum(each.nbytes for each in arrays) + len(names.data) + 12 * len(names)) / 1e6
    return f"{len(columns):,} images, {len(columns.labels):,} boxes, held in {held_mb:,.0f} MB"


def step_split(path: Path) -> str:
    """The command itself: it reads, deals, and writes both parts."""
    from kit.data import split  # a step pays for no other's libraries

    out = path.with_name("parts")
    with redirect_stdout(io.StringIO()):
        status = split.main([str(path), str(out), "--parts", "train=0.9", "val=0.1", "--place", "none"])
    if status:
        raise RuntimeError(f"{path}: expected it to be split, got the status {status}")
    with (out / "split.csv").open(newline="") as file:
        counts = Counter(row["part"] for row in csv.DictReader(file))
    size_mb = sum(each.stat().st_size for each in out.rglob("*.json")) / 1e6
    shutil.rmtree(out)
    return f"{counts['train']:,} and {counts['val']:,} images, {size_mb:,.0f} MB written"


def step_sample(path: Path) -> str:
    """Images are grey: their files are not what is measured."""
    from kit.data.augment import Draw, plain_policy
    from kit.data.dataset import CocoDataset, picture_of
    from kit.data.picture import Picture

    class Grey(CocoDataset):
        def load(self, index: int) -> Picture:
            record = self.coco.records[index]
            return picture_of(record, np.full((*record.size_hw, 3), 114, np.uint8))

    dataset = Grey(read_coco(path), path.parent, plain_policy())
    rng = np.random.default_rng(1)
    began = time.perf_counter()
    samples = [dataset[Draw(int(index), 0, (64, 64))] for index in rng.integers(0, len(dataset), DRAWS)]
    took_us = (time.perf_counter() - began) / DRAWS * 1e6
    boxes = sum(len(sample.labels) for sample in samples)
    record_us = per_record_us(dataset.coco, rng)
    return f"{DRAWS:,} samples, {boxes:,} boxes, {took_us:.0f} us each; a record {record_us:.1f} us"


def per_record_us(coco: CocoFile, rng: np.random.Generator) -> float:
    rows = rng.integers(0, len(coco.records), DRAWS).tolist()
    began = time.perf_counter()
    for row in rows:
        _ = coco.records[row]
    return (time.perf_counter() - began) / DRAWS * 1e6


def step_write(path: Path) -> str:
    out = write_coco_file(path.with_name("written.json"), read_coco(path))
    size_mb = out.stat().st_size / 1e6
    out.unlink()
    return f"{size_mb:,.0f} MB"


def step_json(path: Path) -> str:
    return f"{len(json.loads(path.read_bytes())['annotations']):,} boxes as objects, nothing else"


STEPS: dict[str, Callable[[Path], str]] = {
    "import": step_import,
    "read": step_read,
    "split": step_split,
    "sample": step_sample,
    "write": step_write,
    "json.load": step_json,
}


def run_step(step: str, path: Path, result: Path) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    said = STEPS[step](path)
    times = {"time_s": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    write_json(result, {"step": step, **times, "peak_mb": peak_mb, "result": said})


def measured(step: str, path: Path) -> dict[str, object]:
    """One step in a new process."""
    result = path.with_suffix(".result")
    command = [sys.executable, __file__, "--step", step, "--file", str(path), "--json", str(result)]
    subprocess.run(command, check=True)
    return dict(read_json(result))


# --- all of it ---


ROW = "{step:10} {time_s:8.1f} s {cpu_s:8.1f} s of CPU {peak_mb:9,.0f} MB at most   {result}"


def compare(images: int, boxes_per_image: float, folder: Path, say: Callable[[str], None]) -> dict[str, object]:
    boxes = round(images * boxes_per_image)
    path, rows = folder / "full.json", []
    began = time.perf_counter()
    write_random(path, images, boxes)
    seconds, size_mb = time.perf_counter() - began, path.stat().st_size / 1e6
    say(f"file: {images:,} images, {boxes:,} boxes, {size_mb:,.0f} MB, drawn in {seconds:.0f} s")
    for step in STEPS:
        if step != "json.load" or boxes <= PEER_BOXES:
            rows.append(measured(step, path))
            say(ROW.format(**rows[-1]))
    growth = grown(images, boxes, path)
    say("reading grows by {bytes_an_image:.0f} bytes an image and {bytes_a_box:.0f} bytes a box".format(**growth))
    return {"images": images, "boxes": boxes, "steps": rows, **growth}


def grown(images: int, boxes: int, path: Path) -> dict[str, float]:
    """Peaks of reading files of three sizes, and the plane through them."""
    sizes = [(images, boxes), (images // 2, boxes // 2), (images, boxes // 2)]
    peaks_mb = []
    for size in sizes:
        write_random(path, *size)
        peaks_mb.append(measured("read", path)["peak_mb"])
    table = np.column_stack([np.array(sizes, np.float64), np.ones(3)])
    an_image, a_box, _ = np.linalg.solve(table, np.array(peaks_mb, np.float64) * 1e6)
    return {"bytes_an_image": float(an_image), "bytes_a_box": float(a_box)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=float, default=15.0, help="an image")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return run_step(options.step, options.file, options.json)
    with tempfile.TemporaryDirectory() as name:
        result = compare(options.images, options.boxes, Path(name), lambda line: print(line, flush=True))
    if options.json:
        write_json(options.json, result, indent=1)


if __name__ == "__main__":
    main()
