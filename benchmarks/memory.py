"""Whether memory stays flat over a long video: its size after each part of a run that predicts, draws and writes.

python benchmarks/memory.py [--model best.pt] [--frames 10000] [--json FILE]
The ratio is the memory after the first fifth to that at the end; 1 means that nothing has grown.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from kit.data.pixels import read_image
from kit.data.scenes import write_scenes
from kit.deploy.threads import settle
from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights, save_weights
from kit.files import write_json
from kit.media import VideoWriter
from kit.params import ROOT
from kit.predictor import Predictor

TARGET = 0.95
PARTS = 10
CLASSES = ["Bus", "Bike", "Car", "Pedestrian", "Truck"]


def starter(folder: Path) -> Path:
    detector = Detector("n", len(CLASSES)).eval()
    load_weights(detector, ROOT / "kit" / "weights" / "dfine_n_scenes.safetensors")
    return save_weights(detector, folder / "n.pt", {"classes": CLASSES, "size_hw": [320, 320]})


def long_video(folder: Path, frames: int) -> Path:
    """A drawn scene that goes round."""
    scenes = write_scenes(folder / "scenes", train=1, val=1, size_px=640, cameras=1, seed=1, workers=1)
    scene = read_image(next((scenes / "images" / "val").iterdir()))
    with VideoWriter(folder / "long.mp4", 25) as video:
        for number in range(frames):
            turn = cv2.getRotationMatrix2D((320, 320), number * 360 / 2000, 1.0)
            video.write(cv2.warpAffine(scene, turn, (640, 640)))
    return folder / "long.mp4"


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--runtime")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(settle())
    sizes_mib: dict[int, float] = {}
    began = time.perf_counter()

    def look(done: int, total: int) -> None:
        if done % (options.frames // PARTS) == 0 and done not in sizes_mib:
            sizes_mib[done] = resident_mib()
            print(f"{done:7} frames  {sizes_mib[done]:7.1f} MiB  {time.perf_counter() - began:6.1f} s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        predictor = Predictor(options.model or starter(folder), runtime=options.runtime, threshold=0.2, say=print)
        video = long_video(folder, options.frames)
        print(f"a video of {options.frames} frames made; {predictor.runtime} on {predictor.device}", flush=True)
        began = time.perf_counter()
        summary = predictor.run(video, folder / "out", formats=("coco", "csv"), drawn=True, progress=look)
        written_mib = sum(file.stat().st_size for file in (folder / "out").rglob("*") if file.is_file()) / 2**20
    print(f"{summary.table.splitlines()[0]}; {written_mib:.0f} MiB written, with the drawn video")
    sizes = np.array([size for done, size in sizes_mib.items() if done >= options.frames // 5])
    ratio = sizes[0] / sizes[-1]
    print(f"from {sizes[0]:.1f} to {sizes[-1]:.1f} MiB, ratio {ratio:.3f} (target {TARGET})")
    if options.json:
        row = {"name": f"resident MiB over {options.frames} frames", "ours": sizes[-1], "peer": sizes[0]}
        write_json(options.json, [row | {"ratio": ratio, "target": TARGET}], indent=1)


if __name__ == "__main__":
    main()
