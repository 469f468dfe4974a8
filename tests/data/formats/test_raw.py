import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.formats.raw import (
    Losses,
    RawDataset,
    RawPart,
    joined_categories,
    neat,
    number_text,
    objects_of,
    part_named,
)


@given(st.decimals(-10000, 10000, places=9))
def test_neat_keeps_nine_decimals_and_drops_the_noise(value):
    assert neat(float(value) * (1 + 1e-16)) == float(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_the_text_of_a_number_reads_as_the_same(value):
    assert float(number_text(value)) == value


def test_losses_are_counted_and_problems_come_first():
    losses = Losses()
    losses.add("mask", "a")
    losses.add("mask", "b")
    losses.add("missing", "c", is_problem=True)
    assert [(each.what, each.count, each.example) for each in losses.all()] == [("missing", 1, "c"), ("mask", 2, "a")]


def test_broken_annotations_are_problems_and_the_others_stay():
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    broken = [
        good | {"image_id": 2},
        good | {"category_id": 5},
        good | {"bbox": [1, 2, 3]},
        good | {"bbox": [1, 2, 3, True]},
    ]
    part = RawPart("train", [{"id": 1, "file_name": "a.png"}], [good, *broken], {})
    losses = Losses()
    found = objects_of(RawDataset([{"id": 1, "name": "car"}], [part]), part, losses)
    assert found == {1: [good]} and [(each.count, each.is_problem) for each in losses.all()] == [
        (1, True),
        (1, True),
        (2, True),
    ]


def test_classes_of_two_files_are_joined_by_id():
    car, bus = {"id": 1, "name": "car"}, {"id": 2, "name": "bus"}
    assert joined_categories({"a": [bus], "b": [car, bus]}) == [car, bus]
    with pytest.raises(ValueError, match="'car' in a and 'bus' in b"):
        joined_categories({"a": [car], "b": [bus | {"id": 1}]})


def test_parts_have_the_names_that_kit_uses():
    assert [part_named(name) for name in ("valid", "Validation", "train", "night")] == ["val", "val", "train", "night"]
