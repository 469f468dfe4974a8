import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data.near_duplicates import (
    BITS,
    NEAR_BITS,
    cluster,
    clusters_by_id,
    hash_files,
    hash_image,
    merged,
    nearest,
)


def photo(seed, side=256):
    """Blurred noise: something of everything, like a photo."""
    noise = np.random.default_rng(seed).normal(0, 1, (side, side)).astype(np.float32)
    soft = sum(cv2.GaussianBlur(noise, (0, 0), width) * width for width in (2, 8, 24))
    return cv2.normalize(soft, None, 20, 220, cv2.NORM_MINMAX).astype(np.uint8)


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_GRAYSCALE)


def random_hashes(seed, count):
    return np.random.default_rng(seed).random((count, BITS)) < 0.5


def flipped(hashes, bits):
    """The same with the first bits turned over."""
    result = hashes.copy()
    result[..., :bits] ^= True
    return result


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda image: (image * 0.8 + 20).astype(np.uint8),
        lambda image: np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
    ],
    ids=["compressed", "halved", "flatter", "noisy"],
)
def test_the_same_picture_stored_anew_is_near(change):
    for seed in range(5):
        assert (hash_image(photo(seed)) ^ hash_image(change(photo(seed)))).sum() <= NEAR_BITS


def test_other_pictures_are_far():
    hashes = np.array([hash_image(photo(seed)) for seed in range(12)])
    assert nearest(hashes).bits.min() > 2 * NEAR_BITS


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_the_nearest_is_that_of_a_plain_comparison(count, seed):
    hashes = random_hashes(seed, count)
    table = (hashes[:, None] ^ hashes[None]).sum(axis=2) + BITS * 2 * np.eye(count, dtype=int)
    found = nearest(hashes)
    assert found.bits.tolist() == table.min(axis=1).tolist()
    assert table[np.arange(count), found.index].tolist() == found.bits.tolist()


def test_across_two_parts_the_nearest_is_of_the_other():
    train = random_hashes(0, 600)
    val = flipped(train[[7, 599]], 3)
    found = nearest(val, train)
    assert found.index.tolist() == [7, 599] and found.bits.tolist() == [3, 3]


def test_a_picture_alone_has_no_nearest():
    assert nearest(random_hashes(0, 1)).index.tolist() == [-1] and nearest(random_hashes(0, 1)).bits.tolist() == [BITS]
    assert nearest(random_hashes(0, 2), random_hashes(0, 0)).index.tolist() == [-1, -1]
    assert nearest(random_hashes(0, 0)).index.tolist() == []


def test_clusters_are_chains_of_near_pairs_over_all_chunks():
    hashes = random_hashes(1, 700)
    hashes[600] = flipped(hashes[5], NEAR_BITS)
    hashes[300] = flipped(hashes[600], NEAR_BITS // 2)  # half way back: near both
    hashes[40] = flipped(hashes[699], NEAR_BITS + 1)  # one bit too far
    labels = cluster(hashes)
    assert labels[5] == labels[600] == labels[300] and labels[40] != labels[699]
    assert len(set(labels.tolist())) == 698


def test_pictures_that_are_all_alike_are_one_cluster():
    assert set(cluster(np.zeros((900, BITS), bool)).tolist()) == {0}


def test_links_join_clusters_and_their_members():
    labels = merged(np.array([0, 1, 2, 2, 3]), np.array([0]), np.array([2]))
    assert labels[0] == labels[2] == labels[3] and len(set(labels.tolist())) == 3


def test_only_clusters_of_several_pictures_are_named():
    assert clusters_by_id([10, 20, 30], np.array([4, 1, 4])) == {10: 4, 30: 4}
    assert clusters_by_id([], np.zeros(0, np.int64)) == {}


def test_files_are_hashed_in_their_order_and_counted(tmp_path):
    paths, calls = [tmp_path / f"{seed}.png" for seed in range(3)], []
    for seed, path in enumerate(paths):
        cv2.imwrite(str(path), photo(seed))
    hashes = hash_files(paths, lambda done, total: calls.append((done, total)))
    assert (hashes == [hash_image(photo(seed)) for seed in range(3)]).all() and calls[-1] == (3, 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png"):
        hash_files([tmp_path / "gone.png"])


def test_real_photos_hold_no_duplicates_and_neighbouring_frames_are_near(shared):
    photos = sorted(shared("data/vehicles_openimages/images/val").glob("*.jpg"))
    assert nearest(hash_files(photos)).bits.min() > 2 * NEAR_BITS
    frames = sorted(shared("data/fisheye8k_mini/images/train").glob("camera1_*.png"))
    assert nearest(hash_files(frames)).bits.max() < 2 * NEAR_BITS
