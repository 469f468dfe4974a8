"""Pictures that are almost the same: by a perceptual hash of 256 bits, compared in full, all with all.

The hash is the sign pattern of the 16 x 16 lowest frequencies (DCT) of the grey picture. Measured on real photos: the
same photo compressed hard, halved in size, brighter or noisy lies 0 to 24 bits away, another photo 92 and more. Frames
of a fixed camera share their background and lie between: 16 to 40 bits for neighbours in time.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kit.data.image_files import Progress
from kit.data.pixels import read_image

SIDE_PX = 64  # of the picture that is transformed
LOWEST = 16  # frequencies in each direction
BITS = LOWEST * LOWEST
NEAR_BITS = 24  # the same picture, stored anew
CHUNK = 256  # pictures compared with all others at a time


@dataclass(frozen=True)
class Nearest:
    """The picture that is most like each of n pictures."""

    index: np.ndarray  # (n,) int64; -1 where there is no other picture
    bits: np.ndarray  # (n,) int64, how many differ; BITS where there is no other


def hash_image(grey: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (BITS,) bool."""
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)[:LOWEST, :LOWEST].ravel()
    waves[0] = 0  # the mean brightness tells nothing
    result: np.ndarray = waves > np.median(waves[1:])
    return result


def hash_files(paths: Sequence[Path], progress: Progress | None = None) -> np.ndarray:
    """One row a file, in order -> (n, BITS) bool."""
    hashes = np.zeros((len(paths), BITS), bool)
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        for done, own in enumerate(pool.map(hash_file, paths), 1):
            hashes[done - 1] = own
            if progress:
                progress(done, len(paths))
    return hashes


def hash_file(path: Path) -> np.ndarray:
    return hash_image(read_image(path, channels=1)[..., 0])


def distances(hashes: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Bits that differ, a chunk of rows at a time: (n, BITS), (m, BITS) -> first row, (rows, m) float32 whole numbers.

    A product of matrices of +1 and -1 counts them exactly, and ten times as fast as bit operations.
    """
    signs, other_signs = (np.where(each, np.float32(1), np.float32(-1)) for each in (hashes, others))
    for first in range(0, len(hashes), CHUNK):
        yield first, (BITS - signs[first : first + CHUNK] @ other_signs.T) / 2


def nearest(hashes: np.ndarray, others: np.ndarray | None = None) -> Nearest:
    """The nearest of the others to each; without others, the nearest of the rest. (n, BITS), (m, BITS)."""
    index, bits = np.full(len(hashes), -1), np.full(len(hashes), BITS)
    targets = hashes if others is None else others
    if len(targets) < (2 if others is None else 1):
        return Nearest(index, bits)
    for first, table in distances(hashes, targets):
        rows = np.arange(len(table))
        if others is None:
            table[rows, first + rows] = np.inf  # not itself
        index[first : first + len(table)] = table.argmin(axis=1)
        bits[first : first + len(table)] = table[rows, table.argmin(axis=1)]
    return Nearest(index, bits)


def cluster(hashes: np.ndarray, most_bits: int = NEAR_BITS) -> np.ndarray:
    """Pictures linked by any chain of pairs at most so many bits apart -> (n,) int64, the number of each one's cluster.

    Links are merged chunk by chunk, so that memory stays bounded where all pictures are alike.
    """
    labels = np.arange(len(hashes))
    for first, table in distances(hashes, hashes):
        row, column = np.nonzero(table <= most_bits)
        labels = merged(labels, labels[first + row], labels[column])
    return labels


def merged(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Clusters that a link joins become one: (n,), (links,), (links,) -> (n,)."""
    count = int(labels.max(initial=-1)) + 1
    links = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(count, count))
    result: np.ndarray = connected_components(links, directed=False)[1][labels].astype(np.int64)
    return result


def clusters_by_id(image_ids: Sequence[int], labels: np.ndarray) -> dict[int, int]:
    """image id -> cluster, of those clusters that hold more than one picture; labels: (n,)."""
    counts = np.bincount(labels, minlength=1)
    return {image_id: int(label) for image_id, label in zip(image_ids, labels, strict=True) if counts[label] > 1}
