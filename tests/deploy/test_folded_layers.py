import torch
from torch import nn

from kit.deploy.folded_layers import FoldedAttention, FusionFromBelow, half_conv
from kit.deploy.folding import fold_norm
from kit.dfine.encoder import FusionBlock
from kit.dfine.layers import QueryAttention


def test_attention_with_the_factor_in_its_weights_is_the_same() -> None:
    attention = QueryAttention(32, heads=4).eval()
    nn.init.normal_(attention.qkv.bias)
    x, position = torch.randn(2, 5, 32), torch.randn(5, 32)
    torch.testing.assert_close(FoldedAttention(attention)(x, position), attention(x, position))


def test_mixing_before_enlarging_is_mixing_after_it() -> None:
    block = FusionBlock(8, 4, 1).eval()
    for module in list(block.modules()):
        fold_norm(module, "conv", "norm")
    coarse, fine = torch.randn(2, 8, 3, 2), torch.randn(2, 8, 6, 4)
    whole = torch.cat([coarse.repeat_interleave(2, 2).repeat_interleave(2, 3), fine], dim=1)
    torch.testing.assert_close(FusionFromBelow(block)(coarse, fine), block(whole))


def test_the_halves_of_a_convolution_add_up_to_it() -> None:
    conv, x = nn.Conv2d(4, 3, 1), torch.randn(1, 4, 2, 2)
    halves = half_conv(conv, 0)(x[:, :2]) + half_conv(conv, 1)(x[:, 2:])
    torch.testing.assert_close(halves, conv(x))
