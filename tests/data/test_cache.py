import pickle

import numpy as np
import pytest
from PIL import Image

from kit.data.augment import Draw, plain_policy, train_policy
from kit.data.cache import MARK_BYTES, open_cache, places, total_bytes
from kit.data.coco import parse_coco
from kit.data.dataset import CocoDataset, TrainSampler, train_loader
from kit.data.pixels import read_image

ROOM = MARK_BYTES + 40 * 50 * 3
ALL = 8 * ROOM


@pytest.fixture
def data(tmp_path):
    """Eight noise images of 40 x 50 with a box each -> (CocoFile, folder)."""
    rng = np.random.default_rng(0)
    for n in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 50} for n in range(8)]
    boxes = [{"id": n + 1, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20]} for n in range(8)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    return parse_coco(content, tmp_path / "x.json"), tmp_path


def refuse():
    raise AssertionError("decoded, though the cache should have had it")


def through(cache, data, index):
    file = data[1] / data[0].records[index].file_name
    return cache.read(index, file, lambda: read_image(file))


def held(cache, data, index):
    return cache.read(index, data[1] / data[0].records[index].file_name, refuse)


@pytest.fixture(params=["ram", "disk"])
def cache(request, data):
    return open_cache(request.param, data[0], 3, ALL, data[1] / "cache")


def test_what_was_decoded_once_comes_back_pixel_by_pixel(cache, data):
    decoded = [through(cache, data, index) for index in range(8)]
    for index in range(8):
        assert np.array_equal(held(cache, data, index), decoded[index])
        assert np.array_equal(decoded[index], read_image(data[1] / f"{index}.png"))


def test_a_file_that_changes_is_decoded_again(cache, data):
    through(cache, data, 3)
    Image.new("RGB", (50, 40), (1, 2, 3)).save(data[1] / "3.png")
    assert through(cache, data, 3)[0, 0].tolist() == [1, 2, 3] == held(cache, data, 3)[0, 0].tolist()


def test_a_file_that_goes_is_missed_as_without_a_cache(cache, data):
    through(cache, data, 3)
    (data[1] / "3.png").unlink()
    with pytest.raises(ValueError, match=r"3\.png: expected an image, the file is missing"):
        through(cache, data, 3)


def test_the_bound_is_kept_and_the_rest_is_decoded(data):
    cache = open_cache("disk", data[0], 3, 3 * ROOM + 5, data[1] / "cache")
    for index in range(8):
        through(cache, data, index)
    assert cache.path.stat().st_size == 3 * ROOM and held(cache, data, 2).shape == (40, 50, 3)
    with pytest.raises(AssertionError):
        held(cache, data, 3)


def test_places_follow_from_the_sizes():
    assert places([(1, 2), (3, 1), (1, 1)], 1, 21) == [0, 10, -1]
    assert total_bytes([(1, 2), (3, 1), (1, 1)], 1, 21) == 21
    assert places([(100, 100)], 3, 10) == [-1] and total_bytes([(100, 100)], 3, 10) > 0


def test_the_disk_is_taken_up_again_and_a_half_written_image_is_not_believed(data):
    first = open_cache("disk", data[0], 3, ALL, data[1] / "cache")
    expected = [through(first, data, index) for index in (0, 1)][1].copy()
    first.shared[MARK_BYTES + 7] ^= 1  # a pixel of image 0 that never reached the disk
    again = open_cache("disk", data[0], 3, ALL, data[1] / "cache")
    assert again.path == first.path and np.array_equal(held(again, data, 1), expected)
    with pytest.raises(AssertionError):
        held(again, data, 0)
    assert np.array_equal(through(again, data, 0), read_image(data[1] / "0.png"))


def test_other_images_and_another_bound_are_another_file(data):
    paths = {
        open_cache("disk", data[0], channels, room, data[1] / "c").path
        for channels, room in ((3, ALL), (1, ALL), (3, ROOM))
    }
    assert len(paths) == 3


def test_a_pickled_cache_shares_what_is_there(cache, data):
    through(cache, data, 5)
    assert np.array_equal(held(pickle.loads(pickle.dumps(cache)), data, 5), read_image(data[1] / "5.png"))


def test_pixels_that_are_written_to_stay_with_who_wrote(cache, data):
    through(cache, data, 1)
    held(cache, data, 1)[:] = 0
    assert np.array_equal(held(pickle.loads(pickle.dumps(cache)), data, 1), read_image(data[1] / "1.png"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_training_pictures_are_the_same_with_and_without(cache, data, workers):
    def run(cache):
        dataset = CocoDataset(*data, train_policy(9, mosaic=0.5, mixup=0.5), cache=cache)
        sampler = TrainSampler(8, 8, 3, 0, [(64, 64)])
        return [(batch.images.sum().item(), batch.image_ids) for batch in train_loader(dataset, sampler, workers)]

    assert run(None) == run(cache) == run(cache)
    assert all(held(cache, data, index) is not None for index in range(8))  # the workers have filled it for all


def test_none_is_no_cache_and_what_cannot_be_is_refused(data):
    assert open_cache("none", data[0], 3, ALL) is None
    with pytest.raises(ValueError, match="expected a folder for a cache on the disk, got None"):
        open_cache("disk", data[0], 3, ALL)
    with pytest.raises(ValueError, match="expected pixels of 3 channels, got 1"):
        CocoDataset(*data, plain_policy(), cache=open_cache("ram", data[0], 1, ALL))
    with pytest.raises(ValueError, match=r"expected room for .* GiB of cache.*lower the bound"):
        open_cache("disk", data[0], 10**9, 10**30, data[1] / "cache")


def test_a_file_of_another_size_than_told_is_refused_as_without_a_cache(cache, data):
    Image.new("RGB", (50, 41)).save(data[1] / "1.png")
    dataset = CocoDataset(*data, plain_policy(), cache=cache)
    with pytest.raises(ValueError, match=r"1\.png: expected height, width \(40, 50\)"):
        dataset[Draw(1, 0, (64, 64))]
