import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.data.coco import CocoFile, Record, find_split, read_coco
from kit.deploy.about import About, read_checkpoint
from kit.deploy.calibration import (
    Feeds,
    Pool,
    Steps,
    average_precision,
    part,
    read_pools,
    shared_out,
    spread,
    spread_rows,
)
from kit.deploy.runtimes import open_runner
from kit.metrics import evaluate
from kit.predict import predict_dataset

SILENT = Steps(None)


def about(**changes: object) -> About:
    few = About(
        size="n", names=list("abcde"), category_ids=list(range(5)), channels=3, height_px=32, width_px=64, top_k=9
    )
    return replace(few, **changes)


def file_of(names: list[str]) -> CocoFile:
    nothing = np.zeros(0)
    records = [
        Record(number, name, (1, 1), nothing.reshape(0, 4), nothing, nothing, nothing, nothing)
        for number, name in enumerate(names)
    ]
    return CocoFile(Path("some.json"), records, [1], ["car"])


def names_in(coco: CocoFile) -> list[str]:
    return [record.file_name for record in coco.records]


def test_rows_lie_evenly_and_reach_both_ends():
    assert spread_rows(9, 3).tolist() == [0, 4, 8]
    assert spread_rows(2, 300).tolist() == [0, 1]


def test_images_are_spread_over_the_names_not_the_ids():
    coco = file_of(["b2", "a1", "b1", "a2", "b3", "a3"])
    assert names_in(spread(coco, 3)) == ["a1", "a3", "b3"]  # rows 0, 2, 5 by name


def test_one_split_gives_two_parts_without_a_common_image():
    ours, others = shared_out(file_of([f"{number:02}" for number in range(12)]), 6, 3)
    assert len(ours.records) == 6 and len(others.records) == 3
    assert not set(names_in(ours)) & set(names_in(others))
    ours, others = shared_out(file_of(list("abcdef")), 300, 150)  # too few: in proportion
    assert len(ours.records) == 4 and len(others.records) == 2


def test_training_images_are_read_as_the_file_takes_them(scenes: Path):
    pools = read_pools(about(), find_split(scenes, "train"), find_split(scenes, "val"), 4, 3, SILENT)
    assert pools.calibration.pixels.shape == (4, 32, 64, 3) and pools.calibration.pixels.dtype == np.uint8
    assert pools.control.original_sizes_hw.tolist() == [[480, 480]] * 3
    feeds = list(Feeds(pools.calibration, about()))
    assert len(feeds) == 4 and feeds[0]["images"].shape == (1, 3, 32, 64)
    assert 0.5 < feeds[0]["images"].max() <= 1
    raw = next(iter(Feeds(pools.calibration, about(input="uint8"))))
    assert raw["images"].dtype == np.uint8 and (raw["images"] == pools.calibration.pixels[:1]).all()


def test_a_fixed_batch_is_filled_up_and_the_filling_left_out(scenes: Path):
    split = find_split(scenes, "val")
    pool = read_pools(about(), find_split(scenes, "train"), split, 3, 1, SILENT).calibration
    feeds = list(Feeds(pool, about(batch=2, input="uint8")))
    assert [each["images"].shape[0] for each in feeds] == [2, 2]
    assert (feeds[1]["images"] == pool.pixels[[2, 2]]).all()


def test_an_image_that_is_evaluated_on_does_not_calibrate_under_another_name(scenes: Path, tmp_path: Path):
    folder = shutil.copytree(scenes, tmp_path / "leaking")
    train, val = find_split(folder, "train"), find_split(folder, "val")
    twin, original = (read_coco(each.annotations).records[0].file_name for each in (train, val))
    shutil.copy(val.images / original, train.images / twin)
    with pytest.raises(ValueError, match=f"1 of 6 images to calibrate on are among .*{twin} = .*{original}.*training"):
        read_pools(about(), train, val, 6, 8, SILENT)


def test_the_evaluation_set_itself_is_refused(scenes: Path):
    val = find_split(scenes, "val")
    with pytest.raises(ValueError, match="8 of 8 images to calibrate on"):
        read_pools(about(), val, val, 8, 8, SILENT)


def test_a_control_without_objects_or_of_other_classes_is_refused(scenes: Path):
    train, val = find_split(scenes, "train"), find_split(scenes, "val")
    with pytest.raises(
        ValueError, match=r"instances_val\.json: expected the 2 classes of the model \(bus, car\), found 5"
    ):
        read_pools(about(names=["bus", "car"]), train, val, 2, 2, SILENT)
    bare = replace(val, annotations=val.annotations.parent / "instances_none.json")
    text = val.annotations.read_text()
    bare.annotations.write_text(text[: text.index('"annotations"')] + '"annotations": [], "categories": []}')
    with pytest.raises(ValueError, match=r"instances_none\.json: expected annotated images .* found 2 images without"):
        read_pools(about(), train, bare, 2, 2, SILENT)
    bare.annotations.unlink()


def test_ap_is_that_of_predict_dataset(checkpoint: Path, scenes: Path):
    detector, ours = read_checkpoint(checkpoint)
    train, val = find_split(scenes, "train"), find_split(scenes, "val")
    pool = read_pools(ours, train, val, 1, 8, SILENT).control
    results = predict_dataset(detector, read_coco(val.annotations), val.images, size_hw=(320, 320))
    assert average_precision(open_runner(checkpoint), pool, ours, SILENT) == pytest.approx(
        evaluate(results, val.annotations).ap, abs=1e-4
    )


def test_some_images_have_an_ap_of_their_own():
    pool = Pool(file_of(["a", "b", "c"]), np.arange(3).reshape(3, 1, 1, 1), np.ones((3, 2)))
    few = part(pool, np.array([2, 0]))
    assert names_in(few.coco) == ["c", "a"] and few.pixels.ravel().tolist() == [2, 0] and len(few) == 2


def test_the_end_moves_on_where_more_is_looked_at_than_planned():
    seen: list[tuple[int, int]] = []
    step = Steps(lambda done, total: seen.append((done, total)), looks=1)
    step.plan(calibration=1, control=1)  # 1 + 1 read, 1 looked at
    for _ in range(4):
        step()
    step.finish()
    assert seen == [(1, 3), (2, 3), (3, 4), (4, 5), (4, 4)]


def test_without_a_control_further_training_images_are_taken(scenes: Path):
    train = find_split(scenes, "train")
    pools = read_pools(about(), train, None, 4, 2, SILENT)
    assert len(pools.calibration) == 4 and len(pools.control) == 2
    assert not set(names_in(pools.calibration.coco)) & set(names_in(pools.control.coco))
    with pytest.raises(ValueError, match="at least 1 image to calibrate and 1 to control, got 4 and 0"):
        read_pools(about(), train, None, 4, 0, SILENT)
