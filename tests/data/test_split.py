import csv
import json

import numpy as np
import pytest

from kit.data.coco import find_dataset, read_coco
from kit.data.partition import Recipe, contents_of, split
from kit.data.split import grouped, main, write_split
from kit.data.split_source import read_source


@pytest.fixture
def source(tmp_path):
    """20 images of 5 cameras, one file each, with masks and fields that nobody knows."""
    folder = tmp_path / "source"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number in range(20):
        name = f"camera{number % 5}_{number:02d}.png"
        (folder / "images" / "train" / name).write_bytes(f"content {number}".encode())
        images.append({"id": 100 - number, "file_name": name, "height": 9, "width": 9, "taken": "noon"})
        runs = {"size": [9, 9], "counts": [0, 4, 77]}
        box = {"bbox": [0.1, 0.2, 1.5, 2.25], "area": 3.5, "iscrowd": number % 2, "segmentation": runs, "score": 0.5}
        annotations.append({"id": 7 * number, "image_id": 100 - number, "category_id": number % 2} | box)
    content = {"info": {"year": 2026}, "licenses": [{"id": 1}], "videos": [{"id": 3}], "images": images}
    content |= {"annotations": annotations, "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}]}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder


def content_of(folder, part="train"):
    return json.loads((folder / "annotations" / f"instances_{part}.json").read_text())


def test_parts_hold_every_entry_once_and_as_it_was(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--parts", "train=3", "val=1"]) == 0
    whole, parts = content_of(source), [content_of(tmp_path / "out", part) for part in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [15, 5]
    for key in ("images", "annotations"):
        entries = sorted((each for part in parts for each in part[key]), key=lambda each: each["id"])
        assert entries == sorted(whole[key], key=lambda each: each["id"])
    for part in parts:
        assert [part[key] for key in ("licenses", "videos", "categories")] == [
            whole[key] for key in ("licenses", "videos", "categories")
        ]
    assert "images" in capsys.readouterr().out


def test_the_recipe_is_inside_and_the_images_are_there(source, tmp_path):
    main([str(source), str(tmp_path / "out"), "--seed", "5", "--group-by", r"camera(\d)"])
    info = content_of(tmp_path / "out", "val")["info"]
    recipe = info["split"]
    assert info["year"] == 2026
    assert (recipe["seed"], recipe["part"], recipe["stratify"], recipe["groups"]) == (5, "val", "both", 5)
    assert recipe["grouped_by"] == {"same_content": True, "pattern": r"camera(\d)"}
    assert recipe["shares"] == {"train": 0.8, "val": 0.2} == recipe["shares_reached"]
    splits = find_dataset(tmp_path / "out")
    for part in (splits.train, splits.val):
        names = {record.file_name for record in read_coco(part.annotations).records}
        assert names == {file.name for file in part.images.iterdir()}
    assert {name[:7] for name in names} != {f"camera{number}" for number in range(5)}


def test_the_list_gives_the_same_parts_again(source, tmp_path):
    main([str(source), str(tmp_path / "one"), "--parts", "train=1", "val=1", "test=1", "--seed", "3"])
    assert main([str(source), str(tmp_path / "other"), "--list", str(tmp_path / "one" / "split.csv")]) == 0
    for part in ("train", "val", "test"):
        assert content_of(tmp_path / "one", part)["images"] == content_of(tmp_path / "other", part)["images"]
    rows = list(csv.DictReader((tmp_path / "one" / "split.csv").read_text().splitlines()))
    assert len(rows) == 20 and set(rows[0]) == {"file_name", "image_id", "part", "group"}


def test_a_list_that_tears_a_camera_apart_is_refused(source, tmp_path, capsys):
    main([str(source), str(tmp_path / "one")])
    command = [str(source), str(tmp_path / "other"), "--list", str(tmp_path / "one" / "split.csv")]
    assert main([*command, "--group-by", r"camera(\d)"]) == 2
    assert "torn apart" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_each_fold_is_a_data_set_whose_val_is_in_no_other(source, tmp_path):
    assert main([str(source), str(tmp_path / "out"), "--folds", "4", "--place", "copy"]) == 0
    val = [find_dataset(tmp_path / "out" / f"fold{fold}").val for fold in range(4)]
    held_out = [record.image_id for part in val for record in read_coco(part.annotations).records]
    assert sorted(held_out) == list(range(81, 101))
    train = {image["id"] for image in content_of(tmp_path / "out" / "fold0")["images"]}
    assert train == set(held_out[5:])


def test_files_of_the_same_content_stay_together(source):
    files = [source / "images" / "train" / f"camera{number % 5}_{number:02d}.png" for number in range(20)]
    for number in (3, 9, 14):
        files[number].write_bytes(b"the same")
    found = grouped(contents_of(content_of(source)), files).groups
    assert found[3] == found[9] == found[14] and len(set(found.tolist())) == 18


def test_nothing_is_written_where_leaks_are_found_or_the_folder_is_taken(source, tmp_path, capsys):
    own = read_source(source, None, None)
    partition = split(own.contents, Recipe({"a": 1, "b": 1}), np.arange(20) % 5)
    partition.part[0] = 1 - partition.part[0]
    with pytest.raises(ValueError, match="torn apart"):
        write_split(own, partition, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main([str(source), str(source)]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err


def test_what_is_lost_is_told(source, tmp_path, capsys):
    content = content_of(source)
    content["annotations"].append({"id": 999, "image_id": 5000, "category_id": 0, "bbox": [0, 0, 1, 1]})
    (source / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (source / "images" / "train" / "camera0_00.png").unlink()
    assert main([str(source), str(tmp_path / "out"), "--group-by", r"camera([0-3])"]) == 1
    told = capsys.readouterr().out
    assert "1 annotations of images that are not listed are in no part: annotation 999 of image 5000" in told
    assert "1 image files are missing: camera0_00.png" in told
    assert "4 names do not fit" in told


@pytest.mark.parametrize(
    "more, message",
    [
        (["--parts", "train=x", "val=1"], "expected names with shares"),
        (["--part", "test"], "expected one COCO file of test, found the parts train"),
        (["--group-by", "("], "must be a regular expression"),
        (["--folds", "1"], "folds must be 2 or more"),
        (["--parts", "a=1", "../b=1"], "names of parts must be"),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, capsys, more, message):
    assert main([str(source), str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_real_near_duplicates_stay_together(shared, tmp_path):
    source = shared("data/coco_mini")
    out = tmp_path / "out"
    command = [str(source), str(out), "--part", "val", "--near-duplicates", "--place", "none"]
    assert main([*command, "--parts", "train=1", "val=1"]) == 0
    assert content_of(out)["info"]["split"]["grouped_by"]["near_duplicate_bits"] == 24
