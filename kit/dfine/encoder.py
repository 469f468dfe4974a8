"""The hybrid encoder of RT-DETR (arXiv 2304.08069) in D-FINE's form: attention on the last level, then fusion."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kit.dfine.layers import ConvNorm, QueryAttention, SiLU


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, summed, then activated (RepVGG, arXiv 2101.03697)."""

    def __init__(self, channels: int):
        super().__init__()
        self.square = ConvNorm(channels, channels, 3)
        self.point = ConvNorm(channels, channels, 1)
        self.act = SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.act(self.square(x) + self.point(x))


class CrossStage(nn.Module):
    """Two 1x1 branches, one of them followed by RepVGG blocks, summed."""

    def __init__(self, channels_in: int, channels: int, depth: int):
        super().__init__()
        self.deep = ConvNorm(channels_in, channels, 1, act=True)
        self.blocks = nn.Sequential(*(RepBlock(channels) for _ in range(depth)))
        self.shallow = ConvNorm(channels_in, channels, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H, W)."""
        return self.blocks(self.deep(x)) + self.shallow(x)


class FusionBlock(nn.Module):
    """Mixes two levels that have been concatenated (GELAN, arXiv 2402.13616)."""

    def __init__(self, channels: int, inner: int, depth: int):
        super().__init__()
        self.enter = ConvNorm(2 * channels, 2 * channels, 1, act=True)
        self.first = nn.Sequential(CrossStage(channels, inner, depth), ConvNorm(inner, inner, 3, act=True))
        self.second = nn.Sequential(CrossStage(inner, inner, depth), ConvNorm(inner, inner, 3, act=True))
        self.leave = ConvNorm(2 * channels + 2 * inner, channels, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H, W) -> (B, C, H, W)."""
        kept, used = self.enter(x).chunk(2, dim=1)  # (B, C, H, W) each
        first = self.first(used)  # (B, inner, H, W)
        return self.leave(torch.cat([kept, used, first, self.second(first)], dim=1))


class TokenLayer(nn.Module):
    """A transformer layer over the tokens of one level, norms after the sums."""

    def __init__(self, channels: int, heads: int, ffn: int):
        super().__init__()
        self.attention = QueryAttention(channels, heads)
        self.widen = nn.Linear(channels, ffn)
        self.narrow = nn.Linear(ffn, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.widen.weight)
        nn.init.xavier_uniform_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)  # (B, H*W, C)
        position = position_embedding(height, width, x.shape[1], tokens)  # (H*W, C)
        tokens = self.norm1(tokens + self.attention(tokens, position))
        tokens = self.norm2(tokens + self.narrow(F.gelu(self.widen(tokens))))
        return tokens.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W), channels last in memory


def position_embedding(height: int, width: int, channels: int, like: Tensor, temperature: float = 10000.0) -> Tensor:
    """Sine and cosine of row and column, [sin row, cos row, sin col, cos col] -> (H*W, channels), of like's type."""
    quarter = channels // 4
    steps = torch.arange(quarter, dtype=torch.float32, device=like.device) / quarter
    omega = 1 / temperature**steps  # (C/4,)
    row = torch.arange(height, dtype=torch.float32, device=like.device)[:, None] * omega  # (H, C/4)
    col = torch.arange(width, dtype=torch.float32, device=like.device)[:, None] * omega  # (W, C/4)
    rows = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, width, -1)  # (H, W, C/2)
    cols = torch.cat([col.sin(), col.cos()], dim=1)[None].expand(height, -1, -1)  # (H, W, C/2)
    return torch.cat([rows, cols], dim=2).flatten(0, 1).to(like.dtype)


class HybridEncoder(nn.Module):
    """Levels of the backbone, fine to coarse, to levels of one width that have seen each other."""

    def __init__(self, channels_in: list[int], channels: int, ffn: int, inner: int, depth: int, heads: int = 8):
        super().__init__()
        levels = len(channels_in)
        self.project = nn.ModuleList(ConvNorm(c, channels, 1) for c in channels_in)
        self.attention = TokenLayer(channels, heads, ffn)
        self.lateral = nn.ModuleList(ConvNorm(channels, channels, 1) for _ in range(levels - 1))
        self.top_down = nn.ModuleList(FusionBlock(channels, inner, depth) for _ in range(levels - 1))
        self.down = nn.ModuleList(halve(channels) for _ in range(levels - 1))
        self.bottom_up = nn.ModuleList(FusionBlock(channels, inner, depth) for _ in range(levels - 1))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """One (B, C_level, H, W) per level -> one (B, C, H, W) per level."""
        levels = [project(feature) for project, feature in zip(self.project, features, strict=True)]
        levels[-1] = self.attention(levels[-1])
        return self.coarser(self.finer(levels))

    def finer(self, levels: list[Tensor]) -> list[Tensor]:
        """What coarse levels know goes to the finer ones."""
        out = [levels[-1]]
        for lateral, fuse, fine in zip(self.lateral, self.top_down, reversed(levels[:-1]), strict=True):
            out[0] = lateral(out[0])
            upsampled = F.interpolate(out[0], scale_factor=2.0, mode="nearest")  # (B, C, 2H, 2W)
            out.insert(0, fuse(torch.cat([upsampled, fine], dim=1)))
        return out

    def coarser(self, levels: list[Tensor]) -> list[Tensor]:
        """And back from the fine levels to the coarser ones."""
        out = [levels[0]]
        for down, fuse, coarse in zip(self.down, self.bottom_up, levels[1:], strict=True):
            out.append(fuse(torch.cat([down(out[-1]), coarse], dim=1)))
        return out


def halve(channels: int) -> nn.Sequential:
    """A 1x1 convolution, then a depthwise one of stride 2: (B, C, H, W) -> (B, C, H/2, W/2)."""
    return nn.Sequential(ConvNorm(channels, channels, 1), ConvNorm(channels, channels, 3, stride=2, groups=channels))
