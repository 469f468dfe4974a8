"""What holds for every competition: a new one is tested by being listed."""

import pytest

from kit.competitions import COMPETITIONS
from kit.params import Params
from kit.params import literals as values_of
from kit.submission import validate

IMAGES = [
    {"id": 3187, "file_name": "camera3_A_87.png", "width": 200, "height": 100},
    {"id": 3188, "file_name": "camera3_A_88.png", "width": 200, "height": 100},
]
each_competition = pytest.mark.parametrize("competition", COMPETITIONS.values(), ids=list(COMPETITIONS))


def found(**changes):
    return {"image_id": 3187, "category_id": 2, "bbox": [10.1, 20.0, 30.5, 1 / 3], "score": 0.1 + 0.2} | changes


ENTRIES = [found(), found(category_id=0, bbox=[0.0, 0.0, 200.0, 100.0], score=1.0), found(image_id=3188)]


def in_order(entries):
    return sorted(entries, key=lambda entry: (entry["image_id"], entry["category_id"]))


@each_competition
def test_what_is_written_reads_back(competition, tmp_path):
    rules = competition.rules(IMAGES, [0, 1, 2])
    path = competition.write(tmp_path / f"run{competition.file_ending}", ENTRIES, IMAGES, rules)
    again = competition.read(path, IMAGES)
    assert validate(again, rules) == [] and len(again) == len(ENTRIES)
    for one, other in zip(in_order(again), in_order(ENTRIES), strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01) and one == other | {
            "bbox": one["bbox"],
            "score": pytest.approx(other["score"], abs=1e-6),
        }
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@each_competition
def test_the_same_detections_give_the_same_bytes(competition, tmp_path):
    rules = competition.rules(IMAGES, [0, 1, 2])
    paths = [tmp_path / folder / f"run{competition.file_ending}" for folder in "ab"]
    first, second = (competition.write(path, ENTRIES, IMAGES, rules).read_bytes() for path in paths)
    assert first == second


@each_competition
def test_an_invalid_list_is_refused_with_all_reasons_and_nothing_is_left(competition, tmp_path):
    rules = competition.rules(IMAGES, [0, 1, 2])
    with pytest.raises(ValueError, match=r"(?s)2 reasons:.*score must lie.*1 of 2 images"):
        path = tmp_path / f"run{competition.file_ending}"
        competition.write(path, [found(), found(image_id=3188, score=2)], IMAGES, rules)
    assert list(tmp_path.iterdir()) == []


@each_competition
def test_a_file_of_another_kind_is_refused(competition, tmp_path):
    with pytest.raises(ValueError, match=rf"expected a path ending in \{competition.file_ending}"):
        competition.write(tmp_path / "run.txt", ENTRIES, IMAGES, competition.rules(IMAGES, [0, 1, 2]))


@each_competition
def test_sizes_follow_one_another_without_a_gap(competition):
    limits = list(competition.areas.values())
    assert [low for low, _ in limits] == [0, *(high for _, high in limits[:-1])]


def test_the_parameters_name_exactly_the_competitions_there_are():
    wanted = next(field.type for field in Params.__dataclass_fields__.values() if field.name == "competition")
    assert list(values_of(wanted)) == list(COMPETITIONS) == [each.name for each in COMPETITIONS.values()]
