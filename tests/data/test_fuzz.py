"""Damaged and hostile files end in a clear error or a right answer: a share of the cases of benchmarks/fuzz.py."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from kit.files import read_json
from kit.params import ROOT
from tests.fuzzing.cases import cases, changes, unclear
from tests.fuzzing.damage import Damage
from tests.fuzzing.kinds import KINDS

CASES = len(KINDS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In a process of its own: forks want one that has no threads."""
    path = tmp_path_factory.mktemp("fuzz") / "found.json"
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", str(CASES), "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert path.is_file(), done.stderr
    return dict(read_json(path))


@pytest.mark.slow
def test_every_planted_fault_is_found(found: dict[str, Any]) -> None:
    assert len(found["controls"]) == 12 and all(found["controls"].values())


@pytest.mark.slow
def test_no_damaged_file_does_harm(found: dict[str, Any]) -> None:
    assert [f"case {each['number']}: {each['fault']}" for each in found["cases"] if each["fault"]] == []


@pytest.mark.slow
def test_cases_of_every_kind_end_in_every_way(found: dict[str, Any]) -> None:
    assert Counter(each["kind"] for each in found["cases"]) == {kind.name: 1 for kind in KINDS}
    assert {"error", "told", "answer"} == {each["how"] for each in found["cases"]}
    assert {"same", "refused", "any"} <= {each["expected"] for each in found["cases"]}


def test_a_seed_gives_the_same_cases_and_another_gives_others() -> None:
    names = [case.name for case in cases(200)]
    assert names == [case.name for case in cases(200)] and names[:100] == [case.name for case in cases(100)]
    assert names != [case.name for case in cases(200, seed=1)]


def test_each_pair_of_damage_and_reader_comes_before_one_comes_again() -> None:
    kind = KINDS[0]
    pairs = len(kind.damages) * len(kind.readers)
    dealt = Counter((case.damage, case.reader) for case in cases(2 * pairs, kinds=[kind]))
    assert len(dealt) >= pairs - len(kind.readers) and set(dealt.values()) <= {2, 4}  # one damage stands there twice


def test_more_is_expected_of_some_readers_than_of_others() -> None:
    damage = Damage("cut off", lambda data, random: data, "refused", ("check",))
    assert damage.expected_of("check") == "refused" and damage.expected_of("near duplicates") == "any"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("in/a.json: expected JSON, found nothing", []),
        ("", ["an error without words", "an error that does not name the file"]),
        ("a.json: one\ntwo", ["an error of 2 lines"]),
        ("a.json: \x1b[31m", ["an error that cannot be shown"]),
        ("expected JSON, found nothing", ["an error that does not name the file"]),
        ("a.json" + "x" * 5000, ["an error of 5006 letters"]),
    ],
)
def test_an_error_is_one_line_that_can_be_shown_and_names_the_file(text: str, told: list[str]) -> None:
    assert [fault.partition(":")[0] for fault in unclear(text, "folder/a.json")] == told


def test_entries_that_differ_are_counted() -> None:
    assert changes({"a": 1, "b": float("nan"), "c": 3}, {"a": 2, "b": float("nan"), "d": 3}) == ["a", "c", "d"]
