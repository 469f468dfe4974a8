import codecs
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data import json_stream
from kit.data.json_cuts import cuts
from kit.data.json_stream import chunks, decoded, small_text

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def gathered(path, chunk_bytes=1):
    """The object, put together from the chunks."""
    found = {}
    for chunk in chunks(path, chunk_bytes):
        entries = decoded(chunk.text, path)
        assert len(entries) == chunk.count
        if chunk.first == 0:
            found[chunk.key] = []
        if chunk.is_list:
            assert len(found[chunk.key]) == chunk.first
            found[chunk.key] += entries
        else:
            (found[chunk.key],) = entries
    return found


@settings(max_examples=100, deadline=None)
@given(
    content=st.dictionaries(st.text(), st.lists(anything, max_size=6) | anything, max_size=5),
    indent=st.sampled_from([None, 2]),
    is_ascii=st.booleans(),
    chunk_bytes=st.integers(1, 60),
)
def test_chunks_of_any_object_make_it_up_again(tmp_path_factory, content, indent, is_ascii, chunk_bytes):
    text = json.dumps(content, indent=indent, ensure_ascii=is_ascii)
    path = write(tmp_path_factory.getbasetemp() / "x.json", text.encode("utf-8", "surrogatepass"))
    assert gathered(path, chunk_bytes) == content


def test_a_comma_counts_only_outside_of_strings_and_brackets():
    text = rb'1, "a,\",]", [2, 3], {"b": "\\"}, 4 ] , 5'
    last, commas, close = cuts(np.frombuffer(text, np.uint8), 0, -1)
    assert (commas, text[last:close], text[close:]) == (4, b", 4 ", b"] , 5")
    assert cuts(np.frombuffer(b"1, 2, 3", np.uint8), 0, 1) == (1, 1, -1)
    assert cuts(np.frombuffer(b'"open, [', np.uint8), 0, -1) == (-1, 0, -1)


def test_chunks_tell_where_they_are_and_are_no_larger_than_asked_for(tmp_path):
    text = json.dumps({"a": list(range(100)), "b": {"c": 1}})
    found = list(chunks(write(tmp_path / "x.json", text), 40))
    assert all(text.encode()[each.offset :].startswith(each.data) for each in found)
    assert max(len(each.data) for each in found) <= 80 and len(found) > 5
    assert (found[-1].key, found[-1].is_list, found[-1].count) == ("b", False, 1)


def test_an_entry_longer_than_a_chunk_is_whole(tmp_path):
    content = {"a": [1, "x" * 1000, [[2] * 500], 3], "long" * 100: 1}
    assert gathered(write(tmp_path / "x.json", json.dumps(content)), 16) == content


def test_a_list_that_comes_twice_starts_anew_even_if_it_is_empty_then(tmp_path):
    path = write(tmp_path / "x.json", '{"a": [1, 2, 3], "b": [], "a": [], "b": 7}')
    assert [(each.key, each.first, each.count) for each in chunks(path)] == [
        ("a", 0, 3),
        ("b", 0, 0),
        ("a", 0, 0),
        ("b", 0, 1),
    ]
    assert gathered(path) == {"a": [], "b": 7}


def test_gzipped_and_otherwise_encoded_text_is_read(tmp_path):
    content = {"a": ["é", "\U0001f697", 1], "b": "ß"}
    text = json.dumps(content, ensure_ascii=False)
    assert gathered(write(tmp_path / "x.json.gz", gzip.compress(text.encode())), 5) == content
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"):
        path = write(tmp_path / "x.json", text.encode(encoding))
        assert gathered(path, 5) == content and json.loads(small_text(path, 1000)) == content
    assert write(tmp_path / "x.json", codecs.BOM_UTF8 + b"{}") and gathered(tmp_path / "x.json") == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "got an empty file"),
        ("  [1, 2]", "got list"),
        ('"text"', "got str"),
        ("12", "got number"),
        ("hello", "got no JSON"),
        ("{", "a name in quotes, found the end of the file"),
        ('{"a"', "expected :, found the end of the file"),
        ('{"a', "found the end of the file"),
        ('{"a": [1, 2', "found the end of the file"),
        ('{"a": [1, 2]', "expected , or }, found the end of the file"),
        ('{"a": {"b": [1]}', "found the end of the file"),
        ('{"a": "text', "found the end of the file"),
        ('{"a": [1, 2,      ]}', "an entry of a between two commas, found none"),
        ('{"a": [,1]}', "an entry of a between two commas, found none"),
        ('{"a": [1, 2}}', "expected ], found }"),
        ('{"a": ,"b": 1}', "a value of a, found none"),
        ('{"a": 1,}', "a name in quotes, found }"),
        ('{"a": 1] ', "expected , or }, found ]"),
        ('{"a": 1} {}', "nothing after the object, found {"),
        ("{'a': 1}", "a name in quotes, found '"),
    ],
)
def test_what_is_no_whole_object_is_refused_by_name_and_place(tmp_path, text, found):
    path = write(tmp_path / "x.json", text)
    with pytest.raises(ValueError) as error:
        gathered(path, 1)
    assert str(error.value).startswith(f"{path}: byte ") and found in str(error.value)
    with pytest.raises(ValueError, match=r"x\.json: .*is it cut off"):  # in one chunk it is for who decodes it
        gathered(path, 1000)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), chunk_bytes=st.integers(1, 50), is_packed=st.booleans())
def test_a_file_that_was_cut_off_is_an_error_wherever_it_was_cut(tmp_path_factory, share, chunk_bytes, is_packed):
    text = json.dumps({"a": [{"b": [1, 2], "c": "d,]}"}] * 3, "e": {"f": None}}).encode()
    text = gzip.compress(text) if is_packed else text
    path = tmp_path_factory.getbasetemp() / ("x.json.gz" if is_packed else "x.json")
    with pytest.raises(ValueError, match=r"x\.json.*is it cut off"):
        gathered(write(path, text[: int(share * len(text))]), chunk_bytes)


def test_what_has_no_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MOST_ENTRY_BYTES", 1000)
    monkeypatch.setattr(json_stream, "MOST_KEY_BYTES", 100)
    for text in ('{"a": ["' + "x" * 5000, '{"a": ' + "[" * 5000, '{"a": "' + "x" * 5000, '{"' + "k" * 5000):
        with pytest.raises(ValueError, match=r"x\.json: byte [167]: expected a.* bytes at most, found more"):
            list(chunks(write(tmp_path / "x.json", text), 50))


def test_no_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"x\.json: expected a file, found nothing"):
        list(chunks(tmp_path / "x.json"))
    with pytest.raises(ValueError, match="expected a file, found a folder"):
        list(chunks(tmp_path))


def test_packed_rubbish_is_told_as_such(tmp_path):
    broken = bytearray(gzip.compress(json.dumps({"a": list(range(1000))}).encode()))
    broken[40] ^= 0xFF
    for data in (b"no gzip", bytes(broken), gzip.compress(b"{}")[:-4]):
        with pytest.raises(ValueError, match=r"x\.json\.gz: .*is it cut off, or another format"):
            gathered(write(tmp_path / "x.json.gz", data), 1000)


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "most_unpacked", lambda packed_bytes: 100 * packed_bytes)
    path = write(tmp_path / "x.json.gz", gzip.compress(b'{"a": ' + b" " * 1_000_000 + b"1}"))
    with pytest.raises(ValueError, match=r"x\.json\.gz: byte .*: expected at most 0 MiB when it is unpacked"):
        list(chunks(path, 1000))


def test_an_error_is_one_line_whatever_the_names_are(tmp_path):
    path = write(tmp_path / "x.json", r'{"a\nb\u001b": [1, 2,       ]}')
    with pytest.raises(ValueError, match=r"an entry of a b\\x1b between two commas") as error:
        gathered(path, 1)
    assert str(error.value).isprintable()


def test_only_a_small_text_is_read_whole(tmp_path):
    path = write(tmp_path / "x.json.gz", gzip.compress(b"[" + b" " * 10_000 + b"]"))
    assert small_text(path, 10_001) is None and len(small_text(path, 10_002)) == 10_002
    assert small_text(write(tmp_path / "y.json", "[1, 2]"), 5) is None


def test_progress_ends_at_the_size_of_the_file(tmp_path):
    path = write(tmp_path / "x.json", json.dumps({"a": list(range(500))}))
    calls = []
    list(chunks(path, 100, lambda done, total: calls.append((done, total))))
    assert calls[0][0] < calls[-1][0] == calls[-1][1] == path.stat().st_size
