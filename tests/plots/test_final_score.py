import pandas as pd
import pytest

from kit.deploy.final_score import Candidate, final_score, score_table
from kit.plots.final_score import OTHER, SENT, TOO_SLOW, plot_final_scores

CANDIDATES = [
    Candidate("slow", 9.0, 0.9, "given"),
    Candidate("good", 20.0, 0.6, "given"),
    Candidate("here", 30.0, 0.5),
]


@pytest.fixture
def figure():
    return plot_final_scores(score_table(CANDIDATES), final_score)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_title_says_which_to_submit(figure):
    assert figure._suptitle.get_text() == "Final score: submit good"
    none = plot_final_scores(score_table(CANDIDATES[:1]), final_score)
    assert none._suptitle.get_text() == "Final score: none is fast enough"


def test_the_bars_are_the_scores_best_first_and_say_who_is_disqualified(figure):
    bars = figure.axes[1]
    widths = [patch.get_width() for patch in bars.patches]
    assert widths == pytest.approx([final_score(0.6, 20), final_score(0.5, 30), 0.0])
    assert [label.get_text() for label in bars.get_yticklabels()] == ["1  good", "2  here", "3  slow"]
    assert texts(bars)[2] == "disqualified: under 10 FPS  (9.0 FPS, F1 0.900)"


def test_each_stands_at_its_rate_and_f1_in_the_colour_of_its_fate(figure):
    marks = {line.get_xydata()[0].tolist()[0]: line for line in figure.axes[0].lines}
    assert {fps: line.get_color() for fps, line in marks.items()} == {20.0: SENT, 30.0: OTHER, 9.0: TOO_SLOW}
    assert marks[20.0].get_marker() == marks[9.0].get_marker() != marks[30.0].get_marker()
    assert set("123") <= set(texts(figure.axes[0]))


def test_the_ground_of_the_disqualified_ends_at_10_fps(figure):
    ground = figure.axes[0].patches[0]
    assert ground.get_x() + ground.get_width() == pytest.approx(10.0, rel=0.02)


def test_the_legend_names_what_is_there_alone(figure):
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["to be submitted", "others", "disqualified", "FPS of this machine", "FPS given"]
    one = plot_final_scores(score_table([Candidate("here", 30.0, 0.5)]), final_score)
    assert [text.get_text() for text in one.legends[0].get_texts()] == ["to be submitted", "FPS of this machine"]


def test_an_empty_table_is_a_picture_that_says_so():
    figure = plot_final_scores(score_table([]), final_score)
    figure.canvas.draw()
    assert texts(figure.axes[0]) == ["nothing was measured and nothing given"]
    assert isinstance(score_table([]), pd.DataFrame)


def test_scores_near_0_and_1_can_be_drawn():
    plot_final_scores(score_table([Candidate("a", 1000.0, 1.0), Candidate("b", 0.5, 0.0)]), final_score).canvas.draw()
