"""What the check of a large data set costs: time and memory of `python -m kit.data.check FILE --labels-only`.

python benchmarks/check.py [--images 100000] [--boxes 15] [--masks 0.2] [--json FILE]
The file is drawn at random, with some faults in it; the check runs as a command of its own. No image is opened:
reading those takes as long as the disk and the decoder do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from kit.files import write_json
from kit.params import ROOT

MOST_S, MOST_GIB = 60.0, 2.0
CLASSES, SIZE_WH = 80, np.array([1280, 960])
FAULTS = {  # fields of every thousandth annotation, in turn
    "malformed box": '"bbox": [1, 2, 3]',
    "box without area": '"bbox": [5, 5, 0, 9]',
    "box outside the image": '"bbox": [5000, 5, 9, 9]',
    "box over the edge": '"bbox": [1200, 5, 200, 9]',
}


def write_synthetic(path: Path, images: int, boxes: int, masks: float, seed: int = 0) -> None:
    """A COCO file of so many images, and boxes an image on the average."""
    rng = np.random.default_rng(seed)
    count, faults = images * boxes, list(FAULTS.values())
    image_ids = np.sort(rng.integers(1, images + 1, count))
    sides = np.exp(rng.normal(3.5, 0.8, (count, 2))).clip(4, 400)
    corners = rng.random((count, 2)) * (SIZE_WH - sides)
    boxes_xywh_px = np.concatenate([corners, sides], axis=1).round(2)
    labels = (rng.zipf(1.5, count) - 1) % CLASSES + 1
    has_mask = rng.random(count) < masks
    with path.open("w") as file:
        file.write('{"images": [')
        size = f'"width": {SIZE_WH[0]}, "height": {SIZE_WH[1]}'
        entries = (f'{{"id": {each}, "file_name": "{each:012}.jpg", {size}}}' for each in range(1, images + 1))
        file.write(", ".join(entries) + '], "annotations": [')
        rows = zip(image_ids.tolist(), labels.tolist(), boxes_xywh_px.tolist(), has_mask.tolist(), strict=True)
        for row, (image_id, label, (x, y, w, h), is_masked) in enumerate(rows):
            box = faults[row // 1000 % len(faults)] if row % 1000 == 0 else f'"bbox": [{x}, {y}, {w}, {h}]'
            mask = f', "segmentation": [[{x}, {y}, {x + w:.2f}, {y}, {x + w:.2f}, {y + h:.2f}, {x}, {y + h:.2f}]]'
            about = (
                f'"id": {row + 1}, "image_id": {image_id}, "category_id": {label}, "area": {w * h:.4f}, "iscrowd": 0'
            )
            file.write(f"{', ' * (row > 0)}{{{about}, {box}{mask * is_masked}}}")
        categories = [{"id": label, "name": f"class {label}"} for label in range(1, CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def run_check(path: Path, out: Path) -> tuple[float, float]:
    """Seconds, and GiB of memory at the most."""
    command = [sys.executable, "-m", "kit.data.check", str(path), "--labels-only", "--json", str(out)]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 1:
        raise ValueError(f"{path}: expected the check to find problems and end with 1, got {status}; run it by hand")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=15, help="an image")
    parser.add_argument("--masks", type=float, default=0.2, help="share of the boxes that have a polygon")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "instances_train.json", Path(folder) / "report.json"
        write_synthetic(path, options.images, options.boxes, options.masks)
        size_mib = path.stat().st_size / 2**20
        time_s, memory_gib = run_check(path, out)
        report = json.loads(out.read_text())[0]
    print(f"{report['images']:,} images, {report['annotations']:,} annotations, {size_mib:,.0f} MiB")
    for problem in report["problems"]:
        print(f"{problem['count']:>9,}  {problem['kind']}")
    print(f"{time_s:.1f} s (at most {MOST_S:.0f}), {memory_gib:.2f} GiB (at most {MOST_GIB:.0f})")
    if options.json:
        found = {each["kind"]: each["count"] for each in report["problems"]}
        about = {"images": report["images"], "annotations": report["annotations"], "file_mib": size_mib}
        write_json(options.json, about | {"time_s": time_s, "memory_gib": memory_gib, "found": found}, indent=1)


if __name__ == "__main__":
    main()
