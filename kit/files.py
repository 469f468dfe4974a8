"""Files: atomic writes, checksums, reading with errors that name the file."""

import gzip
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MOST_FOLD = 200  # times as large as its packed form: JSON becomes 3 to 30 times as large, a bomb 1,000
FREE_MIB = 64  # that may come of any packed form
MOST_VALUES = 1_000_000  # of a YAML file


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary sibling to write to; it takes the name `path` when the block ends well, and goes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path | str) -> Iterator[Path]:
    """A folder beside `folder` to write to; it takes that name when the block ends well, and goes when it does not.

    ValueError where there is something in the way already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or an empty folder, found something there; name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield made
        made.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def link(source: Path, path: Path) -> None:
    """A hard link, which takes no place on the disk; a copy where the two lie on different disks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), path)
    except OSError:
        copy_whole(source, path)


def copy_whole(source: Path, path: Path) -> None:
    """A copy that is whole or not there."""
    with atomic(path) as temporary:
        shutil.copyfile(source, temporary)


def write_bytes(path: Path | str, data: bytes) -> Path:
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: Path | str, text: str) -> Path:
    return write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any, indent: int | None = None) -> Path:
    """Strict JSON: NaN and infinity are refused."""
    try:
        data = json.dumps(value, indent=indent, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(f"{path}: expected finite numbers to write, found others: {error}; mend the source") from error
    return write_bytes(path, gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def progress_file(path: Path | str, what: str, every_s: float = 1.0) -> Callable[[int, int], None]:
    """A callable (done, total) that leaves in a file how far a loop is and how long it will take, for who watches."""
    started, written = time.monotonic(), -every_s

    def write(done: int, total: int) -> None:
        nonlocal written
        elapsed = time.monotonic() - started
        if elapsed - written < every_s and done < total:
            return
        written = elapsed
        eta_s = elapsed / done * (total - done) if done else None
        write_json(path, {"what": what, "done": done, "total": total, "eta_s": eta_s})

    return write


def read_json(path: Path | str) -> Any:
    """JSON, or gzipped JSON by its `.gz` ending. ValueError names the file and the place."""
    path = Path(path)
    data = read_bytes(path)
    try:
        return json.loads(unzipped(data) if path.suffix == ".gz" else data)
    except (ValueError, OSError, EOFError, RecursionError, zlib.error) as error:  # Recursion: brackets, too deep
        raise ValueError(f"{path}: expected JSON, {one_line(error)}; is it cut off, or another format?") from error


def unzipped(data: bytes) -> bytearray:
    """What gzip holds; ValueError as soon as it is more than can be meant."""
    found, most = bytearray(), most_unpacked(len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while piece := file.read(2**20):
            found += piece
            if len(found) > most:
                raise ValueError(f"it unpacks to more than {most >> 20} MiB")
    return found


def most_unpacked(packed_bytes: int) -> int:
    """Bytes that so many packed ones may become."""
    return max(FREE_MIB << 20, MOST_FOLD * packed_bytes)


def one_line(what: object) -> str:
    """A text of others as one line that can be shown: no line breaks, and nothing that moves a terminal's cursor."""
    words = " ".join(str(what).split())
    return (
        words if words.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in words)
    )


def read_bytes(path: Path | str) -> bytes:
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ValueError(f"{path}: expected a file, found {found}; check the path")
    return path.read_bytes()


UNREADABLE_YAML = (  # what its library raises; all but the first two at tags such as `!!bool x`
    yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
)  # fmt: skip


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice."""


def _mapping_without_repeats(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    repeated = [
        key for key, count in Counter(loader.construct_object(key) for key, _ in node.value).items() if count > 1
    ]
    if repeated:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key given twice: {', '.join(map(str, repeated))}")
    return loader.construct_mapping(node)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def read_yaml(path: Path | str) -> Any:
    """YAML by the safe loader; a key given twice is an error."""
    data = read_bytes(path)
    try:
        content = yaml.load(data, Loader=_StrictLoader)  # a SafeLoader
        if values_in(content, {}) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values once its aliases are written out")
        return content
    except UNREADABLE_YAML as error:
        raise ValueError(f"{path}: expected YAML, {one_line(error)[:500]}") from error


def values_in(content: Any, known: dict[int, float]) -> float:
    """How many there are with all aliases written out; infinite where one holds itself. known: grows, by id."""
    if not isinstance(content, dict | list | tuple):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf  # until it is counted
        inner = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(values_in(each, known) for each in inner)
    return known[id(content)]


def sha256(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
