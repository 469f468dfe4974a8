"""Long tails: images of rare classes come more often, and rare classes weigh more in the loss."""

import numpy as np

from kit.data.coco import CocoFile, columns_of


def repeat_factors(coco: CocoFile, below: float) -> np.ndarray | None:
    """How often each image is to come, (I,) at least 1 (LVIS, arXiv 1908.03195, appendix B).

    A class in a share f of the images, f < below, asks for sqrt(below / f); an image takes the most that its classes
    ask for. None where no class is so rare.
    """
    image, label = counted_objects(coco)
    if not below or not len(label):
        return None
    pairs = np.unique(np.stack([image, label]), axis=1)  # each class of an image once
    share = np.bincount(pairs[1], minlength=len(coco.names)) / len(coco.records)  # (K,)
    asked = np.maximum(1.0, np.sqrt(below / np.maximum(share, 1 / len(coco.records))))  # (K,)
    factors = np.ones(len(coco.records))
    np.maximum.at(factors, pairs[0], asked[pairs[1]])
    return factors if (factors > 1).any() else None


def class_weights(coco: CocoFile, beta: float) -> list[float] | None:
    """What an object of each class counts for, 1 in the mean over the objects (arXiv 1901.05555, equation 2).

    The weight of a class falls with the effective number of its n objects, (1 - beta^n) / (1 - beta); beta of 0.999
    tells classes of some thousand objects from those of some hundred. None for beta = 0: all alike.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"class_balance: expected at least 0 and less than 1, got {beta}")
    count = np.bincount(counted_objects(coco)[1], minlength=len(coco.names))  # (K,)
    if not beta or not count.sum():
        return None
    weight = (1 - beta) / (1 - beta ** np.maximum(count, 1))
    return (weight * count.sum() / (weight * count).sum()).tolist()


def counted_objects(coco: CocoFile) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of every object that a detector is to find: (N,), (N,)."""
    columns = columns_of(coco)
    counts = ~columns.is_crowd & (columns.labels >= 0)
    return columns.image_rows()[counts], columns.labels[counts].astype(np.int64)


def drawn_order(random: np.random.Generator, length: int, repeats: np.ndarray | None) -> np.ndarray:
    """The images of one epoch, (length,). repeats: (length,) or None, each once.

    Parts of a repetition are drawn anew each epoch. The epoch stays as long as the set, so some of the others wait.
    """
    if repeats is None:
        return random.permutation(length)
    whole = np.floor(repeats)
    times = whole + (random.random(length) < repeats - whole)
    return random.permutation(np.repeat(np.arange(length), times.astype(np.int64)))[:length]


def repeat_numbers(order: np.ndarray, places: np.ndarray) -> list[int]:
    """How often the image of each place has come before: (n,), (m,) -> m numbers."""
    return [int((order[:place] == order[place]).sum()) for place in places.tolist()]
