import math

import pytest

from kit.data.views import View
from kit.pseudo_rules import deciding, parse_rule, parse_rules

NAMES = ["Bus", "Bike", "Car", "Truck", "traffic light"]


def decided(texts: list[str], name: str, view: View | None = None) -> str | None:
    rules = parse_rules(texts, NAMES)
    row = deciding(rules, name, view)
    return None if row is None else rules[row].text


def test_a_rule_of_every_kind_reads_as_it_is_meant() -> None:
    rule = parse_rule("Bus Truck camera 20 24 night: 0.25 by 2", NAMES)
    assert (rule.classes, rule.cameras, rule.time) == ({"Bus", "Truck"}, {"20", "24"}, "night")
    assert (rule.threshold, rule.models, rule.text) == (0.25, 2, "Bus Truck camera 20 24 night: 0.25 by 2")
    assert parse_rule("camera 3, 4 class Car, 'traffic light': 1", NAMES).classes == {"Car", "traffic light"}
    assert parse_rule(" 0 ", NAMES).threshold == 0 and parse_rule("Bike: never", NAMES).threshold == math.inf


def test_the_last_rule_that_fits_decides() -> None:
    texts = ["0.4", "Bus Truck: 0.7", "night: 0.3", "Bus camera 20: 0.25"]
    assert decided(texts, "Car") == "0.4"
    assert decided(texts, "Bus") == "Bus Truck: 0.7"
    assert decided(texts, "Bus", View("3", "N")) == "night: 0.3"
    assert decided(texts, "Bus", View("20", "N")) == "Bus camera 20: 0.25"
    assert decided(texts, "Truck", View("20", "M")) == "Bus Truck: 0.7"


def test_all_kinds_that_a_rule_names_have_to_fit() -> None:
    text = "Car day camera 2: 0.5"
    assert decided([text], "Car", View("2", "E")) == text
    assert [decided([text], *box) for box in (("Bus", View("2", "E")), ("Car", View("2", "N")))] == [None, None]
    assert decided([text], "Car", View("12", "E")) is None and decided([text], "Car") is None


def test_an_image_whose_name_tells_nothing_is_by_day_and_of_no_camera() -> None:
    assert decided(["0.4", "day: 0.5", "camera 1: 0.6"], "Car") == "day: 0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Buss: 0.7", "no class 'Buss'; .*did you mean Bus?"),
        ("car: 0.7", "did you mean Car?"),
        ("0,4", "expected numbers, got '0,4'"),
        ("", "expected a score, or a score `by` a number of models, got ''"),
        ("Car:", "expected a score"),
        (": 0.5", "expected classes, cameras, day or night before the colon"),
        ("Car: 1.5", "expected a score from 0 to 1"),
        ("Car: nan", "expected a score from 0 to 1"),
        ("Car: 0.5 by 0", "at least 1 model"),
        ("Car: 0.5 of 2", "expected a score, or a score `by`"),
        ("Car 0.5", "expected a score"),
        ("camera: 0.5", "expected cameras after `camera`"),
        ("camera 3 Car: 0.5", "Car after `camera` is a class"),
        ("day night: 0.5", "expected day or night, got day and night"),
        ("'traffic light: 0.5", "expected quotes in pairs"),
        ("traffic light: 0.5", "no class 'traffic'; .*"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_rule_s_number(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)rules, number 2, .*{message}"):
        parse_rules(["0.4", text], NAMES)


def test_no_rules_and_rules_by_camera_where_names_tell_none_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one, got none"):
        parse_rules([], NAMES)
    for text in ("night: 0.3", "Car camera 1: 0.3"):
        with pytest.raises(ValueError, match="tell no camera and no time of day"):
            parse_rules([text], NAMES, has_views=False)


def test_more_voices_than_there_are_models_are_refused() -> None:
    assert len(parse_rules(["0.3 by 2"], NAMES, models=2)) == 1
    with pytest.raises(ValueError, match="expected at most `by 1`, so many teachers there are"):
        parse_rules(["0.3 by 2"], NAMES, models=1)
