import pytest

from kit.data.formats.visdrone import read_visdrone
from tests.data.formats.made import draw_image, write


def visdrone(root, text, part="VisDrone2019-DET-val"):
    draw_image(root / part / "images" / "a.jpg")
    write(root / part / "annotations" / "a.txt", text)
    return root


def test_objects_keep_their_truncation_and_occlusion(tmp_path):
    dataset = read_visdrone(visdrone(tmp_path, "684,8,273,116,1,4,0,2,\n1,2,3,4,1,10,1,0\n"))
    (part,) = dataset.parts
    assert part.name == "val" and part.images == [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}]
    rows = [(each["id"], each["category_id"], each["bbox"], each["iscrowd"]) for each in part.annotations]
    assert rows == [(1, 4, [684, 8, 273, 116], 0), (2, 10, [1, 2, 3, 4], 0)]
    assert [(each["truncation"], each["occlusion"]) for each in part.annotations] == [(0, 2), (1, 0)]
    names = {each["id"]: each["name"] for each in dataset.categories}
    assert len(names) == 10 and names[4] == "car" and names[10] == "motor"


def test_an_ignored_region_is_a_crowd_of_every_class(tmp_path):
    dataset = read_visdrone(visdrone(tmp_path, "1,2,30,40,0,0,0,0\n"))
    rows = [(each["category_id"], each["iscrowd"], each["bbox"]) for each in dataset.parts[0].annotations]
    assert rows == [(number, 1, [1, 2, 30, 40]) for number in range(1, 11)]
    assert dataset.notes == ["1 ignored regions: a crowd box of each of the ten classes"]


def test_an_object_of_score_0_is_a_crowd_of_its_class(tmp_path):
    (each,) = read_visdrone(visdrone(tmp_path, "1,2,3,4,0,6,0,0\n")).parts[0].annotations
    assert each["iscrowd"] == 1 and each["category_id"] == 6


def test_others_are_left_out_and_told_or_kept(tmp_path):
    root = visdrone(tmp_path, "1,2,3,4,1,11,0,0\n")
    assert read_visdrone(root).parts[0].annotations == []
    assert read_visdrone(root).notes == ["1 objects of category 11, others: left out; keep them with --others"]
    kept = read_visdrone(root, others=True)
    assert kept.categories[-1] == {"id": 11, "name": "others"} and kept.parts[0].annotations[0]["category_id"] == 11


def test_all_parts_are_found_and_what_is_missing_is_told(tmp_path):
    visdrone(tmp_path, "1,2,3,4,1,1,0,0\n", "VisDrone2019-DET-train")
    visdrone(tmp_path, "1,2,3,4,1,1,0,0\n", "VisDrone2019-DET-test-dev")
    draw_image(tmp_path / "VisDrone2019-DET-train" / "images" / "b.jpg")
    write(tmp_path / "VisDrone2019-DET-train" / "annotations" / "c.txt", "")
    dataset = read_visdrone(tmp_path)
    assert {part.name: len(part.images) for part in dataset.parts} == {"test-dev": 1, "train": 2}
    assert dataset.notes == ["1 images without a text file: taken as empty"] and "c.txt" in dataset.problems[0]
    assert [part.name for part in read_visdrone(tmp_path / "VisDrone2019-DET-train").parts] == ["train"]


@pytest.mark.parametrize("row", ["1,2,3,4,1,4,0", "1,2,3,4,1,12,0,0", "1,2,3,x,1,4,0,0", "1,2,3,4,1,4.5,0,0"])
def test_a_broken_row_is_named(tmp_path, row):
    with pytest.raises(ValueError, match=r"a\.txt:2: expected"):
        read_visdrone(visdrone(tmp_path, f"1,2,3,4,1,1,0,0\n{row}\n"))
