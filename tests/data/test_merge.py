import json
from copy import deepcopy

import pytest

from kit.data.category_table import CategoryTable
from kit.data.coco import find_dataset, read_coco
from kit.data.merge import main, merge, write_merged
from kit.data.merge_sources import read_sources


def data_set(folder, categories, parts, **more):
    """parts: name -> {image name: (content, category ids of its boxes)}; ids count from 1 in each part."""
    for part, images in parts.items():
        entries, annotations = [], []
        for image_id, (name, (text, own)) in enumerate(images.items(), 1):
            path = folder / "images" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            entries.append({"id": image_id, "file_name": name, "height": 9, "width": 9, "license": 1, "taken": "noon"})
            for category_id in own:
                about = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id}
                runs = {"size": [9, 9], "counts": "0000"}
                annotations.append(about | {"bbox": [0.1, 0.2, 1.5, 2], "area": 3, "segmentation": runs, "score": 0.5})
        content = {"images": entries, "annotations": annotations, "licenses": [{"id": 1, "name": folder.name}]}
        content |= {"categories": [{"id": key, "name": name} for key, name in categories.items()]} | more
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def one(tmp_path):
    parts = {"train": {"1.jpg": ("a", [3, 5]), "2.jpg": ("b", [3])}, "val": {"1.jpg": ("c", [5])}}
    return data_set(tmp_path / "one", {3: "car", 5: "bus"}, parts)


@pytest.fixture
def other(tmp_path):
    parts = {"train": {"1.jpg": ("d", [3]), "deep/2.jpg": ("e", [4, 4])}}
    return data_set(tmp_path / "other", {3: "bus", 4: "van"}, parts)


def both(one, other):
    return [*read_sources(one, "one"), *read_sources(other, "other")]


def told(merged):
    return {loss.what: loss.count for loss in merged.losses}


def test_categories_are_joined_by_name_and_the_first_ids_stay(one, other):
    merged = merge(both(one, other))
    content = merged.contents["train"]
    assert content["categories"] == [{"id": 3, "name": "car"}, {"id": 4, "name": "van"}, {"id": 5, "name": "bus"}]
    assert [each["category_id"] for each in content["annotations"]] == [3, 5, 3, 5, 4, 4]
    assert merged.contents["val"]["categories"] == content["categories"]
    assert told(merged)["category id changed"] == 1


def test_ids_are_unique_and_every_box_stays_on_its_image(one, other):
    content = merge(both(one, other)).contents["train"]
    assert [each["id"] for each in content["images"]] == [1, 2, 3, 4]
    assert [each["id"] for each in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [each["image_id"] for each in content["annotations"]] == [1, 1, 2, 3, 4, 4]
    sources = content["info"]["merge"]["sources"]
    assert [(each["image_id_shift"], each["annotation_id_shift"]) for each in sources] == [(0, 0), (2, 3)]


def test_an_image_says_where_it_comes_from_and_the_rest_stays(one, other):
    merged = merge(both(one, other))
    images, annotations = merged.contents["train"]["images"], merged.contents["train"]["annotations"]
    assert [each["file_name"] for each in images] == ["1.jpg", "2.jpg", "other_1.jpg", "deep/2.jpg"]
    assert images[2]["merged_from"] == {"data_set": "other", "part": "train", "file_name": "1.jpg", "id": 1}
    assert all(each["taken"] == "noon" for each in images)
    assert all(each["segmentation"]["counts"] == "0000" and each["score"] == 0.5 for each in annotations)
    assert [(each["license"]) for each in images] == [1, 1, 2, 2]
    assert merged.contents["train"]["licenses"] == [{"id": 1, "name": "one"}, {"id": 2, "name": "other"}]


def test_the_sources_are_not_changed(one, other):
    sources = both(one, other)
    before = deepcopy(sources)
    merge(sources, CategoryTable({("", "van"): "car"}), "all")
    assert sources == before


def test_train_and_val_become_one_part_in_one_call(one, tmp_path):
    assert main([str(tmp_path / "out"), str(one), "--into", "all"]) == 0
    content = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    assert [each["file_name"] for each in content["images"]] == ["1.jpg", "2.jpg", "one_1.jpg"]
    texts = [(tmp_path / "out" / "images" / "all" / each["file_name"]).read_text() for each in content["images"]]
    assert texts == ["a", "b", "c"]


def test_a_table_renames_joins_and_drops_and_tells_what_is_lost(one, other):
    table = CategoryTable({("", "van"): "car", ("other", "bus"): None, ("", "bus"): "coach"})
    merged = merge(both(one, other), table)
    content = merged.contents["train"]
    assert {each["name"]: each["id"] for each in content["categories"]} == {"car": 3, "coach": 5}
    assert [each["category_id"] for each in content["annotations"]] == [3, 5, 3, 3, 3]
    assert told(merged)["annotation of the dropped category bus"] == 1
    assert len(content["images"]) == 4


def test_only_what_the_table_lists_stays_if_asked_for(one, other):
    merged = merge(both(one, other), CategoryTable({("", "van"): "van"}, drops_unlisted=True))
    assert [each["name"] for each in merged.contents["train"]["categories"]] == ["van"]
    assert [each["category_id"] for each in merged.contents["train"]["annotations"]] == [4, 4]


def test_a_category_whose_id_is_taken_gets_another(one, tmp_path):
    third = data_set(tmp_path / "third", {3: "tram"}, {"train": {"9.jpg": ("z", [3])}})
    content = merge([*read_sources(one, "one"), *read_sources(third, "third")]).contents["train"]
    assert content["categories"][-1] == {"id": 6, "name": "tram"}
    assert content["annotations"][-1]["category_id"] == 6


def test_the_same_file_is_told_and_across_parts_it_is_a_problem(one, tmp_path, capsys):
    third = data_set(tmp_path / "third", {3: "car"}, {"train": {"9.jpg": ("a", []), "8.jpg": ("c", [])}})
    merged = merge([*read_sources(one, "one"), *read_sources(third, "third")])
    assert [twins.targets for twins in merged.twins] == [["train/1.jpg", "train/9.jpg"], ["train/8.jpg", "val/1.jpg"]]
    assert main([str(tmp_path / "out"), str(one), str(third)]) == 1
    assert "! same file in two parts: 1, such as train/8.jpg = val/1.jpg" in capsys.readouterr().out


def test_annotations_without_whole_ids_are_numbered_anew(one, tmp_path):
    third = data_set(tmp_path / "third", {3: "car"}, {"train": {"9.jpg": ("z", [3, 3])}})
    path = third / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["id"] = 0
    path.write_text(json.dumps(content))
    merged = merge([*read_sources(one, "one"), *read_sources(third, "third")])
    assert [each["id"] for each in merged.contents["train"]["annotations"]] == [1, 2, 3, 4, 5]
    assert told(merged)["annotation ids missing, 0 or given twice: numbered anew"] == 1


def test_faults_of_a_source_are_problems_and_nothing_goes_in_silence(one, capsys, tmp_path):
    path = one / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{"id": 50, "image_id": 77, "category_id": 3, "bbox": [0, 0, 1, 1]}]
    content["annotations"] += [{"id": 51, "image_id": 1, "category_id": [3], "bbox": [0, 0, 1, 1]}]
    path.write_text(json.dumps(content | {"videos": [{"id": 1}]}))
    (one / "images" / "train" / "2.jpg").unlink()
    merged = merge(read_sources(one, "one"))
    assert len(merged.problems) == 3
    assert merged.contents["train"]["info"]["merge"]["sources"][0]["more"]["videos"] == [{"id": 1}]
    assert told(merged)["videos of the file: now in info.merge"] == 1
    assert main([str(tmp_path / "out"), str(one)]) == 1


def test_a_merged_set_can_be_merged_again_and_keeps_both_origins(one, other, tmp_path):
    write_merged(merge(both(one, other)), tmp_path / "first")
    third = data_set(tmp_path / "third", {3: "car"}, {"train": {"9.jpg": ("z", [3])}})
    again = merge([*read_sources(third, "third"), *read_sources(tmp_path / "first", "first")])
    origin = again.contents["train"]["images"][3]["merged_from"]
    assert (origin["data_set"], origin["merged_from"]["data_set"]) == ("first", "other")


def test_the_folder_is_a_data_set_of_linked_or_copied_images(one, other, tmp_path):
    for place in ("link", "copy"):
        assert main([str(tmp_path / place), str(one), str(other), "--place", place]) == 0
        part = find_dataset(tmp_path / place).train
        names = [record.file_name for record in read_coco(part.annotations).records]
        assert [(part.images / name).read_text() for name in names] == ["a", "b", "d", "e"]
        is_linked = (part.images / "1.jpg").samefile(one / "images" / "train" / "1.jpg")
        assert is_linked == (place == "link")


def test_two_folders_of_one_name_are_told_apart(one, tmp_path):
    again = data_set(tmp_path / "elsewhere" / "one", {3: "car"}, {"train": {"1.jpg": ("z", [3])}})
    assert main([str(tmp_path / "out"), str(one), str(again), f"mine={one}", "--into", "all"]) == 0
    content = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    assert {each["merged_from"]["data_set"] for each in content["images"]} == {"one", "one_2", "mine"}


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(one, tmp_path, capsys):
    hostile = data_set(tmp_path / "hostile", {3: "car"}, {"train": {"1.jpg": ("z", [3])}})
    path = hostile / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("1.jpg", "../../1.jpg"))
    table = tmp_path / "table.yaml"
    table.write_text("cra: bus")
    out = str(tmp_path / "out")
    for command, message in (
        ([out, str(hostile)], "expected a name inside"),
        ([out, str(tmp_path / "nothing")], "expected a COCO file"),
        ([out, str(one), "--categories", str(table)], "got 'cra'; did you mean car"),
        ([out, str(one), "--drop-unlisted"], "expected --categories TABLE"),
        ([out, str(one), "--into", "../x"], "expected a name inside"),
        ([str(one), str(one)], "expected a new or an empty folder"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
