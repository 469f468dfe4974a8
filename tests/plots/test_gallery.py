"""The gallery's folder: what is written, that it is the truth, and that hostile names do no harm."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.data.augment import train_policy
from kit.data.check import check_folder
from kit.data.coco import read_coco, write_coco
from kit.data.dataset import CocoDataset, train_loader
from kit.params import BrowseParams
from kit.plots.gallery import (
    DrawnSet,
    Part,
    find_parts,
    show_draws,
    training_draws,
    training_sampler,
    write_gallery,
)
from kit.plots.gallery.__main__ import main
from kit.plots.gallery.folder import script

HOSTILE = "<img src=x onerror=alert(1)>&\u2028.png"
HOSTILE_CLASS = "</script><script>alert(1)</script>"


def data_set(folder: Path, names: tuple[str, ...] = ("camera1_A_1.png", "camera2_N_2.png", HOSTILE)) -> Path:
    """Images of 40 x 60 px with a bright square each, and a dark one on the first."""
    images = folder / "images" / "train"
    images.mkdir(parents=True)
    entries, annotations = [], []
    for number, name in enumerate(names, 1):
        picture = np.full((40, 60, 3), 100 + number, np.uint8)
        picture[5:20, 10 * number : 10 * number + 12] = 250
        cv2.imwrite(str(images / "one.png"), picture)
        (images / "one.png").rename(images / name)
        entries.append({"id": number, "file_name": name, "width": 60, "height": 40})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": [10.0 * number, 5.0, 12.0, 15.0]}
        )
    annotations.append({"id": 9, "image_id": 1, "category_id": 2, "bbox": [1.0, 1.0, 4.5, 3.0]})
    categories = [{"id": 1, "name": HOSTILE_CLASS}, {"id": 2, "name": "dark"}]
    write_coco(folder / "annotations" / "instances_train.json", entries, annotations, categories)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return data_set(tmp_path / "source")


def sampler_of(length: int, epochs: int = 4, batch_size: int = 2) -> Any:
    params = replace(BrowseParams(), model="n", epochs=epochs, batch_size=batch_size)
    return training_sampler(length, size_hw=(64, 96), strong_until_epoch=3, **params.sampling)


def drawn_set(source: Path, **changes: int) -> DrawnSet:
    part = find_parts(source)[0]
    dataset = CocoDataset(part.coco, part.images, train_policy(3, mosaic=0.5), seed=0)
    return DrawnSet(part.name, dataset, sampler_of(len(dataset)), **changes)


def index_of(gallery: Path) -> dict[str, Any]:
    return json.loads((gallery / "data" / "index.js").read_text().removeprefix("window.galleryIndex = ")[:-2])


def details_of(gallery: Path, key: int = 0) -> list[dict[str, Any]]:
    return json.loads(
        re.fullmatch(r"window\.galleryChunk\(\d+, (.*)\);\n", (gallery / "data" / f"{key}.js").read_text())[1]
    )


# --- what is written ---


def test_every_image_has_its_picture_its_boxes_and_its_place_in_the_filters(source, tmp_path):
    gallery = write_gallery(tmp_path / "out", find_parts(source), "mine", view_pattern=r"camera(?P<camera>\d+)_")
    index, details = index_of(tmp_path / "out"), details_of(tmp_path / "out")
    assert gallery.page.is_file() and gallery.images == 3 and gallery.faults == []
    assert index["parts"] == ["train"] and index["cameras"] == ["1", "2"]
    assert [row[2] for row in index["images"]] == [0, 1, None]
    assert [row[4] for row in index["images"]] == [[0, 1], [0], [0]]
    assert [(each["name"], each["objects"], each["images"]) for each in index["classes"]] == [
        (HOSTILE_CLASS, 3, 3),
        ("dark", 1, 1),
    ]
    assert details[0]["objects"] == [[0, 10.0, 5.0, 12.0, 15.0, 1, 0], [1, 1.0, 1.0, 4.5, 3.0, 9, 0]]
    assert cv2.imread(str(tmp_path / "out" / "pictures" / "2.jpg")).shape == (40, 60, 3)


def test_a_large_picture_is_made_smaller_and_its_boxes_stay_in_pixels_of_the_file(source, tmp_path):
    write_gallery(tmp_path / "out", find_parts(source), "mine", side_px=30)
    assert cv2.imread(str(tmp_path / "out" / "pictures" / "0.jpg")).shape == (20, 30, 3)
    assert index_of(tmp_path / "out")["images"][0][3] == [60, 40]


def test_details_come_in_files_of_a_hundred_images(tmp_path):
    source = data_set(tmp_path / "source", tuple(f"{number}.png" for number in range(103)))
    write_gallery(tmp_path / "out", find_parts(source), "mine")
    assert [len(details_of(tmp_path / "out", key)) for key in (0, 1)] == [100, 3]
    assert not (tmp_path / "out" / "data" / "2.js").exists()


def test_of_many_images_the_first_the_last_and_some_between_are_shown(tmp_path):
    source = data_set(tmp_path / "source", tuple(f"{number}.png" for number in range(9)))
    write_gallery(tmp_path / "out", find_parts(source), "mine", most_images=3)
    assert [row[0] for row in index_of(tmp_path / "out")["images"]] == ["0.png", "4.png", "8.png"]


def test_a_set_without_images_gives_an_empty_gallery(source, tmp_path):
    part = find_parts(source)[0]
    assert write_gallery(tmp_path / "out", [replace(part, coco=replace(part.coco, records=[]))], "mine").images == 0
    assert index_of(tmp_path / "out")["images"] == []


def test_parts_with_other_orders_of_classes_share_one_list(source, tmp_path):
    part = find_parts(source)[0]
    turned = replace(part.coco, names=["dark", "new"])
    write_gallery(tmp_path / "out", [part, Part("val", turned, part.images)], "mine")
    index = index_of(tmp_path / "out")
    assert [each["name"] for each in index["classes"]] == [HOSTILE_CLASS, "dark", "new"]
    assert [row[4] for row in index["images"]] == [[0, 1], [0], [0], [1, 2], [1], [1]]


# --- what is wrong ---


def test_what_cannot_be_read_is_told_and_shown_without_a_picture(source, tmp_path):
    part = find_parts(source)[0]
    names = ["../../outside.png", "nothing.png", "x" * 300]
    records = [replace(record, file_name=name) for record, name in zip(part.coco.records, names, strict=True)]
    cv2.imwrite(str(source / "outside.png"), np.zeros((4, 4, 3), np.uint8))
    gallery = write_gallery(tmp_path / "out", [replace(part, coco=replace(part.coco, records=records))], "mine")
    assert gallery.faults[0] == "'../../outside.png': its name leads out of the image folder"
    assert [row[8] for row in index_of(tmp_path / "out")["images"]][1:] == ["the file is missing"] * 2
    assert list((tmp_path / "out" / "pictures").iterdir()) == []


def test_findings_stand_at_their_image_with_annotation_box_and_mend(source, tmp_path):
    path = source / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"] += [
        {"id": 20, "image_id": 2, "category_id": 1, "bbox": [50, 10, 30, 10]},
        {"id": 21, "image_id": 2, "category_id": 7, "bbox": [1, 1, 5, 5]},
        {"id": 22, "image_id": 2, "category_id": 1, "bbox": ["a", 1, 5, 5]},
    ]
    path.write_text(json.dumps(content))
    write_gallery(tmp_path / "out", find_parts(source), "mine", reports=check_folder(source))
    index, image = index_of(tmp_path / "out"), details_of(tmp_path / "out")[1]
    found = {index["kinds"][kind]["name"]: (ids, box) for kind, _, ids, box in image["findings"]}
    assert found["box over the edge"] == ([20], [50.0, 10.0, 30.0, 10.0])
    assert found["malformed box"] == ([22], None) and image["objects"][-1][1:5] == [None] * 4
    assert image["objects"][-2][0] == 2 and index["classes"][2]["name"] == "unknown category"
    edge = next(kind for kind in index["kinds"] if kind["name"] == "box over the edge")
    assert (edge["count"], edge["images"], edge["problem"]) == (1, 1, True) and edge["mend"].startswith("cut it")


def test_no_name_can_leave_its_place_in_a_script(source, tmp_path):
    write_gallery(tmp_path / "out", find_parts(source), HOSTILE_CLASS, drawn=drawn_set(source))
    for file in (tmp_path / "out" / "data").iterdir():
        assert not re.search(r"[<>&\u2028\u2029]", file.read_text())
    written = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert all(re.fullmatch(r"\w+\.(html|css|js|jpg|png)", name) for name in written)
    assert json.loads(script({"name": "</script>\u2028\ud800&"})) == {"name": "</script>\u2028\ud800&"}


# --- as the model gets them ---


def test_the_draws_are_those_of_the_training_to_the_pixel(tmp_path):
    """In batches of 8, from which a mosaic takes its other pictures."""
    source = data_set(tmp_path / "source", tuple(f"{number}.png" for number in range(9)))
    given = replace(drawn_set(source, images=9, draws=4), sampler=sampler_of(9, batch_size=8))
    write_gallery(tmp_path / "out", find_parts(source), "mine", drawn=given)
    shown = {
        (details["id"], int(draw["about"].split(",")[0].removeprefix("epoch "))): draw
        for details in details_of(tmp_path / "out")
        for draw in details["draws"]
    }
    batches = list(train_loader(given.dataset, given.sampler))
    assert len(batches) == 4 and len(shown) == 4 * 8
    for epoch, batch in enumerate(batches):
        for image_id, image, target in zip(batch.image_ids, batch.images, batch.targets, strict=True):
            draw = shown[image_id, epoch]
            stored = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / draw["src"])), cv2.COLOR_BGR2RGB)
            assert np.array_equal(stored.transpose(2, 0, 1), image) and draw["size"] == [96, 64]
            boxes = np.array([row[1:5] for row in draw["objects"]]).reshape(-1, 4) / [96, 64, 96, 64]  # xywh
            centred = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
            assert np.abs(centred - np.asarray(target.boxes)).max(initial=0) < 0.01 / 60
            assert [row[0] for row in draw["objects"]] == target.labels.tolist()


def test_draws_are_spread_over_the_epochs_and_know_their_phase(source, tmp_path):
    sampler = sampler_of(3, epochs=10, batch_size=3)
    draws = training_draws(sampler, [0, 2], 4)
    assert {index: [draw.epoch for draw in each] for index, each in draws.items()} == {0: [0, 3, 6, 9], 2: [0, 3, 6, 9]}
    write_gallery(tmp_path / "out", find_parts(source), "mine", drawn=replace(drawn_set(source), sampler=sampler))
    told = [draw["about"] for draw in details_of(tmp_path / "out")[0]["draws"]]
    assert [each.split(", ")[1] for each in told] == ["strong", "light", "light", "light"]  # strong until epoch 3


def test_where_an_epoch_leaves_an_image_out_the_next_one_is_shown():
    draws = training_draws(sampler_of(3, epochs=12, batch_size=2), [0, 1, 2], 3)
    epochs = np.array([[draw.epoch for draw in draws[index][:2]] for index in range(3)])  # the last has no next
    assert (epochs >= [0, 6]).all() and (epochs < [6, 11]).all()
    assert (epochs[:, 0] > 0).sum() == 1  # the one of three that the first epoch leaves out


def test_sizes_of_the_draws_are_those_of_their_steps():
    params = replace(BrowseParams(), model="s", epochs=6, batch_size=2)
    sampler = training_sampler(2, size_hw=(128, 128), strong_until_epoch=4, multi_scale=1, **params.sampling)
    sizes = [draw.size_hw for draw in training_draws(sampler, [0], 6)[0]]
    assert sizes[:4] == [sampler.size_of(epoch, 0) for epoch in range(4)] and len(set(sizes[:4])) > 1
    assert sizes[4:] == [(128, 128)] * 2


def test_a_draw_with_an_unreadable_image_is_told_and_left_out(source, tmp_path):
    given = drawn_set(source)
    (source / "images" / "train" / "camera2_N_2.png").write_bytes(b"no image")
    gallery = write_gallery(tmp_path / "out", find_parts(source), "mine", drawn=given)
    assert gallery.faults[0] == "'camera2_N_2.png': the file cannot be decoded"
    assert details_of(tmp_path / "out")[1]["draws"] == []


def test_the_figure_has_a_row_for_each_image_and_a_column_for_each_draw(source):
    figure = show_draws(drawn_set(source, draws=2), [0, 1])
    assert len(figure.axes) == 6


# --- the folder ---


def test_an_older_gallery_is_replaced_and_anything_else_stays(source, tmp_path):
    out = tmp_path / "out"
    write_gallery(out, find_parts(source), "first")
    write_gallery(out, find_parts(source), "second")
    assert (
        index_of(out)["title"] == "second" and [each.name for each in tmp_path.iterdir() if ".new" in each.name] == []
    )
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"expected a new folder or an older gallery, found 'notes\.txt' in it"):
        write_gallery(out, find_parts(source), "third")
    assert (out / "notes.txt").read_text() == "mine" and index_of(out)["title"] == "second"


def test_nothing_is_left_where_writing_fails(source, tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gallery(tmp_path / "out", find_parts(source), "mine", progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


# --- the command ---


def test_the_command_writes_a_gallery_and_tells_problems_by_its_status(source, tmp_path, capsys):
    few = ["--augmented", "2", "--draws", "2"]
    assert main([str(source), str(tmp_path / "out"), *few]) == 0
    assert "3 images, 4 draws of the training" in capsys.readouterr().out
    (source / "images" / "train" / "camera1_A_1.png").unlink()
    assert main([str(source), str(tmp_path / "out"), *few]) == 1
    assert "missing image" in capsys.readouterr().out


def test_the_command_ends_with_2_and_one_line_where_there_is_no_data(tmp_path, capsys):
    assert main([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}: expected a COCO data set")
    assert not (tmp_path / "out").exists()


def test_a_training_file_gives_the_augmentation(source, tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text("model: n\nheight_px: 32\nwidth_px: 64\nepochs: 2\nbatch_size: 1\n")
    assert main([str(source), str(tmp_path / "out"), "--params", str(path), "--draws", "2", "--no-check"]) == 0
    assert {tuple(draw["size"]) for each in details_of(tmp_path / "out") for draw in each["draws"]} == {(64, 32)}
    assert capsys.readouterr().out.rstrip().endswith("not checked")


def test_a_coco_file_alone_is_a_part(source):
    path = source / "annotations" / "instances_train.json"
    (part,) = find_parts(path)
    assert part.name == "train" and part.images == source / "images" / "train"
    assert list(part.coco.records[0].labels) == list(read_coco(path).records[0].labels)
