from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit.data.coco import CocoFile, read_coco, write_coco
from kit.dfine.decoder import Output
from kit.predict import predict_dataset
from kit.tta import (
    InputView,
    ShownImages,
    detect,
    fuse_lists,
    input_views,
    is_cut,
    predict_with_views,
    seconds_per_image,
    spans,
    windows_of,
    without_doubles,
)
from tests import tiny

SIZES_HW = {1: (50, 60), 2: (60, 40), 3: (60, 60)}  # below the input: then the window can be read off its pixels
TRUTHS_XYXY_PX = {
    1: [[1.25, 2.5, 9.75, 8.0], [20.0, 10.0, 45.5, 41.25], [51.5, 40.25, 60.0, 50.0]],
    2: [[3.0, 3.0, 36.0, 57.5], [30.125, 44.0, 38.0, 51.0]],
    3: [],
}


class Oracle(nn.Module):
    """Reads off the pixels which part of which image it is shown, and knows what is there; what an edge cuts is cut.

    Red is the pixel's x, green its y, blue the image id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = 3
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Output:
        answers = [self.look(image) for image in (images.double() * 255).round()]
        return Output(torch.stack([logits for logits, _ in answers]), torch.stack([boxes for _, boxes in answers]))

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        left, right, top, bottom = (float(v) for v in (*image[0, 0, [0, -1]], *image[1, [0, -1], 0]))
        x1, x2, y1, y2 = min(left, right), max(left, right) + 1, top, bottom + 1
        boxes, logits = torch.zeros(4, 4), torch.full((4, 2), -20.0)
        for row, box in enumerate(TRUTHS_XYXY_PX[int(image[2, 0, 0])]):
            low = torch.tensor([(max(box[0], x1) - x1) / (x2 - x1), (max(box[1], y1) - y1) / (y2 - y1)])
            high = torch.tensor([(min(box[2], x2) - x1) / (x2 - x1), (min(box[3], y2) - y1) / (y2 - y1)])
            if (high > low).all():
                centre = (low + high) / 2
                centre[0] = 1 - centre[0] if left > right else centre[0]
                boxes[row], logits[row, row % 2] = torch.cat([centre, high - low]), 2.0
        return logits, boxes


@pytest.fixture
def coco(tmp_path: Path) -> CocoFile:
    images = []
    for image_id, (height, width) in SIZES_HW.items():
        y, x = np.mgrid[:height, :width].astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{image_id}.png"), np.stack([np.full_like(x, image_id), y, x], axis=-1))
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
    categories = [{"id": 5, "name": "a"}, {"id": 9, "name": "b"}]
    return read_coco(write_coco(tmp_path / "all.json", images, [], categories))


def boxes_of(results: list[dict], image_id: int) -> np.ndarray:
    """(N, 4) xyxy px, by category and place."""
    own = sorted((each["category_id"], *each["bbox"]) for each in results if each["image_id"] == image_id)
    boxes = np.array(own).reshape(-1, 5)
    return np.concatenate([boxes[:, 1:3], boxes[:, 1:3] + boxes[:, 3:]], axis=1)


@pytest.mark.parametrize("tiles", [2, 3])
def test_every_view_gives_the_same_boxes_back_in_pixels_of_the_image(coco: CocoFile, tiles: int) -> None:
    views = input_views((64, 64), flip=True, scales=[1.0, 1.5], tiles=tiles)
    found = predict_with_views(Oracle(), coco, coco.path.parent, views, batch_size=2, min_score=0.5)  # type: ignore[arg-type]
    assert list(found) == ["whole", "flip", "x1.5", "x1.5 flip", f"tiles {tiles}x{tiles}"]
    for name, results in found.items():
        for image_id, truth in TRUTHS_XYXY_PX.items():
            ordered = np.array(truth[0::2] + truth[1::2]).reshape(-1, 4)
            assert boxes_of(results, image_id) == pytest.approx(ordered, abs=1e-4), (name, image_id)


@pytest.mark.parametrize("flip", [False, True])
def test_tiles_alone_find_what_no_edge_cuts_and_nothing_else(coco: CocoFile, flip: bool) -> None:
    view = InputView((64, 64), flip=flip, tiles=2)
    dataset = ShownImages(coco, coco.path.parent, [view])
    first, second, empty = detect(Oracle(), [dataset[row] for row in range(3)], view, batch_size=3, top_k=4)  # type: ignore[arg-type]
    seen = [each.boxes_xyxy_px[each.scores > 0.5].tolist() for each in (first, second, empty)]
    assert seen[0] == [pytest.approx(TRUTHS_XYXY_PX[1][0], abs=1e-4), pytest.approx(TRUTHS_XYXY_PX[1][2], abs=1e-4)]
    assert seen[1] == [pytest.approx(TRUTHS_XYXY_PX[2][1], abs=1e-4)] and seen[2] == []


def test_shards_of_the_images_hold_together_what_one_run_finds(coco: CocoFile) -> None:
    views = input_views((64, 64), tiles=2)
    how = {"images": coco.path.parent, "views": views, "min_score": 0.5}
    whole = predict_with_views(Oracle(), coco, **how)  # type: ignore[arg-type]
    shards = [predict_with_views(Oracle(), coco, rank=rank, world=2, **how) for rank in range(2)]  # type: ignore[arg-type]
    for name in views:
        together = [each for shard in shards for each in shard[name]]
        assert sorted(map(str, together)) == sorted(map(str, whole[name]))


def test_the_plain_view_is_what_predict_dataset_gives(tmp_path: Path) -> None:
    data, detector = tiny.dataset(tmp_path, images=5), tiny.detector().train()
    how = {"batch_size": 2, "min_score": 0.0, "top_k": 10}
    done: list[tuple[int, int]] = []
    found = predict_with_views(
        detector, data.coco, data.images, input_views((64, 64)), progress=lambda *x: done.append(x), **how
    )
    assert found == {"whole": predict_dataset(detector, data.coco, data.images, size_hw=(64, 64), **how)}
    assert done == [(1, 3), (2, 3), (3, 3)] and detector.training


def test_tiles_ask_for_the_whole_image_beside_them_and_keep_quiet_about_it(coco: CocoFile) -> None:
    views = {"tiles": InputView((64, 64), tiles=3)}
    found = predict_with_views(Oracle(), coco, coco.path.parent, views, min_score=0.5)  # type: ignore[arg-type]
    assert list(found) == ["tiles"] and len(boxes_of(found["tiles"], 2)) == 2  # one of them cut by every tile


def test_a_box_at_an_inner_edge_is_cut_and_one_at_the_rim_of_the_image_is_not() -> None:
    window, size_hw = (0, 100, 200, 300), (300, 400)  # its left and lower edges are those of the image
    inside, at_rim, at_top, at_right = [50, 150, 60, 160], [0, 150, 10, 300], [50, 101, 60, 110], [150, 150, 199, 160]
    boxes = torch.tensor([inside, at_rim, at_top, at_right], dtype=torch.float64)
    assert is_cut(boxes, window, size_hw).tolist() == [False, False, True, True]


@pytest.mark.parametrize("length", [1, 5, 97, 1080])
@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_tiles_cover_every_pixel_and_overlap_by_a_fifth(length: int, tiles: int) -> None:
    parts = spans(length, tiles)
    assert len(parts) == tiles and parts[0][0] == 0 and parts[-1][1] == length
    part = parts[0][1]
    assert all(end - start == part for start, end in parts)
    assert all(a[1] - b[0] >= 0.2 * part - 1 for a, b in pairwise(parts))
    assert len(windows_of((length, length), tiles)) == tiles**2


def test_views_have_sizes_that_the_detector_takes_and_each_name_once() -> None:
    views = input_views((640, 960), scales=[1.0, 0.7, 0.01], flip=True)
    assert views["x0.7"] == InputView((448, 672)) and views["x0.01"].size_hw == (32, 32)
    assert list(input_views((64, 64), tiles=1)) == ["whole"]
    with pytest.raises(ValueError, match="scales must be above 0"):
        input_views((64, 64), scales=[0.0])
    with pytest.raises(ValueError, match="multiples of 32"):
        InputView((65, 64))


def test_the_time_of_an_image_is_told_for_each_view(tmp_path: Path) -> None:
    data, detector = tiny.dataset(tmp_path, images=2), tiny.detector().train()
    seconds = seconds_per_image(detector, data.coco, data.images, input_views((64, 64), tiles=2), sample=1)
    assert 0 < seconds["whole"] < seconds["tiles 2x2"] < 60 and detector.training


def double(score: float, x: float = 10.0) -> dict:
    return {"image_id": 1, "category_id": 5, "bbox": [x, 10.0, 20.0, 20.0], "score": score}


def test_weak_doubles_in_a_list_do_not_lower_the_score_of_what_both_lists_are_sure_of() -> None:
    lists = [[double(0.9), double(0.1, x=11.0)], [double(0.7), double(0.05, x=9.0)]]
    (fused,) = fuse_lists(lists, {1: (50, 60)}, method="wbf", iou=0.55)
    assert fused["score"] == pytest.approx(0.8) and fused["bbox"] == pytest.approx([10, 10, 20, 20])


def test_a_single_list_stays_as_it_is_unless_its_doubles_are_to_go() -> None:
    results = [double(0.1, x=11.0), double(0.9)]
    assert fuse_lists([results], {1: (50, 60)}) is results
    (left,) = without_doubles(results, {1: (50, 60)}, iou=0.55)
    assert left == double(0.9)
