"""A folder that FiftyOne opens: images, labels, detections, and what became of each.

    import fiftyone as fo
    dataset = fo.Dataset.from_dir("runs/demo/08_errors/fiftyone", dataset_type=fo.types.FiftyOneDataset)
    fo.launch_app(dataset).wait()

FiftyOne is not needed to write it; it wants another OpenCV than kit does, so it is installed beside kit, into an
environment of its own. The layout is that of its own exports: metadata.json declares the fields, samples.json holds a
document an image. Images stay where they are, by paths relative to the folder, or are copied into its data/.
"""

import hashlib
import mimetypes
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from kit.data.views import group_of, view_of
from kit.errors import Errors
from kit.files import atomic, read_json, write_json

VERSION = "1.0.0"  # of the layout; later releases of FiftyOne (tried: 1.22.1) bring it up to date as they open it
Media = Literal["refer", "copy"]
Document = dict[str, Any]
FIELDS, LABELS = "fiftyone.core.fields.", "fiftyone.core.labels."
NOT_WRONG = {"true": "tp", "found": "tp", "ignored": None}  # outcomes, in FiftyOne's words
LABEL_EXTRAS = {  # fields of a label or detection, where it has them
    "confidence": "FloatField",
    "outcome": "StringField",
    "eval": "StringField",
    "suspicion": "FloatField",
    "annotation_id": "IntField",
    "rule": "StringField",
}


@dataclass(frozen=True)
class Part:
    """Images of one part of a data set, and what is known of them."""

    name: str  # becomes a tag of each image
    images: Path
    annotations: Mapping[str, Any]  # COCO; those with an entry `pseudo` are tagged so, and keep score and rule
    predictions: Sequence[Mapping[str, Any]] = ()  # COCO results
    errors: Errors | None = None  # of these predictions
    suspects: pd.DataFrame | None = None  # of find_label_mistakes with these predictions


def pseudo_part(annotations: Path | str, images: Path) -> Part:
    """Of a file that mixes ground truth with pseudo labels, the images that have one of these."""
    content = read_json(annotations)
    wanted = {each["image_id"] for each in content["annotations"] if "pseudo" in each}
    chosen = {
        "images": [each for each in content["images"] if each["id"] in wanted],
        "annotations": [each for each in content["annotations"] if each["image_id"] in wanted],
    }
    return Part("pseudo", Path(images), content | chosen)


def export_fiftyone(
    folder: Path | str,
    parts: Sequence[Part],
    *,
    name: str,
    view_pattern: str | None = None,
    least_score: float = 0.1,
    media: Media = "refer",
) -> Path:
    """Writes the folder anew. least_score: lower detections are left out, but for those that are errors or suspects.

    Each label and detection has its outcome (as in kit.errors) and eval (tp, fp, fn); suspects are tagged
    suspect_missing and so on, pseudo labels pseudo; camera, group and counts of tp, fp, fn are fields of the image.
    """
    folder = Path(folder)
    samples = []
    for part in parts:
        paths = {each["file_name"]: part.images / each["file_name"] for each in part.annotations["images"]}
        samples += samples_of(part, places(paths, folder, part.name, media), view_pattern, least_score)
    names = list(dict.fromkeys(str(each["name"]) for part in parts for each in part.annotations["categories"]))
    (folder / "metadata.json").unlink(missing_ok=True)  # what is cut off does not open
    write_json(folder / "samples.json", {"samples": samples})
    write_json(folder / "metadata.json", dataset_document(name, names), indent=1)
    return folder


def places(paths: Mapping[str, Path], folder: Path, part: str, media: Media) -> dict[str, str]:
    """Where FiftyOne finds each image, from the folder on; copies those that are to be copied."""
    if media == "refer":
        return {name: os.path.relpath(path.absolute(), folder.absolute()) for name, path in paths.items()}
    copies = {name: Path("data", part, name.lstrip("/")) for name in paths}
    for name, copy in copies.items():
        if not (folder / copy).is_file():
            with atomic(folder / copy) as temporary:
                shutil.copyfile(paths[name], temporary)
    return {name: str(copy) for name, copy in copies.items()}


# What is known of each label and detection.


def labels_of(part: Part) -> dict[int, list[Document]]:
    """The annotations by image id: category_id, bbox, and what becomes fields of the label."""
    marks = marks_of(part, "annotation_id")
    found = defaultdict(list)
    for truth in part.annotations["annotations"]:
        mark = marks.get(truth["id"], {})
        label = {"category_id": truth["category_id"], "bbox": truth["bbox"], "annotation_id": truth["id"]} | mark
        if "pseudo" in truth:
            label |= {"confidence": truth.get("score"), "rule": str(truth["pseudo"].get("rule", ""))}
            label |= {"tags": ["pseudo", *mark.get("tags", [])]}
        found[truth["image_id"]].append(label)
    return found


def detections_of(part: Part, least_score: float) -> dict[int, list[Document]]:
    """The same of the detections."""
    marks = marks_of(part, "row")
    found = defaultdict(list)
    for row, each in enumerate(part.predictions):
        if each["score"] >= least_score or row in marks:
            label = {"category_id": each["category_id"], "bbox": each["bbox"], "confidence": each["score"]}
            found[each["image_id"]].append(label | marks.get(row, {}))
    return found


def marks_of(part: Part, key: Literal["annotation_id", "row"]) -> dict[int, Document]:
    """What errors and suspects say, by annotation id of the labels or row of the detections."""
    marks: dict[int, Document] = {}
    if part.errors is not None:
        table, wrong = (part.errors.detections, "fp") if key == "row" else (part.errors.truths, "fn")
        for identity, outcome in zip(table[key], table["outcome"], strict=True):
            marks[int(identity)] = {"outcome": str(outcome), "eval": NOT_WRONG.get(outcome, wrong)}
    if part.suspects is not None:
        named = part.suspects[part.suspects["kind"] != ("spurious" if key == "row" else "missing")]
        columns = (named[key], named["kind"], named["suspicion"])
        for identity, kind, suspicion in reversed(list(zip(*columns, strict=True))):  # the most suspicious stays
            mark = marks.setdefault(int(identity), {})
            mark |= {"tags": [f"suspect_{kind}"], "suspicion": float(suspicion)}
    return marks


# Documents.


def samples_of(part: Part, places: Mapping[str, str], view_pattern: str | None, least_score: float) -> list[Document]:
    """A document each image, in the order of the file."""
    names = {each["id"]: str(each["name"]) for each in part.annotations["categories"]}
    fields = {"ground_truth": labels_of(part), "predictions": detections_of(part, least_score)}
    samples = []
    for image in part.annotations["images"]:
        sample = sample_document(part.name, image, places[image["file_name"]], view_pattern)
        own = {field: labels.get(image["id"], []) for field, labels in fields.items()}
        if part.errors is not None:
            counts = Counter(label.get("eval") for label in own["predictions"])
            missed = sum(label.get("eval") == "fn" for label in own["ground_truth"])
            sample |= {"eval_tp": counts["tp"], "eval_fp": counts["fp"], "eval_fn": missed}
        for field, labels in own.items():
            documents = [
                label_document(object_id(part.name, image["id"], field, row), label, image, names)
                for row, label in enumerate(labels)
            ]
            sample[field] = {"_cls": "Detections", "detections": documents}
        samples.append(sample)
    return samples


def sample_document(part: str, image: Mapping[str, Any], place: str, view_pattern: str | None) -> Document:
    """One image without its labels."""
    view = view_of(image["file_name"], view_pattern)
    kind = mimetypes.guess_type(image["file_name"])[0]
    size = {"_cls": "ImageMetadata", "mime_type": kind, "width": image["width"], "height": image["height"]}
    known = {} if view is None else {"camera": view.camera, "group": group_of(image["file_name"], view_pattern)}
    identity = object_id(part, image["id"])
    random = int(identity["$oid"][:8], 16) / 2**32  # by which FiftyOne shuffles
    head = {"_id": identity, "filepath": place, "tags": [part], "_media_type": "image", "_rand": random}
    return head | {"metadata": size, "image_id": image["id"]} | known


def label_document(
    identity: Document, label: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[int, str]
) -> Document:
    """One box, in shares of its image, corner first."""
    x, y, w, h = label["bbox"]
    width, height = image["width"], image["height"]
    box_xywh = [x / width, y / height, w / width, h / height]
    head = {"_id": identity, "_cls": "Detection", "attributes": {}, "tags": label.get("tags", [])}
    head |= {"label": names[label["category_id"]], "bounding_box": box_xywh}
    return head | {name: label[name] for name in LABEL_EXTRAS if label.get(name) is not None}


def object_id(*names: object) -> Document:
    """Twelve bytes that are always the same for the same names."""
    return {"$oid": hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()[:24]}


# The fields that FiftyOne is told of.


def dataset_document(name: str, classes: Sequence[str]) -> Document:
    """metadata.json: what there is in a sample, by name and type."""
    plain = {"id": "ObjectIdField", "filepath": "StringField", "created_at": "DateTimeField"}
    plain |= {"last_modified_at": "DateTimeField", "image_id": "IntField", "camera": "StringField"}
    plain |= {"group": "StringField", "eval_tp": "IntField", "eval_fp": "IntField", "eval_fn": "IntField"}
    fields = [field(each, kind) for each, kind in plain.items()]
    fields.insert(2, field("tags", "ListField", inner="StringField"))
    of_size = {"size_bytes": "IntField", "mime_type": "StringField"}
    of_size |= dict.fromkeys(("width", "height", "num_channels"), "IntField")
    parts = [field(each, kind) for each, kind in of_size.items()]
    fields.insert(
        3, field("metadata", "EmbeddedDocumentField", document="fiftyone.core.metadata.ImageMetadata", parts=parts)
    )
    fields += [labels_field(each) for each in ("ground_truth", "predictions")]
    now = {"$date": "2000-01-01T00:00:00Z"}  # FiftyOne replaces it; no clock in the file
    return {
        "name": name,
        "version": VERSION,
        "created_at": now,
        "media_type": "image",
        "tags": [],
        "info": {},
        "classes": {each: list(classes) for each in ("ground_truth", "predictions")},
        "default_classes": list(classes),
        "sample_fields": fields,
        "frame_fields": [],
    }


def labels_field(name: str) -> Document:
    """A list of boxes, with our own fields beside FiftyOne's."""
    parts = [field("id", "ObjectIdField"), field("tags", "ListField", inner="StringField")]
    parts += [field("attributes", "DictField", inner="EmbeddedDocumentField", document=LABELS + "Attribute")]
    parts += [field("label", "StringField"), field("bounding_box", "ListField", inner="FloatField")]
    parts += [field("mask", "ArrayField"), field("index", "IntField")]
    parts += [field(each, kind) for each, kind in LABEL_EXTRAS.items()]
    boxes = field("detections", "ListField", inner="EmbeddedDocumentField", document=LABELS + "Detection", parts=parts)
    return field(name, "EmbeddedDocumentField", document=LABELS + "Detections", parts=[boxes])


def field(
    name: str, kind: str, *, inner: str | None = None, document: str | None = None, parts: Sequence[Document] = ()
) -> Document:
    """One entry of the schema. inner: type of a list's elements; document: class of what is embedded."""
    return {
        "name": name,
        "ftype": FIELDS + kind,
        "embedded_doc_type": document,
        "subfield": FIELDS + inner if inner else None,
        "fields": list(parts),
        "db_field": "_id" if name == "id" else name,
        "description": None,
        "info": None,
        "read_only": name in ("created_at", "last_modified_at"),
        "created_at": None,
    }
