import re

import pytest

from kit import progress
from kit.files import read_json
from kit.progress import Bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def states(text: str) -> list[str]:
    return re.findall(r"(\d+/\d+) \[", text)


def test_a_bar_shows_a_state_a_second_and_always_the_last(clock, capsys):
    bar = Bar("images")
    for done in range(1, 11):
        clock[0] += 0.4
        bar(done, 10)
    assert states(capsys.readouterr().out)[1:] == ["1/10", "4/10", "7/10", "10/10", "10/10"]  # the close repeats it


def test_the_longer_a_loop_runs_the_rarer_are_its_states(clock, capsys):
    bar = Bar("steps")
    for done in range(1, 10_001):
        clock[0] += 10
        bar(done, 10_000)
    assert len(states(capsys.readouterr().out)) < 400


def test_what_was_done_before_does_not_count_for_the_rate(clock, capsys):
    bar = Bar("steps")
    bar(901, 1000)
    assert "900/1000" in capsys.readouterr().out


def test_a_second_loop_gets_a_bar_of_its_own(clock, capsys):
    bar = Bar("batches")
    bar(2, 2)
    bar(1, 7)
    assert "1/7" in capsys.readouterr().out


def test_a_bar_leaves_a_file_and_a_line_stays_above_it(clock, capsys, tmp_path):
    bar = Bar("images", tmp_path / "progress.json")
    bar(1, 4)
    bar.say("epoch 1")
    assert read_json(tmp_path / "progress.json")["done"] == 1 and "epoch 1\n" in capsys.readouterr().out
