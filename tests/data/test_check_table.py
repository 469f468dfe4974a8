from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.data.check_table import again, positions, table_of
from kit.data.coco_entries import entries_of

KEYS = st.lists(st.integers(-3, 5), max_size=12)


@given(KEYS, KEYS)
def test_positions_are_those_of_the_first_that_is_equal(keys, among):
    expected = [among.index(key) if key in among else -1 for key in keys]
    assert positions(np.array(keys, np.int64), np.array(among, np.int64)).tolist() == expected


@given(KEYS)
def test_what_was_there_before_is_told(keys):
    assert again(keys).tolist() == [key in keys[:place] for place, key in enumerate(keys)]


def test_every_entry_is_there_in_the_order_of_the_file():
    images = [{"id": 7, "file_name": "b.png", "height": 60, "width": 80}, {"id": 3, "file_name": "a.png"}]
    images.append({"id": 7, "file_name": "c.png", "height": 6, "width": 8})
    box = {"bbox": [1, 2, 3, 4]}
    annotations = [box | {"id": n, "image_id": own, "category_id": 5} for n, own in enumerate((3, 7, 99), 1)]
    annotations[1]["category_id"] = 4
    categories = [{"id": 9, "name": "bus"}, {"id": 5, "name": "car"}, {"id": 9, "name": "van"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    table = table_of(entries_of(content, Path("instances_val.json")))
    assert table.part == "val" and table.names == ["car", "bus"]
    assert table.image_ids.tolist() == [7, 3, 7] and table.image_is_again.tolist() == [False, False, True]
    assert table.image_rows.tolist() == [1, 0, -1] and table.rows.labels.tolist() == [0, -1, 0]
    assert table.rows.sizes_hw.tolist() == [[0, 0], [60, 80], [0, 0]]


def test_a_file_of_nothing_is_an_empty_table():
    table = table_of(entries_of({"images": []}, Path("x.json")))
    assert len(table.image_ids) == len(table.image_rows) == len(table.names) == 0
