import json

import numpy as np
import pytest
import torch
from PIL import Image

from kit.data.augment import Draw, plain_policy, train_policy
from kit.data.coco import Record, read_coco
from kit.data.dataset import (
    CocoDataset,
    Sample,
    TrainSampler,
    collate,
    kept,
    picture_of,
    targets_of,
    train_loader,
    val_loader,
)
from kit.data.warps import rotation, warp_picture

SIZES = [(32, 32), (64, 64)]
PLAIN = plain_policy()


@pytest.fixture
def dataset(tmp_path):
    """Seven noise images of 40 x 50; image n has n boxes."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for n in range(7):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        images.append({"id": 10 * n, "file_name": f"{n}.png", "height": 40, "width": 50})
        annotations += [
            {"id": len(annotations) + k + 1, "image_id": 10 * n, "category_id": 5, "bbox": [1.3 * k, 2, 11.1, 12.7]}
            for k in range(n)
        ]
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "car"}]})
    )
    return lambda policy=PLAIN, **more: CocoDataset(read_coco(path), tmp_path, policy, **more)


def strong():
    return train_policy(9, mosaic=0.5, mixup=0.5)


def content(batches):
    return [
        (b.image_ids, b.images.sum().item(), b.images.shape, [t.boxes.tolist() for t in b.targets]) for b in batches
    ]


def test_a_sample_has_the_exact_boxes_and_the_original_size(dataset):
    sample = dataset()[Draw(2, 0, (64, 96))]
    assert sample.image.shape == (3, 64, 96) and sample.image.dtype == torch.uint8
    expected = torch.tensor(
        [[5.55 / 50, 8.35 / 40, 11.1 / 50, 12.7 / 40], [6.85 / 50, 8.35 / 40, 11.1 / 50, 12.7 / 40]]
    )
    assert torch.allclose(sample.boxes, expected, rtol=0, atol=1e-7) and sample.boxes.dtype == torch.float32
    assert sample.labels.tolist() == [0, 0] and (sample.image_id, sample.original_hw) == (20, (40, 50))


def test_pixels_at_the_stored_size_are_those_of_the_file(dataset):
    data = dataset()
    stored = np.asarray(Image.open(data.images / "3.png"))
    assert np.array_equal(data[Draw(3, 0, (40, 50))].image.permute(1, 2, 0).numpy(), stored)


def test_crowds_unknown_classes_and_boxes_without_area_are_no_targets(dataset, tmp_path):
    content = json.loads((tmp_path / "x.json").read_text())
    first, second, third, *_ = (each for each in content["annotations"] if each["image_id"] == 40)
    first["iscrowd"], second["category_id"], third["bbox"] = 1, 6, [1, 1, 0, 5]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert len(dataset()[Draw(4, 0, (64, 64))].labels) == 1


def test_boxes_are_cut_at_the_image(dataset, tmp_path):
    text = (tmp_path / "x.json").read_text().replace("[0.0, 2, 11.1, 12.7]", "[-10, 0, 500, 20]")
    (tmp_path / "x.json").write_text(text)
    assert dataset()[Draw(1, 0, (64, 64))].boxes.tolist() == [[0.5, 0.25, 1, 0.5]]


def test_a_file_of_another_size_or_missing_stops_with_its_name(dataset, tmp_path):
    Image.new("RGB", (50, 41)).save(tmp_path / "1.png")
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: expected height, width \(40, 50\).*got \(41, 50\)"):
        dataset()[Draw(1, 0, (64, 64))]
    with pytest.raises(ValueError, match=r"2\.png: expected an image, the file is missing"):
        dataset()[Draw(2, 0, (64, 64))]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # two workers are the point, on one core too
def test_workers_do_not_change_a_single_pixel(dataset):
    data = dataset(strong(), seed=3)
    sampler = TrainSampler(7, 3, 2, seed=3, sizes=SIZES)
    assert content(train_loader(data, sampler, workers=0)) == content(train_loader(data, sampler, workers=2))


def test_a_run_started_at_any_step_goes_on_as_if_never_stopped(dataset):
    data = dataset(strong())
    complete = content(train_loader(data, TrainSampler(7, 3, 3, 0, SIZES)))
    assert len(complete) == 6
    for step in (1, 2, 5, 6):
        sampler = TrainSampler(7, 3, 3, 0, SIZES, start_step=step)
        assert len(sampler) == 6 - step and content(train_loader(data, sampler)) == complete[step:]


def test_another_seed_gives_another_run(dataset):
    runs = [content(train_loader(dataset(strong(), seed=s), TrainSampler(7, 7, 1, s, SIZES))) for s in (0, 1)]
    assert runs[0] != runs[1]


def test_loaders_leave_the_random_state_of_the_training_alone(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    content(train_loader(dataset(strong()), TrainSampler(7, 3, 1, 0, SIZES)))
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_shows_every_image_once_in_another_order():
    steps = list(TrainSampler(6, 2, 2, 0, SIZES))
    first, second = ([draw.index for step in steps[k : k + 3] for draw in step] for k in (0, 3))
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    assert [draw.epoch for step in steps for draw in step] == [0] * 6 + [1] * 6


def test_ranks_share_the_steps_and_the_size():
    ranks = [list(TrainSampler(13, 2, 2, 0, SIZES, rank=rank, world=3)) for rank in range(3)]
    assert [len(steps) for steps in ranks] == [4, 4, 4]
    for step in zip(*ranks, strict=True):
        assert len({draw.size_hw for draws in step for draw in draws}) == 1
        assert len({draw.index for draws in step for draw in draws}) == 6


def test_together_the_ranks_do_what_one_process_does():
    alone = list(TrainSampler(12, 6, 1, 0, SIZES))
    ranks = [list(TrainSampler(12, 2, 1, 0, SIZES, rank=rank, world=3)) for rank in range(3)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert {draw.index for draw in whole} == {draw.index for part in parts for draw in part}


def test_a_short_last_step_keeps_every_image_and_leaves_no_rank_waiting():
    ranks = [list(TrainSampler(7, 3, 1, 0, SIZES, rank=rank, world=2, drop_last=False)) for rank in range(2)]
    assert [[len(step) for step in steps] for steps in ranks] == [[3, 1], [3, 1]]
    assert {draw.index for steps in ranks for step in steps for draw in step} == set(range(7))


def test_multi_scale_draws_all_sizes_and_stops_where_it_is_told():
    sampler = TrainSampler(20, 1, 4, 0, SIZES, sizes_until_epoch=2, size_hw=(96, 96))
    sizes = [step[0].size_hw for step in sampler]
    assert set(sizes[:40]) == set(SIZES) and set(sizes[40:]) == {(96, 96)}
    with pytest.raises(ValueError, match="size_hw"):
        TrainSampler(20, 1, 4, 0, SIZES, sizes_until_epoch=2)


def test_fewer_images_than_a_step_takes_is_an_error_with_a_mend():
    with pytest.raises(ValueError, match="at least 8 images for one step, got 7; lower batch_size to 3"):
        TrainSampler(7, 4, 1, 0, SIZES, world=2)


def test_validation_sees_every_image_once_over_the_ranks_and_plainly(dataset):
    data = dataset(strong())
    batches = [batch for rank in range(3) for batch in val_loader(data, (32, 64), 2, rank=rank, world=3)]
    assert sorted(image_id for batch in batches for image_id in batch.image_ids) == [0, 10, 20, 30, 40, 50, 60]
    plain = dataset()[Draw(0, 0, (32, 64))]
    assert torch.equal(batches[0].images[0], plain.image)
    assert list(val_loader(data, (32, 64), 2, rank=9, world=10)) == []


def test_a_batch_keeps_its_order_and_moves_as_one(dataset):
    batch = collate([dataset()[Draw(index, 0, (32, 32))] for index in (3, 0, 1)]).to("cpu")
    assert isinstance(dataset()[Draw(0, 0, (32, 32))], Sample)
    assert batch.images.shape == (3, 3, 32, 32) and batch.image_ids == [30, 0, 10]
    assert [target.boxes.shape for target in batch.targets] == [(3, 4), (0, 4), (1, 4)]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_channel_counts_go_through_the_strong_policy(dataset, channels):
    data = dataset(strong(), channels=channels)
    samples = [data[Draw(index, epoch, (64, 64))] for index in range(7) for epoch in range(3)]
    assert {sample.image.shape for sample in samples} == {(channels, 64, 64)}


# --- a batch at once ---


def test_a_batch_at_once_is_each_of_its_draws(dataset):
    data = dataset(strong())
    draws = [Draw(index, epoch, (64, 64), (*range(7), 0)) for index in range(7) for epoch in range(2)]
    for one, other in zip(data.__getitems__(draws), [data[draw] for draw in draws], strict=True):
        assert torch.equal(one.image, other.image) and torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.labels, other.labels) and one.image_id == other.image_id


def decoded(data, monkeypatch, batches):
    """How often each index is loaded for these batches of draws."""
    seen: list[int] = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda index: seen.append(index) or load(index))
    for draws in batches:
        data.__getitems__(draws)
    return seen


def test_each_image_of_a_batch_is_decoded_once_for_all_its_mosaics(dataset, monkeypatch):
    data = dataset(train_policy(9, mosaic=1.0))
    draws = [Draw(index % 7, index // 7, (64, 64), (*range(7), 0)) for index in range(14)]
    assert sorted(decoded(data, monkeypatch, [draws])) == list(range(7))


@pytest.mark.parametrize(("policy", "pool"), [({"mosaic_from": "all"}, range(8)), ({}, range(3))])
def test_mosaics_from_all_and_of_a_small_batch_take_from_the_whole_set(dataset, monkeypatch, policy, pool):
    data = dataset(train_policy(9, mosaic=1.0, **policy))
    draws = [Draw(0, epoch, (64, 64), tuple(min(each, 2) for each in pool)) for epoch in range(9)]
    seen = decoded(data, monkeypatch, [draws])
    assert len(seen) == 36 and set(seen) == set(range(7))


def test_what_is_kept_for_a_batch_has_a_bound():
    calls: list[int] = []
    picture = picture_of(record_of([], None), np.zeros((40, 50, 3), np.uint8))
    load = kept(lambda index: calls.append(index) or picture, 2 * 40 * 50 * 3 + 5)
    for index in (0, 1, 2, 0, 1, 2):
        load(index)
    assert calls == [0, 1, 2, 2]


def test_the_sampler_says_which_images_lie_ready():
    ranks = [list(TrainSampler(13, 2, 2, 0, SIZES, rank=rank, world=3)) for rank in range(3)]
    for steps in ranks:
        assert all(draw.pool == tuple(each.index for each in draws) for draws in steps for draw in draws)


# --- outlines ---


def record_of(boxes, outlines, **more):
    count = len(boxes)
    values = {
        "labels": np.arange(count),
        "is_crowd": np.zeros(count, bool),
        "annotation_ids": np.arange(1, count + 1),
        "areas_px2": np.ones(count),
    }
    return Record(1, "x.png", (40, 50), np.array(boxes, float).reshape(-1, 4), outlines=outlines, **(values | more))


def test_outlines_stay_with_their_objects_when_some_are_no_targets():
    square = [np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])]
    moved = [square[0] + 20]
    record = record_of(
        [[0, 0, 10, 10], [5, 5, 0, 3], [20, 20, 10, 10], [1, 1, 8, 8]],
        [square, square, moved, None],
        is_crowd=np.array([True, False, False, False]),
    )
    picture = picture_of(record, np.zeros((40, 50, 3), np.uint8))
    assert picture.labels.tolist() == [2, 3] and picture.outlines[0] is moved and picture.outlines[1] is None
    assert [each.tolist() for each in targets_of(record)] == [picture.boxes_xyxy_px.tolist(), [2, 3]]


def test_an_outline_that_tells_another_box_is_not_believed():
    ring = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    for height, believed in ((11, True), (12, False)):  # IoU 0.91 and 0.83
        picture = picture_of(record_of([[0, 0, 10, height]], [[ring]]), np.zeros((40, 50, 3), np.uint8))
        assert (picture.outlines is not None) == believed


def test_an_outline_that_leaves_the_image_is_compared_inside_of_it():
    ring = np.array([[-30.0, 0], [10, 0], [10, 10], [-30, 10]])
    picture = picture_of(record_of([[0, 0, 10, 10]], [[ring]]), np.zeros((40, 50, 3), np.uint8))
    assert picture.outlines is not None


def test_polygons_of_a_file_bend_with_the_training_picture(dataset, tmp_path):
    content = json.loads((tmp_path / "x.json").read_text())
    diamond = [25, 5, 40, 20, 25, 35, 10, 20]
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 5, "bbox": [10, 5, 30, 30], "segmentation": [diamond]},
        {"id": 2, "image_id": 10, "category_id": 5, "bbox": [10, 5, 30, 30]},
    ]
    (tmp_path / "x.json").write_text(json.dumps(content))
    data = dataset()
    bent = [warp_picture(data.load(index), rotation(45, (40, 50)), "rectangle") for index in (0, 1)]
    widths = [picture.boxes_xyxy_px[0, 2] - picture.boxes_xyxy_px[0, 0] for picture in bent]
    assert widths == pytest.approx([30 / 2**0.5, 30 * 2**0.5], abs=0.05)
