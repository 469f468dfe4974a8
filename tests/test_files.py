import gzip
import json
from pathlib import Path

import pytest

from kit.files import FREE_MIB, atomic, one_line, progress_file, read_json, read_yaml, sha256, write_json, write_text


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_comes_back(name: str, tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, "ü"]}
    assert read_json(write_json(tmp_path / name, value)) == value


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = (write_json(tmp_path / name, {"x": 1}) for name in ("a.json.gz", "b.json.gz"))
    assert sha256(a) == sha256(b)


def test_json_that_is_not_finite_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"{", b"", b"\x1f\x8bcut"])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_broken_json_names_the_file(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: expected JSON"):
        read_json(tmp_path / name)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json: expected a file, found nothing"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="expected a file, found a folder"):
        read_json(tmp_path)


def test_yaml_refuses_a_key_given_twice_and_objects(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1\nlr: 2\n")
    with pytest.raises(ValueError, match=r"a\.yaml: expected YAML, line 1: key given twice: lr"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match=r"b\.yaml: expected YAML"):
        read_yaml(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("a: 1\n")
    assert json.dumps(read_yaml(tmp_path / "c.yaml")) == '{"a": 1}'


def test_a_progress_file_tells_how_far_a_loop_is(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    report = progress_file(path, "images", every_s=3600)
    report(1, 4)
    assert read_json(path)["done"] == 1 and read_json(path)["eta_s"] >= 0
    report(2, 4)  # too soon
    assert read_json(path)["done"] == 1
    report(4, 4)  # the end is always told
    assert read_json(path) == {"what": "images", "done": 4, "total": 4, "eta_s": 0.0}


def test_what_would_unpack_without_end_is_refused_and_damage_is_told(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json.gz", {"a": " " * (FREE_MIB << 20)})
    with pytest.raises(ValueError, match=rf"a\.json\.gz: expected JSON, it unpacks to more than {FREE_MIB} MiB"):
        read_json(tmp_path / "a.json.gz")
    data = bytearray(gzip.compress(json.dumps(list(range(5000))).encode()))
    data[200:300] = b"\xff" * 100
    (tmp_path / "b.json.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"b\.json\.gz: expected JSON, .*; is it cut off"):
        read_json(tmp_path / "b.json.gz")


@pytest.mark.parametrize(
    "text",
    [
        "a: [\n",
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!int x",
        "? [a]\n: 1",
        "a: 2026-13-45",
        "a: \x07",
        "a: !!int ''",
    ],
)
def test_any_broken_yaml_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml: expected YAML, ") as error:
        read_yaml(tmp_path / "a.yaml")
    assert type(error.value) is ValueError and str(error.value).isprintable()


def test_a_text_of_others_becomes_one_line_that_can_be_shown() -> None:
    assert one_line("a\n  b\x1b[31m\ud800\u202e \u00fc") == "a b\\x1b[31m\\ud800\\u202e \u00fc"


@pytest.mark.parametrize("last", ["*a8", "&x [*x]", "[*a8, 1]"])
def test_yaml_of_aliases_of_aliases_and_of_itself_is_refused(tmp_path: Path, last: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, f"last: {last}"]))
    with pytest.raises(ValueError, match=r"a\.yaml: expected YAML, more than 1000000 values"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_may_name_a_part_and_use_it_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {b: [1, 2]}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": [1, 2]}, "c": [{"b": [1, 2]}, {"b": [1, 2]}]}


def test_what_json_cannot_hold_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json: expected finite numbers to write"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
