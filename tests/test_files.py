import json
from pathlib import Path

import pytest

from kit.files import atomic, progress_file, read_json, read_yaml, sha256, write_json, write_text


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
