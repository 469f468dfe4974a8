"""Predicts on images, folders, videos and PDFs, and writes what it finds.

    python -m kit.predictor best.pt photos/ street.mp4 --out found --formats coco yolo --drawn

Exit status: 0 all well, 2 some of the input could not be read (it is listed, the rest is there), 1 an error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from kit.competitions import COMPETITIONS
from kit.deploy.runtimes import Runtime
from kit.deploy.threads import settle
from kit.files import write_json
from kit.predictor.fitting import DEFAULT_THRESHOLD
from kit.predictor.predictor import Predictor
from kit.predictor.running import FORMATS
from kit.progress import Bar


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """With 1: the usual 2 says here that some of the input could not be read."""
        self.exit(1, f"{self.format_usage()}error: {message}\n")


def arguments_parser() -> Parser:
    parser = Parser(
        prog="python -m kit.predictor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a checkpoint, or an exported .onnx, .xml or .engine")
    parser.add_argument("inputs", nargs="+", help="images, folders, glob patterns, videos, PDFs")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    add_ways_of_looking(parser.add_argument_group("how it looks"))
    add_ways_of_reading(parser.add_argument_group("what it reads"))
    add_ways_of_writing(parser.add_argument_group("what it writes"))
    return parser


def add_ways_of_looking(group: Any) -> None:
    group.add_argument("--runtime", choices=get_args(Runtime), help="default: the quickest that is installed")
    group.add_argument("--device", help="cuda or cpu; default: the GPU where there is one")
    group.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="SCORE|CLASS=SCORE",
        help=f"least score, may be given again for single classes; default {DEFAULT_THRESHOLD}",
    )
    group.add_argument("--letterbox", action="store_true", help="keep the aspect; default: as in training")
    group.add_argument("--size-hw", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the input")
    group.add_argument("--batch-size", type=int)
    group.add_argument("--top-k", type=int, help="boxes of an image at most")
    group.add_argument("--nms-iou", type=float, help="leave out the weaker of two boxes of a class that overlap so")
    group.add_argument("--workers", type=int, help="threads that decode, and that write; default: kit chooses")
    group.add_argument("--threads", type=int, help="of the inference; default: kit chooses")


def add_ways_of_reading(group: Any) -> None:
    group.add_argument("--recursive", action="store_true", help="folders with all that is below them")
    group.add_argument("--every", type=int, default=1, metavar="N", help="each N-th frame of videos")
    group.add_argument("--dpi", type=int, default=150, help="of PDF pages (default 150)")
    group.add_argument("--no-exif", action="store_true", help="images as stored, not turned upright")
    group.add_argument("--annotations", type=Path, help="COCO file that tells the image ids; implies --no-exif")


def add_ways_of_writing(group: Any) -> None:
    group.add_argument("--formats", nargs="*", choices=FORMATS, default=["coco"], help="default: coco")
    group.add_argument("--competition", choices=list(COMPETITIONS), help="of the submission")
    group.add_argument("--crops", action="store_true", help="a picture of each detection")
    group.add_argument("--crop-padding", type=float, default=0.1, metavar="SHARE", help="of the box (default 0.1)")
    group.add_argument("--drawn", action="store_true", help="copies with the boxes drawn on them")
    group.add_argument("--no-video", action="store_true", help="drawn frames of videos as single images")
    group.add_argument("--json", type=Path, help="also write the summary here")


def threshold_of(given: Sequence[str]) -> dict[str, float]:
    """`0.4`, `Car=0.5` -> by class, "" for all others."""
    thresholds = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            thresholds[name] = float(value)
        except ValueError as error:
            raise ValueError(f"--threshold: expected a score or CLASS=SCORE, got {text!r}") from error
    return thresholds


def main(arguments: Sequence[str] | None = None) -> int:
    options = arguments_parser().parse_intermixed_args(arguments)
    try:
        threads = settle(options.threads)
        predictor = Predictor(
            options.model,
            runtime=options.runtime,
            device=options.device,
            threshold=threshold_of(options.threshold),
            resize="letterbox" if options.letterbox else "plain",
            size_hw=tuple(options.size_hw) if options.size_hw else None,
            batch_size=options.batch_size,
            top_k=options.top_k,
            nms_iou=options.nms_iou,
            workers=options.workers,
            threads=options.threads,
            say=print,
        )
        height, width = predictor.size_hw
        print(f"{options.model}: {width} x {height} px, {predictor.runtime} on {predictor.device} ({predictor.why})")
        print(threads)
        summary = predictor.run(
            options.inputs[0] if len(options.inputs) == 1 else options.inputs,
            options.out,
            formats=options.formats,
            competition=options.competition,
            annotations=options.annotations,
            crops=options.crops,
            crop_padding=options.crop_padding,
            drawn=options.drawn,
            video=not options.no_video,
            recursive=options.recursive,
            every=options.every,
            dpi=options.dpi,
            exif=not options.no_exif,
            progress=Bar("predicting"),
        )
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary.table)
    if options.json:
        write_json(options.json, summary.as_dict(), indent=1)
    return summary.status


if __name__ == "__main__":
    sys.exit(main())
