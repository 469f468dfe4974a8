import re

import numpy as np

from kit.demo.look import card, class_chips, comparison, faster, heading, line, milliseconds
from kit.demo.models import Answer
from kit.plots.canvas import class_colour


def answer(model, latency_ms: float) -> Answer:
    return Answer(model, np.zeros((4, 4, 3), np.uint8), model.predictor.detections, [latency_ms] * 3)


def test_a_name_that_is_markup_stays_text():
    evil = '<img src=x onerror="alert(1)">'
    shown = [line(evil, "wrong"), card(evil, evil, {evil: evil}, class_chips({0: "1"}, [evil])), heading(1)]
    assert all("<img" not in html for html in shown)
    assert shown[0].count("&lt;img") == 1 and shown[1].count("&lt;img") == 5


def test_chips_have_the_colours_of_the_boxes_and_the_first_twelve_classes():
    names = [f"class {label}" for label in range(14)]
    html = class_chips({label: "2" for label in range(14)}, names)
    assert re.findall(r"background:(#[0-9a-f]{6})", html) == [class_colour(label) for label in range(12)]
    assert "class 11 2" in html and "class 12" not in html and "and 2 more classes" in html


def test_no_class_is_said_in_words():
    assert "nothing at this threshold" in class_chips({}, ["car"])


def test_milliseconds_have_three_figures():
    assert [milliseconds(value) for value in (2.345, 99.94, 123.4)] == ["2.3", "99.9", "123"]


def test_the_faster_of_two_is_named():
    assert faster("a", 10.0, "b", 25.0) == "a is 2.5 times as fast."
    assert faster("a", 25.0, "b", 10.0) == "b is 2.5 times as fast."
    assert faster("a", 10.0, "b", 10.9) == faster("a", 10.9, "b", 10.0) == "They are about equally fast."


def test_two_answers_are_compared_above_the_threshold(model):
    one, other = answer(model("one.pt"), 10.0), answer(model("other.pt", scores=[0.9, 0.8]), 20.0)
    assert comparison(one, other, 0.2).startswith("The two agree on 2 of 2 boxes")
    text = comparison(one, other, 0.5)
    assert text == "The two agree on 1 of 2 boxes (same class, IoU of 0.5 or more). one.pt is 2.0 times as fast."
