"""The bricks that encoder and decoder share: convolution with norm, attention, multi-layer perceptron."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SiLU(nn.SiLU):
    """In place where there will be no backward pass: for one, autograd would have to copy x first."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.silu(x, inplace=not torch.is_grad_enabled())


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation; the output has the input's size divided by the stride."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.act = SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self.act(self.norm(self.conv(x)))


class QueryAttention(nn.Module):
    """Queries look at each other. The position joins q and k, never v."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """x, position: (B, Q, C) or broadcastable; allowed: (Q, Q) bool, True = may look -> (B, Q, C)."""
        weight, bias, channels = self.qkv.weight, self.qkv.bias, x.shape[-1]
        qk = F.linear(x + position, weight[: 2 * channels], bias[: 2 * channels])  # (B, Q, 2C)
        v = F.linear(x, weight[2 * channels :], bias[2 * channels :])  # (B, Q, C)
        q, k, v = (self.split_heads(t) for t in (*qk.chunk(2, dim=-1), v))  # (B, heads, Q, C/heads) each
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, Q, C)

    def split_heads(self, t: Tensor) -> Tensor:
        """(B, Q, C) -> (B, heads, Q, C/heads)."""
        return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels[0]) -> (..., channels[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

    def start_at_zero(self) -> "Mlp":
        """The last layer gives zeros until it is trained."""
        for weight in self.layers[-1].parameters():
            nn.init.zeros_(weight)
        return self

    def spread(self) -> "Mlp":
        """Xavier's start for every layer."""
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        return self
