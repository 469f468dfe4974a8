"""All questions at once: a sound set is well, and a planted fault turns a verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.data.dataset import CocoDataset
from kit.doctor import Effort, doctor
from kit.files import sha256
from tests import tiny

LOOK = Effort(loader_s=5.0, files=60, trains=False)
QUICK = Effort(overfit_images=2, overfit_size_hw=(64, 64), overfit_steps=2, rate_steps=3, loader_s=5.0, files=60)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    return [tiny.dataset(folder / name, images=40, seed=seed) for seed, name in enumerate(("train", "val"))]


def marks(report, part):
    return [verdict.mark for verdict in report.of(part)]


def changed(dataset, change):
    records = [replace(record, **change(record, row)) for row, record in enumerate(dataset.coco.records)]
    return CocoDataset(replace(dataset.coco, records=records), dataset.images, dataset.policy)


@pytest.mark.slow
def test_a_sound_set_is_well_and_stays_as_it_is(parts):
    detector, steps = tiny.detector(), []
    weights = {name: value.clone() for name, value in detector.state_dict().items()}
    files = {path: sha256(path) for path in parts[0].images.iterdir()}
    report = doctor(detector, *parts, plan=tiny.plan(), effort=QUICK, bars=lambda what: steps.append(what))
    assert {"well"} == {*marks(report, "loader"), *marks(report, "labels"), *marks(report, "place")}
    assert {"well"} == {*marks(report, "classes"), *marks(report, "start")}
    assert {"overfit ap", "overfit loss", "rate"} == set(report.curves) and set(report.tables) == {"loss", "gradients"}
    assert set(report.images) == {"batch", "overfit"} and "rates" in steps and "images" in steps
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())
    assert files == {path: sha256(path) for path in parts[0].images.iterdir()}


def shifted(record, row):
    return {"boxes_xywh_px": record.boxes_xywh_px + np.array([4, 4, 0, 0])}


def as_corners(record, row):
    x, y, w, h = record.boxes_xywh_px.T
    return {"boxes_xywh_px": np.stack([x, y, x + w, y + h], axis=1)}


def shuffled(record, row):
    return {"labels": np.random.default_rng(row).integers(2, size=len(record.labels))}


def beyond(record, row):
    return {"labels": record.labels + 1}


@pytest.mark.parametrize(
    ("fault", "part", "word"),
    [
        (shifted, "place", "shifted"),
        (as_corners, "labels", "bbox holds corners"),
        (shuffled, "classes", "shuffled"),
        (beyond, "labels", "count from 0"),
    ],
)
def test_a_planted_fault_turns_a_verdict(parts, fault, part, word):
    report = doctor(tiny.detector(), changed(parts[0], fault), parts[1], plan=tiny.plan(), effort=LOOK)
    assert "wrong" in marks(report, part) and report.mark == "wrong"
    assert any(word in verdict.mend for verdict in report.of(part) if verdict.mark == "wrong")


def test_labels_beyond_the_classes_end_before_a_training_step(parts):
    report = doctor(tiny.detector(), changed(parts[0], beyond), parts[1], plan=tiny.plan(), effort=QUICK)
    assert report.verdicts[-1].question == "Can a training be tried?" and not report.curves


def test_nothing_to_learn_from_is_told_and_no_images_at_all_is_an_error(tmp_path):
    bare = tiny.dataset(tmp_path, images=3, objects=0)
    report = doctor(tiny.detector(), bare, plan=tiny.plan(), effort=QUICK)
    assert report.verdicts[-1].found == "no image with a box that can be learned"
    none = CocoDataset(replace(bare.coco, records=[]), bare.images, bare.policy)
    with pytest.raises(ValueError, match="expected images to train on, found none"):
        doctor(tiny.detector(), none, plan=tiny.plan(), effort=QUICK)
