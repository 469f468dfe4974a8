"""What takes the place of the encoder's layers, and of attention, in a folded detector."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.dfine.encoder import FusionBlock, HybridEncoder, RepBlock, TokenLayer, position_embedding
from kit.dfine.layers import QueryAttention


class MergedBlock(nn.Module):
    """RepBlock after training: the 1x1 branch lies in the middle of the 3x3 kernel."""

    def __init__(self, block: RepBlock):
        super().__init__()
        self.conv, self.act = block.square.conv, nn.SiLU(inplace=True)
        point = block.point.conv
        assert self.conv.bias is not None and point.bias is not None
        self.conv.weight = nn.Parameter(self.conv.weight + F.pad(point.weight, [1, 1, 1, 1]), False)
        self.conv.bias = nn.Parameter(self.conv.bias + point.bias, False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.act(self.conv(x))


class FoldedEncoder(nn.Module):
    """HybridEncoder; what comes up from a coarse level is mixed before it is enlarged, at a quarter of the cost."""

    def __init__(self, encoder: HybridEncoder):
        super().__init__()
        self.project, self.attention, self.lateral = encoder.project, encoder.attention, encoder.lateral
        blocks = [block for block in encoder.top_down if isinstance(block, FusionBlock)]
        self.top_down = nn.ModuleList(FusionFromBelow(block) for block in blocks)
        self.down, self.bottom_up = encoder.down, encoder.bottom_up

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """One (B, C_level, H, W) per level -> one (B, C, H, W) per level."""
        levels = [project(feature) for project, feature in zip(self.project, features, strict=True)]
        out = [self.attention(levels[-1])]
        for lateral, fuse, fine in zip(self.lateral, self.top_down, reversed(levels[:-1]), strict=True):
            out[0] = lateral(out[0])
            out.insert(0, fuse(out[0], fine))
        levels, out = out, out[:1]
        for down, fuse, coarse in zip(self.down, self.bottom_up, levels[1:], strict=True):
            out.append(fuse(torch.cat([down(out[-1]), coarse], dim=1)))
        return out


class FusionFromBelow(nn.Module):
    """FusionBlock of an enlarged coarse level and a fine one: a 1x1 convolution may as well go before the enlarging."""

    def __init__(self, block: FusionBlock):
        super().__init__()
        self.coarse, self.fine = half_conv(block.enter.conv, 0), half_conv(block.enter.conv, 1)
        self.act, self.first, self.second, self.leave = block.enter.act, block.first, block.second, block.leave

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, C, H/2, W/2), (B, C, H, W) -> (B, C, H, W)."""
        enlarged = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")  # (B, 2C, H, W)
        entered = self.act(self.fine(fine) + enlarged)  # (B, 2C, H, W)
        first = self.first(entered[:, entered.shape[1] // 2 :])  # (B, inner, H, W)
        return self.leave(torch.cat([entered, first, self.second(first)], dim=1))


def half_conv(conv: nn.Conv2d, half: int) -> nn.Conv2d:
    """The part of a 1x1 convolution that looks at the first or second half of its channels; the second has the bias."""
    part = nn.Conv2d(conv.in_channels // 2, conv.out_channels, 1, bias=half == 1, dtype=conv.weight.dtype)
    part.weight = nn.Parameter(conv.weight.chunk(2, dim=1)[half].contiguous(), False)
    if half == 1:
        part.bias = conv.bias
    return part


class FoldedTokenLayer(nn.Module):
    """TokenLayer, with the position embedding as a module."""

    def __init__(self, layer: TokenLayer):
        super().__init__()
        self.position = Position()
        self.attention = FoldedAttention(layer.attention)
        self.widen, self.narrow, self.norm1, self.norm2 = layer.widen, layer.narrow, layer.norm1, layer.norm2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, H*W, C)
        tokens = self.norm1(tokens + self.attention(tokens, self.position(x)))
        tokens = self.norm2(tokens + self.narrow(F.gelu(self.widen(tokens))))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:]).contiguous()  # (B, C, H, W)


class Position(nn.Module):
    """The position embedding; a constant where the input size is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (H*W, C)."""
        return position_embedding(x.shape[2], x.shape[3], x.shape[1], x)


class FoldedAttention(nn.Module):
    """QueryAttention with the factor 1 / sqrt(C / heads) inside the weights of q."""

    def __init__(self, attention: QueryAttention):
        super().__init__()
        self.heads, self.out = attention.heads, attention.out
        channels = attention.out.in_features
        scale = torch.ones(3 * channels, 1, dtype=torch.float64)
        scale[:channels] = math.sqrt(attention.heads / channels)
        weight = (attention.qkv.weight.double() * scale).to(attention.out.weight.dtype)
        bias = (attention.qkv.bias.double() * scale[:, 0]).to(weight.dtype)
        self.qk = linear(weight[: 2 * channels], bias[: 2 * channels])
        self.v = linear(weight[2 * channels :], bias[2 * channels :])

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x, position: (B, Q, C) or broadcastable; allowed: none -> (B, Q, C)."""
        assert allowed is None  # only training blocks queries
        q, k = self.qk(x + position).chunk(2, dim=-1)  # (B, Q, C) each
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, self.v(x)))  # (B, Q, heads, C/heads) each
        shares = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).softmax(dim=-1)  # (B, heads, Q, Q)
        y = shares @ v.transpose(1, 2)  # (B, heads, Q, C/heads)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, Q, C)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight, layer.bias = nn.Parameter(weight.contiguous(), False), nn.Parameter(bias.contiguous(), False)
    return layer
