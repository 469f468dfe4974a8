"""The second stage: what it trains on, the control it is measured by, and which checkpoint is the best of all."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kit.data.coco import CocoFile, as_coco
from kit.data.dataset import CocoDataset
from kit.dfine.detector import Detector, Size
from kit.dfine.weights import load_weights, read_weights, save_weights
from kit.files import read_json, sha256, write_json
from kit.metrics import Matches, evaluate, f1_at, match
from kit.metrics.bootstrap import Difference, average_precision, official_f1, paired_difference
from kit.optimisation import freeze
from kit.predict import Progress, predict_dataset
from kit.soup import average_weights, load_average, reestimate_norms, training_batches
from kit.train import BEST, CHECKPOINT, PREVIOUS, History, epoch_weights, scores

Files = tuple[Path, ...]  # checkpoints that are averaged; one: as it is
INPUTS = "inputs.json"


# --- what it begins with ---


def inputs_of(weights: Path, labels: Path, tune: CocoFile) -> dict[str, str]:
    """Marks of all that a run of stage 2 depends on, beside its parameters."""
    chosen_on = json.dumps([record.image_id for record in tune.records])
    return {
        "weights of stage 1": sha256(weights),
        "labels": sha256(labels),
        "images to choose on": hashlib.sha256(chosen_on.encode()).hexdigest(),
    }


def forget_other_inputs(out: Path, inputs: Mapping[str, str]) -> list[str]:
    """Where the checkpoint in `out` was trained from something else, it goes, and the training begins anew.

    -> what has changed; nothing where there is no checkpoint.
    """
    before = read_json(out / INPUTS) if (out / INPUTS).is_file() else {}
    changed = [name for name in inputs if before.get(name) != inputs[name]]
    if not changed:
        return []
    had_checkpoint = (out / CHECKPOINT).exists()
    for name in (CHECKPOINT, PREVIOUS):  # first: a kill before the next line must not marry old with new
        (out / name).unlink(missing_ok=True)
    write_json(out / INPUTS, dict(inputs), indent=1)
    return changed if had_checkpoint else []


def continued(weights: Path, size: Size | str, freeze_until: str, device: torch.device | str) -> Detector:
    """The detector as stage 1 left it, to be trained on; what is frozen stays so."""
    info = read_weights(weights)[1]
    detector = Detector(size, info["num_classes"], info["channels"]).to(device)
    load_weights(detector, weights)
    freeze(detector, freeze_until)
    return detector


def further_ingredients(sources: Sequence[Path], weights: Path) -> list[Path]:
    """The files of a soup, the best weights of a folder; ValueError where they do not mix with those of stage 1."""
    files = [source / BEST if source.is_dir() else source for source in sources]
    average_weights([weights, *files])  # now, rather than after the training
    return files


def refuse_other_classes(info: Mapping[str, Any], coco: CocoFile) -> None:
    """info: of the weights of stage 1."""
    own = list(zip(info.get("category_ids", []), info.get("classes", []), strict=True))
    found = list(zip(coco.category_ids, coco.names, strict=True))
    if own != found:
        raise ValueError(
            f"{coco.path}: expected the classes of stage 1, {own}, got {found}; train stage 1 on this data, or take "
            "labels of its classes"
        )


@dataclass(frozen=True)
class Labels:
    """Annotations by class name and by where they come from, and the images that hold pseudo labels."""

    truth: dict[str, int]
    pseudo: dict[str, int]
    pseudo_image_ids: frozenset[int]


def read_labels(path: Path) -> Labels:
    """Of a COCO file in which 04_pseudo_label has marked its own annotations by `pseudo`."""
    content = read_json(path)
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for annotation in content["annotations"]:
        counts["pseudo" in annotation][names[annotation["category_id"]]] += 1
    truth, pseudo = ({name: count[name] for name in names.values()} for count in counts)
    images = {annotation["image_id"] for annotation in content["annotations"] if "pseudo" in annotation}
    return Labels(truth, pseudo, frozenset(images))


def without_images_of(coco: CocoFile, images: Path, held_out: CocoFile, held_out_images: Path) -> CocoFile:
    """The file without the images that are held out: by where they lie, whatever the two files call them."""
    kept_out = {(held_out_images / record.file_name).resolve() for record in held_out.records}
    stays = [record for record in coco.records if (images / record.file_name).resolve() not in kept_out]
    return replace(coco, records=stays)


def control_file(coco: CocoFile, images: int, seed: int) -> CocoFile:
    """The images of a file, in turns, until there are as many as in another: an epoch has the same steps then."""
    if not coco.records:
        raise ValueError(f"{coco.path}: expected images for the control, found none; set control = False")
    order = np.random.default_rng([seed, len(coco.records)]).permutation(len(coco.records))
    return replace(coco, records=[coco.records[index] for index in np.resize(order, images)])


# --- what comes out ---


def checkpoints(out: Path, history: History | None) -> list[Path]:
    """The weights after each epoch that was trained, in order."""
    return [epoch_weights(out, int(figures["epoch"])) for figures in history.epochs] if history else []


def best_checkpoint(out: Path, history: History | None) -> Files:
    """Of the epoch that validated best; nothing where there is none: no training, or time ran out before."""
    return (epoch_weights(out, history.best_epoch),) if history and history.best_epoch >= 0 else ()


def validated(out: Path, history: History | None) -> dict[Files, dict[str, float]]:
    """The figures that the training has found on its way, for `Judge.known`."""
    files = zip(checkpoints(out, history), history.epochs if history else [], strict=True)
    return {(file,): figures for file, figures in files if "ap" in figures}


@dataclass(frozen=True)
class Judge:
    """Scores checkpoints, and averages of several, on one part of the data; each once."""

    detector: Detector  # filled with whatever is judged
    part: CocoFile
    images: Path
    train_set: CocoDataset  # on which an average's BatchNorm statistics are found anew
    size_hw: tuple[int, int]
    batch_size: int
    norm_batches: int  # 0: an average keeps the averaged statistics
    workers: int = 0
    seed: int = 0
    known: dict[Files, dict[str, float]] = field(default_factory=dict)  # figures, filled while judging
    results: dict[Files, list[dict[str, Any]]] = field(default_factory=dict)  # likewise

    def load(self, files: Files) -> Detector:
        load_average(self.detector, files)
        if len(files) > 1 and self.norm_batches:
            sizes = (self.size_hw, self.batch_size, self.norm_batches)
            reestimate_norms(self.detector, training_batches(self.train_set, *sizes, self.seed, self.workers))
        return self.detector

    def predictions(self, files: Files, progress: Progress | None = None) -> list[dict[str, Any]]:
        """COCO results on the part."""
        if files not in self.results:
            self.results[files] = predict_dataset(
                self.load(files),
                self.part,
                self.images,
                size_hw=self.size_hw,
                batch_size=self.batch_size,
                workers=self.workers,
                progress=progress,
            )
        return self.results[files]

    def figures(self, files: Files) -> dict[str, float]:
        """ap, ap50, f1 at the best single threshold, and that, f1_threshold."""
        if files not in self.known:
            self.known[files] = scores(self.predictions(files), as_coco(self.part))
        return self.known[files]

    def matches(self, files: Files) -> Matches:
        return match(self.predictions(files), as_coco(self.part))

    def told(self, files: Files, threshold: float) -> dict[str, float]:
        """ap, ap50 and f1 at a threshold that was found on other images."""
        found = self.predictions(files)
        result = evaluate(found, as_coco(self.part))
        return {"ap": result.ap, "ap50": result.ap50, "f1": f1_at(self.matches(files), threshold)}

    def save(self, files: Files, path: Path) -> Path:
        """As the training writes its best, with the same information."""
        coco = self.train_set.coco
        about = {"classes": coco.names, "category_ids": coco.category_ids, "size_hw": list(self.size_hw)}
        return save_weights(self.load(files), path, about | {"ap": self.figures(files)["ap"]})


@dataclass(frozen=True)
class Candidate:
    """One that may go on; report: the same figures on images that no choice has seen, at the threshold of tune."""

    name: str
    files: Files
    tune: Mapping[str, float]
    report: Mapping[str, float] | None = None

    def row(self) -> dict[str, Any]:
        """For a table."""
        report = {f"report_{name}": value for name, value in (self.report or {}).items()}
        tune = {name: self.tune[name] for name in ("ap", "ap50", "f1", "f1_threshold")}
        return {"candidate": self.name, "checkpoints": " + ".join(map(short_name, self.files))} | tune | report


def short_name(path: Path) -> str:
    """With the folders above: the files of all runs are called alike."""
    return "/".join(path.parts[-3:])


def judged(candidates: Mapping[str, Files], tune: Judge, report: Judge | None) -> list[Candidate]:
    """Those that have files, in their order."""
    found = []
    for name, files in candidates.items():
        if files:
            figures = tune.figures(files)
            told = report.told(files, figures["f1_threshold"]) if report else None
            found.append(Candidate(name, files, figures, told))
    return found


def best_of(candidates: Sequence[Candidate], select_by: Literal["ap", "f1"]) -> Candidate:
    """By tune alone; of equals the first, so the simpler ones stand first."""
    return max(candidates, key=lambda candidate: candidate.tune[select_by])


@dataclass(frozen=True)
class Gain:
    """What one checkpoint has above another on one part: overall, with its uncertainty, and AP by class."""

    ap: Difference
    f1: Difference  # each at its own best threshold on tune
    ap_of_class: dict[str, float]  # without classes of which nothing is annotated

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def gain(before: Candidate, after: Candidate, judge: Judge) -> Gain:
    """judge: of the part that it is told on."""
    first, second = judge.matches(before.files), judge.matches(after.files)
    at = [each.tune["f1_threshold"] for each in (before, after)]
    lost, won = (evaluate(judge.predictions(each.files), as_coco(judge.part)).per_class for each in (before, after))
    kept = [matches.keep(matches.score >= low) for matches, low in zip((first, second), at, strict=True)]
    return Gain(
        paired_difference(first, second, average_precision),
        paired_difference(kept[0], kept[1], official_f1),
        {name: won[name]["ap"] - lost[name]["ap"] for name in won if won[name]["ground_truths"]},
    )
