import torch
from hypothesis import given
from hypothesis import strategies as st

from kit.boxes import (
    cxcywh_to_xywh_px,
    cxcywh_to_xyxy,
    paired_giou,
    pairwise_giou,
    xywh_px_to_cxcywh,
    xyxy_to_cxcywh,
)


def test_giou_of_disjoint_boxes_is_minus_the_gap_share() -> None:
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[3.0, 0.0, 4.0, 1.0]])  # hull 4, union 2, so giou = 0 - 2/4
    iou, giou = paired_giou(a, b)
    assert iou.item() == 0 and giou.item() == -0.5


def test_giou_of_equal_boxes_is_one() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    iou, giou = paired_giou(a, a)
    assert iou.item() == 1 and giou.item() == 1


def test_pairwise_is_paired_for_every_pair() -> None:
    a, b = torch.rand(2, 3, 4).sort(dim=-1).values
    iou, giou = pairwise_giou(a, b)
    for i in range(3):
        for j in range(3):
            expected = paired_giou(a[i : i + 1], b[j : j + 1])
            assert torch.allclose(torch.stack([iou[i, j], giou[i, j]]), torch.cat(expected), atol=1e-6)


def test_pixels_to_fractions_by_hand() -> None:
    boxes = xywh_px_to_cxcywh(torch.tensor([[10.0, 20.0, 30.0, 40.0]]), size_hw=(200, 100))
    assert torch.allclose(boxes, torch.tensor([[0.25, 0.2, 0.3, 0.2]]))


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4))
def test_formats_come_back(values: list[float]) -> None:
    boxes = torch.tensor([values], dtype=torch.float64)
    assert torch.allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)
    assert torch.allclose(xywh_px_to_cxcywh(cxcywh_to_xywh_px(boxes, (481, 640)), (481, 640)), boxes)
