"""Detects on a folder of images as the final evaluation of Track 4 wants it, and tells the frames a second.

    python3 detect.py                                # images of /data, model of /models
    python3 detect.py --images folder --model model.onnx --runtime onnxruntime --out predictions.json

This folder needs numpy, OpenCV, Pillow and TensorRT or ONNX Runtime, from Python 3.10 on; neither kit nor torch.
The model is an ONNX file of kit.deploy.export_onnx; its TensorRT engine is built on the first start, beside it.
Exit status: 0 all well, 1 an error or a failed check, 2 done, but some images could not be read.
"""

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from model import OnnxRunner, Refused, read_json, write_whole
from PIL import Image

IMAGE_FOLDERS = [  # the organisers write the name in two ways
    f"/data/{name}{part}" for part in ("/images", "") for name in ("Fisheye1K_eval", "FishEye1K_eval")
] + ["/data/images", "/data"]
ENDINGS = (".png", ".jpg", ".jpeg")
FULL_FPS = 25.0
SCENES = "MAEN"  # morning, afternoon, evening, night: 0 to 3 in an image id
MOST_PER_CLASS = 100  # of an image: what is counted
STAGES = ("reading", "preprocessing", "detector", "postprocessing")


# --- images and their ids ---


def image_folder(given):
    """The folder that was named, or the first of the organisers' that holds images."""
    folders = [Path(given)] if given else [Path(each) for each in IMAGE_FOLDERS]
    for folder in folders:
        if folder.is_dir() and image_files(folder):
            return folder
    tried = ", ".join(map(str, folders))
    raise Refused(
        f"expected a folder with {', '.join(ENDINGS)} files, found none in {tried}; mount it or give --images"
    )


def image_files(folder):
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")


def image_ids(files, annotations):
    """Of each file: from a COCO file where one is given, else by the rule of Track 4."""
    if annotations:
        known = {Path(each["file_name"]).name: each["id"] for each in read_json(annotations)["images"]}
        missing = [path.name for path in files if path.name not in known]
        if missing:
            raise Refused(f"{annotations}: {len(missing)} images are not listed, such as {missing[0]}")
        return [known[path.name] for path in files]
    names = {}
    for path in files:
        other = names.setdefault(track4_id(path), path.name)
        if other != path.name:
            raise Refused(f"the Track-4 rule gives {other} and {path.name} one id; give ids with --annotations")
    return list(names)


def track4_id(path):
    """camera7_N_12.png -> 7312: camera, scene, frame."""
    found = re.fullmatch(r"camera(\d+)_([MAEN])_(\d+)", path.stem)
    if not found:
        raise Refused(f"{path.name}: expected camera<C>_<M, A, E or N>_<F>; give other ids with --annotations")
    camera, scene, frame = found.groups()
    return int(f"{int(camera)}{SCENES.index(scene)}{int(frame)}")


def read_image(path, about):
    """As OpenCV reads it, pixels as stored -> (H, W, 3) BGR or (H, W) grey uint8; None where it cannot be read."""
    colours = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}
    if about["channels"] not in colours:
        raise Refused(f"expected a model of 1 or 3 channels, found {about['channels']}")
    return cv2.imread(str(path), colours[about["channels"]] | cv2.IMREAD_IGNORE_ORIENTATION)


# --- before and after the detector ---


def resized(image, size_hw, is_quick=False):
    """As in training: bilinear, and averaged where it shrinks; is_quick: not averaged. (H, W[, 3]) uint8."""
    height, width = size_hw
    if image.shape[:2] == (height, width):
        return image
    if is_quick or (height >= image.shape[0] and width >= image.shape[1]):
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))


def preprocessed(image, about, is_quick=False):
    """What read_image gave -> images (1, ...) as the file takes them, sizes_hw (1, 2) float32."""
    small = resized(image, (about["height_px"], about["width_px"]), is_quick)
    small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB) if about["channels"] == 3 else small[..., None]
    if about["input"] == "float":
        small = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(255)
    return small[None], np.array([image.shape[:2]], np.float32)


def postprocessed(found, limits, category_ids, image_id, size_hw):
    """boxes (N, 4) xyxy, scores (N,) falling, labels (N,) -> COCO results; limits: (K,) least scores by class."""
    boxes, scores, labels = found
    kept = np.flatnonzero(scores >= limits[labels])
    corners = np.clip(boxes[kept].astype(np.float64), 0, [size_hw[1], size_hw[0]] * 2)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    rows = zip(boxes_xywh.tolist(), scores[kept].astype(np.float64).tolist(), labels[kept].tolist(), strict=True)
    counts, entries = [0] * len(category_ids), []
    for box_xywh, score, label in rows:
        if min(box_xywh[2:]) > 0 and counts[label] < MOST_PER_CLASS:
            counts[label] += 1
            category = {"image_id": image_id, "category_id": category_ids[label]}
            entries.append({**category, "bbox": box_xywh, "score": score})
    return entries


class Limits:
    """The least score of each class: those of a thresholds.json, by day and night where it has them; 0.4 without.

    given: what is changed, such as 0.5 for all classes or Bus=0.7.
    """

    def __init__(self, about, path=None, given=()):
        ids, self.names = about["category_ids"], about["names"]
        self.of = {"": np.full(len(ids), 0.4)} if path is None else self.read(path, ids)
        for text in given:
            self.change(text)

    def read(self, path, category_ids):
        table = read_json(path)
        missing = [each for each in category_ids if each not in table["category_ids"]]
        if missing:
            raise Refused(f"{path}: expected thresholds for every class of the model, found none for {missing}")
        scores = np.array([table["scores"][table["category_ids"].index(each)] for each in category_ids], np.float64)
        return {group: scores[:, column] for column, group in enumerate(table["groups"] or [""])}

    def change(self, text):
        name, _, number = text.rpartition("=")
        if (name and name not in self.names) or not re.fullmatch(r"\d*\.?\d+", number):
            raise Refused(f"--threshold {text}: expected a score, or class and score such as {self.names[0]}=0.7")
        for row in self.of.values():
            row[self.names.index(name) if name else slice(None)] = float(number)

    def at(self, path):
        """(K,), for an image."""
        return self.of[""] if "" in self.of else self.of["night" if "_N_" in path.name else "day"]

    def __str__(self):
        rows = (f"{group} {' '.join(f'{score:.3g}' for score in row)}".strip() for group, row in self.of.items())
        return f"least scores of {', '.join(self.names)}: {'; '.join(rows)}"


# --- a pass over the folder ---


def detect(runner, files, ids, limits, is_quick, say):
    """COCO results; seconds of each image by stage (images, 4); names of files that could not be read."""
    about, entries, rows, faults = runner.about, [], [], []
    for index, (path, image_id) in enumerate(zip(files, ids, strict=True), 1):
        stamps = [perf_counter()]
        image = read_image(path, about)
        if image is None:
            faults.append(path.name)
            continue
        stamps.append(perf_counter())
        inputs = preprocessed(image, about, is_quick)
        stamps.append(perf_counter())
        found = runner(*inputs)
        stamps.append(perf_counter())
        entries += postprocessed(found, limits.at(path), about["category_ids"], image_id, image.shape[:2])
        stamps.append(perf_counter())
        rows.append(np.diff(stamps))
        if index % 100 == 0:
            say(f"{index} of {len(files)} images")
    if not rows:
        raise Refused(f"none of {len(files)} images could be read, such as {faults[0]}")
    return entries, np.array(rows), faults


def warm_up(runner, frames):
    about = runner.about
    blank = np.zeros((about["height_px"], about["width_px"], 3), np.uint8)
    inputs = preprocessed(blank if about["channels"] == 3 else blank[..., 0], about)
    for _ in range(frames):
        runner(*inputs)


def report(seconds, entries):
    """The lines that tell the speed; the rate leaves out the reading, as the organisers' does."""
    total = seconds[:, 1:].sum(axis=1)
    fps = len(total) / total.sum()
    means = zip(STAGES, 1000 * seconds.mean(axis=0), strict=True)
    ranks = ", ".join(f"{rank} %: {1000 * np.percentile(total, rank):.2f}" for rank in (50, 90, 99))
    return [
        f"Processed {len(total)} images, {len(entries)} detections.",
        *(f"Avg {stage}: {mean:.2f} ms" for stage, mean in means),
        f"Milliseconds an image without reading: {ranks}",
        f"FPS with reading: {len(total) / seconds.sum():.2f}",
        f"FPS: {fps:.2f}",
        f"Normalized FPS: {min(fps, FULL_FPS) / FULL_FPS:.4f}",
    ]


# --- does the engine find what it should? ---


def check(runner, reference, files, say):
    """Whether the runner finds what another does: sure detections of either that the other has too."""
    overlaps, differences = [], []
    for path in files:
        image = read_image(path, runner.about)
        if image is None:
            continue
        ours, theirs = (sure(each(*preprocessed(image, each.about))) for each in (runner, reference))
        for one, other in ((ours, theirs), (theirs, ours)):
            for box, score, label in zip(*one, strict=True):
                overlap, difference = nearest(box, score, label, *other)
                overlaps.append(overlap)
                differences.append(difference)
    matched = np.array(overlaps) >= 0.9
    share, most = float(matched.mean()) if overlaps else 0.0, max(np.array(differences)[matched], default=1.0)
    passed = share >= 0.95 and most <= 0.1
    say(
        f"check against {reference.note}: {len(overlaps)} sure detections, {share:.1%} found by both, "
        f"greatest difference of their scores {most:.4f}: {'passed' if passed else 'FAILED'}"
    )
    return passed


def sure(found, least_score=0.3):
    boxes, scores, labels = (np.array(each) for each in found)
    kept = scores >= least_score
    return boxes[kept], scores[kept], labels[kept]


def nearest(box, score, label, boxes, scores, labels):
    """IoU and difference of scores of the box of the same class that overlaps most; 0 and 1 where there is none."""
    boxes, scores = boxes[labels == label], scores[labels == label]
    if not len(boxes):
        return 0.0, 1.0
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    overlaps = shared / np.maximum(areas - shared, 1e-9)
    best = int(overlaps.argmax())
    return float(overlaps[best]), abs(float(score) - float(scores[best]))


def refuse_unlike(runner, reference, fresh, files, options, say):
    """A new engine, or any with --check, has to find what ONNX Runtime finds; JetPack 6 is known to build others."""
    if not (fresh or options.check is not None):
        return
    if options.check is None and importlib.util.find_spec("onnxruntime") is None:
        say("the new engine was not checked: onnxruntime is not installed")
        return
    if not reference.is_file():
        raise Refused(f"{reference}: the check expected the ONNX file of the engine, found nothing; give --check FILE")
    if check(runner, OnnxRunner(reference), files[: options.check_images], say) or options.allow_unlike:
        return
    if fresh:
        fresh.with_name(fresh.name + ".json").unlink()  # so that it is never taken for a good one
    raise Refused("the engine does not find what the file does: send the fp32 one, or try another JetPack")


# --- the command ---


def model_file(given):
    """The file that was named, or the only ONNX file of a folder, or else its only engine."""
    path = Path(given)
    if path.is_file():
        return path
    if not path.is_dir():
        raise Refused(f"{path}: expected a model or a folder with one, found nothing; mount it or give --model")
    for ending in ("*.onnx", "*.engine"):
        found = sorted(path.glob(ending))
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise Refused(f"{path}: expected one {ending}, found {names}; name one of them with --model")
        if found:
            return found[0]
    raise Refused(f"{path}: expected an .onnx or .engine file, found none; copy one there")


def open_model(model, options, say):
    """-> the runner, and the engine where it was built just now."""
    wanted = "tensorrt" if model.suffix == ".engine" or importlib.util.find_spec("tensorrt") else "onnxruntime"
    if (options.runtime or wanted) == "tensorrt":
        from engine import tensorrt_runner  # with ONNX Runtime there need not be a GPU

        return tensorrt_runner(model, options.cache, options.workspace_mib, say)
    if model.suffix != ".onnx":
        raise Refused(f"{model}: ONNX Runtime expected an .onnx file")
    return OnnxRunner(model), None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", "--image_folder", help="default: the first of the organisers' folders in /data")
    parser.add_argument("--model", "--model_path", default="/models", help="a file, or a folder with one (/models)")
    parser.add_argument("--out", "--output_json", type=Path, help="default: predictions.json in the data folder")
    parser.add_argument("--runtime", choices=("tensorrt", "onnxruntime"), help="default: TensorRT where it is there")
    parser.add_argument("--thresholds", type=Path, help="default: thresholds.json beside the model, where it is there")
    parser.add_argument("--threshold", action="append", default=[], help="0.4, or Bus=0.7; may be given repeatedly")
    parser.add_argument("--annotations", help="a COCO file with the ids of the images; default: the Track-4 rule")
    parser.add_argument("--quick-resize", action="store_true", help="OpenCV's bilinear; not what it was trained with")
    parser.add_argument("--cache", type=Path, help="folder for the engine, where that of the model is read only")
    parser.add_argument("--warm-up", type=int, default=20, help="frames before the clock starts")
    parser.add_argument("--workspace-mib", type=int, default=4096, help="memory for building the engine")
    parser.add_argument("--check", nargs="?", const="", help="compare with ONNX Runtime (of this file) before the run")
    parser.add_argument("--check-images", type=int, default=8)
    parser.add_argument("--allow-unlike", action="store_true", help="go on after a check that failed")
    return parser


def run(options, say):
    folder = image_folder(options.images)
    files = image_files(folder)
    say(f"Found {len(files)} images in {folder}.")
    ids, model = image_ids(files, options.annotations), model_file(options.model)
    runner, fresh = open_model(model, options, say)
    say(f"{model.name}: size {runner.about['size']}, {runner.about['precision']}, {runner.note}")
    refuse_unlike(runner, Path(options.check or model.with_suffix(".onnx")), fresh, files, options, say)
    beside = model.with_name("thresholds.json")
    limits = Limits(runner.about, options.thresholds or (beside if beside.is_file() else None), options.threshold)
    say(str(limits))
    warm_up(runner, options.warm_up)
    entries, seconds, faults = detect(runner, files, ids, limits, options.quick_resize, say)
    out = options.out or (folder.parent if folder.name == "images" else folder) / "predictions.json"
    write_whole(out, json.dumps(entries, allow_nan=False).encode())
    lines = [f"could not be read, skipped: {name}" for name in faults]
    lines += [] if entries else ["nothing was found in any image: look at the thresholds, and run --check"]
    for line in [*lines, *report(seconds, entries), f"written: {out}"]:
        say(line)
    return 2 if faults else 0


def main(given=None):
    try:
        return run(arguments().parse_args(given), lambda text: print(text, flush=True))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
