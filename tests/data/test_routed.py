import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.data.coco_columns import NOWHERE
from kit.data.json_stream import chunks
from kit.data.routed import MOST_OPEN, Target, texts_of, write_routed

numbers = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
unknown = st.dictionaries(st.text('xyz ,[]{}"\\é', min_size=1, max_size=4), values, max_size=3)


@st.composite
def files(draw):
    """The content of a file, keys in any order, and the part of each image."""
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=8))
    images = [draw(unknown) | {"id": each, "file_name": f"{each}.jpg"} for each in ids]
    owners = draw(st.lists(st.integers(0, 99), max_size=4)) + draw(st.lists(st.sampled_from(ids or [0]), max_size=9))
    annotations = [draw(unknown) | {"image_id": each} for each in owners]
    content = {"images": images, "categories": draw(st.lists(unknown, max_size=2))}
    content |= draw(st.sampled_from([{"annotations": annotations}, {"annotations": None}, {}]))
    content |= draw(st.dictionaries(st.sampled_from(["info", "licenses", "é\n"]), values, max_size=3))
    parts = draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids)))
    return {key: content[key] for key in draw(st.permutations(list(content)))}, parts


def plainly(content, parts, part, is_rest, about):
    """What a part must hold, on dictionaries."""
    part_of = dict(zip((image["id"] for image in content["images"]), parts, strict=True))
    own = {image_id for image_id, each in part_of.items() if (each == part) != is_rest}
    info = content.get("info") or {}
    info = dict(info) if isinstance(info, dict) else {"info_of_source": info}
    if "split" in info:
        info["split_of_source"] = info["split"]
    return content | {
        "images": [image for image in content["images"] if image["id"] in own],
        "annotations": [each for each in content.get("annotations") or [] if each["image_id"] in own],
        "info": info | {"split": about},
    }


def rows_of(content):
    ids = [image["id"] for image in content["images"]]
    owners = [each["image_id"] for each in content.get("annotations") or []]
    return np.array([ids.index(each) if each in ids else NOWHERE for each in owners], np.int32)


def targets_in(folder):
    return [Target(folder / f"{is_rest}.json", 1, is_rest, {"seed": 5}) for is_rest in (False, True)]


@settings(max_examples=50, deadline=None)
@given(files(), st.sampled_from([None, 1]))
@example(({"images": [], "info": [1, {"a": 2}], "annotations": None}, []), None)
@example(({"info": {"split": 3}, "images": [{"id": 1, "x": "\ud800"}], "annotations": []}, [2]), 1)
def test_parts_are_those_that_dictionaries_give(tmp_path_factory, found, indent):
    content, parts = found
    folder = tmp_path_factory.mktemp("routed")
    source = folder / "source.json"
    source.write_text(json.dumps(content, indent=indent))
    write_routed(source, np.array(parts, np.int64), rows_of(content), targets_in(folder))
    for each in targets_in(folder):
        own = json.loads(each.path.read_text())
        assert own == plainly(content, parts, each.part, each.is_rest, each.info)
        added = [key for key in ("annotations", "info") if key not in content]
        assert list(own) == [*content, *added]


def routed(source, content, parts, folder):
    target = Target(folder / "part.json", 0, False, {"seed": 1})
    write_routed(source, np.array(parts), rows_of(content), [target])
    return target.path.read_text()


def test_entries_stand_as_they_stood_digit_for_digit(tmp_path):
    entry = (
        '{"image_id" :7, "bbox":[1.10,2.0e0, 3,4 ],\n "id": 1, "id": 2, "é": "\\u00e9", "long": 0.1000000000000000055}'
    )
    text = '{"images": [{"id": 7, "file_name": "a,[b\\"]"}], "x": {"y": 1.50}, "annotations": [' + entry + "]}"
    source = tmp_path / "source.json.gz"
    source.write_bytes(gzip.compress(text.encode()))
    written = routed(source, json.loads(text), [0], tmp_path)
    assert entry in written and '"x": {"y": 1.50}' in written and '{"id": 7, "file_name": "a,[b\\"]"}' in written


def test_of_a_key_that_stands_twice_the_last_counts(tmp_path):
    source = tmp_path / "source.json"
    source.write_text(
        '{"images": [{"id": 1}, {"id": 2}], "annotations": [{"image_id": 1}], "info": 3, "images": [{"id": 5}],'
        ' "annotations": [{"image_id": 5, "a": 1}, {"image_id": 5, "a": 2}], "info": {"year": 1}}'
    )
    content = json.loads(source.read_text())
    written = routed(source, content, [0], tmp_path)
    assert json.loads(written) == plainly(content, [0], 0, False, {"seed": 1})
    assert written.count('"images"') == written.count('"info"') == 1


def test_lists_of_many_chunks_are_whole(tmp_path):
    images = [{"id": each, "file_name": f"{each}"} for each in range(4000)]
    boxes = [{"image_id": each % 4000, "bbox": [1.5, 2.5, 3.5, each], "note": "long " * 100} for each in range(12_000)]
    content = {"annotations": boxes, "extra": boxes[:9000], "images": images}
    source = tmp_path / "source.json"
    source.write_text(json.dumps(content))
    assert sum(chunk.key == "annotations" for chunk in chunks(source)) > 1
    parts = np.random.default_rng(0).integers(0, 2, len(images))
    rows = np.array([each["image_id"] for each in boxes])
    target = Target(tmp_path / "part.json", 1, False, {})
    seen = []
    write_routed(source, parts, rows, [target], lambda done, total: seen.append((done, total)))
    assert json.loads(target.path.read_text()) == plainly(content, parts.tolist(), 1, False, {})
    assert seen[-1] == (source.stat().st_size,) * 2


def test_more_parts_than_files_may_be_open(tmp_path):
    count = MOST_OPEN + 3
    content = {"images": [{"id": each} for each in range(count)], "annotations": []}
    source = tmp_path / "source.json"
    source.write_text(json.dumps(content))
    targets = [Target(tmp_path / f"{part}.json", part, False, {}) for part in range(count)]
    write_routed(source, np.arange(count), rows_of(content), targets)
    assert [json.loads(each.path.read_text())["images"] for each in targets] == [[each] for each in content["images"]]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"images": [{"id": 1, "a": NaN}]}', "expected finite numbers to write, found NaN"),
        ('{"images": [{"id": 1}], "x": [1, -Infinity]}', "expected finite numbers to write, found -Infinity"),
        ('{"images": [{"id": 1}], "info": {"a": NaN}}', "expected finite numbers to write, found NaN"),
        ('{"images": [{"id": 1}], "info": {"a": 1e999}}', "expected finite numbers to write, found others"),
        ('{"images": [{"id": 1}, {"id": 2}]}', "expected the same entries when it is read again"),
        ('{"images": []}', "expected the same entries when it is read again"),
        ('{"images": [{"id": 1}', "is it cut off"),
        ('{"images": [{"id": 1 2}]}', "expected JSON"),
    ],
)
def test_what_cannot_be_written_is_one_error_and_leaves_nothing(tmp_path, text, message):
    source = tmp_path / "source.json"
    source.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        routed(source, {"images": [{"id": 1}]}, [0], tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{source}: ")
    assert [file.name for file in tmp_path.iterdir()] == ["source.json"]


def test_texts_are_the_same_by_either_way(tmp_path):
    """Half a character makes the whole chunk go the slow way."""
    source = tmp_path / "source.json"
    entries = ['{"a": [1, "],"]}', "-1.50", '"x\\"y"', "[ ]"]
    for half in ("", ', "\\ud800"'):
        source.write_text(f'{{"list": [ {" , ".join(entries)}{half} ], "none": [], "one": {{"b": 1}}}}')
        found = {chunk.key: [bytes(text).decode() for text in texts_of(chunk, source)] for chunk in chunks(source)}
        assert found == {"list": entries + ['"\\ud800"'] * bool(half), "none": [], "one": ['{"b": 1}']}


def test_what_is_nowhere_is_in_no_part():
    parts = np.array([0, 1, NOWHERE])
    takes = [Target(Path("x"), 0, is_rest, {}).takes(parts).tolist() for is_rest in (False, True)]
    assert takes == [[True, False, False], [False, True, False]]
