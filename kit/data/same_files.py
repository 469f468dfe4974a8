"""Files with the same bytes: found by their sizes first, so that hardly any file has to be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kit.data.image_files import Progress
from kit.files import sha256


def same_content(paths: Sequence[Path | None], progress: Progress | None = None) -> np.ndarray:
    """The index of the first file with the same bytes -> (n,) int64. What is no file is alone."""
    first = np.arange(len(paths))
    sizes = np.array([size_bytes(path) for path in paths], np.int64)
    _, group, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[group] > 1) & (sizes >= 0))

    seen: dict[str, int] = {}
    for done, row in enumerate(rows.tolist(), 1):
        path = paths[row]
        assert path is not None
        first[row] = seen.setdefault(sha256(path), row)
        if progress:
            progress(done, len(rows))
    return first


def size_bytes(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.is_file() else -1
