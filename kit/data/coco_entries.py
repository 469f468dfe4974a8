"""The entries of a COCO file as arrays, in the order of the file: nothing sorted, nothing dropped, memory bounded.

Text is decoded straight into typed entries. What does not fit the types is decoded again as plain objects and read as
tolerantly as the check of the data set wants it; so one entry gives the same arrays on either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from kit.data.columns import Packed, Texts
from kit.data.json_stream import CHUNK_BYTES, Chunk, Progress, chunks, decoded, small_text
from kit.data.typed_entries import ANYTHING, KINDS, LEAST_ID, MOST_ID, NO_CATEGORY, TEXTS, UNTYPED, Block, File
from kit.files import one_line

__all__ = [
    "NO_CATEGORY",
    "AnnotationEntries",
    "Entries",
    "ImageEntries",
    "entries_of",
    "read_entries",
    "refuse_other_formats",
]

SMALL_BYTES = 8 << 20  # files up to here are read in one go
BLOCK = 50_000  # entries that are objects at a time
PARTS = {"images": ("id", "file_name"), "annotations": ("image_id",), "categories": ("id",)}  # and what each must have
MEND = "give the annotation file of a COCO data set"


@dataclass(frozen=True)
class ImageEntries:
    """E images."""

    image_ids: np.ndarray  # (E,) int64
    file_names: Texts  # E
    sizes_hw: np.ndarray  # (E, 2) int64; 0 where the file gives no number


@dataclass(frozen=True)
class AnnotationEntries:
    """A annotations."""

    image_ids: np.ndarray  # (A,) int64
    category_ids: np.ndarray  # (A,) int64, or NO_CATEGORY
    boxes_xywh_px: np.ndarray  # (A, 4) float64; NaN where the file has no four numbers
    is_crowd: np.ndarray  # (A,) bool
    annotation_ids: np.ndarray  # (A,) int64; 0 where the file gives no whole number
    areas_px2: np.ndarray  # (A,) float64; of the box where the file gives no number
    segmentations: Packed  # A, in JSON; empty where there is none


@dataclass(frozen=True)
class Entries:
    """What a COCO file holds."""

    path: Path
    images: ImageEntries
    annotations: AnnotationEntries
    categories: list[dict[str, Any]]  # as they stand, each with an `id` that is a whole number
    info: dict[str, Any] = field(default_factory=dict)


def read_entries(
    path: Path | str,
    progress: Progress | None = None,
    small_bytes: int = SMALL_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
) -> Entries:
    """A file of any size. progress: gets the bytes read, and all."""
    path = Path(path)
    text = small_text(path, small_bytes)
    if text is None:
        return _streamed(path, chunk_bytes, progress)
    if progress:
        progress(path.stat().st_size, path.stat().st_size)
    try:
        file = msgspec.json.decode(text, type=File)
    except UNTYPED:
        return entries_of(decoded(text, path), path)
    gathered = _Gathered(path)
    gathered.add("categories", file.categories or [])
    gathered.add("images", file.images)
    gathered.add("annotations", file.annotations or [])
    return gathered.entries(file.info)


def entries_of(content: Any, path: Path) -> Entries:
    """Of the content of a file; path only names it in errors."""
    refuse_other_lists(content, path)
    gathered = _Gathered(path)
    for part in PARTS:
        entries = content.get(part) or []
        for first in range(0, len(entries), BLOCK):
            gathered.add(part, _typed(part, first, entries[first : first + BLOCK], path))
    return gathered.entries(content.get("info"))


def refuse_other_formats(content: Any, path: Path) -> None:
    """Stops at what is no COCO file at all; smaller faults are for the check."""
    refuse_other_lists(content, path)
    for part in PARTS:
        for position, entry in enumerate(content.get(part) or []):
            refuse_entry(path, part, position, entry)


def refuse_other_lists(content: Any, path: Path) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        found = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        refuse_file(path, found)
    for part in PARTS:
        if not isinstance(content.get(part) or [], list):
            refuse_file(path, f"{part} that are no list")


def refuse_file(path: Path, found: str) -> NoReturn:
    lists = ", ".join(PARTS)
    raise ValueError(f"{path}: expected a COCO file with the lists {lists}, got {one_line(found):.200}; {MEND}")


def refuse_entry(path: Path, part: str, position: int, entry: Any) -> None:
    missing = [key for key in PARTS[part] if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise ValueError(f"{path}: {part}[{position}]: expected {', '.join(missing)}, got {entry!r:.80}; {MEND}")
    for key in ("id", "image_id"):
        value = entry.get(key)
        if not isinstance(value, int) and key == PARTS[part][0]:
            raise ValueError(f"{path}: {part}[{position}]: {key} must be an integer, got {value!r:.80}; renumber")
        if isinstance(value, int) and not LEAST_ID <= value <= MOST_ID:
            raise ValueError(f"{path}: {part}[{position}]: {key} must have 64 bits, got {value!r:.40}; renumber")


# --- what has been read so far ---


class _Gathered:
    """What has been read of the three lists so far."""

    def __init__(self, path: Path):
        self.path = path
        self.tables = {part: _Table(kind.block([])) for part, kind in KINDS.items()}
        self.categories: list[dict[str, Any]] = []

    def start(self, part: str) -> None:
        """What came under this name before counts no longer."""
        if part in KINDS:
            self.tables[part] = _Table(KINDS[part].block([]))
        else:
            self.categories = []

    def add(self, part: str, entries: Sequence[Any]) -> None:
        """entries: images and annotations as types, categories as they stand."""
        if part in KINDS:
            self.tables[part].add(KINDS[part].block(entries))
        else:
            self.categories += _typed(part, len(self.categories), entries, self.path)

    def entries(self, info: Any = None) -> Entries:
        images, names = self.tables.pop("images").joined()
        annotations, segmentations = self.tables.pop("annotations").joined()
        return Entries(
            self.path,
            ImageEntries(file_names=Texts(names), **images),
            AnnotationEntries(segmentations=segmentations, **annotations),
            self.categories,
            info if isinstance(info, dict) else {},
        )


def _typed(part: str, first: int, entries: Sequence[Any], path: Path) -> list[Any]:
    """Plain entries, the first of them number `first` of its list, as types; categories stay plain."""
    for position, entry in enumerate(entries, first):
        refuse_entry(path, part, position, entry)
    return [KINDS[part].of_plain(each) for each in entries] if part in KINDS else list(entries)


class _Table:
    """Columns that grow by blocks, and a text of each row."""

    def __init__(self, empty: Block):
        self.columns = {name: _Column(column) for name, column in empty[0].items()}
        self.lengths = _Column(np.zeros(0, np.int32))
        self.text = bytearray()

    def add(self, block: Block) -> None:
        columns, texts = block
        for name, column in columns.items():
            self.columns[name].add(column)
        self.lengths.add(np.fromiter(map(len, texts), np.int32, len(texts)))
        self.text += b"".join(texts)

    def joined(self) -> tuple[dict[str, np.ndarray], Packed]:
        columns = {name: column.whole() for name, column in self.columns.items()}
        return columns, Packed.of_lengths(self.text, self.lengths.whole())


class _Column:
    """An array that grows where it lies: a list of pieces would be in memory twice when it is joined."""

    def __init__(self, empty: np.ndarray):
        self.array, self.count = empty.copy(), 0  # of its own, so that it may grow

    def add(self, rows: np.ndarray) -> None:
        count = self.count + len(rows)
        if count > len(self.array):
            self.resize(count + count // 8)
        self.array[self.count : count] = rows
        self.count = count

    def resize(self, count: int) -> None:
        self.array.resize((count, *self.array.shape[1:]), refcheck=False)  # nobody else has seen it

    def whole(self) -> np.ndarray:
        self.resize(self.count)
        return self.array


# --- large files ---


def _streamed(path: Path, chunk_bytes: int, progress: Progress | None) -> Entries:
    gathered, keys, info = _Gathered(path), [], None
    for chunk in chunks(path, chunk_bytes, progress):
        if chunk.first == 0:
            keys.append(chunk.key)
        if chunk.key in PARTS:
            _add_chunk(gathered, chunk)
        elif chunk.key == "info" and not chunk.is_list:
            (info,) = _plain(chunk, path)
        else:
            _refuse_broken(chunk, path)
    if "images" not in keys:
        refuse_file(path, f"the keys {', '.join(dict.fromkeys(keys))}")
    return gathered.entries(info)


def _add_chunk(gathered: _Gathered, chunk: Chunk) -> None:
    if chunk.first == 0:
        gathered.start(chunk.key)
    if not chunk.is_list:
        (value,) = _plain(chunk, gathered.path)
        if value or chunk.key == "images":
            refuse_file(gathered.path, f"{chunk.key} that are no list")
    else:
        gathered.add(chunk.key, _entries(chunk, gathered.path))


def _entries(chunk: Chunk, path: Path) -> list[Any]:
    """As types. Where some do not fit, each is looked at alone, so that few of them cost little."""
    if chunk.key not in KINDS:
        return _plain(chunk, path)
    try:
        return list(KINDS[chunk.key].many.decode(chunk.text))
    except UNTYPED:
        pass
    try:
        texts = TEXTS.decode(chunk.text)
    except UNTYPED:  # no strict JSON
        return _typed(chunk.key, chunk.first, _plain(chunk, path), path)
    return [_entry(chunk.key, position, text, path) for position, text in enumerate(texts, chunk.first)]


def _entry(part: str, position: int, text: msgspec.Raw, path: Path) -> Any:
    try:
        return KINDS[part].one.decode(text)
    except UNTYPED:
        return _typed(part, position, [decoded(bytes(text), f"{path}: {part}[{position}]")], path)[0]


def _plain(chunk: Chunk, path: Path) -> list[Any]:
    return list(decoded(chunk.text, f"{path}: {one_line(chunk.key):.60}, in what begins at byte {chunk.offset:,}"))


def _refuse_broken(chunk: Chunk, path: Path) -> None:
    """Lists that nobody asks for must be JSON too; no object is made of them."""
    try:
        ANYTHING.decode(chunk.text)
    except UNTYPED:
        _plain(chunk, path)
