"""BatchNorm over the images of all processes: torch's own on a GPU, and one for the CPU, where torch has none."""

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Each BatchNorm below `module` takes its statistics from all processes from now on.

    Weights, statistics and their names stay the same, so that checkpoints and averages see nothing of it. Frozen norms
    stay as they are.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SharedNorm(child))
    return module


class SharedNorm(nn.BatchNorm2d):
    """A BatchNorm in whose place it comes, with that one's weights and statistics; backward is exact."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        with torch.no_grad():
            count, mean, variance = shared_statistics(input)
            self.remember(count, mean, variance)
        return NormOfAll.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    def remember(self, count: float, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, the variance without bias; momentum None is the plain mean of all batches."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(1.0, count - 1)), momentum)


def shared_statistics(x: Tensor) -> tuple[float, Tensor, Tensor]:
    """(B, C, H, W), B as each process has it -> pixels of all, their mean and biased variance, (C,) each, fp32 or 64.

    Means of squares are summed in double precision, in which their differences are exact enough.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    variance, mean = torch.var_mean(x.detach().to(dtype), dim=(0, 2, 3), correction=0)
    count, mean, variance = x.numel() / x.shape[1], mean.double(), variance.double()
    sums = torch.cat([mean * count, (variance + mean**2) * count, mean.new_tensor([count])])  # (2C + 1,)
    torch.distributed.all_reduce(sums)
    total = sums[-1]
    mean, squares = (sums[:-1] / total).chunk(2)
    return float(total), mean.to(dtype), (squares - mean**2).clamp(min=0).to(dtype)


class NormOfAll(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on the x of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: float, eps: float
    ) -> Tensor:
        """x: (B, C, H, W); weight, bias, mean, variance: (C,); count: pixels of all."""
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """(B, C, H, W) -> those of x, weight, bias.

        With y the normalised x: weight / deviation * (slope - mean(slope) - y * mean(slope * y)), means over all
        processes. Weight and bias get their own images' share: DistributedDataParallel averages them.
        """
        x, weight, mean, variance = ctx.saved_tensors
        still, slope_weight, slope_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([slope_weight, slope_bias]).double()  # (2C,)
        torch.distributed.all_reduce(sums)
        along, level = (sums / ctx.count).to(mean.dtype).chunk(2)  # means of slope * y, and of slope
        deviation = (variance + ctx.eps).rsqrt()
        per_x = -weight * deviation**2 * along  # (C,)
        shift = -weight * deviation * level - per_x * mean
        slope_x = torch.addcmul(still + shift.view(1, -1, 1, 1).to(x.dtype), x, per_x.view(1, -1, 1, 1).to(x.dtype))
        return slope_x, slope_weight, slope_bias, None, None, None, None
