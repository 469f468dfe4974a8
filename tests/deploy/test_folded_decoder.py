import torch
from torch import nn

from kit.deploy.folded_decoder import Anchors, Bins, FoldedSampling, Sharpness, at_most
from kit.dfine.bins import BINS, bin_values, decode_edges, move_edges
from kit.dfine.decoder import DeformableAttention


def test_one_product_decodes_edges_and_moves_boxes() -> None:
    offsets, reference = torch.randn(2, 5, 4 * BINS) * 3, torch.rand(2, 5, 4)
    for reg_scale in (4.0, 8.0):
        corners, boxes = Bins(reg_scale)(offsets, None, reference)
        edges = decode_edges(offsets.unflatten(-1, (4, BINS)), bin_values(reg_scale))
        assert torch.equal(corners, offsets.unflatten(-1, (4, BINS)))
        torch.testing.assert_close(boxes, move_edges(reference, edges, reg_scale))


def test_the_bins_of_a_layer_come_on_top_of_those_before() -> None:
    offsets, before = torch.randn(1, 2, 4 * BINS), torch.randn(1, 2, 4, BINS)
    corners, _ = Bins(4.0)(offsets, before, torch.rand(1, 2, 4))
    assert torch.equal(corners, offsets.unflatten(-1, (4, BINS)) + before)


def test_sampling_with_its_steps_in_the_weights_is_the_same() -> None:
    attention = DeformableAttention(16, heads=4, points=(3, 6)).eval()
    nn.init.normal_(attention.offsets.weight, std=0.3)
    nn.init.normal_(attention.weights.weight)
    x, boxes = torch.randn(2, 5, 16), torch.rand(2, 5, 4)
    levels = [torch.randn(8, 4, 8, 6), torch.randn(8, 4, 4, 3)]
    torch.testing.assert_close(FoldedSampling(attention)(x, boxes, levels), attention(x, boxes, levels))


def test_anchors_at_the_rim_are_not_used() -> None:
    anchors, usable = Anchors()([torch.zeros(1, 2, 64, 2)])  # rows: centres at 1/128, 3/128, ...
    assert usable[:, 0].tolist() == [0, 0] + [1] * 124 + [0, 0]  # 1/128 < 0.01
    assert torch.equal(anchors[:, 0].isinf(), usable[:, 0] == 0)


def test_sharpness_is_the_top_four_of_each_edge_and_their_mean() -> None:
    corners = torch.full((1, 1, 4, BINS), -torch.inf)
    corners[..., :2] = 0.0  # half and half
    assert Sharpness()(corners)[0, 0].tolist() == [0.5, 0.5, 0, 0, 0.25] * 4


def test_there_are_at_most_as_many_as_there_are() -> None:
    assert (at_most(300, 1200), at_most(300, 12)) == (300, 12)
