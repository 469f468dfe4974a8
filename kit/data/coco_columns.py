"""From the entries of a COCO file to its columns: images in order of their ids, each once, with all its boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.data.coco_entries import Entries, ImageEntries
from kit.data.columns import Columns, Texts, offsets_of
from kit.data.record import UNKNOWN

NOWHERE = -1
SLICE = 1 << 20  # ids that are looked up at a time


def columns_of_entries(held: list[Entries]) -> tuple[Columns, list[int], list[str]]:
    """The columns, and the id and the name of each label. held: one, taken out of the list: when the caller keeps it
    nowhere else, each of its arrays goes as soon as it is sorted, and memory holds one of them twice, not all.

    Of two images with one id the first stays; annotations of images that are not listed go.
    """
    entries = held.pop()
    category_ids, names = categories_of(entries.categories)
    images = images_in_order(entries.images)
    table = dict(vars(entries.annotations))
    del entries
    rows = places_in(images.image_ids, table.pop("image_ids"))  # (A,)
    counts = np.bincount(rows[rows != NOWHERE], minlength=len(images.image_ids))
    order = order_of(rows)
    del rows
    table["labels"] = places_in(np.array(category_ids, np.int64), table.pop("category_ids"))
    segmentations = table.pop("segmentations")
    if order is not None:
        segmentations = segmentations.take(order)
        for name in list(table):
            table[name] = table.pop(name)[order]
    columns = Columns(
        images.image_ids,
        images.file_names,
        images.sizes_hw,
        offsets_of(counts),
        segmentations=segmentations,
        **table,
    )
    return columns, category_ids, names


def categories_of(categories: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[str]]:
    """Ids in order, each once, and their names; of two names of one id the last counts."""
    in_order = sorted(categories, key=lambda category: category["id"])
    names = {int(category["id"]): str(category.get("name", category["id"])) for category in in_order}
    return list(names), list(names.values())


def images_in_order(images: ImageEntries) -> ImageEntries:
    ids = images.image_ids
    if (np.diff(ids) > 0).all():
        return images
    order = np.argsort(ids, kind="stable")
    order = order[np.diff(ids[order], prepend=ids[order[0]] - 1) != 0]
    return ImageEntries(ids[order], Texts(images.file_names.packed.take(order)), images.sizes_hw[order])


def places_in(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each of the values (A,) stands in (n,) -> (A,) int32; NOWHERE, which is UNKNOWN, where it does not."""
    places = np.full(len(values), NOWHERE, np.int32)
    for first in range(0, len(values) if len(ascending) else 0, SLICE):
        some = values[first : first + SLICE]
        found = np.searchsorted(ascending, some).clip(max=len(ascending) - 1)
        places[first : first + SLICE] = np.where(ascending[found] == some, found, UNKNOWN)
    return places


def order_of(rows: np.ndarray) -> np.ndarray | None:
    """The order in which the rows (A,) ascend, without those that are nowhere; None where they do as they are."""
    if len(rows) == 0 or (rows[0] != NOWHERE and (rows[1:] >= rows[:-1]).all()):
        return None
    order = np.argsort(rows, kind="stable")
    return order[np.count_nonzero(rows == NOWHERE) :]  # they are the least
