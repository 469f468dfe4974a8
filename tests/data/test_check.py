import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.data.check import Depth, check_dataset, check_folder, clean, inspected, main, read_checked
from kit.data.coco import find_dataset, read_coco
from kit.data.columns import Records
from kit.params import ROOT


def noise(size_hw=(60, 80)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size_hw, 3), dtype=np.uint8))


def box(id, image_id=1, bbox=(10, 10, 20, 20), category_id=3, **more):
    return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": list(bbox), **more}


def image(id, file_name="a.png", size_hw=(60, 80)):
    return {"id": id, "file_name": file_name, "height": size_hw[0], "width": size_hw[1]}


ONE_IMAGE = (image(1),)


@pytest.fixture
def data(tmp_path):
    """Writes a data set of one whole image, a.png, and gives the annotation file and the image folder."""

    def write(annotations, images=ONE_IMAGE, categories=({"id": 3, "name": "car"},)):
        folder = tmp_path / "images" / "train"
        folder.mkdir(parents=True, exist_ok=True)
        noise().save(folder / "a.png")
        path = tmp_path / "annotations" / "instances_train.json"
        path.parent.mkdir(exist_ok=True)
        content = {"images": list(images), "annotations": annotations, "categories": list(categories)}
        path.write_text(json.dumps(content))
        return path, folder

    return write


def found(report, is_fatal=True):
    return {problem.kind: problem.count for problem in report.problems if problem.is_fatal == is_fatal}


def examples(report, kind):
    return next(problem.examples for problem in report.problems if problem.kind == kind)


def left(data, *arguments, **more):
    """Annotation ids of each image after the cleaning."""
    path, folder = data(*arguments, **more)
    coco = clean(read_coco(path), check_dataset(path, folder))
    return {record.image_id: record.annotation_ids.tolist() for record in coco.records}


def test_a_good_data_set_has_no_problems_and_is_left_as_it_is(data):
    path, folder = data([box(5), box(6, bbox=(0.5, 0.25, 79.5, 59.75))])
    coco, report = read_checked(path, folder)
    assert report.problems == [] and not report.fatal and "no problems" in report.table()
    assert np.array_equal(coco.records[0].boxes_xywh_px, read_coco(path).records[0].boxes_xywh_px)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("box without area", {"bbox": [10, 10, 0, 5]}),
        ("box without area", {"bbox": [10, 10, 5, -1]}),
        ("malformed box", {"bbox": [10, 10, float("nan"), 5]}),
        ("malformed box", {"bbox": [10, 10, float("inf"), 5]}),
        ("malformed box", {"bbox": [10, 10, 5]}),
        ("malformed box", {"bbox": None}),
        ("malformed box", {"bbox": ["10", "10", "5", "5"]}),
        ("box outside the image", {"bbox": [80, 10, 5, 5]}),
        ("box outside the image", {"bbox": [10, -9, 5, 9]}),
        ("unknown category", {"category_id": 4}),
        ("image missing from the list", {"image_id": 2}),
    ],
)
def test_a_broken_annotation_is_named_and_left_out(data, kind, broken):
    annotations = [box(1), box(2, bbox=(30, 30, 9, 9)) | broken]
    report = check_dataset(*data(annotations))
    assert found(report) == {kind: 1} and report.fatal
    assert "annotation 2" in report.problems[0].examples[0]
    assert left(data, annotations) == {1: [1]}


def test_a_box_over_the_edge_is_cut_and_one_pixel_is_no_problem(data):
    annotations = [box(1, bbox=(-1, 10, 20, 20)), box(2, bbox=(70, 10, 11.5, 20)), box(3, bbox=(0.1, 0.2, 0.3, 1.4))]
    path, folder = data(annotations)
    report = check_dataset(path, folder)
    assert found(report) == {"box over the edge": 1} and "annotation 2" in report.problems[0].examples[0]
    boxes = clean(read_coco(path), report).records[0].boxes_xywh_px
    assert boxes.tolist() == [[0, 10, 19, 20], [70, 10, 10, 20], [0.1, 0.2, 0.3, 1.4]]


def test_corner_boxes_taken_for_sizes_are_found(data):
    report = check_dataset(*data([box(n, bbox=(40 + n, 30, 60 + n, 50)) for n in range(1, 9)]))
    assert found(report) == {"box over the edge": 8} and len(report.problems[0].examples) == 5
    assert "not corners" in report.table() and report.table().endswith("...")


def test_annotation_ids_that_repeat_or_are_zero_are_named_and_renumbered(data):
    annotations = [box(0), box(4, bbox=(1, 1, 5, 5)), box(4, bbox=(2, 2, 6, 6))]
    report = check_dataset(*data(annotations))
    assert found(report) == {"duplicate annotation id": 1, "annotation id 0 or none": 1}
    assert left(data, annotations) == {1: [1, 2, 3]}


def test_repeated_boxes_are_told_and_one_is_used(data):
    annotations = [box(1), box(2), box(3, bbox=(10, 10, 20, 20.5))]
    report = check_dataset(*data(annotations))
    assert found(report) == {} and found(report, is_fatal=False) == {"repeated box": 1}
    assert left(data, annotations) == {1: [1, 3]}


def test_crowds_and_empty_images_and_unlisted_files_are_information(data):
    path, folder = data([box(1, iscrowd=1)], [image(1), image(2, "b.png")])
    noise().save(folder / "b.png")
    noise().save(folder / "c.JPG", format="JPEG")
    report = check_dataset(path, folder)
    assert not report.fatal
    assert found(report, is_fatal=False) == {"crowd": 1, "image without boxes": 1, "file without an entry": 1}


def test_files_that_are_missing_empty_or_no_image_are_named_and_left_out(data):
    names = ["a.png", "missing.jpg", "empty.jpg", "text.jpg"]
    images = [image(n, name) for n, name in enumerate(names, 1)]
    path, folder = data([box(n, image_id=n) for n in range(1, 5)], images)
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("404 not found")
    report = check_dataset(path, folder)
    assert found(report) == {"missing image": 1, "unreadable image": 2}
    assert [record.image_id for record in clean(read_coco(path), report).records] == [1]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_truncated_file_is_found_wherever_it_ends(data, ending, share):
    path, folder = data([], [image(1, f"x.{ending}")])
    noise().save(folder / f"x.{ending}")
    whole = (folder / f"x.{ending}").read_bytes()
    assert found(check_dataset(path, folder)) == {}
    (folder / f"x.{ending}").write_bytes(whole[: int(len(whole) * share)])
    assert sum(found(check_dataset(path, folder)).values()) == 1


def test_a_damaged_png_is_found(data):
    path, folder = data([])
    content = bytearray((folder / "a.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "a.png").write_bytes(content)
    assert found(check_dataset(path, folder)) == {"truncated image": 1}


def test_another_size_than_the_annotations_say_is_named_with_both(data):
    images = [image(1, size_hw=(80, 60)), {"id": 2, "file_name": "b.png"}]
    path, folder = data([], images)
    noise().save(folder / "b.png")
    report = check_dataset(path, folder)
    assert found(report) == {"size mismatch": 2}
    first, second = examples(report, "size mismatch")
    assert first == "a.png: file 80x60, annotations 60x80" and "of no size" in second


def test_an_exif_turn_is_given_as_the_reason(data):
    path, folder = data([], [image(1, "x.jpg", size_hw=(80, 60))])
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(folder / "x.jpg", exif=exif)
    assert "its EXIF turns it" in examples(check_dataset(path, folder), "size mismatch")[0]


def test_repeated_images_names_and_categories_are_named(data):
    images = [image(1), image(1, "b.png"), image(2, "a.png")]
    categories = [{"id": 3, "name": "car"}, {"id": 3, "name": "bus"}]
    report = check_dataset(*data([], images, categories))
    assert found(report) == {"duplicate image id": 1, "duplicate category id": 1, "duplicate file name": 1}
    assert left(data, [box(1)], images) == {1: [1]}


def test_what_needs_no_cleaning_is_the_very_file_and_the_rest_stays_in_arrays(data):
    coco, report = inspected(*data([box(1), box(2, bbox=(1, 1, 5, 5))]), None)
    assert clean(coco, report) is coco
    coco, report = inspected(*data([box(1), box(2, bbox=(1, 1, 0, 5))]), None)
    assert isinstance(clean(coco, report).records, Records)


def test_a_box_of_an_image_without_a_size_stays_as_it_is(data):
    path, _ = data([box(1, bbox=(10, 10, 900, 20))], [{"id": 1, "file_name": "a.png"}])
    assert read_checked(path, None)[0].records[0].boxes_xywh_px.tolist() == [[10, 10, 900, 20]]


def test_training_is_refused_with_the_whole_report_unless_told_to_go_on(data):
    path, folder = data([box(1), box(2, bbox=(1, 1, 0, 0))])
    with pytest.raises(ValueError, match=r"(?s)1 kind of problem.*box without area.*annotation 2.*allow_problems"):
        read_checked(path, folder)
    coco, report = read_checked(path, folder, allow_problems=True)
    assert report.fatal and coco.records[0].annotation_ids.tolist() == [1]


def test_progress_counts_the_images(data):
    calls = []
    path, folder = data([], [image(1), image(2, "b.png")])
    check_dataset(path, folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_the_file_can_be_checked_without_its_images(data):
    path, _ = data([box(1, bbox=(1, 1, 0, 0))])
    assert found(check_dataset(path, None)) == {"box without area": 1}
    assert read_checked(path, None, allow_problems=True)[0].records[0].labels.tolist() == []


def test_the_command_tells_by_its_exit_code_and_writes_json(data, tmp_path, capsys):
    path, _ = data([box(1)])
    assert main([str(tmp_path), "--json", str(tmp_path / "report.json")]) == 0
    data([box(1, category_id=9)])
    assert main([str(tmp_path), "--json", str(tmp_path / "report.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())[0]
    assert report["fatal"] and report["problems"][0]["kind"] == "unknown category"
    assert str(path) in capsys.readouterr().out


def test_it_runs_as_a_module_without_a_warning(data, tmp_path):
    data([box(1)])
    command = [sys.executable, "-W", "error", "-m", "kit.data.check", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stderr == ""


# --- the whole of a data set ---


def kinds(report):
    return {problem.kind: problem.count for problem in report.problems}


def add_part(data, name, annotations, images=ONE_IMAGE):
    """Another part beside train, with the image of train in it."""
    path, folder = data([box(1)])
    content = json.loads(path.read_text()) | {"images": list(images), "annotations": annotations}
    path.with_name(f"instances_{name}.json").write_text(json.dumps(content))
    (folder.parent / name).mkdir()
    (folder.parent / name / "a.png").write_bytes((folder / "a.png").read_bytes())


def test_a_folder_gives_a_report_for_each_part_and_one_for_what_lies_across(data, tmp_path):
    add_part(data, "val", [box(7, bbox=(1, 1, 0, 0))])
    bars = []
    train, val, across = check_folder(tmp_path, bars=lambda what: bars.append(what))
    assert [each.part for each in (train, val, across)] == ["train", "val", ""]
    assert kinds(val)["box without area"] == 1 and "box without area" not in kinds(train)
    assert (
        kinds(across) == {"same file in two parts": 1}
        and across.fatal
        and (across.images, across.annotations) == (2, 2)
    )
    assert bars == [f"{part}: {step}" for part in ("train", "val") for step in ("masks", "images", "looks")]
    assert (
        train.classes[0].name == "car" and train.classes[0].boxes == 1 and train.folder == tmp_path / "images" / "train"
    )


def test_how_far_a_check_goes(data, tmp_path):
    add_part(data, "val", [])
    (tmp_path / "images" / "train" / "a.png").unlink()
    train, _, across = check_folder(tmp_path, depth=Depth(opens_images=False))
    assert "missing image" not in kinds(train) and across.problems == []
    train, _, across = check_folder(tmp_path, depth=Depth(near_bits=None))
    assert "missing image" in kinds(train) and across.problems == []


def test_one_file_is_checked_with_the_images_beside_it_or_where_they_are_said_to_be(data, tmp_path):
    path, folder = data([box(1)])
    assert "missing image" not in kinds(check_folder(path)[0])
    moved = path.rename(tmp_path / "mine.json")
    assert "missing image" in kinds(check_folder(moved)[0])
    assert "missing image" not in kinds(check_folder(moved, folder)[0])
    assert main([str(moved), "--images", str(folder), "--near-bits", "-1"]) == 0


def test_the_kinds_of_one_report_stand_once(data, tmp_path):
    for name in ("val", "test"):
        add_part(data, name, [])
    across = check_folder(tmp_path)[-1]
    assert kinds(across) == {"same file in two parts": 3}
    assert [each.part for each in across.problems[0].findings] == ["val", "test", "test"]


def test_the_command_writes_a_mended_copy_and_tells_what_is_left(data, tmp_path, capsys):
    path, _ = data([box(0), box(4, bbox=(1, 1, 0, 0))])
    before = path.read_bytes()
    assert main([str(tmp_path), "--fix", str(tmp_path / "mended")]) == 0
    told = capsys.readouterr().out
    assert "2 changes" in told and "1  train: box without area: annotation left out" in told
    assert path.read_bytes() == before and (tmp_path / "mended" / "mended.json").is_file()
    assert main([str(tmp_path), "--fix", str(tmp_path / "mended")]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_draws(data, tmp_path):
    data([box(1, bbox=(1, 1, 0, 0))])
    assert main([str(tmp_path), "--labels-only", "--pictures", str(tmp_path / "pictures")]) == 1
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"classes.png", "sizes.png", "train_box_without_area.png"}


@pytest.mark.parametrize("name", ["fisheye8k_mini", "coco_mini"])
def test_real_data_sets_have_no_problems(name):
    folder = Path(os.environ.get("KIT_SHARED", ROOT.parent / "shared")) / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not here")
    val = find_dataset(folder).val
    report = check_dataset(val.annotations, val.images)
    assert not report.fatal and report.images > 0


@pytest.mark.parametrize("name", ["../../secret.png", "SECRET", "", ".", "a\0.png", "x" * 300, "../\ud800\x1b[2J.png"])
def test_a_file_name_that_leads_elsewhere_reaches_no_training(data, tmp_path, name, capsys):
    noise().save(tmp_path / "secret.png")
    images = [image(1), image(2, name.replace("SECRET", str(tmp_path / "secret.png")))]
    path, folder = data([box(1), box(2, 2)], images)
    with pytest.raises(ValueError, match="1  unusable file name: put the image into the image folder"):
        read_checked(path, folder)
    coco, report = read_checked(path, folder, allow_problems=True)
    assert [record.image_id for record in coco.records] == [1] and kinds(report) == {"unusable file name": 1}
    assert kinds(check_folder(tmp_path, depth=Depth(opens_images=False))[0])["unusable file name"] == 1
    assert main([str(path)]) == 1 and "unusable file name" in capsys.readouterr().out


def test_the_command_says_in_one_line_that_there_is_no_data_set(tmp_path, capsys):
    assert main([str(tmp_path / "mien")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "mien: expected the folder of a COCO data set" in error
