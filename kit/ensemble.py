"""One list of boxes out of many: WBF, NMW, NMS and soft-NMS over any number of models, views or result files.

What comes out is bit for bit what ensemble-boxes 1.0.9 gives image by image (in float64), ties and order included:
the boxes of one image and label are looked at by falling weighted score, equal scores in the reverse of the order that
`argsort` (NumPy's; for NMS, Numba's) gives them when they stand model by model; soft-NMS takes the first of equals.
Different on purpose: what the reference repairs with a warning or a print is silent where it is harmless (a rim passed,
corners swapped, an empty box, no box at all), else an error; boxes of score 0 alone never become NaN; soft-NMS gives
the scores that it lowered, which the reference forgets (`lowered=False` too); and in `fuse` NMS and soft-NMS divide by
the greatest weight, not by the sum, so that a threshold still means what it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np

from kit.fusion import (
    Confidence,
    Decay,
    Found,
    Fused,
    best_first,
    checked_weights,
    found_in,
    nms_of,
    nmw_of,
    soft_nms_of,
    starts_of,
    wbf_of,
)

Method = Literal["wbf", "nms", "soft_nms", "nmw"]
Result = dict[str, Any]  # COCO: image_id, category_id, bbox [x, y, w, h] in pixels, score
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes_xyxy (N, 4), scores (N,), labels (N,)


@dataclass(frozen=True)
class Members:
    """What one fused box was made of, the best weighted score first: which model, which row of its list, what score.

    NMS: the box itself, then those that it suppressed. Soft-NMS: the box itself.
    """

    models: list[int]
    rows: list[int]
    scores: list[float]


# ---- lists of COCO results ----


def fuse(
    results: Sequence[Sequence[Result]],
    sizes_hw: Mapping[int, tuple[int, int]],
    *,
    method: Method = "wbf",
    iou: float = 0.55,
    skip: float = 0.01,
    weights: Sequence[float] | None = None,
    top_k: int | None = None,
) -> list[Result]:
    """The COCO results of several models as one list: images as in sizes_hw, in each the best scores first.

    iou: boxes that overlap more are one; skip: boxes of a lower score are not looked at (nor those that soft-NMS lowers
    so far); weights: one a model, none: all alike. WBF divides by the number (weights) of all models, so a box that few
    have found sinks. The others give
    score * weight / greatest weight.
    """
    found, ids = read_results(results, sizes_hw, skip)
    return as_results(
        best_first(fuse_found(found, len(results), method, iou, skip, weights), top_k), found, ids, sizes_hw
    )


def fuse_with_members(
    results: Sequence[Sequence[Result]],
    sizes_hw: Mapping[int, tuple[int, int]],
    *,
    method: Method = "wbf",
    iou: float = 0.55,
    skip: float = 0.01,
    weights: Sequence[float] | None = None,
    top_k: int | None = None,
) -> tuple[list[Result], list[Members]]:
    """As `fuse`, and what each box of the list was made of."""
    found, ids = read_results(results, sizes_hw, skip)
    fused = best_first(fuse_found(found, len(results), method, iou, skip, weights), top_k)
    return as_results(fused, found, ids, sizes_hw), members_of(fused, found)


def fuse_found(
    found: Found, models: int, method: Method, iou: float, skip: float, weights: Sequence[float] | None
) -> Fused:
    if not 0 <= iou <= 1:
        raise ValueError(f"iou: expected 0 to 1, got {iou}")
    values = checked_weights(weights, models)
    if method == "wbf":
        return wbf_of(found, values, iou)
    if method == "nmw":
        return nmw_of(found, values, iou)
    if method == "nms":
        return nms_of(found, values, values.max(initial=0), iou)
    if method == "soft_nms":
        return soft_nms_of(
            found, values, values.max(initial=0), iou, thresh=np.nextafter(skip, -1)
        )  # skip itself stays
    raise ValueError(f"method: expected wbf, nms, soft_nms or nmw, got {method!r}")


def read_results(
    results: Sequence[Sequence[Result]], sizes_hw: Mapping[int, tuple[int, int]], skip: float
) -> tuple[Found, list[int]]:
    """The boxes, and the ids of the images that their `images` number."""
    ids = list(sizes_hw)
    index_of = {image_id: index for index, image_id in enumerate(ids)}
    unknown = {image_id for rows in results for image_id in column(rows, "image_id")} - index_of.keys()
    if unknown:
        raise ValueError(
            f"results: expected the {len(ids)} images of sizes_hw, got image_id {min(unknown)}; other data?"
        )
    images = [np.array([index_of[image_id] for image_id in column(rows, "image_id")], np.int64) for rows in results]
    sizes = sides_of(sizes_hw)
    boxes = [xyxy_of(rows) / sizes[each] for rows, each in zip(results, images, strict=True)]
    scores = [np.array(column(rows, "score"), np.float64) for rows in results]
    labels = [np.array(column(rows, "category_id"), np.int64) for rows in results]
    return found_in(boxes, scores, labels, images, skip), ids


def column(rows: Sequence[Result], key: str) -> list[Any]:
    try:
        return [row[key] for row in rows]
    except KeyError as error:
        raise ValueError(
            f"results: expected image_id, category_id, bbox and score in each, got one without {key}"
        ) from error


def xyxy_of(rows: Sequence[Result]) -> np.ndarray:
    """-> (N, 4) corners in pixels."""
    flat = np.fromiter(chain.from_iterable(column(rows, "bbox")), np.float64)
    if flat.size != 4 * len(rows):
        raise ValueError(f"results: expected 4 numbers in each bbox, got {flat.size} in {len(rows)} of them")
    boxes_xywh = flat.reshape(-1, 4)
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def sides_of(sizes_hw: Mapping[int, tuple[int, int]]) -> np.ndarray:
    """-> (images, 4) width, height, width, height."""
    return np.array([[w, h, w, h] for h, w in sizes_hw.values()], dtype=np.float64).reshape(-1, 4)


def as_results(fused: Fused, found: Found, ids: Sequence[int], sizes_hw: Mapping[int, tuple[int, int]]) -> list[Result]:
    """Cut at the rim once more: a mean in float32 can pass it by a hair."""
    boxes_xywh = fused.boxes_xyxy.clip(max=1) * sides_of(sizes_hw)[fused.images]  # (M, 4)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    columns = (fused.images, found.label_ids[fused.labels], boxes_xywh, fused.scores)
    return [
        {"image_id": ids[image], "category_id": category, "bbox": box_xywh_px, "score": score}
        for image, category, box_xywh_px, score in zip(*(each.tolist() for each in columns), strict=True)
    ]


def members_of(fused: Fused, found: Found) -> list[Members]:
    order = np.argsort(fused.owners, kind="stable")
    rows = fused.members[order]
    models, places, scores = (each[rows].tolist() for each in (found.models, found.rows, found.scores))
    spans = [slice(start, end) for start, end in pairwise(starts_of(fused.owners[order]).tolist())]
    return [Members(models[span], places[span], scores[span]) for span in spans]


# ---- arrays of one image, with the names and the order of ensemble-boxes ----


def weighted_boxes_fusion(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    weights: Sequence[float] | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
    conf_type: Confidence = "avg",
    allows_overflow: bool = False,
) -> Arrays:
    """Overlapping boxes become their mean by score (arXiv 1910.13302); best first.

    boxes_list: one (N, 4) xyxy in [0, 1] a model; scores_list, labels_list: one (N,) a model -> (M, 4), (M,), (M,).
    """
    found = found_in(boxes_list, scores_list, labels_list, None, skip_box_thr)
    return arrays(wbf_of(found, checked_weights(weights, len(boxes_list)), iou_thr, conf_type, allows_overflow), found)


def non_maximum_weighted(
    boxes_list: Sequence[Any],
    scores_list: Sequence[Any],
    labels_list: Sequence[Any],
    weights: Sequence[float] | None = None,
    iou_thr: float = 0.55,
    skip_box_thr: float = 0.0,
) -> Arrays:
    """Those that overlap the best box are averaged with it, by score times IoU; its score stays. Shapes as for WBF."""
    found = found_in(boxes_list, scores_list, labels_list, None, skip_box_thr)
    return arrays(nmw_of(found, checked_weights(weights, len(boxes_list)), iou_thr), found)


def nms(
    boxes: Sequence[Any],
    scores: Sequence[Any],
    labels: Sequence[Any],
    iou_thr: float = 0.5,
    weights: Sequence[float] | None = None,
) -> Arrays:
    """The best box without those that overlap it, then the next; by label, in each best first. Shapes as for WBF."""
    found, values = found_in(boxes, scores, labels), checked_weights(weights, len(boxes))
    total = 1.0 if weights is None else values.sum()
    return arrays(nms_of(found, values, total, iou_thr), found)


def soft_nms(
    boxes: Sequence[Any],
    scores: Sequence[Any],
    labels: Sequence[Any],
    decay: Decay = "gaussian",
    iou_thr: float = 0.5,
    sigma: float = 0.5,
    thresh: float = 0.001,
    weights: Sequence[float] | None = None,
    lowered: bool = True,
) -> Arrays:
    """The best box lowers the scores of those that overlap it, then the next (arXiv 1704.04503). Order as for NMS.

    iou_thr: linear decay spares lower overlaps; sigma: of the gaussian; thresh: boxes that end above it stay;
    lowered: False hands back the scores from before.
    """
    found, values = found_in(boxes, scores, labels), checked_weights(weights, len(boxes))
    total = 1.0 if weights is None else values.sum()
    return arrays(soft_nms_of(found, values, total, iou_thr, decay, sigma, thresh, lowered), found)


def arrays(fused: Fused, found: Found) -> Arrays:
    return fused.boxes_xyxy, fused.scores, found.label_ids[fused.labels]
