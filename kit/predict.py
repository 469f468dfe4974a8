"""Images to detections: the best scores of a batch, and COCO results for a whole data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kit.boxes import cxcywh_to_xyxy
from kit.data.augment import plain_policy
from kit.data.coco import CocoFile
from kit.data.dataset import CocoDataset, val_loader
from kit.dfine.decoder import Output
from kit.dfine.detector import Detector

Progress = Callable[[int, int], None]  # done, of how many


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first: boxes_xyxy_px (N, 4), scores (N,), labels (N,) in 0..K-1."""

    boxes_xyxy_px: Tensor
    scores: Tensor
    labels: Tensor


def top_detections(output: Output, original_hw: list[tuple[int, int]], top_k: int = 300) -> list[Detections]:
    """The best top_k (query, class) pairs of each image, in pixels of the original image."""
    scores, index = output.logits.float().sigmoid().flatten(1).topk(min(top_k, output.logits[0].numel()), dim=1)
    query, labels = index // output.logits.shape[2], index % output.logits.shape[2]  # (B, top_k) each
    sizes = torch.tensor([[w, h, w, h] for h, w in original_hw], dtype=torch.float32, device=scores.device)  # (B, 4)
    boxes_xyxy_px = cxcywh_to_xyxy(output.boxes.float()) * sizes[:, None]  # (B, Q, 4)
    boxes_xyxy_px = boxes_xyxy_px.gather(1, query[..., None].expand(-1, -1, 4))  # (B, top_k, 4)
    return [Detections(*each) for each in zip(boxes_xyxy_px, scores, labels, strict=True)]


def coco_results(
    detections: Detections, image_id: int, original_hw: tuple[int, int], category_ids: list[int], min_score: float
) -> list[dict[str, Any]]:
    """COCO results of one image: boxes cut at its rim, those without area and those under min_score left out."""
    height, width = original_hw
    limit = torch.tensor([width, height, width, height], dtype=torch.float64)
    boxes_xyxy_px = detections.boxes_xyxy_px.double().cpu().clamp(min=0).minimum(limit)  # (N, 4)
    corner, size = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]
    scores, labels = detections.scores.double().cpu(), detections.labels.cpu()
    kept = (size > 0).all(dim=1) & (scores >= min_score)
    rows = zip(
        torch.cat([corner, size], dim=1)[kept].tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True
    )
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box_xywh_px, "score": score}
        for box_xywh_px, score, label in rows
    ]


def predict_dataset(
    detector: Detector,
    coco: CocoFile,
    images: Path | str,
    *,
    size_hw: tuple[int, int],
    batch_size: int = 8,
    top_k: int = 300,
    min_score: float = 0.01,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """COCO results of every image (of every world-th, from `rank` on), with the category ids of the file."""
    dataset = CocoDataset(coco, Path(images), plain_policy(), channels=detector.channels)
    loader = val_loader(dataset, size_hw, batch_size, workers, rank, world)
    device, was_training = next(detector.parameters()).device, detector.training
    detector.eval()
    results: list[dict[str, Any]] = []
    for index, batch in enumerate(loader):
        with torch.inference_mode():
            output = detector(to_unit(batch.images.to(device), next(detector.parameters()).dtype))
            found = top_detections(output, batch.original_hw, top_k)
        for detections, image_id, original_hw in zip(found, batch.image_ids, batch.original_hw, strict=True):
            results += coco_results(detections, image_id, original_hw, coco.category_ids, min_score)
        if progress:
            progress(index + 1, len(loader))
    detector.train(was_training)
    return results


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, C, H, W) uint8 -> the same in [0, 1], channels last in memory.

    Every convolution follows the layout of its input, and on a CPU is a fifth faster in this one; weights, averages and
    checkpoints stay as they are.
    """
    return images.to(dtype, memory_format=torch.channels_last) / 255
