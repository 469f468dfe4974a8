import numpy as np
import pytest

from kit.deploy.final_score import (
    Candidate,
    advice,
    chosen,
    final_score,
    normalised_fps,
    read_given,
    score_table,
)


@pytest.mark.parametrize(("fps", "score"), [(25, 0.773), (20, 0.705), (15, 0.615), (10, 0.489)])
def test_the_score_is_that_of_the_competition(fps, score):
    assert final_score(0.63, fps) == pytest.approx(score, abs=5e-4)


def test_more_than_25_fps_earn_nothing_and_fewer_than_10_lose_everything():
    assert final_score(0.63, 25) == final_score(0.63, 400)
    assert final_score(0.63, 10) > 0.4 and final_score(0.63, 9.999) == 0.0
    assert final_score(0.0, 30) == 0.0
    assert normalised_fps(np.array([5.0, 25.0, 50.0])).tolist() == [0.2, 1.0, 1.0]


def test_arrays_give_arrays():
    scores = final_score(np.array([[0.5], [1.0]]), np.array([5.0, 25.0]))
    assert scores.tolist() == [[0.0, pytest.approx(2 / 3)], [0.0, 1.0]]


def test_a_given_line_is_read():
    assert read_given(" l@960 fp16 :31.5 FPS,  F1 0.62 ") == Candidate("l@960 fp16", 31.5, 0.62, "given")
    assert read_given("l: 31 FPS, F1 1").f1 == 1.0


@pytest.mark.parametrize(
    "line", ["l@960", "l: fast, F1 0.5", "l: 20 FPS, F1 62", ": 20 FPS, F1 0.5", "l: 20 FPS; F1 0.5"]
)
def test_a_line_that_says_something_else_is_refused(line):
    with pytest.raises(ValueError, match=r"given: expected a line like `l@960: 31\.5 FPS, F1 0\.62`, got "):
        read_given(line)


@pytest.mark.parametrize(("fps", "f1"), [(0.0, 0.5), (20.0, 1.5), (20.0, float("nan"))])
def test_figures_that_cannot_be_are_refused(fps, f1):
    with pytest.raises(ValueError, match="s: expected FPS above 0 and F1 from 0 to 1"):
        Candidate("s", fps, f1)


def test_the_best_score_is_chosen_and_the_quicker_of_two_equals():
    slow, quick, best = Candidate("slow", 9.0, 0.9), Candidate("quick", 80.0, 0.5), Candidate("best", 24.0, 0.6)
    assert chosen([slow, quick, best]) is best
    assert chosen([Candidate("a", 30.0, 0.5), quick]) is quick
    assert chosen([slow]) is None and chosen([]) is None


def test_rates_of_this_machine_do_not_compete_with_given_ones():
    here, there = Candidate("here", 90.0, 0.9), Candidate("there", 12.0, 0.5, "given")
    assert chosen([here, there]) is there
    assert chosen([here, Candidate("there", 9.0, 0.5, "given")]) is None


def test_the_table_lists_the_best_first_and_marks_the_disqualified():
    table = score_table([Candidate("slow", 9.0, 0.9), Candidate("good", 20.0, 0.6), Candidate("weak", 20.0, 0.3)])
    assert table["name"].tolist() == ["good", "weak", "slow"]
    assert table["verdict"].tolist() == ["submit", "", "disqualified: under 10 FPS"]
    assert table["n"].tolist() == [0.8, 0.8, 0.36] and table["score"][0] == pytest.approx(0.96 / 1.4)
    assert score_table([]).empty


def test_the_advice_names_the_best_and_what_would_raise_its_score():
    text = advice([Candidate("s@960", 20.0, 0.63, "given")])
    assert text.startswith("Submit s@960: 20.0 FPS (given), F1 0.630, final score 0.705.")
    assert "A hundredth of F1 more would give +0.0062, a frame a second more +0.0151." in text
    assert "this machine" not in text


def test_the_advice_says_where_it_does_not_hold():
    assert "These rates are of this machine: measure on the judges' device" in advice([Candidate("s", 30.0, 0.5)])
    assert advice([Candidate("s", 5.0, 0.5)]).startswith("None reaches 10 FPS (this machine)")
    assert advice([]) == "Nothing was measured and nothing given."
