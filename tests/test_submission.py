import csv
import json
import zipfile

import pytest

from kit.files import FREE_MIB
from kit.submission import (
    Rules,
    append_log,
    read_submission,
    rules_of,
    tidy,
    validate,
    validate_file,
    write_submission,
)

RULES = Rules({1: (100, 200), 2: (100, 200)}, (0, 1), max_per_class_image=2, max_per_image=3)


def entry(**changes):
    return {"image_id": 1, "category_id": 0, "bbox": [10, 20, 30.5, 40], "score": 0.5} | changes


def valid():
    return [entry(), entry(image_id=2, category_id=1, score=1)]


# Validation.


def test_a_sound_list_has_no_reason_against_it():
    assert validate(valid(), RULES) == []


def test_category_ids_are_those_of_the_file_whatever_their_numbers():
    rules = rules_of([{"id": 1, "width": 200, "height": 100}], [17, 90])
    assert validate([entry(category_id=90)], rules) == []
    assert "category_id must be one of the competition, got 0" in validate([entry()], rules)[0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"score": float("nan")}, "score must be a finite number, got nan"),
        ({"score": float("inf")}, "score must be a finite number, got inf"),
        ({"score": 10**400}, "score must lie in 0..1"),
        ({"score": True}, "score must be a finite number, got True"),
        ({"score": "0.5"}, "score must be a finite number, got '0.5'"),
        ({"score": 1.5}, "score must lie in 0..1, got 1.5"),
        ({"score": -0.1}, "score must lie in 0..1, got -0.1"),
        ({"image_id": 3}, "image_id must be one of the competition, got 3"),
        ({"image_id": 1.0}, "image_id must be int, got 1.0 (float)"),
        ({"image_id": True}, "image_id must be int, got True (bool)"),
        ({"image_id": "1"}, "image_id must be int, got '1' (str)"),
        ({"image_id": [1]}, "image_id must be int, got [1] (list)"),
        ({"category_id": 2}, "category_id must be one of the competition, got 2"),
        ({"category_id": False}, "category_id must be int, got False (bool)"),
        ({"category_id": None}, "category_id must be int, got None (NoneType)"),
        ({"bbox": [10, 20, -30, 40]}, "width and height must be above 0"),
        ({"bbox": [10, 20, 30, 0]}, "width and height must be above 0"),
        ({"bbox": [-1, 20, 30, 40]}, "bbox must lie inside the image"),
        ({"bbox": [180, 20, 30, 40]}, "bbox must lie inside the image, got [180, 20, 30, 40], the image is 200 wide"),
        ({"bbox": [10, 20, 30, 90]}, "bbox must lie inside the image"),
        ({"bbox": [10, 20, 30]}, "bbox must be four finite numbers"),
        ({"bbox": [10, 20, 30, float("nan")]}, "bbox must be four finite numbers"),
        ({"bbox": [10, 20, 30, True]}, "bbox must be four finite numbers"),
        ({"bbox": "10 20 30 40"}, "bbox must be four finite numbers"),
        ({"bbox": None}, "bbox must be four finite numbers"),
        ({"area": 5}, "no other, got ['area', 'bbox'"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_number(wrong, told):
    reasons = validate([*valid(), entry(**wrong)], RULES)
    assert len(reasons) == 1 and reasons[0].startswith("entry 2: ") and told in reasons[0]


@pytest.mark.parametrize("wrong", [None, 3, [1, 2], {}, {"image_id": 1}])
def test_what_is_not_an_entry_is_refused(wrong):
    assert "entry 2: must be a dict with the keys" in validate([*valid(), wrong], RULES)[0]


@pytest.mark.parametrize("wrong", [{}, None, "[]", {"annotations": []}])
def test_what_is_not_a_list_is_refused(wrong):
    assert "must be a list of entries" in validate(wrong, RULES)[0]


def test_the_edge_of_the_image_is_inside_and_rounding_is_forgiven():
    assert validate([entry(bbox=[0, 0, 200, 100]), entry(image_id=2, bbox=[190, 90, 10.000001, 10])], RULES) == []


def test_an_entry_that_stands_twice_is_refused_even_with_another_score():
    assert validate([*valid(), entry(score=0.1)], RULES) == ["entry 2: same image, category and bbox as entry 0"]


def test_more_than_the_caps_is_refused():
    boxes = [[i, 0, 5, 5] for i in range(4)]
    reasons = validate([*(entry(bbox=box) for box in boxes), entry(image_id=2)], RULES)
    assert "image 1: 4 entries, at most 3 allowed" in reasons
    assert "image 1: 4 entries of category 0, at most 2 allowed" in reasons


def test_an_image_without_entry_is_refused_unless_said():
    assert "1 of 2 images have no valid entry: 2;" in validate([entry()], RULES)[0]
    assert validate([entry()], Rules(RULES.sizes_hw, (0, 1), allow_missing_images=True)) == []
    assert "2 of 2 images" in validate([], RULES)[0]


def test_every_kind_of_problem_is_told_and_a_long_list_is_cut():
    reasons = validate([entry(score=2)] * 50 + [entry(category_id=8), *valid()], RULES)
    assert len(reasons) == 5 and reasons[3] == "and 47 more like the last" and "entry 50: category_id" in reasons[4]


# Tidying.


def test_tidied_boxes_are_clipped_capped_and_single():
    outside, over, best = entry(bbox=[300, 0, 5, 5]), entry(bbox=[-10, 90, 30, 30], score=0.9), entry(score=0.8)
    kept = tidy([best, outside, over, entry(score=0.7), entry(bbox=[1, 1, 5, 5], score=0.1)], RULES)
    assert kept == [entry(bbox=[0, 90, 20, 10], score=0.9), best]
    assert validate([*kept, entry(image_id=2)], RULES) == []


def test_tidying_leaves_a_sound_list_as_it_is_to_the_last_bit():
    sound = [entry(bbox=[0.1, 0.2, 0.3, 0.7]), entry(image_id=2, bbox=[199.9, 0.1, 0.1, 99.9])]
    assert tidy(sound, RULES) == sound and tidy([], RULES) == []


# Files.


def test_a_submission_is_one_json_in_a_zip_and_reads_back_the_same(tmp_path):
    path = write_submission(tmp_path / "run7.zip", valid(), RULES)
    assert zipfile.ZipFile(path).namelist() == ["run7.json"]
    assert read_submission(path) == valid() and validate_file(path, RULES) == []
    assert [file.name for file in tmp_path.iterdir()] == ["run7.zip"]


def test_the_name_inside_is_free_and_the_bytes_are_always_the_same(tmp_path):
    a, b = (write_submission(tmp_path / name, valid(), RULES, member="results.json") for name in ("a.zip", "b.zip"))
    assert a.read_bytes() == b.read_bytes() and zipfile.ZipFile(a).namelist() == ["results.json"]


def test_an_invalid_submission_is_refused_with_all_reasons_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)2 reasons:.*entry 0: score.*1 of 2 images"):
        write_submission(tmp_path / "bad.zip", [entry(score=float("nan")), entry()], RULES)
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_submission_leaves_the_earlier_file_alone(tmp_path):
    before = write_submission(tmp_path / "a.zip", valid(), RULES).read_bytes()
    with pytest.raises(ValueError, match="reasons"):
        write_submission(tmp_path / "a.zip", [], RULES)
    assert (tmp_path / "a.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "member"), [("a.json", None), ("a.zip", "../a.json"), ("a.zip", "a.txt"), ("a.zip", "b/a.json")]
)
def test_a_strange_name_is_refused(tmp_path, name, member):
    with pytest.raises(ValueError, match=r"ending in \.zip and a plain \.json name"):
        write_submission(tmp_path / name, valid(), RULES, member=member)


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, "expected a zip of one JSON, it holds nothing"),
        ({"a.json": "[]", "b.json": "[]"}, "expected a zip of one JSON, it holds ['a.json', 'b.json']"),
        ({"../../a.json": "[]"}, "expected a zip of one JSON, it holds"),
        ({"/a.json": "[]"}, "expected a zip of one JSON, it holds"),
        ({"a.txt": "[]"}, "expected a zip of one JSON, it holds"),
        ({"a.json": "[{"}, "expected a zip of one JSON"),
        ({"a.json": "\xff"}, "expected a zip of one JSON"),
        ({"a.json": '{"a": 1}'}, "must be a list of entries, got dict"),
        ({"a.json": json.dumps([entry(score=float("nan"))])}, "score must be a finite number, got nan"),
    ],
)
def test_a_zip_from_elsewhere_is_judged_without_unpacking(tmp_path, members, told):
    reasons = validate_file(zipped(tmp_path / "a.zip", **members), RULES)
    assert told in reasons[0] and [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_cut_off_zip_a_plain_json_and_a_missing_file_are_judged_too(tmp_path):
    whole = write_submission(tmp_path / "a.zip", valid(), RULES).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "a.json").write_text(json.dumps(valid()))
    assert "expected a zip of one JSON" in validate_file(tmp_path / "cut.zip", RULES)[0]
    assert validate_file(tmp_path / "a.json", RULES) == []
    assert "expected a file, found nothing" in validate_file(tmp_path / "no.zip", RULES)[0]


def test_any_damaged_byte_of_the_data_is_a_reason_or_changes_nothing(tmp_path):
    data = write_submission(tmp_path / "a.zip", valid(), RULES).read_bytes()
    for place in range(len(data)):
        (tmp_path / "b.zip").write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        assert validate_file(tmp_path / "b.zip", RULES) or read_submission(tmp_path / "b.zip") == valid()


def test_tidying_refuses_an_unknown_image():
    with pytest.raises(ValueError, match="1 image ids are not of the competition, such as 9"):
        tidy([entry(image_id=9)], RULES)


# The log.


def test_the_log_begins_with_a_header_and_grows_by_a_line(tmp_path):
    log = tmp_path / "submissions" / "log.csv"
    append_log(log, commit="abc", params="demo", local_score=0.51234567, note='said "no", twice', date="2026-11-21")
    append_log(log, commit="def", params="large", public_score=0.6)
    first, second = csv.DictReader(log.read_text().splitlines())
    assert first == {
        "date": "2026-11-21", "commit": "abc", "params": "demo", "local_score": "0.512346", "public_score": "",
        "note": 'said "no", twice',
    }  # fmt: skip
    assert (second["commit"], second["public_score"], len(second["date"])) == ("def", "0.6", 10)


def test_a_log_without_a_last_newline_is_continued_and_another_file_refused(tmp_path):
    log = append_log(tmp_path / "log.csv", commit="abc", params="demo")
    log.write_text(log.read_text().rstrip("\n"))
    assert len(append_log(log, commit="def", params="demo").read_text().splitlines()) == 3
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="the first line must be date,commit"):
        append_log(tmp_path / "other.csv", commit="abc", params="demo")


def test_a_zip_that_would_unpack_without_end_is_a_reason(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", " " * (FREE_MIB + 1 << 20))
    assert f"it unpacks to more than {FREE_MIB} MiB" in validate_file(tmp_path / "a.zip", RULES)[0]


def test_brackets_too_deep_in_a_zip_are_a_reason(tmp_path):
    assert (
        "expected a zip of one JSON" in validate_file(zipped(tmp_path / "a.zip", **{"a.json": "[" * 10**5}), RULES)[0]
    )
