"""Pseudo labels: what several models say of images without labels, sifted by rules, and joined with the ground truth.

Each label keeps where it comes from: `"pseudo": {"models": [...], "scores": [...], "rule": "..."}`, the surest first,
beside its fused `"score"`. A model that looks at an image in several ways (TTA) stands there once for each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kit.boxes import pairwise_giou
from kit.data.coco import CocoFile, Record, as_coco
from kit.data.unlabelled import Listing
from kit.data.views import View, view_of
from kit.dfine.weights import read_weights
from kit.ensemble import Result, fuse_with_members
from kit.files import sha256
from kit.metrics import Matches, match
from kit.pseudo_rules import NEVER, Rule, deciding
from kit.shards import Plan
from kit.sources import Fusion, source_names
from kit.tta import WHOLE, ready_for_a_mean

BINS = 50  # of the score, in the counts
OTHER_CLASS_IOU = 0.8  # of two labels of different classes that overlap more, the surer stays


# --- who is asked ---


@dataclass(frozen=True)
class Teacher:
    """A trained model. category_ids: those of the data to be labelled, in the order of the model's own classes."""

    name: str
    weights: Path
    weights_sha256: str
    size_hw: tuple[int, int]
    category_ids: list[int]
    weight: float  # of its word among the others


def find_teachers(sources: Sequence[Path], truth: CocoFile, weights: Sequence[float] = ()) -> list[Teacher]:
    """sources: weights files, or folders with a best.pt. Classes are known by their names."""
    if weights and len(weights) != len(sources):
        raise ValueError(f"teacher_weights: expected {len(sources)} numbers, one a teacher, got {len(weights)}")
    paths = [source / "best.pt" if source.is_dir() else source for source in sources]
    return [
        find_teacher(name, path, truth, weight)
        for name, path, weight in zip(source_names(paths), paths, weights or [1.0] * len(paths), strict=True)
    ]


def find_teacher(name: str, path: Path, truth: CocoFile, weight: float) -> Teacher:
    _, about = read_weights(path)
    missing = [key for key in ("classes", "size_hw") if key not in about]
    if missing:
        raise ValueError(f"{path}: expected weights that 03_train wrote, this file tells no {' and no '.join(missing)}")
    unknown = [each for each in about["classes"] if each not in truth.names]
    if unknown:
        raise ValueError(
            f"{path}: expected the classes {', '.join(truth.names)}, this model knows {', '.join(unknown)} too; "
            "leave it out, or train it on this data"
        )
    category_ids = [truth.category_ids[truth.names.index(each)] for each in about["classes"]]
    height, width = about["size_hw"]
    return Teacher(name, path, sha256(path), (height, width), category_ids, weight)


@dataclass(frozen=True)
class Voice:
    """One teacher through one view."""

    model: str
    view: str
    weight: float

    @property
    def name(self) -> str:
        return self.model if self.view == WHOLE else f"{self.model} {self.view}"


def voice_names(plans: Sequence[Plan], teachers: Sequence[Teacher]) -> list[str]:
    """All voices, as they are named in the labels. plans: of the same images, one a teacher."""
    pairs = zip(plans, teachers, strict=True)
    return [Voice(teacher.name, view, 1.0).name for plan, teacher in pairs for view in plan.settings.views]


# --- what they say together ---


def fused_shards(
    plans: Sequence[Plan], teachers: Sequence[Teacher], fusion: Fusion
) -> Iterator[tuple[list[dict[str, Any]], list[Result]]]:
    """Shard by shard, so that memory stays bounded: its images, and COCO results with `members`, a score by voice.

    plans: of the same images, one a teacher.
    """
    if len({(plan.settings.shard_images, len(plan.images)) for plan in plans}) > 1:
        raise ValueError("expected plans of the same images in shards of the same size; make them from one list")
    for shard in range(plans[0].shards):
        said = {
            Voice(teacher.name, view, teacher.weight): results
            for plan, teacher in zip(plans, teachers, strict=True)
            for view, results in plan.read(shard).items()
        }
        yield plans[0].images_of(shard), fused(said, plans[0].images_of(shard), fusion)


def fused(said: Mapping[Voice, list[Result]], images: Sequence[Mapping[str, Any]], fusion: Fusion) -> list[Result]:
    """One list for all voices. A single one needs no vote: of its boxes on one object (nms) the surest stays."""
    voices, weights, lists = list(said), [voice.weight for voice in said], list(said.values())
    sizes_hw = {image["id"]: (image["height"], image["width"]) for image in images}
    method = fusion.method if len(voices) > 1 else "nms"
    found, members = fuse_with_members(
        ready_for_a_mean(lists, sizes_hw, method, fusion.iou),
        sizes_hw,
        method=method,
        iou=fusion.iou,
        skip=fusion.skip,
        weights=weights if len(set(weights)) > 1 else None,  # with weights nms lowers all scores
        top_k=fusion.top_k,
    )
    whole = []
    for box, own in zip(found, members, strict=True):
        best: dict[Voice, float] = {}
        for row, score in zip(own.models, own.scores, strict=True):
            best[voices[row]] = max(score, best.get(voices[row], 0.0))
        whole.append(box | {"members": dict(sorted(best.items(), key=lambda item: -item[1]))})
    return whole


# --- what is kept ---


@dataclass
class Sifted:
    """What the rules made of all boxes. watched: those of some images that were not kept, with the `threshold`."""

    labels: list[dict[str, Any]] = field(default_factory=list)  # COCO results with `pseudo`
    watched: list[dict[str, Any]] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, BINS), int))  # (K, dropped or kept, BINS)
    judged: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # (rules + 1,) boxes; the last: by no rule
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # (rules,)
    rivals: int = 0  # boxes that a rule kept, and a surer one of another class has displaced


def sift(
    shards: Iterable[tuple[list[dict[str, Any]], list[Result]]],
    rules: Sequence[Rule],
    truth: CocoFile,
    view_pattern: str | None,
    watch: frozenset[int] = frozenset(),
) -> Sifted:
    """The boxes of all shards by the rules. watch: ids of images whose other boxes are wanted too."""
    names = dict(zip(truth.category_ids, truth.names, strict=True))
    sifted = Sifted(
        counts=np.zeros((len(names), 2, BINS), int),
        judged=np.zeros(len(rules) + 1, int),
        kept=np.zeros(len(rules), int),
    )
    decided: dict[tuple[str, View | None], int | None] = {}
    for images, boxes in shards:
        views = {image["id"]: place_of(image["file_name"], view_pattern) for image in images}
        kept = []
        for box in boxes:
            key = names[box["category_id"]], views[box["image_id"]]
            if key not in decided:
                decided[key] = deciding(rules, *key)
            row = decided[key]
            if row is not None and keeps(rules[row], box):
                kept.append(labelled(box, rules[row]))
            elif box["image_id"] in watch:
                threshold = NEVER if row is None else rules[row].threshold
                sifted.watched.append(plain(box) | {"threshold": threshold})
            sifted.judged[-1 if row is None else row] += 1
        stays = without_rivals(kept)
        sifted.rivals += len(kept) - len(stays)
        add_counts(sifted, boxes, stays, rules, truth.category_ids)
        sifted.labels += stays
    return sifted


def place_of(file_name: str, view_pattern: str | None) -> View | None:
    """The view without its frame: what a rule can ask for."""
    view = view_of(file_name, view_pattern)
    return None if view is None else View(view.camera, view.scene)


def keeps(rule: Rule, box: Mapping[str, Any]) -> bool:
    supporters = {voice.model for voice, score in box["members"].items() if score >= rule.threshold}
    return bool(box["score"] >= rule.threshold) and (rule.models == 1 or len(supporters) >= rule.models)


def labelled(box: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    """The box with where it comes from, in place of its members."""
    members = box["members"]
    origin = {"models": [voice.name for voice in members], "scores": list(members.values()), "rule": rule.text}
    return {name: value for name, value in box.items() if name != "members"} | {"pseudo": origin}


def add_counts(
    sifted: Sifted, boxes: Sequence[Result], kept: Sequence[Result], rules: Sequence[Rule], category_ids: Sequence[int]
) -> None:
    row_of = {category_id: row for row, category_id in enumerate(category_ids)}
    for sign, some in ((1, kept), (0, boxes)):
        places = np.array([(row_of[box["category_id"]], score_bin(box["score"])) for box in some], int).reshape(-1, 2)
        np.add.at(sifted.counts[:, sign], (places[:, 0], places[:, 1]), 1)
        if sign:
            np.subtract.at(sifted.counts[:, 0], (places[:, 0], places[:, 1]), 1)
    numbers = {rule.text: row for row, rule in enumerate(rules)}
    np.add.at(sifted.kept, np.array([numbers[box["pseudo"]["rule"]] for box in kept], int), 1)


def score_bin(score: float) -> int:
    return min(int(score * BINS), BINS - 1)


def without_rivals(labels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object cannot be of two classes: where labels lie almost on each other the surest stays."""
    of_image: dict[int, list[dict[str, Any]]] = {}
    for label in labels:
        of_image.setdefault(label["image_id"], []).append(label)
    return [label for own in of_image.values() for label, loses in zip(own, losers(own), strict=True) if not loses]


def losers(labels: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Which labels of one image a surer one of another class displaces, itself not displaced -> (labels,) bool."""
    kinds = np.array([label["category_id"] for label in labels])
    boxes_xywh_px = [label["bbox"] for label in labels]
    clash = (overlaps(boxes_xywh_px, boxes_xywh_px) > OTHER_CLASS_IOU) & (kinds[:, None] != kinds)
    place = np.empty(len(labels), int)
    place[np.argsort([-label["score"] for label in labels], kind="stable")] = np.arange(len(labels))
    loses = np.zeros(len(labels), bool)
    for row in sorted(np.flatnonzero(clash.any(axis=1)), key=lambda row: int(place[row])):
        if not loses[row]:
            loses |= clash[row] & (place > place[row])
    return loses


def overlaps(a_xywh_px: Any, b_xywh_px: Any) -> np.ndarray:
    """IoU: (A, 4), (B, 4) -> (A, B)."""
    a, b = (torch.as_tensor(np.asarray(boxes, np.float64).reshape(-1, 4)) for boxes in (a_xywh_px, b_xywh_px))
    iou, _ = pairwise_giou(*(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1) for boxes in (a, b)))
    return np.asarray(iou)


def rules_table(rules: Sequence[Rule], sifted: Sifted) -> pd.DataFrame:
    """How many boxes each rule decided on, and how many it kept. A rule with none fits no image or class."""
    texts = [*(rule.text for rule in rules), "(no rule fits)"]
    kept = [*sifted.kept.tolist(), 0]
    table = pd.DataFrame({"rule": texts, "boxes": sifted.judged, "kept": kept})
    return table if sifted.judged[-1] else table[:-1]


def agreement(labels: Sequence[Mapping[str, Any]], voices: Sequence[str], rules: Sequence[Rule]) -> np.ndarray:
    """Of each label, which voices reach its rule's threshold by themselves -> (labels, voices) bool."""
    threshold = {rule.text: rule.threshold for rule in rules}
    table = np.zeros((len(labels), len(voices)), bool)
    for row, label in enumerate(labels):
        origin = label["pseudo"]
        for name, score in zip(origin["models"], origin["scores"], strict=True):
            table[row, voices.index(name)] = score >= threshold[origin["rule"]]
    return table


# --- what they are worth, where the truth is known ---


@dataclass(frozen=True)
class Worth:
    """The same models and rules on images with labels: all their boxes, and those that would be labels."""

    boxes: Matches
    labels: Matches
    table: pd.DataFrame  # a row a class and `all`: objects, labels, right, precision, recall

    @property
    def precision(self) -> float | None:
        """None without labels."""
        return defined(self.table.loc["all", "precision"])

    @property
    def recall(self) -> float | None:
        """None without objects."""
        return defined(self.table.loc["all", "recall"])


def defined(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def worth_of(boxes: Sequence[Result], labels: Sequence[Mapping[str, Any]], truth: CocoFile) -> Worth:
    """At IoU 0.5. boxes, labels: of the images of truth."""
    annotations = as_coco(truth)
    of_labels = match([plain(each) for each in labels], annotations)
    rows = []
    for row, name in enumerate(truth.names):
        own = of_labels.label == row
        true, false = int(of_labels.is_true[own, 0].sum()), int(of_labels.is_false[own, 0].sum())
        objects = int(of_labels.ground_truths[:, row].sum())
        rows.append({"class": name, "objects": objects, "labels": true + false, "right": true})
    table = pd.DataFrame(rows).set_index("class")
    table.loc["all"] = table.sum()
    table["precision"] = table["right"] / table["labels"].where(table["labels"] > 0)
    table["recall"] = table["right"] / table["objects"].where(table["objects"] > 0)
    return Worth(match([plain(each) for each in without_rivals(boxes)], annotations), of_labels, table)


def plain(box: Mapping[str, Any]) -> Result:
    return {name: box[name] for name in ("image_id", "category_id", "bbox", "score")}


# --- joined with the ground truth ---


@dataclass(frozen=True)
class Joined:
    """The parts of a COCO file with ground truth and pseudo labels, and what became of the labels."""

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    labels: list[dict[str, Any]]  # those that came in, with the image ids of this file
    counts: dict[str, int]


def join(
    truth: CocoFile,
    truth_images: str,
    listing: Listing,
    labels: Sequence[Mapping[str, Any]],
    truth_iou: float,
    keep_empty: bool = False,
) -> Joined:
    """Ground truth stays as it is, under its ids; images with pseudo labels follow, with new ids.

    truth_images: what stands before the file names of truth, a path from the root. A label on a labelled image (a twin)
    comes in only where no object of the truth is. keep_empty: images without any label come in, as background.
    """
    content = as_coco(truth)
    images = [image | {"file_name": f"{truth_images}/{image['file_name']}"} for image in content["images"]]
    records = {record.image_id: record for record in truth.records}
    first_id = max(records, default=0) + 1
    of_image: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in listing.images}
    for label in labels:
        of_image[label["image_id"]].append(label)
    counts = {"images added": 0, "images without a label": 0, "labels": len(labels), "labels on ground truth": 0}
    came: list[dict[str, Any]] = []
    for image in listing.images:
        own, twin = of_image[image["id"]], listing.twins.get(image["id"])
        if twin is not None:
            free = [label for label in own if not is_taken(label["bbox"], records[twin], truth_iou)]
            counts["labels on ground truth"] += len(own) - len(free)
            came += [{**label, "image_id": twin} for label in free]
        elif own or keep_empty:
            image_id = first_id + counts["images added"]
            counts["images added"] += 1
            images.append({name: image[name] for name in ("file_name", "height", "width")} | {"id": image_id})
            came += [{**label, "image_id": image_id} for label in own]
        counts["images without a label"] += not own
    annotations = [
        {**each, "id": number} for number, each in enumerate([*content["annotations"], *map(annotation, came)], 1)
    ]
    counts["labels added"] = len(came)
    return Joined(images, annotations, content["categories"], came, counts)


def annotation(label: Mapping[str, Any]) -> dict[str, Any]:
    return dict(label) | {"area": float(label["bbox"][2] * label["bbox"][3]), "iscrowd": 0}


def is_taken(box_xywh_px: Sequence[float], record: Record, truth_iou: float) -> bool:
    """Whether an object of the truth is there, of any class, or a crowd that the box lies in."""
    if not len(record.labels):
        return False
    iou = overlaps([box_xywh_px], record.boxes_xywh_px)[0]  # (N,)
    x, y, width, height = box_xywh_px
    low = np.maximum(record.boxes_xywh_px[:, :2], [x, y])
    high = np.minimum(record.boxes_xywh_px[:, :2] + record.boxes_xywh_px[:, 2:], [x + width, y + height])
    inside = np.prod((high - low).clip(min=0), axis=1) / (width * height)  # (N,) share of the box
    return bool((np.where(record.is_crowd, inside, iou) > truth_iou).any())
