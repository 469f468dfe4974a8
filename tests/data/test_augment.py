import os

import numpy as np
import pytest
from PIL import Image

from kit.data.augment import (
    Draw,
    Recipe,
    bent,
    drawn_warp,
    happens,
    iou_crop,
    mixed,
    mosaic,
    multi_scale_sizes,
    plain_policy,
    render,
    resized,
    single,
    train_policy,
)
from kit.data.colours import Colours
from kit.data.outlines import box_rings, hull
from kit.data.picture import Picture, flipped, quarter_turned, vertically_flipped, visible, whole
from kit.data.warps import random_fisheye, random_radial, random_rotation, rotation, warp_picture

GEOMETRIES = {
    "plain": Recipe(),
    "flip": Recipe(flip=1.0),
    "vertical flip": Recipe(vertical_flip=1.0),
    "quarter turns": Recipe(rot90=1.0),
    "zoom-out": Recipe(zoom_out=1.0, zoom_out_max=2.0),
    "IoU crop": Recipe(iou_crop=1.0),
    "all": Recipe(flip=0.5, vertical_flip=0.5, rot90=0.5, zoom_out=0.5, zoom_out_max=2.0, iou_crop=0.8),
}
BENDING = {"fisheye": 0.4, "lens": 0.4, "radial": 0.4, "vignette": 0.4, "chromatic": 0.4}
EVERYTHING = train_policy(9, mosaic=0.5, mixup=0.5, vertical_flip=0.5, rot90=0.5, rotate=0.5, rotate_deg=180, **BENDING)


def picture_of(box_xyxy_px, size_hw, channel=0, channels=3):
    """White in one channel where the box is, to the nearest pixel, which the box is set to."""
    x0, y0, x1, y1 = np.round(box_xyxy_px).astype(int)
    image = np.zeros((*size_hw, channels), np.uint8)
    image[y0:y1, x0:x1, channel] = 255
    return Picture(image, np.array([[x0, y0, x1, y1]], float), np.array([channel]))


def random_picture(rng, channel=0, channels=3):
    height, width = rng.integers(300, 600, size=2)
    corner = rng.uniform([0, 0], [width * 0.5, height * 0.5])
    size = rng.uniform([width * 0.35, height * 0.35], [width * 0.5, height * 0.5])
    return picture_of([*corner, *(corner + size)], (height, width), channel, channels)


def empty_picture(channels=3):
    return Picture(np.full((40, 50, channels), 7, np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))


def box_of_bright(plane, level=127):
    """The rectangle around the bright pixels, or None."""
    rows, columns = np.flatnonzero((plane > level).any(axis=1)), np.flatnonzero((plane > level).any(axis=0))
    return None if not len(rows) else np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def iou(a, b):
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", GEOMETRIES)
def test_boxes_stay_on_their_objects(name, seed):
    picture = random_picture(np.random.default_rng(seed))
    result = single(picture, (512, 640), GEOMETRIES[name], np.random.default_rng(seed))
    assert result.image.shape == (512, 640, 3) and len(result.labels) == 1
    assert iou(result.boxes_xyxy_px[0], box_of_bright(result.image[..., 0])) >= 0.95


@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_on_their_objects_in_a_mosaic(seed):
    pictures = [random_picture(np.random.default_rng([seed, k]), channel=k, channels=4) for k in range(4)]
    result = mosaic(pictures, (512, 640), Recipe(), np.random.default_rng(seed))
    assert len(result.labels) >= 1
    for box, label in zip(result.boxes_xyxy_px, result.labels, strict=True):
        assert iou(box, box_of_bright(result.image[..., label])) >= 0.95


@pytest.mark.parametrize("angle_deg", [0, 7, 30, 45, 90, 123, 180, -60])
def test_a_rotated_ellipse_fits_its_rotated_box(angle_deg):
    y, x = np.mgrid[:500, :640] + 0.5
    inside = ((x - 300) / 120) ** 2 + ((y - 260) / 60) ** 2 <= 1
    image = np.repeat(inside[..., None].astype(np.uint8) * 255, 3, axis=2)
    picture = Picture(image, np.array([[180.0, 200, 420, 320]]), np.array([0]))
    result = warp_picture(picture, rotation(angle_deg, (500, 640)), "ellipse")
    assert iou(result.boxes_xyxy_px[0], box_of_bright(result.image[..., 0])) >= 0.97


def test_a_rotation_by_90_degrees_is_the_quarter_turn():
    picture = picture_of([40, 10, 90, 30], (100, 100))
    by_angle, exact = warp_picture(picture, rotation(90, (100, 100))), quarter_turned(picture, 1)
    assert np.array_equal(by_angle.image, exact.image)
    assert np.allclose(by_angle.boxes_xyxy_px, exact.boxes_xyxy_px)


def test_turns_are_exact_and_come_back():
    picture = picture_of([3, 5, 20, 11], (30, 50))
    for turn in (flipped, vertically_flipped, lambda p: quarter_turned(p, 2)):
        twice = turn(turn(picture))
        assert np.array_equal(twice.image, picture.image) and np.array_equal(twice.boxes_xyxy_px, picture.boxes_xyxy_px)
    once = quarter_turned(picture, 1)
    assert once.size_hw == (50, 30) and once.boxes_xyxy_px.tolist() == [[5, 30, 11, 47]]


def test_boxes_are_never_rounded():
    picture = Picture(np.zeros((67, 101, 3), np.uint8), np.array([[10.3, 7.7, 24.8, 26.2]]), np.array([0]))
    result = render(picture, whole(picture), (640, 640))
    expected = np.array([10.3 / 101, 7.7 / 67, 24.8 / 101, 26.2 / 67]) * 640
    assert np.allclose(result.boxes_xyxy_px[0], expected, rtol=0, atol=1e-9)


def test_boxes_under_one_pixel_are_dropped():
    boxes = np.array([[10, 10, 10.9, 20], [10, 10, 11.1, 20], [10, 10, 20, 10.5]])
    picture = Picture(np.zeros((50, 50, 3), np.uint8), boxes, np.array([0, 1, 2]))
    assert render(picture, whole(picture), (50, 50)).labels.tolist() == [1]
    assert render(picture, whole(picture), (100, 100)).labels.tolist() == [0, 1, 2]


def test_a_box_stays_with_a_quarter_of_its_area():
    boxes = np.array([[-7.4, 0, 2.6, 10], [-7.6, 0, 2.4, 10]])  # 26 % and 24 % of the area inside
    picture = visible(Picture(np.zeros((50, 50, 3), np.uint8), boxes, np.array([0, 1])), (0, 0, 50, 50))
    assert picture.labels.tolist() == [0] and picture.boxes_xyxy_px.tolist() == [[0, 0, 2.6, 10]]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_images_without_boxes_go_through_everything(channels, seed):
    for policy in (EVERYTHING, plain_policy()):
        result = policy(lambda _: empty_picture(channels), 5, Draw(0, 0, (64, 96)), seed)
        assert result.image.shape == (64, 96, channels) and result.image.dtype == np.uint8
        assert result.boxes_xyxy_px.shape == (0, 4) and result.labels.shape == (0,)


def test_the_same_draw_gives_the_same_picture_and_another_epoch_another():
    pictures = [random_picture(np.random.default_rng(k), channel=k % 3) for k in range(6)]
    draws = [Draw(index, epoch, (128, 128)) for index in range(6) for epoch in range(3)]
    first = [EVERYTHING(pictures.__getitem__, 6, draw, 3) for draw in draws]
    again = [EVERYTHING(pictures.__getitem__, 6, draw, 3) for draw in reversed(draws)][::-1]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.boxes_xyxy_px, b.boxes_xyxy_px)
    assert len({a.image.tobytes() for a in first}) == len(first)


@pytest.mark.parametrize("name", ["fisheye", "lens", "radial", "vignette", "chromatic", "rotate"])
def test_each_of_the_lens_knobs_turns_something_and_off_draws_nothing(name):
    colourful = random_picture(np.random.default_rng(0), channel=0)
    colourful.image[..., 2] = colourful.image[..., 0][::-1] // 2 + 60
    draw, still = Draw(0, 0, (96, 128)), {"photometric": 0.0, "zoom_out": 0.0, "iou_crop": 0.0, "flip": 0.0}
    plain, off, on = (
        train_policy(1, **still, **knobs)(lambda _: colourful, 1, draw, 7).image
        for knobs in ({}, {name: 0.0}, {name: 1.0})
    )
    assert np.array_equal(plain, off) and not np.array_equal(plain, on)


def test_what_is_off_leaves_the_random_numbers_of_the_rest_alone():
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    assert not happens(0.0, rng) and rng.random() == untouched.random()


def test_warps_are_composed_and_resampled_once():
    recipe = Recipe(fisheye=1.0, radial=1.0, rotate=1.0, rotate_deg=20.0)
    warp = drawn_warp((300, 400), recipe, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    one_by_one = [rng.random() is None or make((300, 400), rng) for make in (random_fisheye, random_radial)]
    rng.random()
    last = random_rotation((300, 400), rng, 20.0)
    points = np.array([[200.0, 150], [120, 90]])
    expected = last.to_target(one_by_one[1].to_target(one_by_one[0].to_target(points)))
    assert np.allclose(warp.to_target(points), expected)
    assert drawn_warp((300, 400), Recipe(), np.random.default_rng(0)) is None


def test_a_turned_box_that_is_cut_afterwards_is_as_tight_as_its_outline_would_be():
    """A box is taken for the ellipse in it: above a chord this is narrower than the box."""
    recipe = Recipe(rotate=1.0, rotate_deg=0.0, box_outline="ellipse")
    turned_picture = bent(
        picture_of([100, 100, 200, 200], (300, 300)), recipe, np.random.default_rng(0), keep_shapes=True
    )
    result = render(turned_picture, (100, 100, 250, 140), (40, 150))
    half = np.sqrt(50**2 - 10**2)  # of the circle's chord, 10 px above its middle
    assert result.boxes_xyxy_px[0] == pytest.approx([50 - half, 0, 50 + half, 40], abs=0.2)


@pytest.mark.parametrize("seed", range(6))
def test_outlines_go_through_the_training_with_their_boxes(seed):
    rng = np.random.default_rng(seed)
    pictures = [random_picture(rng, channel=k % 3) for k in range(4)]
    outlined = [
        Picture(each.image, each.boxes_xyxy_px, each.labels, [[box_rings(each.boxes_xyxy_px)[0]]]) for each in pictures
    ]
    policy, draws = (
        train_policy(9, mosaic=0.5, mixup=0.5, vertical_flip=0.5, rot90=0.5),
        [Draw(k, 0, (96, 128)) for k in range(4)],
    )
    for draw in draws:
        bare, with_outlines = (policy(each.__getitem__, 4, draw, seed) for each in (pictures, outlined))
        assert np.array_equal(bare.image, with_outlines.image) and bare.outlines is None
        assert np.allclose(bare.boxes_xyxy_px, with_outlines.boxes_xyxy_px, atol=0.02)
        assert np.allclose([hull(each) for each in with_outlines.outlines], with_outlines.boxes_xyxy_px, atol=0.05)


def test_phases_change_at_their_epochs():
    policy = train_policy(10, plain_epochs=2, mosaic_until_epoch=6, mosaic=0.5, mixup=0.5, flip=0.5)
    assert policy.recipe(1) == policy.recipe(10) == Recipe(flip=0.5)
    assert policy.recipe(2).mosaic == policy.recipe(5).mixup == 0.5
    assert policy.recipe(6).mosaic == policy.recipe(9).mixup == 0 and policy.recipe(9).iou_crop == 0.8


def test_the_default_is_the_published_recipe():
    recipe = train_policy(10).recipe(0)
    assert (recipe.zoom_out, recipe.zoom_out_max, recipe.iou_crop, recipe.flip) == (0.5, 4.0, 0.8, 0.5)
    assert recipe.mosaic == recipe.mixup == recipe.rotate == recipe.rot90 == recipe.vertical_flip == 0


def test_colours_leave_the_black_around_a_zoomed_out_picture_black():
    picture = Picture(np.full((60, 60, 3), 90, np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    result = render(picture, (-60, -60, 120, 120), (90, 90), Colours(1.0), np.random.default_rng(1))
    assert (result.image[30:60, 30:60] > 0).all()
    assert result.image.sum() == result.image[30:60, 30:60].sum()


def test_colours_leave_the_fourth_channel_and_one_channel_stays_one():
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8)
    picture = Picture(image, np.zeros((0, 4)), np.zeros(0, np.int64))
    grey = Picture(image[..., :1], np.zeros((0, 4)), np.zeros(0, np.int64))
    recipe = Recipe(distort=Colours(1.0))
    result = single(picture, (32, 32), recipe, np.random.default_rng(0)).image
    assert np.array_equal(result[..., 3], image[..., 3]) and not np.array_equal(result[..., :3], image[..., :3])
    assert single(grey, (32, 32), recipe, np.random.default_rng(0)).image.shape == (32, 32, 1)


@pytest.mark.parametrize("size_hw", [(64, 48), (150, 200), (300, 333), (80, 400), (100, 130)])
def test_resize_is_the_one_of_the_published_preprocessing(size_hw):
    coarse = np.random.default_rng(0).integers(0, 255, (25, 33, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(coarse).resize((130, 100), Image.Resampling.BICUBIC))
    by_pillow = np.asarray(Image.fromarray(image).resize(size_hw[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resized(image, size_hw).astype(int) - by_pillow).max() <= 2


def test_an_iou_crop_lies_in_the_window_and_has_a_centre_inside():
    boxes = np.array([[10.0, 10, 30, 30], [70, 60, 90, 95]])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    crops = [iou_crop((-20, 0, 120, 100), boxes, np.random.default_rng(seed)) for seed in range(200)]
    for x0, y0, x1, y1 in crops:
        assert -20 <= x0 < x1 <= 120 and 0 <= y0 < y1 <= 100
        assert ((centres > [x0, y0]) & (centres < [x1, y1])).all(axis=1).any()
    whole_ones = sum(crop == (-20, 0, 120, 100) for crop in crops)
    assert 0.1 < whole_ones / 200 < 0.6


def test_mosaic_fills_the_canvas_with_all_four_pictures():
    pictures = [
        Picture(np.full((50, 70, 1), 10 * (k + 1), np.uint8), np.zeros((0, 4)), np.zeros(0, int)) for k in range(4)
    ]
    image = mosaic(pictures, (96, 128), Recipe(), np.random.default_rng(0)).image
    assert sorted(set(image.ravel().tolist())) == [10, 20, 30, 40]
    assert [int(image[y, x, 0]) for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))] == [10, 20, 30, 40]


def test_mixup_keeps_the_objects_of_both():
    result = mixed(picture_of([10, 10, 40, 40], (64, 64), 0), picture_of([20, 30, 60, 50], (64, 64), 1), share=0.45)
    assert result.labels.tolist() == [0, 1]
    assert result.image[20, 20].tolist() == [115, 0, 0] and result.image[45, 50].tolist() == [0, 140, 0]


def test_multi_scale_sizes_are_those_of_the_published_configs():
    sizes = multi_scale_sizes((640, 640), repeat=3)
    assert sorted(set(sizes)) == [(side, side) for side in range(480, 801, 32)]
    assert sizes.count((640, 640)) == 3 and sizes.count((480, 480)) == 1


def test_multi_scale_sizes_of_a_rectangle_keep_its_shape_and_the_stride():
    for height, width in multi_scale_sizes((384, 640), repeat=1):
        assert height % 32 == width % 32 == 0 and abs(width / height - 640 / 384) < 0.1
    with pytest.raises(ValueError, match="multiples of 32"):
        multi_scale_sizes((600, 640), repeat=1)


def test_importing_does_not_ask_for_a_newer_albumentations():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
