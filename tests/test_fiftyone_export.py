import os
from pathlib import Path

import pytest

from kit import fiftyone_export
from kit.data.views import TRACK4_VIEW
from kit.errors import find_errors
from kit.fiftyone_export import Part, export_fiftyone, pseudo_part
from kit.files import read_json, write_json
from kit.label_mistakes import find_label_mistakes

CAR, BUS = 3, 8  # ids of the file
NAMES = ("camera4_N_1.png", "camera4_A_2.png")
COCO = {
    "images": [{"id": i, "width": 200, "height": 100, "file_name": name} for i, name in enumerate(NAMES, 1)],
    "categories": [{"id": CAR, "name": "Car"}, {"id": BUS, "name": "Bus"}],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": CAR, "bbox": [20, 10, 40, 50]},
        {"id": 6, "image_id": 1, "category_id": BUS, "bbox": [120, 10, 40, 50]},
    ],
}
PREDICTIONS = [
    {"image_id": 1, "category_id": CAR, "bbox": [20, 10, 40, 50], "score": 0.9},  # right
    {"image_id": 1, "category_id": CAR, "bbox": [120, 10, 40, 50], "score": 0.8},  # on the bus
    {"image_id": 2, "category_id": BUS, "bbox": [0, 0, 200, 100], "score": 0.7},  # on nothing
    {"image_id": 2, "category_id": BUS, "bbox": [0, 0, 20, 10], "score": 0.06},  # too low for anything
    {"image_id": 2, "category_id": CAR, "bbox": [0, 0, 20, 10], "score": 0.3},  # under the threshold
]
PYTHON_TYPES = {"StringField": str, "IntField": int, "FloatField": float, "ListField": list, "DictField": dict}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name in NAMES:
        (tmp_path / "images" / name).write_bytes(name.encode())
    return tmp_path / "images"


def val(images, **known):
    errors = find_errors(PREDICTIONS, COCO, 0.5)
    suspects = find_label_mistakes(PREDICTIONS, COCO)
    return Part("val", images, COCO, PREDICTIONS, **{"errors": errors, "suspects": suspects} | known)


def exported(tmp_path, *parts, **options):
    folder = export_fiftyone(tmp_path / "run" / "fiftyone", parts, name="demo", view_pattern=TRACK4_VIEW, **options)
    return read_json(folder / "samples.json")["samples"]


def labels(sample, field):
    return sample[field]["detections"]


def test_an_image_is_found_from_the_folder_and_says_where_it_was_taken(images, tmp_path):
    first, second = exported(tmp_path, val(images))
    assert first["filepath"] == "../../images/camera4_N_1.png"
    assert os.path.samefile(tmp_path / "run" / "fiftyone" / first["filepath"], images / NAMES[0])
    assert first["tags"] == ["val"] and first["image_id"] == 1
    assert [(each["camera"], each["group"]) for each in (first, second)] == [("4", "night"), ("4", "day")]
    assert first["metadata"] == {"_cls": "ImageMetadata", "mime_type": "image/png", "width": 200, "height": 100}


def test_images_can_travel_with_the_folder(images, tmp_path):
    first, _ = exported(tmp_path, val(images), media="copy")
    assert first["filepath"] == "data/val/camera4_N_1.png"
    assert (tmp_path / "run" / "fiftyone" / first["filepath"]).read_bytes() == NAMES[0].encode()


def test_boxes_are_shares_of_the_image_corner_first(images, tmp_path):
    first, _ = exported(tmp_path, val(images))
    car, bus = labels(first, "ground_truth")
    assert (car["label"], car["bounding_box"]) == ("Car", [0.1, 0.1, 0.2, 0.5])
    assert (bus["label"], bus["annotation_id"]) == ("Bus", 6) and "confidence" not in bus
    assert [each["confidence"] for each in labels(first, "predictions")] == [0.9, 0.8]


def test_each_box_says_what_became_of_it_and_each_image_how_often(images, tmp_path):
    first, second = exported(tmp_path, val(images))
    assert [(each["eval"], each["outcome"]) for each in labels(first, "ground_truth")] == [
        ("tp", "found"),
        ("fn", "confusion"),
    ]
    assert [(each["eval"], each["outcome"]) for each in labels(first, "predictions")] == [
        ("tp", "true"),
        ("fp", "confusion"),
    ]
    assert [[each[f"eval_{kind}"] for kind in ("tp", "fp", "fn")] for each in (first, second)] == [[1, 1, 1], [0, 1, 0]]


def test_low_scores_are_left_out_and_have_no_outcome_where_they_are_asked_for(images, tmp_path):
    assert [each["confidence"] for each in labels(exported(tmp_path, val(images))[1], "predictions")] == [0.7, 0.3]
    everything = labels(exported(tmp_path, val(images), least_score=0.0)[1], "predictions")
    assert [each.get("eval") for each in everything] == ["fp", None, None]


def test_likely_label_mistakes_are_tagged_on_both_sides(images, tmp_path):
    first, second = exported(tmp_path, val(images))
    assert [each["tags"] for each in labels(first, "ground_truth")] == [[], ["suspect_class"]]
    assert [each["tags"] for each in labels(first, "predictions")] == [[], ["suspect_class"]]
    assert labels(second, "predictions")[0]["tags"] == ["suspect_missing"]
    assert 0.7 < labels(second, "predictions")[0]["suspicion"] < 0.9


def test_without_errors_and_suspects_there_are_only_labels(images, tmp_path):
    first, _ = exported(tmp_path, val(images, errors=None, suspects=None))
    assert "eval_tp" not in first and {"eval", "outcome", "suspicion"}.isdisjoint(labels(first, "ground_truth")[1])


def test_pseudo_labels_are_tagged_and_tell_their_rule(images, tmp_path):
    pseudo = {"id": 7, "image_id": 2, "category_id": CAR, "bbox": [0, 0, 20, 10], "score": 0.6}
    pseudo["pseudo"] = {"models": ["a"], "scores": [0.6], "rule": "night: 0.3"}
    path = write_json(tmp_path / "mixed.json", COCO | {"annotations": [*COCO["annotations"], pseudo]})
    (sample,) = exported(tmp_path, pseudo_part(path, images))
    (label,) = labels(sample, "ground_truth")
    assert sample["tags"] == ["pseudo"] and sample["image_id"] == 2
    assert (label["tags"], label["confidence"], label["rule"]) == (["pseudo"], 0.6, "night: 0.3")


def declared(fields):
    return {each["db_field"]: each for each in fields}


def check(document, fields):
    """Every entry of a document is declared, with the type it has."""
    for name in set(document) - {"_cls", "_rand", "_media_type"}:
        kind = fields[name]["ftype"].removeprefix("fiftyone.core.fields.")
        assert kind in ("ObjectIdField", "EmbeddedDocumentField") or type(document[name]) is PYTHON_TYPES[kind], name


def test_the_schema_declares_every_field_with_the_type_it_has(images, tmp_path):
    samples = exported(tmp_path, val(images))
    metadata = read_json(tmp_path / "run" / "fiftyone" / "metadata.json")
    fields = declared(metadata["sample_fields"])
    for sample in samples:
        check(sample, fields)
        check(sample["metadata"], declared(fields["metadata"]["fields"]))
        for name in ("ground_truth", "predictions"):
            (boxes,) = fields[name]["fields"]
            for label in labels(sample, name):
                check(label, declared(boxes["fields"]))
    assert metadata["version"] == "1.0.0" and metadata["default_classes"] == ["Car", "Bus"]


def test_ids_are_unique_and_the_same_content_gives_the_same_bytes(images, tmp_path):
    parts = (val(images), Part("train", images, COCO))
    samples = exported(tmp_path, *parts)
    boxes = [label for each in samples for field in ("ground_truth", "predictions") for label in labels(each, field)]
    ids = [each["_id"]["$oid"] for each in [*samples, *boxes]]
    assert len(set(ids)) == len(ids) and all(len(bytes.fromhex(each)) == 12 for each in ids)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "fiftyone").iterdir()}
    exported(tmp_path, *parts)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run" / "fiftyone").iterdir()}


def test_a_folder_whose_writing_was_cut_off_does_not_open(images, tmp_path, monkeypatch):
    exported(tmp_path, val(images))

    def full(path: Path, *_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(fiftyone_export, "write_json", full)
    with pytest.raises(OSError, match="disk full"):
        exported(tmp_path, val(images))
    assert not (tmp_path / "run" / "fiftyone" / "metadata.json").exists()
