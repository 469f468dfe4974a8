"""How long the fusion of several models' boxes takes here and in ensemble-boxes: same boxes, one core, turn by turn.

python benchmarks/fusion.py --images 20 --rounds 5 [--json FILE]
A ratio over 1 means that ours is faster. Least time of the rounds; the results are compared, bit for bit, on the way.
Compiling ours (once a process) is told apart. The last line is `fuse`, from COCO results to COCO results.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ensemble_boxes
import numpy as np

from kit import ensemble
from kit.files import write_json

SIZE_HW = (960, 1280)
Scene = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]  # boxes, scores, labels: one a model
Work = Callable[[Scene], Any]


def scene(models: int, boxes: int, random: np.random.Generator, objects: int = 40, classes: int = 5) -> Scene:
    """Of each model's boxes half lie near an object, as a detector of queries gives them; the others anywhere."""
    centre, size = random.uniform(0.05, 0.95, (objects, 2)), random.uniform(0.02, 0.2, (objects, 2))
    label = random.integers(classes, size=objects)
    near = random.random((models, boxes)) < 0.5
    which = random.integers(objects, size=(models, boxes))
    middle = np.where(near[..., None], centre[which], random.random((models, boxes, 2)))
    middle += random.normal(0, 0.1, middle.shape) * size[which]
    half = size[which] * np.exp(random.normal(0, 0.1, middle.shape)) / 2  # (models, boxes, 2)
    scores = random.beta(1, np.where(near, 2, 8))
    labels = np.where(near, label[which], random.integers(classes, size=(models, boxes)))
    return list(np.concatenate([middle - half, middle + half], axis=2).clip(0, 1)), list(scores), list(labels)


def least_seconds(works: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Of each work, taken in turn."""
    times = []
    for _ in range(rounds):
        for work in works:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return [min(times[index :: len(works)]) for index in range(len(works))]


def compared(name: str, ours: Work, theirs: Work, scenes: list[Scene], rounds: int, target: float) -> dict[str, Any]:
    for each in scenes:
        for mine, peer in zip(ours(each), theirs(each), strict=True):
            assert np.array_equal(mine, peer), f"{name}: the results differ"
    mine, peer = least_seconds([lambda: [ours(s) for s in scenes], lambda: [theirs(s) for s in scenes]], rounds)
    return {
        "name": name,
        "ours": mine / len(scenes),
        "peer": peer / len(scenes),
        "ratio": peer / mine,
        "target": target,
    }


def copied(scene: Scene) -> list[list[np.ndarray]]:
    """NMS of ensemble-boxes writes into the lists that it is given."""
    return [list(each) for each in scene]


METHODS: dict[str, tuple[Work, Work]] = {
    "WBF": (
        lambda s: ensemble.weighted_boxes_fusion(*s),
        lambda s: ensemble_boxes.weighted_boxes_fusion(*s),
    ),
    "NMW": (
        lambda s: ensemble.non_maximum_weighted(*s),
        lambda s: ensemble_boxes.non_maximum_weighted(*s),
    ),
    "NMS": (
        lambda s: ensemble.nms(*s),
        lambda s: ensemble_boxes.nms(*copied(s)),
    ),
    "soft-NMS": (
        lambda s: ensemble.soft_nms(*s, lowered=False),
        lambda s: ensemble_boxes.soft_nms(*copied(s)),
    ),
}


def as_results(scenes: list[Scene]) -> list[list[dict[str, Any]]]:
    """COCO results, one list a model; image ids from 1."""
    height, width = SIZE_HW
    scale = np.array([width, height, width, height])
    results: list[list[dict[str, Any]]] = [[] for _ in scenes[0][0]]
    for image_id, models in enumerate(scenes, start=1):
        for rows, boxes, scores, labels in zip(results, *models, strict=True):
            corners = boxes * scale
            boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            rows += [
                {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
                for label, box, score in zip(labels.tolist(), boxes_xywh.tolist(), scores.tolist(), strict=True)
            ]
    return results


def end_to_end(images: int, random: np.random.Generator, rounds: int) -> float:
    """Images a second of `fuse`, for 3 models of 300 boxes."""
    results = as_results([scene(3, 300, random) for _ in range(images)])
    sizes_hw = {image_id: SIZE_HW for image_id in range(1, images + 1)}
    return images / least_seconds([lambda: ensemble.fuse(results, sizes_hw)], rounds)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(0)

    began = time.perf_counter()
    METHODS["WBF"][0](scene(1, 2, random))
    print(f"first call, with compiling: {time.perf_counter() - began:.2f} s")
    rows = []
    for models in (6, 3):
        scenes = [scene(models, 300, random) for _ in range(options.images)]
        for name, (ours, theirs) in METHODS.items():
            target = 5.0 if name == "WBF" else 1.0
            rows.append(compared(f"{name}, {models} x 300 boxes", ours, theirs, scenes, options.rounds, target))
            row = rows[-1]
            print(
                f"{row['name']:22} ours {1e3 * row['ours']:7.2f} ms   "
                f"ensemble-boxes {1e3 * row['peer']:7.2f} ms   ratio {row['ratio']:6.1f}"
            )
    print(f"fuse, 3 x 300 boxes on 1000 images: {end_to_end(1000, random, 2):.0f} images/s")
    if options.json:
        write_json(options.json, rows, indent=1)


if __name__ == "__main__":
    main()
