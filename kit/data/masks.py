"""The masks of a COCO file: compared with its boxes and areas, turned into polygons or run lengths and back, cut out.

    python -m kit.data.masks check FILE_OR_DIR
    python -m kit.data.masks convert FILE OUT --to polygons|rle|runs [--holes keyhole|fill] [--tolerance PX]
    python -m kit.data.masks boxes FILE OUT
    python -m kit.data.masks extract DIR OUT [--part train] [--margin PX]

Each takes `--json FILE` for a log of all it has done or found.
`rle` is COCO's compressed text, `runs` the list of lengths. Works on the entries as they stand in the file: what is no
mask stays as it is, fields that kit does not know too. Nothing is changed in place. One mask: `kit.data.mask_shapes`.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.data.coco import find_dataset, find_split
from kit.data.cutouts import extract_objects
from kit.data.mask_boxes import (
    EVERY,
    Content,
    Disagreement,
    Progress,
    disagreements,
    has_mask,
    read_content,
    sizes_of,
    with_boxes,
)
from kit.data.mask_shapes import (
    Holes,
    area_of_entry,
    as_text,
    checked_rings,
    checked_runs,
    compressed,
    mask_of_entry,
    polygons_of,
)
from kit.data.outlines import ring_area
from kit.files import one_line, write_json
from kit.progress import Bar

Form = Literal["polygons", "rle", "runs"]

EXAMPLES = 5


@dataclass(frozen=True)
class Conversion:
    """A COCO file with its masks in another form."""

    content: Content
    counts: dict[str, int]  # what was done, and with how many annotations
    rows: list[dict[str, Any]]  # of each that was changed: annotation_id, area_error_px2, iou (None: not known)
    losses: list[str]
    problems: list[str]  # masks left as they were, because nothing can be made of them


class Unusable(ValueError):
    """A mask that stays as it is, and why."""


def converted(
    content: Content, to: Form, holes: Holes = "keyhole", tolerance_px: float = 0.0, progress: Progress | None = None
) -> Conversion:
    """Crowds stay run lengths, as COCO has them; masks that are broken or empty stay as they are, and are told."""
    sizes, counts, rows, problems = sizes_of(content), Counter[str](), [], []
    annotations = list(content.get("annotations") or [])
    for place, annotation in enumerate(annotations):
        size_hw = sizes.get(annotation["image_id"], (0, 0))
        try:
            segmentation, what, row = turned(annotation, size_hw, to, holes, tolerance_px)
        except ValueError as error:
            what = "left as it was"
            problems.append(f"annotation {annotation.get('id')}: {error}")
        else:
            if row is not None:
                annotations[place] = annotation | {"segmentation": segmentation}
                rows.append({"annotation_id": annotation.get("id"), **row})
        counts[what] += 1
        if progress and ((place + 1) % EVERY == 0 or place + 1 == len(annotations)):
            progress(place + 1, len(annotations))
    return Conversion(content | {"annotations": annotations}, dict(counts), rows, losses_of(rows), problems)


def turned(
    annotation: Mapping[str, Any], size_hw: tuple[int, int], to: Form, holes: Holes, tolerance_px: float
) -> tuple[Any, str, dict[str, Any] | None]:
    """The new entry, what was done, and its row of the log; None where nothing was."""
    segmentation: Any = annotation.get("segmentation")
    if not has_mask(annotation):
        return segmentation, "without a mask", None
    if to == "polygons" and isinstance(segmentation, list):
        checked_rings(segmentation)
        return segmentation, "polygons already", None
    if to == "polygons" and annotation.get("iscrowd"):
        checked_runs(segmentation)
        return segmentation, "crowd, kept as run lengths", None
    if to == "polygons":
        return as_polygons(segmentation, size_hw, holes, tolerance_px)
    return as_runs(segmentation, size_hw, to)


def as_polygons(
    segmentation: Any, size_hw: tuple[int, int], holes: Holes, tolerance_px: float
) -> tuple[Any, str, dict[str, Any]]:
    mask = mask_of_entry(segmentation, size_hw)
    if size_hw not in ((0, 0), mask.shape):
        raise Unusable(f"the mask is of {mask.shape[0]} x {mask.shape[1]}, the image of {size_hw[0]} x {size_hw[1]}")
    if not mask.any():
        raise Unusable("the mask holds no pixel, so there is no polygon around it")
    polygons = polygons_of(mask, holes, tolerance_px)
    row = {"area_error_px2": polygons.area_error_px2, "iou": polygons.iou, "parts": len(polygons.rings)}
    row |= {"holes": polygons.holes, "holes_filled": polygons.holes_filled}
    return polygons.entry(), "run lengths turned into polygons", row


def as_runs(segmentation: Any, size_hw: tuple[int, int], to: Form) -> tuple[Any, str, dict[str, Any] | None]:
    """Run lengths keep their runs; polygons are drawn as pycocotools draws them."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), str) == (to == "rle"):
        checked_runs(segmentation)
        return segmentation, "such run lengths already", None
    text = as_text(compressed(segmentation, size_hw))
    entry = text if to == "rle" else text | {"counts": checked_runs(text)[0]}
    if isinstance(segmentation, Mapping):
        return entry, "run lengths written in the other form", {"area_error_px2": 0, "iou": 1.0}
    rings = checked_rings(segmentation)
    if on_pixel_edges(rings, size_hw):
        return entry, "polygons turned into run lengths", {"area_error_px2": 0, "iou": 1.0}
    error = area_of_entry(entry, size_hw) - sum(abs(ring_area(ring)) for ring in rings)
    return entry, "polygons turned into run lengths", {"area_error_px2": round(error, 3), "iou": None}


def on_pixel_edges(rings: Sequence[np.ndarray], size_hw: tuple[int, int]) -> bool:
    """Whether one ring runs along edges of pixels inside of the image, so that drawing it changes nothing."""
    points, steps = rings[0], np.roll(rings[0], -1, axis=0) - rings[0]
    is_whole = (points == np.round(points)).all() and (points >= 0).all() and (points <= size_hw[::-1]).all()
    return len(rings) == 1 and bool(is_whole and (steps == 0).any(axis=1).all())


def losses_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """In words: what does not come back."""
    losses = []
    filled = [row for row in rows if row.get("holes_filled")]
    if filled:
        losses.append(f"{sum(row['holes_filled'] for row in filled)} holes of {len(filled)} masks are filled")
    coarse = [row for row in rows if row["iou"] is not None and row["iou"] < 1]
    if coarse:
        worst = min(coarse, key=lambda row: row["iou"])
        error = sum(abs(row["area_error_px2"]) for row in coarse)
        losses.append(
            f"{len(coarse)} polygons leave their masks, by {error} px2 of area in all; "
            f"the worst, annotation {worst['annotation_id']}, has IoU {worst['iou']:.4f}"
        )
    drawn = [row for row in rows if row["iou"] is None]
    if drawn:
        error = sum(abs(row["area_error_px2"]) for row in drawn)
        losses.append(f"{len(drawn)} polygons are drawn onto whole pixels, {error:.1f} px2 of area more or less in all")
    return losses


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """0 well, 1 masks are wrong, 2 it cannot be done."""
    options = parser().parse_args(arguments)
    commands = {"check": check, "convert": convert, "boxes": make_boxes, "extract": extract}
    try:
        lines, log, is_well = commands[options.command](options)
        if options.json:
            write_json(options.json, log, indent=1)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if is_well else 1


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m kit.data.masks", description=str(__doc__).partition("\n")[0])
    commands = result.add_subparsers(dest="command", required=True)
    each = {name: commands.add_parser(name) for name in ("check", "convert", "boxes", "extract")}
    each["check"].add_argument("source", type=Path, help="a COCO file, or the folder of a data set")
    for name in ("convert", "boxes"):
        each[name].add_argument("source", type=Path, help="a COCO file")
        each[name].add_argument("out", type=Path, help="a new file")
    each["convert"].add_argument("--to", choices=("polygons", "rle", "runs"), required=True)
    each["convert"].add_argument("--holes", choices=("keyhole", "fill"), default="keyhole")
    each["convert"].add_argument("--tolerance", type=float, default=0.0, help="pixels a line may be off; 0 is exact")
    each["extract"].add_argument("source", type=Path, help="the folder of a data set")
    each["extract"].add_argument("out", type=Path, help="a new folder")
    each["extract"].add_argument("--part", default="train")
    each["extract"].add_argument("--margin", type=int, default=8, help="pixels around each object, fully transparent")
    each["extract"].add_argument(
        "--least", type=float, default=10.0, help="shorter sides than so many pixels: left out"
    )
    for one in each.values():
        one.add_argument("--json", type=Path, help="also write all there is to say here")
    return result


Outcome = tuple[list[str], Any, bool]  # lines for reading, the same as data, and whether all is well


def check(options: argparse.Namespace) -> Outcome:
    lines, log = [], {}
    for path in files_of(options.source):
        content = read_content(path)
        found = disagreements(content, Bar(f"masks of {path.name}"))
        masks = sum(has_mask(each) for each in content.get("annotations") or [])
        lines += [f"{path}: {masks} masks, {len(found)} disagreements", *table(found)]
        log[str(path)] = [asdict(each) for each in found]
    return lines, log, not any(log.values())


def files_of(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    splits = find_dataset(source)
    return [part.annotations for part in (splits.train, splits.val, *splits.others.values()) if part]


def table(found: Sequence[Disagreement]) -> list[str]:
    """Kind, count and examples."""
    lines = []
    for kind, count in Counter(each.kind for each in found).most_common():
        lines.append(f"! {count:>7}  {kind}")
        examples = [each for each in found if each.kind == kind][:EXAMPLES]
        lines += [
            f"{'':12}image {each.image_id}, annotation {each.annotation_id}: {one_line(each.found)}"
            for each in examples
        ]
    return lines


def convert(options: argparse.Namespace) -> Outcome:
    new_file(options.out)
    content = read_content(options.source)
    result = converted(content, options.to, options.holes, options.tolerance, Bar("masks"))
    write_mended(options, result.content)
    lines = [f"{count:>9}  {what}" for what, count in sorted(result.counts.items())]
    lines += [f"    loss: {one_line(loss)}" for loss in result.losses] + [
        f"! {one_line(problem)}" for problem in result.problems
    ]
    log = {each: getattr(result, each) for each in ("counts", "losses", "problems", "rows")}
    return [*lines, f"{options.out} is written"], log, not result.problems


def make_boxes(options: argparse.Namespace) -> Outcome:
    new_file(options.out)
    result = with_boxes(read_content(options.source))
    write_mended(options, result.content)
    lines = [f"{len(result.changes):>9}  boxes drawn anew", *(f"! {one_line(problem)}" for problem in result.problems)]
    log = {"changes": result.changes, "problems": result.problems}
    return [*lines, f"{options.out} is written"], log, not result.problems


def write_mended(options: argparse.Namespace, content: dict[str, Any]) -> None:
    try:
        write_json(options.out, content)
    except ValueError as error:  # NaN, which was in the source
        raise ValueError(f"{options.source}: cannot be written again: {one_line(error)}") from error


def new_file(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path}: expected a new file, found one; name another, nothing is changed in place")


def extract(options: argparse.Namespace) -> Outcome:
    split = find_split(options.source, options.part)
    sides = {"margin_px": options.margin, "least_side_px": options.least}
    result = extract_objects(split.annotations, split.images, options.out, **sides, progress=Bar("objects"))
    lines = [f"{result.objects:>9}  objects cut out"]
    lines += [
        f"{len(names):>9}  left out: {reason}; {one_line(names[0])}"
        for reason, names in sorted(result.left_out.items())
    ]
    return [*lines, f"{options.out} is written"], asdict(result), True


if __name__ == "__main__":
    sys.exit(main())
