"""Where the detections of an ensemble come from, trained models in several views and result files of others, and how
they become one list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kit.data.coco import CocoFile, as_coco
from kit.dfine.weights import load_detector
from kit.ensemble import Method as FuseMethod
from kit.metrics import Level
from kit.metrics.tables import read_predictions, read_tables
from kit.predict import Progress
from kit.tta import WHOLE, Results, fuse_lists, input_views, predict_with_views, seconds_per_image, without_doubles

KEYS = ("image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class Source:
    """Detections of the same images by one model, or by a file of somebody else, which has the whole view alone."""

    name: str
    views: Mapping[str, Results]  # by name of the view
    weight: float = 1.0  # in the ensemble
    seconds: Mapping[str, float] = field(default_factory=dict)  # an image, by view; empty: not known


@dataclass(frozen=True)
class Origin:
    """Where a source is to be had: weights of a model, or a results file."""

    name: str
    path: Path
    weight: float = 1.0
    is_results: bool = False


def origins(models: Sequence[Path], results: Sequence[Path], weights: Sequence[float] = ()) -> list[Origin]:
    """Models first. weights: one each in that order; none: all 1."""
    paths = [*models, *results]
    names = source_names(paths)
    if weights and len(weights) != len(names):
        raise ValueError(
            f"model_weights: expected one for each of {len(names)} models and results files ({', '.join(names)}), "
            f"got {len(weights)}"
        )
    rows = zip(names, paths, weights or [1.0] * len(names), strict=True)
    return [Origin(*row, is_results=place >= len(models)) for place, row in enumerate(rows)]


def source_names(paths: Sequence[Path | str]) -> list[str]:
    """The shortest names that tell the files apart: of the folder for a best.pt, with the run before it if need be."""
    parts = [name_parts(Path(path)) for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"expected each model and results file once, got {', '.join(map(str, paths))}; name each once")


def name_parts(path: Path) -> tuple[str, ...]:
    return path.parts[:-1] if path.name == "best.pt" else (*path.parts[:-1], path.stem)


def read_source(
    origin: Origin,
    coco: CocoFile,
    images: Path | str,
    tta: Mapping[str, Any],
    *,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> Source:
    """What it finds on these images. tta: arguments of input_views; only: names of the views, None for all of them;
    how: further arguments of predict_with_views."""
    if origin.is_results:
        return Source(origin.name, {WHOLE: read_results(origin.path, coco)}, origin.weight)
    detector, about = load_detector(origin.path)
    refuse_other_model(origin.path, about, coco)
    detector.to("cuda" if torch.cuda.is_available() else "cpu")
    height, width = about["size_hw"]
    views = {name: view for name, view in input_views((height, width), **tta).items() if only is None or name in only}
    found = predict_with_views(detector, coco, images, views, progress=progress, **how)
    return Source(origin.name, found, origin.weight, seconds_per_image(detector, coco, images, views))


def refuse_other_model(weights: Path, about: Mapping[str, Any], coco: CocoFile) -> None:
    """Weights that do not tell their input size, or know other classes than the data."""
    if "size_hw" not in about:
        raise ValueError(f"{weights}: expected the input size beside the weights, got none; take a best.pt of 03_train")
    classes = about.get("classes", coco.names)
    if list(classes) != coco.names or about["num_classes"] != len(coco.names):
        raise ValueError(
            f"{weights}: expected the classes of {coco.path}, {', '.join(coco.names)}, "
            f"got {', '.join(classes)} ({about['num_classes']}); leave it out of models"
        )


def read_results(path: Path | str, coco: CocoFile) -> Results:
    """A COCO results file of somebody else, for the images and categories of `coco` and no others."""
    try:
        entries = read_predictions(path)
        read_tables(entries, as_coco(coco) | {"annotations": []})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return [{key: entry[key] for key in KEYS} for entry in entries]


# --- what is made of the sources ---


@dataclass(frozen=True)
class Method:
    """What is made of the sources."""

    sources: tuple[str, ...]
    views: tuple[str, ...] = (WHOLE,)
    nms: bool = False  # of a single list; several are freed of their doubles before they are fused, always
    level: Level = "global"  # of the thresholds


@dataclass(frozen=True)
class Fusion:
    """How several lists of detections become one, of views and of sources alike."""

    method: FuseMethod = "wbf"
    iou: float = 0.55
    skip: float = 0.01
    top_k: int | None = 300


def combined(
    sources: Sequence[Source], method: Method, fusion: Fusion, sizes_hw: Mapping[int, tuple[int, int]]
) -> Results:
    """The detections of a method, before thresholds: the views of each source as one, then the sources as one."""
    how: dict[str, Any] = {"method": fusion.method, "iou": fusion.iou, "skip": fusion.skip, "top_k": fusion.top_k}
    chosen = [named(sources, name) for name in method.sources]
    lists = [fuse_lists([each.views[view] for view in views_of(each, method)], sizes_hw, **how) for each in chosen]
    fused = fuse_lists(lists, sizes_hw, weights=[each.weight for each in chosen], **how)
    is_single = sum(len(views_of(each, method)) for each in chosen) == 1
    return without_doubles(fused, sizes_hw, fusion.iou) if is_single and method.nms else fused


def views_of(source: Source, method: Method) -> list[str]:
    return [name for name in method.views if name in source.views]


def named(sources: Sequence[Source], name: str) -> Source:
    return next(each for each in sources if each.name == name)
