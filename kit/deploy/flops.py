"""What a detector costs on paper: parameters and floating point operations, two for a multiplication with its sum."""

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from kit.dfine.detector import Detector

PARTS = ("backbone", "encoder", "decoder")


@dataclass(frozen=True)
class Flops:
    """Operations of one batch: convolutions and matrix products, which are nearly all."""

    total: int
    backbone: int
    encoder: int
    decoder: int


def count_flops(detector: Detector, size_hw: tuple[int, int] = (640, 640), batch: int = 1) -> Flops:
    """Counted on a copy without values, in no time; the detector stays as it is."""
    shadow = copy.deepcopy(detector).to("meta").eval()
    images = torch.empty(batch, detector.channels, *size_hw, device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        shadow(images)
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    prefix = type(shadow).__name__
    return Flops(counter.get_total_flops(), *(by_module[f"{prefix}.{part}"] for part in PARTS))


def count_parameters(detector: Detector) -> int:
    """Numbers that were learnt; statistics of norms are none."""
    return sum(each.numel() for each in detector.parameters())
