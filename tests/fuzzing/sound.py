"""Small sound data sets and files of each kind, which are then damaged."""

import json
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pillow_heif
import torch
from PIL import Image
from safetensors.torch import save_file

from kit.data.convert import Target, convert
from kit.data.mask_shapes import compressed_entry, uncompressed_entry
from kit.dfine.detector import Detector
from kit.dfine.weights import save_weights
from kit.files import write_bytes, write_json, write_text
from kit.media.videos import VideoWriter

NAMES = {3: "car", 7: "person"}
WIDTH, HEIGHT = 64, 48


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8, other pixels for each seed."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows / (3 + seed)) + np.cos(columns / (5 + 2 * seed))
    grain = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    return np.clip(127 + 50 * waves[..., None] + grain, 0, 255).astype(np.uint8)


def image(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, **options)  # type: ignore[arg-type]
    return path


def coco_content(part: str, count: int) -> dict[str, object]:
    """Boxes with two digits, polygons, run lengths in both forms, a crowd, and an image without any."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 12:30] = 1
    mask[13:16, 15:20] = 0
    shapes = [
        {"segmentation": [[12, 10, 30, 10, 30, 20, 12, 20]], "area": 180},
        {"segmentation": compressed_entry(mask), "area": int(mask.sum())},
        {"segmentation": uncompressed_entry(mask), "area": int(mask.sum()), "iscrowd": 1},
        {},
    ]
    first = 1 if part == "train" else 101
    images = [
        {"id": first + row, "file_name": f"{part}_{row}.png", "width": WIDTH, "height": HEIGHT} for row in range(count)
    ]
    annotations = []
    for row in range(count - 1):
        for number, shape in enumerate(shapes):
            box = [12, 10, 18, 10] if shape else [3.25 + row, 2.5, 20.75, 30 - row]
            plain = {"id": first * 10 + row * 10 + number, "image_id": first + row, "category_id": (3, 7)[number % 2]}
            annotations.append(plain | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0} | shape)
    categories = [{"id": key, "name": name, "supercategory": "any"} for key, name in NAMES.items()]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path) -> None:
    """images/{train,val} and annotations/instances_{train,val}.json."""
    for part, count in (("train", 4), ("val", 3)):
        content = coco_content(part, count)
        write_json(folder / "annotations" / f"instances_{part}.json", content)
        for row in range(count):
            image(folder / "images" / part / f"{part}_{row}.png", row + 10 * (part == "val"))


def coco_gz(folder: Path) -> None:
    coco(folder)
    plain = folder / "annotations" / "instances_train.json"
    write_json(f"{plain}.gz", json.loads(plain.read_text()))
    plain.unlink()


def converted(to: Target, folder: Path) -> None:
    """The data set above in another format, as kit writes it."""
    coco(folder.with_name(f"{folder.name}_coco"))
    convert(folder.with_name(f"{folder.name}_coco"), folder, to, copy=True)


def yolo(folder: Path) -> None:
    converted("yolo", folder)


def voc(folder: Path) -> None:
    converted("voc", folder)


def table(folder: Path) -> None:
    converted("csv", folder)


def table_of_strangers(folder: Path) -> None:
    """The columns of TensorFlow's tutorials."""
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for row in range(4):
        image(folder / "images" / f"{row}.jpg", row)
        rows += [f"{row}.jpg,{WIDTH},{HEIGHT},{name},{row},2,{row + 20},{22 + row}" for name in NAMES.values()]
    write_text(folder / "train.csv", "\n".join(rows) + "\n")


def visdrone(folder: Path) -> None:
    part = folder / "VisDrone2019-DET-train"
    for row in range(3):
        image(part / "images" / f"{row:07}.jpg", row)
        lines = [f"{4 + row},5,20,12,1,{category},0,{row}" for category in (4, 1, 0, 11)]
        write_text(part / "annotations" / f"{row:07}.txt", "\n".join(lines) + ",\n")


def objects365(folder: Path) -> None:
    """Two parts; images lie in patches."""
    for part, count in (("train", 3), ("val", 2)):
        content = coco_content(part, count)
        for row, entry in enumerate(content["images"]):  # type: ignore[arg-type, var-annotated]
            entry["file_name"] = f"images/v1/patch8/{part}_{row}.png"
            image(folder / part / "patch8" / f"{part}_{row}.png", row)
        write_json(folder / part / f"zhiyuan_objv2_{part}.json", content)


def category_yaml(folder: Path) -> None:
    write_text(folder / "table.yaml", "car: vehicle\nperson: null\nkitti:\n  Van: vehicle\n  Misc: null\n")


def category_csv(folder: Path) -> None:
    write_text(folder / "table.csv", "category,target,data_set\ncar,vehicle,\nperson,,\nVan,vehicle,kitti\n")


def split_list(folder: Path) -> None:
    coco(folder)
    rows = ["file_name,part", *(f"train_{row}.png,{'train' if row % 2 else 'val'}" for row in range(4))]
    write_text(folder / "parts.csv", "\n".join(rows) + "\n")


def results(folder: Path) -> list[dict[str, object]]:
    """COCO results of the images of train, beside the data set."""
    coco(folder)
    random = Random(0)
    entries = []
    for image_id in range(1, 5):
        for category_id in NAMES:
            box = [random.randrange(20) + 0.25, random.randrange(10) + 0.5, 20.5, 25.0]
            entries.append(
                {"image_id": image_id, "category_id": category_id, "bbox": box, "score": round(random.random(), 3)}
            )
    write_json(folder / "results.json", entries)
    return entries


def results_zip(folder: Path) -> None:
    entries = results(folder)
    with zipfile.ZipFile(folder / "results.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", json.dumps(entries))


def results_csv(folder: Path) -> None:
    lines = ["ImageId,PredictionString"]
    for row in range(4):
        lines.append(f"train_{row},3 0.91 10.5 20.0 30.25 10.0 7 0.4 1.0 8.0 16.0 16.0")
    results(folder)
    write_text(folder / "results.csv", "\n".join(lines) + "\n")


def pictures(ending: str, folder: Path, **options: object) -> None:
    """A data set of four images of one format; the first is damaged."""
    content = coco_content("train", 4)
    for row, entry in enumerate(content["images"]):  # type: ignore[arg-type, var-annotated]
        entry["file_name"] = f"train_{row}.{ending}"
        image(folder / "images" / "train" / entry["file_name"], row, **options)
    write_json(folder / "annotations" / "instances_train.json", content)


def heic(folder: Path) -> None:
    path = folder / "images" / "train" / "train_0.heic"
    path.parent.mkdir(parents=True)
    pillow_heif.from_pillow(Image.fromarray(picture(0))).save(path)


def document(folder: Path) -> None:
    pages = [Image.fromarray(picture(page)) for page in range(3)]
    folder.mkdir(parents=True, exist_ok=True)
    pages[0].save(folder / "pages.pdf", save_all=True, append_images=pages[1:])


def video(folder: Path) -> None:
    with VideoWriter(folder / "film.mp4", 10) as writer:
        for number in range(12):
            writer.write(picture(number))


def checkpoint(folder: Path) -> None:
    """Of a few tensors under our names; what is read first of any file."""
    torch.manual_seed(0)
    weights = {f"decoder.layers.{layer}.widen.weight": torch.randn(4, 3) for layer in range(3)}
    about = {"format": "kit-dfine-1", "size": "n", "num_classes": 2, "channels": 3, "classes": ["a", "b"]}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(about | {"weights": weights}, folder / "weights.pt")
    texts = {name: json.dumps(value) for name, value in about.items()}
    save_file(weights, folder / "weights.safetensors", texts)


def detector(folder: Path) -> None:
    """A whole one, of the smallest size."""
    torch.manual_seed(0)
    save_weights(Detector("n", 2, 3), folder / "detector.safetensors", {"classes": ["a", "b"], "size_hw": [64, 64]})


def params(folder: Path) -> None:
    lines = ["# a run", "model: n", "epochs: 2", "lr: 2.5e-4", "tta_flip: true", 'rules: ["0.25"]', "data: data/scenes"]
    write_text(folder / "run.yaml", "\n".join(lines) + "\n")


def secrets(folder: Path) -> None:
    """What must never be taken in: it lies outside of the data set."""
    image(folder / "secret.png", 99)
    write_bytes(folder / "secret.txt", b"the-secret-of-this-machine")
