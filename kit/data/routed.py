"""Parts of a COCO file, written while it is read once more: every entry as it stands, a chunk in memory at a time.

Which entry goes where is told by arrays, so that nothing of an entry needs to be understood: masks, fields that nobody
knows and the digits of numbers stay. Other keys of the file go into every part.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from kit.data.coco_columns import NOWHERE
from kit.data.formats.raw import Entry
from kit.data.json_cuts import cuts
from kit.data.json_stream import UNREADABLE, Chunk, Progress, chunks, decoded
from kit.data.typed_entries import TEXTS, UNTYPED
from kit.files import atomic, one_line

ROUTED = ("images", "annotations")
MOST_OPEN = 64  # files that are written at a time; for more the source is read again


@dataclass(frozen=True)
class Target:
    """A file to be written: the entries of one part, or of all other parts."""

    path: Path
    part: int
    is_rest: bool
    info: Entry  # added to the `info` of the source under `split`

    def takes(self, parts: np.ndarray) -> np.ndarray:
        """parts of entries (n,), NOWHERE for those that no part has -> (n,) bool."""
        return (parts != self.part) & (parts != NOWHERE) if self.is_rest else parts == self.part


def write_routed(
    source: Path,
    part: np.ndarray,
    image_rows: np.ndarray,
    targets: Sequence[Target],
    progress: Progress | None = None,
) -> None:
    """part: (I,) of the images, in the order of the file; image_rows: (A,) the image of each annotation, or NOWHERE.

    progress: gets the bytes of the source that are read, and all.
    """
    part = np.append(part, NOWHERE).astype(np.int32)  # what is nowhere finds it at the end
    parts = {"images": part[:-1], "annotations": part[image_rows]}
    times, info = _keys_of(source)
    for first in range(0, len(targets), MOST_OPEN):
        some = targets[first : first + MOST_OPEN]
        with ExitStack() as stack:
            files = [stack.enter_context(stack.enter_context(atomic(each.path)).open("wb")) for each in some]
            outputs = [_Output(each, file, source, info) for each, file in zip(some, files, strict=True)]
            _route(source, times, parts, outputs, progress)


def _keys_of(source: Path) -> tuple[Counter[str], Any]:
    """How often each key stands in the file: the last time counts. And its `info`."""
    times: Counter[str] = Counter()
    info: Any = None
    for chunk in chunks(source):
        times[chunk.key] += chunk.first == 0
        if chunk.key == "info":
            values = decoded(chunk.text, _place(source, chunk))
            info = (info if chunk.first else []) + values if chunk.is_list else values[0]
    return times, info


def _route(
    source: Path,
    times: Mapping[str, int],
    parts: Mapping[str, np.ndarray],
    outputs: Sequence["_Output"],
    progress: Progress | None,
) -> None:
    done: Counter[str] = Counter()
    for chunk in _last_ones(chunks(source, progress=progress), times):
        is_null = chunk.key in ROUTED and not chunk.is_list  # which is no entry
        texts = [] if is_null else texts_of(chunk, source)
        own = None
        if chunk.key in ROUTED:
            own = parts[chunk.key][chunk.first : chunk.first + len(texts)]
            done[chunk.key] += len(texts)
            _refuse_changed(source, len(own) != len(texts))
        for output in outputs:
            output.take(chunk, texts, own)
    _refuse_changed(source, any(done[key] != len(parts[key]) for key in ROUTED))
    for output in outputs:
        output.finish(times)


def _last_ones(found: Iterator[Chunk], times: Mapping[str, int]) -> Iterator[Chunk]:
    """Without keys that come again."""
    seen: Counter[str] = Counter()
    for chunk in found:
        seen[chunk.key] += chunk.first == 0
        if seen[chunk.key] == times[chunk.key]:
            yield chunk


def _refuse_changed(source: Path, is_changed: bool) -> None:
    if is_changed:
        raise ValueError(f"{source}: expected the same entries when it is read again, found others; keep it as it is")


class _Output:
    """A file that grows by whole entries."""

    def __init__(self, target: Target, file: IO[bytes], source: Path, info: Any):
        self.target, self.file, self.source, self.info = target, file, source, info
        self.before = b"{"  # of the next key
        self.is_list, self.is_empty = False, True

    def take(self, chunk: Chunk, texts: Sequence[bytes | msgspec.Raw], parts: np.ndarray | None) -> None:
        """The entries of a chunk that are the target's. parts: (n,) of the entries, None where each has all."""
        if chunk.key == "info":
            if chunk.first == 0:
                self.tell()
            return
        if chunk.first == 0:
            self.start(chunk.key, chunk.is_list or chunk.key in ROUTED)
        rows = None if parts is None else np.flatnonzero(self.target.takes(parts)).tolist()
        self.add(texts if rows is None else [texts[row] for row in rows])

    def start(self, key: str, is_list: bool) -> None:
        self.end()
        self.file.write(self.before + json.dumps(key).encode() + b": " + b"[" * is_list)
        self.before, self.is_list, self.is_empty = b", ", is_list, True

    def add(self, texts: Sequence[bytes | msgspec.Raw]) -> None:
        if texts:
            self.file.write(b"" if self.is_empty else b", ")
            self.file.write(b", ".join(texts))
            self.is_empty = False

    def end(self) -> None:
        self.file.write(b"]" * self.is_list)
        self.is_list = False

    def tell(self) -> None:
        """The info of the source, and how the part was made."""
        info = self.info or {}
        info = info if isinstance(info, dict) else {"info_of_source": info}
        before = {"split_of_source": info["split"]} if "split" in info else {}
        self.start("info", False)
        self.add([strict_text(info | before | {"split": self.target.info}, self.source)])

    def finish(self, times: Mapping[str, int]) -> None:
        if "annotations" not in times:
            self.start("annotations", True)
        if "info" not in times:
            self.tell()
        self.end()
        self.file.write(b"}")


# --- the text of entries ---


def texts_of(chunk: Chunk, source: Path) -> list[bytes] | list[msgspec.Raw]:
    """Each entry as it stands; ValueError for what strict JSON has not."""
    try:
        return list(TEXTS.decode(chunk.text))
    except UNTYPED:
        return _cut(chunk, source)


def _cut(chunk: Chunk, source: Path) -> list[bytes]:
    """As Python's decoder takes it, which knows halves of characters too."""
    data, texts, start = np.frombuffer(chunk.data, np.uint8), [], 0
    while chunk.count and start <= len(data):
        comma, _, _ = cuts(data, start, 1)
        stop = comma if comma >= 0 else len(data)
        texts.append(chunk.data[start:stop].strip())
        start = stop + 1
    for text in texts:
        try:
            json.loads(text, parse_constant=_no_number)
        except UNREADABLE as error:
            raise ValueError(f"{_place(source, chunk)}: expected JSON, {one_line(error)}; mend the source") from error
    return texts


def strict_text(value: Any, source: Path) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(
            f"{source}: expected finite numbers to write, found others: {error}; mend the source"
        ) from error


def _no_number(name: str) -> None:
    raise ValueError(f"expected finite numbers to write, found {name}")


def _place(source: Path, chunk: Chunk) -> str:
    return f"{source}: {one_line(chunk.key):.60}, in what begins at byte {chunk.offset:,}"
