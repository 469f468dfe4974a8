import pytest

from kit.competitions import COMPETITIONS

KAGGLE_CSV = COMPETITIONS["kaggle_csv"]
IMAGES = [
    {"id": 7, "file_name": "a/street_1.jpg", "width": 200, "height": 100},
    {"id": 3, "file_name": 'b/street "2", wet.png', "width": 200, "height": 100},
]
ROWS = ["ImageId,PredictionString", "street_1,2 0.5 10.5 20 30.25 40", '"street ""2"", wet",']


def found(**changes):
    return {"image_id": 7, "category_id": 2, "bbox": [10.5, 20, 30.25, 40], "score": 0.5} | changes


def written(tmp_path, entries, **limits):
    rules = KAGGLE_CSV.rules(IMAGES, [2, 90], **limits)
    return KAGGLE_CSV.write(tmp_path / "a.csv", entries, IMAGES, rules).read_text().splitlines()


def read(tmp_path, *rows):
    (tmp_path / "b.csv").write_text("\n".join(rows))
    return KAGGLE_CSV.read(tmp_path / "b.csv", IMAGES)


def test_every_image_has_a_row_in_its_order_and_the_best_detection_stands_first(tmp_path):
    rows = written(tmp_path, [found(), found(category_id=90, score=1)], allow_missing_images=True)
    assert rows[0] == "ImageId,PredictionString"
    assert rows[1] == "street_1,90 1.0 10.5 20.0 30.25 40.0 2 0.5 10.5 20.0 30.25 40.0"
    assert rows[2:] == ['"street ""2"", wet",']


def test_an_image_without_detection_is_refused_unless_said(tmp_path):
    with pytest.raises(ValueError, match="1 of 2 images have no valid entry: 3"):
        written(tmp_path, [found()])


def test_a_file_made_by_hand_is_read(tmp_path):
    assert read(tmp_path, *ROWS) == [found()]
    assert read(tmp_path, ROWS[0], ROWS[2], "street_1,  ") == []


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "the first line must be ImageId,PredictionString, got ''"),
        (["image_id,PredictionString", *ROWS[1:]], "the first line must be ImageId,PredictionString, got 'image_id,"),
        (ROWS[:2], "1 images have no row, such as street"),
        ([*ROWS, ROWS[1]], r"line 4: expected ImageId,PredictionString of an image not named yet, got \['street_1'"),
        ([*ROWS, "other,"], r"line 4: expected .* got \['other'"),
        ([ROWS[0], "street_1,2 0.5 1 2 3 4,"], r"line 2: expected .* got \['street_1', '2 0.5 1 2 3 4', ''\]"),
        ([ROWS[0], "street_1"], r"line 2: expected .* got \['street_1'\]"),
        ([ROWS[0], "street_1,2 0.5 1 2 3"], "line 2: expected 6 numbers a detection, not enough values"),
        ([ROWS[0], "street_1,Car 0.5 1 2 3 4"], "line 2: expected 6 numbers a detection, invalid literal"),
        ([ROWS[0], "street_1,2 half 1 2 3 4"], "line 2: expected 6 numbers a detection, could not convert"),
        ([ROWS[0], '"street_1,2'], "expected a CSV, unexpected end of data"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_line(tmp_path, rows, told):
    with pytest.raises(ValueError, match=told):
        read(tmp_path, *rows)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="expected a CSV, 'utf-8' codec"):
        KAGGLE_CSV.read(tmp_path / "b.csv", IMAGES)


def test_two_images_of_one_name_are_refused():
    twice = [*IMAGES, {"id": 9, "file_name": "c/street_1.png", "width": 1, "height": 1}]
    with pytest.raises(ValueError, match="ImageId must be unique, but 2 images are named street_1"):
        KAGGLE_CSV.read("nowhere.csv", twice)
