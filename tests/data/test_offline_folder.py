import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit.data import offline_folder
from kit.data.check import check_dataset, read_checked
from kit.data.coco import find_split, write_coco
from kit.data.offline import Offline, make_job
from kit.data.offline_folder import Cost, measured_cost, missing_chunks, part_file, refuse_small_disk, write_augmented
from kit.data.perspective import make_perspective
from kit.data.views import TRACK4_VIEW
from kit.files import read_json
from kit.params import ROOT

OFFLINE = Offline(copies=2, copy_paste=0.5, lens=0.3, view_pattern=TRACK4_VIEW)


def write_set(folder, count=20, size_hw=(64, 80)):
    """Pictures of noise with two boxes each, one of them thinner than a pixel."""
    rng, images, annotations = np.random.default_rng(0), [], []
    (folder / "images" / "train").mkdir(parents=True)
    for index in range(count):
        name = f"camera{index % 2 + 1}_{'MN'[index % 3 == 0]}_{index}.png"
        coarse = rng.integers(30, 220, (8, 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / "train" / name), cv2.resize(coarse, size_hw[::-1]))
        images.append({"id": 100 + index, "file_name": name, "height": size_hw[0], "width": size_hw[1]})
        x, y = rng.uniform(5, 50, 2)
        annotations.append({"image_id": 100 + index, "category_id": index % 2, "bbox": [x, 0.8 * y, 14.5, 12.25]})
        annotations.append({"image_id": 100 + index, "category_id": 0, "bbox": [70, 5, 0.5, 9]})
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}]
    write_coco(folder / "annotations" / "instances_train.json", images, annotations, categories)
    return folder


def job_of(folder, offline=OFFLINE, with_perspective=True):
    split = find_split(folder, "train")
    coco, _ = read_checked(split.annotations, split.images)
    few = replace(coco, records=coco.records[:3])
    perspective = make_perspective(few, split.images, [], coco, copies=2) if with_perspective else None
    return make_job(coco, split.images, offline, perspective)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Made in one go, by one process."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    write_augmented(job_of(source), folder, processes=1)
    return folder


def tree(folder):
    """Name and bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_result_is_sound_and_complete(source, whole):
    split = find_split(whole, "train")
    report = check_dataset(split.annotations, split.images)
    assert not report.fatal and report.images == 20 * 3 + 3 * 2
    assert "file without an entry" not in [each.kind for each in report.problems]
    content = read_json(split.annotations)
    assert [each["id"] for each in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert min(min(each["bbox"][2:]) for each in content["annotations"]) >= 1
    assert not (whole / "parts").exists()


def test_entries_of_copies_name_their_source(whole):
    images = read_json(find_split(whole, "train").annotations)["images"]
    copies = [image for image in images if "_copy" in image["file_name"]]
    names = {image["id"]: Path(image["file_name"]).stem for image in images}
    assert len(copies) == 40
    assert all(image["file_name"] == f"{names[image['source_id']]}_copy{image['copy']}.jpg" for image in copies)
    assert sum("perspective_source" in image for image in images) == 6


def test_originals_are_kept_byte_for_byte_and_take_no_place(source, whole):
    name = "camera1_N_0.png"
    original, kept = source / "images" / "train" / name, whole / "images" / "train" / name
    assert kept.read_bytes() == original.read_bytes() and kept.stat().st_ino == original.stat().st_ino


def test_originals_are_copied_where_links_are_impossible(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    split = write_augmented(job_of(source, replace(OFFLINE, copies=0), False), tmp_path / "out", processes=1)
    assert (split.images / "camera1_N_0.png").stat().st_nlink == 1 and len(list(split.images.iterdir())) == 20


@pytest.mark.parametrize(("channels", "ending"), [(1, ".jpg"), (4, ".png")])
def test_grey_and_four_channels_are_written_as_they_are_read(source, tmp_path, channels, ending):
    offline = Offline(copies=1, channels=channels, view_pattern=TRACK4_VIEW)
    split = write_augmented(job_of(source, offline), tmp_path / "out", processes=1)
    assert not check_dataset(split.annotations, split.images).fatal
    image = cv2.imread(str(split.images / f"camera1_N_0_copy1{ending}"), cv2.IMREAD_UNCHANGED)
    assert image.reshape(*image.shape[:2], -1).shape == (64, 80, channels)


class Stop(Exception):
    """A kill, as far as this process survives it."""


@pytest.mark.parametrize("allowed", [1, 2, 7, 23, 41])
def test_cut_off_while_writing_and_run_again_gives_the_same_files(source, whole, tmp_path, monkeypatch, allowed):
    written, real = [], offline_folder.write_bytes

    def write_or_stop(path, data):
        if len(written) == allowed:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f".{path.stem}.x1{path.suffix}").write_bytes(data[: len(data) // 2])  # what a kill leaves
            raise Stop
        written.append(path)
        return real(path, data)

    monkeypatch.setattr(offline_folder, "write_bytes", write_or_stop)
    with pytest.raises(Stop):
        write_augmented(job_of(source), tmp_path / "out", processes=1)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "annotations").exists()
    write_augmented(job_of(source), tmp_path / "out", processes=1)
    assert tree(tmp_path / "out") == tree(whole)


def test_what_is_sealed_is_not_made_again(source, whole, tmp_path, monkeypatch):
    job, out, made = job_of(source), tmp_path / "out", []
    with pytest.raises(Stop):
        write_augmented(job, out, 1, lambda done, total: (_ for _ in ()).throw(Stop) if done >= 48 else None)
    real = offline_folder.made
    monkeypatch.setattr(
        offline_folder, "made", lambda job, folder, task, load: made.append(task) or real(job, folder, task, load)
    )
    seen = []
    write_augmented(job, out, 1, lambda done, total: seen.append((done, total)))
    assert len(made) == 66 - 48 and seen[-1] == (66, 66) and seen[0][0] > 48
    assert tree(out) == tree(whole)


def test_a_finished_folder_is_returned_as_it_is(source, whole, monkeypatch):
    monkeypatch.setattr(offline_folder, "made", None)
    assert write_augmented(job_of(source), whole, processes=1) == find_split(whole, "train")
    assert measured_cost(job_of(source), whole).images == 0


def test_other_settings_make_the_folder_anew_and_leave_nothing_of_the_old(source, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    split = write_augmented(job_of(source, replace(OFFLINE, copies=1), False), out, processes=1)
    assert len(read_json(split.annotations)["images"]) == len(list(split.images.iterdir())) == 40


def test_changed_labels_make_the_folder_anew(source, whole, tmp_path):
    out, job = tmp_path / "out", job_of(source)
    shutil.copytree(whole, out)
    records = [replace(each, labels=1 - each.labels) for each in job.coco.records]
    write_augmented(replace(job, coco=replace(job.coco, records=records)), out, processes=1)
    assert tree(out)["annotations/instances_train.json"] != tree(whole)["annotations/instances_train.json"]


def test_a_lost_image_is_made_again(source, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "images" / "train" / "camera2_M_1_copy2.jpg").unlink()
    write_augmented(job_of(source), out, processes=1)
    assert tree(out) == tree(whole)


def test_the_folder_of_another_data_set_is_refused(source):
    with pytest.raises(ValueError, match="expected a folder of this augmentation, found another data set"):
        write_augmented(job_of(source), source, processes=1)
    assert len(list((source / "images" / "train").iterdir())) == 20


def test_a_small_disk_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"of free disk for 66 images, got 0\.00 GiB; make room, or take fewer copies"):
        write_augmented(job_of(source), tmp_path / "out", processes=1)
    assert not (tmp_path / "out" / "images").exists()


def test_the_cost_is_that_of_what_is_missing(source, whole, tmp_path):
    job = job_of(source)
    cost = measured_cost(job, tmp_path / "out", samples=100)
    copies = [path for path in (whole / "images" / "train").rglob("*.jpg")]
    assert cost.images == 66 and cost.bytes == pytest.approx(sum(path.stat().st_size for path in copies))
    assert missing_chunks(job, tmp_path) == [0, 1, 2] and part_file(tmp_path, 2).name == "000002.json"
    assert "66 images to write" in cost.text(2)


@pytest.mark.parametrize(("free_gib", "is_enough"), [(1.28, False), (1.31, True)])
def test_a_tenth_and_a_reserve_stay_free(free_gib, is_enough):
    cost = Cost(10, 2**30, int(free_gib * 2**30), 1.0)  # 1.1 GiB and 0.195 GiB
    if is_enough:
        refuse_small_disk(cost, Path("out"))
    else:
        with pytest.raises(ValueError, match=r"expected 1\.30 GiB"):
            refuse_small_disk(cost, Path("out"))


# --- several processes ---

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_offline_folder import job_of
from kit.data import offline_folder
from kit.data.offline_folder import write_augmented
if __name__ == "__main__":
    offline_folder.WORTH_S = 0
    write_augmented(job_of(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), lambda *done: print(*done, flush=True))
"""


@pytest.mark.slow
def test_killed_with_its_workers_at_work_and_run_again_by_one_process_the_result_is_the_same(source, whole, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT.format(paths=[str(Path(__file__).parent), str(ROOT)]))
    command = [sys.executable, str(script), str(source), str(out), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        running.stdout.readline()  # the first chunk is sealed, others are on their way
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        running.stdout.read()  # ends when the workers have: they hold the other end of the pipe
    assert list((out / "parts").iterdir()) and not (out / "annotations").exists()
    write_augmented(job_of(source), out, processes=1)
    assert tree(out) == tree(whole)
