"""Which classes groups of images hold: the loops over boxes, compiled, in one array of labels and none of pairs."""

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class Held:
    """The classes that G groups hold: E pairs of group and class."""

    starts: np.ndarray  # (G + 1,) int64, where the pairs of a group begin
    kinds: np.ndarray  # (E,) int32, the classes, rising within a group
    images: np.ndarray  # (E,) int32, how many images of the group have the class
    boxes: np.ndarray  # (E,) int32, how many boxes
    totals: np.ndarray  # (2, K) int64, the sums of images and of boxes of each class


def held_by_groups(image_rows: np.ndarray, labels: np.ndarray, group: np.ndarray, classes: int) -> Held:
    """Boxes, by image (A,) and label (A,); group: (I,) of the images, 0..G-1."""
    images = np.argsort(group, kind="stable")  # group by group
    table = (images, offsets(group, int(group.max(initial=-1)) + 1), offsets(image_rows, len(group)))
    own = by_image(image_rows, labels, table[2])
    starts = np.concatenate([[0], np.cumsum(classes_per_group(*table, own, classes))])
    kinds, with_class, of_class = (np.empty(starts[-1], np.int32) for _ in range(3))
    totals = tell_classes(*table, own, classes, starts, kinds, with_class, of_class)
    return Held(starts, kinds, with_class, of_class, totals)


# --- the loops. images: (I,) group by group, of each group_starts (G + 1,); labels: image by image, of each starts ---


@njit(nogil=True, cache=True)
def offsets(keys, count):  # type: ignore[no-untyped-def]  # Numba finds the types
    """Where the entries of each key 0..count-1 begin once they are sorted -> (count + 1,) int64."""
    result = np.zeros(count + 1, np.int64)
    for key in keys:
        result[key + 1] += 1
    for key in range(count):
        result[key + 1] += result[key]
    return result


@njit(nogil=True, cache=True)
def by_image(image_rows, labels, starts):  # type: ignore[no-untyped-def]
    """The labels image by image, (A,) int32."""
    result = np.empty(len(labels), np.int32)
    place = starts.copy()
    for box in range(len(labels)):
        row = image_rows[box]
        result[place[row]] = labels[box]
        place[row] += 1
    return result


@njit(nogil=True, cache=True)
def classes_per_group(images, group_starts, starts, labels, classes):  # type: ignore[no-untyped-def]
    """-> (G,) int64."""
    found = np.zeros(len(group_starts) - 1, np.int64)
    seen_in = np.full(classes, -1, np.int64)
    for group in range(len(found)):
        for position in range(group_starts[group], group_starts[group + 1]):
            image = images[position]
            for box in range(starts[image], starts[image + 1]):
                if seen_in[labels[box]] != group:
                    seen_in[labels[box]] = group
                    found[group] += 1
    return found


@njit(nogil=True, cache=True)
def tell_classes(  # type: ignore[no-untyped-def]
    images, group_starts, starts, labels, classes, kind_starts, kinds, with_class, of_class
):
    """Writes kinds, with_class and of_class, as `Held` has them -> totals."""
    totals = np.zeros((2, classes), np.int64)
    pictures, boxes = np.zeros(classes, np.int32), np.zeros(classes, np.int32)
    seen_in = np.full(classes, -1, np.int64)  # the last image with the class
    for group in range(len(group_starts) - 1):
        first, last = kind_starts[group], kind_starts[group + 1]
        end = first
        for position in range(group_starts[group], group_starts[group + 1]):
            image = images[position]
            for box in range(starts[image], starts[image + 1]):
                kind = labels[box]
                if boxes[kind] == 0:
                    kinds[end] = kind
                    end += 1
                boxes[kind] += 1
                pictures[kind] += seen_in[kind] != image
                seen_in[kind] = image
        kinds[first:last].sort()
        for entry in range(first, last):
            kind = kinds[entry]
            with_class[entry], of_class[entry] = pictures[kind], boxes[kind]
            totals[0, kind] += pictures[kind]
            totals[1, kind] += boxes[kind]
            pictures[kind], boxes[kind] = 0, 0
    return totals


@njit(nogil=True, cache=True)
def fill_traits(kind_starts, kinds, weights, totals, of_images, starts, traits, values):  # type: ignore[no-untyped-def]
    """Writes traits and values as `Traits` has them: shares of the classes 0..K-1 and K..2K-1, and 2K.

    weights: for either of the two (E,), of the sums totals (2, K); of_images: (G,) what the last trait has.
    """
    classes = totals.shape[1]
    for group in range(len(of_images)):
        place = starts[group]
        for which in range(2):
            for entry in range(kind_starts[group], kind_starts[group + 1]):
                kind = kinds[entry]
                traits[place] = kind + which * classes
                values[place] = weights[which][entry] / totals[which, kind]
                place += 1
        traits[place] = 2 * classes
        values[place] = of_images[group]
