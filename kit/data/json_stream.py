"""JSON files of any size in bounded memory: the lists of one large object, a chunk of whole entries at a time.

The text is only cut here, at commas between entries; whoever decodes a chunk finds what is wrong inside of it. Plain
or gzipped by the ending .gz, in UTF-8, or in what else JSON may be written in.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from kit.files import most_unpacked, one_line

Progress = Callable[[int, int], None]  # bytes done, of so many

CHUNK_BYTES = 4 << 20
MOST_ENTRY_BYTES = 256 << 20  # of one entry, or of a value that is no list
MOST_KEY_BYTES = 1 << 16
SPACE = b" \t\n\r"
SPACES = re.compile(rb"[ \t\n\r]*")
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
UNREADABLE = (ValueError, OSError, EOFError, zlib.error, RecursionError)  # what reading and unpacking JSON may raise
KINDS = {"[": "list", '"': "str", "t": "bool", "f": "bool", "n": "null"} | dict.fromkeys("-0123456789", "number")


@dataclass(frozen=True)
class Chunk:
    """Some entries of one list of the object; or a value that is no list, alone."""

    key: str
    first: int  # how many entries of the list came before; 0: what came under the same key before counts no longer
    count: int
    offset: int  # of data in the unpacked file
    data: bytes  # the entries and the commas between them
    is_list: bool

    @property
    def text(self) -> bytes:
        """JSON: a list of the entries."""
        return b"[" + self.data + b"]"


def chunks(path: Path | str, chunk_bytes: int = CHUNK_BYTES, progress: Progress | None = None) -> Iterator[Chunk]:
    """All values of the object that the file holds, in the order of the file; a list gives at least one chunk.

    progress: gets the bytes of the file that are read, and all.
    """
    path = Path(path)
    with opened(path) as (file, raw):
        text = _Window(file, path, chunk_bytes)
        total = path.stat().st_size
        for chunk in _values(text):
            refuse_no_text(chunk.data)
            yield chunk
            if progress:
                progress(min(raw.tell(), total), total)


def small_text(path: Path | str, most_bytes: int) -> bytes | None:
    """The whole text of a file in UTF-8 if it has no more than so many bytes unpacked; else None."""
    path = Path(path)
    with opened(path) as (file, _):
        if path.stat().st_size > most_bytes:
            return None
        text = file.read(most_bytes + 1)
        if len(text) > most_bytes:
            return None
        refuse_no_text(text)
        return text


def refuse_no_text(data: bytes) -> None:
    """Bytes that are no UTF-8: a decoder that skips a string does not look into it."""
    if not data.isascii():
        data.decode("utf-8", "surrogatepass")  # as Python's own decoder takes it


def decoded(text: bytes, place: object) -> Any:
    """Plain objects; NaN and infinity are read too. place: the file, or where in it, for the error."""
    try:
        return json.loads(text)
    except UNREADABLE as error:
        raise ValueError(f"{place}: expected JSON, {one_line(error)}; is it cut off, or another format?") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The text of a JSON file in UTF-8, and the file itself. What goes wrong in the block is told with its name."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'nothing'}; check the path")
    with path.open("rb") as raw:
        try:
            file: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            encoding = json.detect_encoding(file.peek(4)[:4])
            if encoding == "utf-8-sig":
                file.read(len(codecs.BOM_UTF8))
            yield (file if encoding.startswith("utf-8") else codecs.EncodedFile(file, "utf-8", encoding)), raw
        except UNREADABLE as error:
            if str(error).startswith(f"{path}: "):
                raise
            raise ValueError(f"{path}: expected JSON, {one_line(error)}; is it cut off, or another format?") from error


class _Window:
    """The part of the text that is looked at; it moves on."""

    def __init__(self, file: IO[bytes], path: Path, chunk_bytes: int):
        self.file, self.path, self.chunk_bytes = file, path, chunk_bytes
        self.most_bytes = most_unpacked(path.stat().st_size)
        self.data, self.at = b"", 0
        self.offset = 0  # of data in the file

    def more(self) -> bool:
        """Lets go what lies before `at` and reads on; False at the end of the file."""
        rest = self.data[self.at :]
        fresh = self.file.read(max(self.chunk_bytes, len(rest)))  # so a long entry is not looked at many times
        self.offset, self.data, self.at = self.offset + self.at, rest + fresh, 0
        if self.offset + len(self.data) > self.most_bytes:
            self.fail(f"at most {self.most_bytes >> 20:,} MiB when it is unpacked, found more")
        return bool(fresh)

    def need(self, most_bytes: int, what: str) -> None:
        if len(self.data) - self.at > most_bytes:
            self.fail(f"{what} of {most_bytes:,} bytes at most, found more")
        if not self.more():
            self.at = len(self.data)
            self.fail("more, found the end of the file")

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            self.at = SPACES.match(self.data, self.at).end()  # type: ignore[union-attr]  # it always matches
            if self.at < len(self.data):
                return chr(self.data[self.at])
            if not self.more():
                return ""

    def take(self, characters: str) -> str:
        """Goes past one of these characters."""
        found = self.peek()
        if not found or found not in characters:
            self.fail(f"{' or '.join(characters)}, found {one_line(found) or 'the end of the file'}")
        self.at += 1
        return found

    def key(self) -> str:
        if self.peek() != '"':
            self.fail(f"a name in quotes, found {one_line(self.peek()) or 'the end of the file'}")
        while (found := STRING.match(self.data, self.at)) is None:
            self.need(MOST_KEY_BYTES, "a name")
        self.at = found.end()
        return str(json.loads(found.group()))

    def fail(self, expected: str) -> NoReturn:
        place = f"byte {self.offset + self.at:,}"
        raise ValueError(f"{self.path}: {place}: expected {expected}; is it cut off, or another format?")


def _values(text: _Window) -> Iterator[Chunk]:
    if text.peek() != "{":
        found = KINDS.get(text.peek(), "no JSON") if text.peek() else "an empty file"
        text.fail(f"a JSON object with named lists, got {found}")
    text.take("{")
    is_open = text.peek() != "}"
    if not is_open:
        text.take("}")
    while is_open:
        key = text.key()
        text.take(":")
        if text.peek() == "[":
            text.take("[")
            yield from _entries(text, key)
        else:
            yield _value(text, key)
        is_open = text.take(",}") == ","
    if text.peek():
        text.fail(f"nothing after the object, found {one_line(text.peek())}")


def _entries(text: _Window, key: str) -> Iterator[Chunk]:
    """From behind the bracket that opens a list to behind the one that closes it."""
    first = 0
    while True:
        last, commas, close = _cuts(text, most_commas=-1)
        if close < 0 and last < 0:
            text.need(MOST_ENTRY_BYTES, f"an entry of {one_line(key):.60}")
            continue
        stop, count = (close, commas + 1) if close >= 0 else (last, commas)
        data = text.data[text.at : stop]
        if not data.strip(SPACE):
            if close < 0 or first:
                text.fail(f"an entry of {one_line(key):.60} between two commas, found none")
            count = 0
        yield Chunk(key, first, count, text.offset + text.at, data, True)
        text.at, first = stop, first + count
        if text.take(",]" if close < 0 else "]") == "]":
            return


def _value(text: _Window, key: str) -> Chunk:
    while True:
        last, _, close = _cuts(text, most_commas=1)
        stop = max(last, close)
        if stop >= 0:
            break
        text.need(MOST_ENTRY_BYTES, f"a value of {one_line(key):.60}")
    data, offset = text.data[text.at : stop], text.offset + text.at
    if not data.strip(SPACE):
        text.fail(f"a value of {one_line(key):.60}, found none")
    text.at = stop
    return Chunk(key, 0, 1, offset, data, False)


def _cuts(text: _Window, most_commas: int) -> tuple[int, int, int]:
    from kit.data.json_cuts import cuts  # small files never come here, and need not wait for Numba

    found: tuple[int, int, int] = cuts(np.frombuffer(text.data, np.uint8), text.at, most_commas)
    return found
