"""A gallery of a data set: one folder, to be opened in a browser without a server.

    python -m kit.plots.gallery SOURCE OUT [--params params/x.yaml] [--images N] [--augmented N] [--draws N]
                                [--side-px N] [--no-check]

SOURCE is a COCO data set (kit.data.convert makes one of other forms), or one of its annotation files. Each image is
shown as it is stored, with what the check has found, and some of train as a training with these parameters gets them.
Ends with 1 where there are problems, or images that cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.competitions import COMPETITIONS
from kit.data.check import check_folder, clean
from kit.data.check_report import Report
from kit.data.dataset import CocoDataset
from kit.params import BrowseParams
from kit.plots.gallery.draws import DrawnSet, training_sampler
from kit.plots.gallery.folder import write_gallery
from kit.plots.gallery.shown import Part, find_parts
from kit.presets import policy_of, preset_of
from kit.progress import Bar


def drawn_set(part: Part, reports: Sequence[Report], params: BrowseParams, images: int, draws: int) -> DrawnSet | None:
    """What 03_train makes of a part; None where nothing is left to be trained on."""
    coco = part.coco
    for report in reports:
        coco = clean(coco, report) if report.part == part.name else coco
    if not coco.records:
        return None
    chosen = preset_of(params.preset).changed(params.given)
    policy = policy_of(chosen, params.epochs, params.plain_epochs, **params.augmentation)
    dataset = CocoDataset(coco, part.images, policy, params.seed, params.channels)
    how: dict[str, Any] = {"size_hw": params.size_hw, "strong_until_epoch": chosen.strong_until_epoch(params.epochs)}
    sampler = training_sampler(len(dataset), multi_scale=chosen.multi_scale, **how, **params.sampling)
    return DrawnSet(part.name, dataset, sampler, images, draws)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written and nothing is wrong; 1: there are problems, or images that cannot be read; 2: cannot do it."""
    parser = argparse.ArgumentParser(prog="python -m kit.plots.gallery", description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="COCO data set or one annotation file")
    parser.add_argument("out", type=Path, help="folder of the gallery; an older gallery there is replaced")
    parser.add_argument("--params", type=Path, help="params/x.yaml of a training, for the augmentation; else defaults")
    parser.add_argument("--images", type=int, help="at most so many of each part, spread evenly; else all")
    parser.add_argument("--augmented", type=int, default=24, help="so many of train as the model gets them; 0: none")
    parser.add_argument("--draws", type=int, default=4, help="of each of these, from the first epoch to the last")
    parser.add_argument("--side-px", type=int, default=1280, help="longer side of the pictures; larger ones are shrunk")
    parser.add_argument("--no-check", action="store_true", help="without the findings of kit.data.check")
    options = parser.parse_args(arguments)
    try:
        params = BrowseParams.from_yaml(options.params) if options.params else BrowseParams()
        parts = find_parts(options.source)
        reports = [] if options.no_check else check_folder(options.source, bars=Bar)
        trains = options.augmented and options.draws and parts[0].name == "train"
        gallery = write_gallery(
            options.out,
            parts,
            options.source.resolve().name.removesuffix(".json"),
            reports=reports,
            drawn=drawn_set(parts[0], reports, params, options.augmented, options.draws) if trains else None,
            most_images=options.images,
            side_px=options.side_px,
            view_pattern=COMPETITIONS[params.competition].view_pattern,
            progress=Bar("pictures"),
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fatal = [problem.kind for report in reports for problem in report.problems if problem.is_fatal]
    print(gallery)
    verdict = (
        f"! the check has found: {', '.join(dict.fromkeys(fatal))}" if fatal else "the check has found no problems"
    )
    print("not checked" if options.no_check else verdict)
    return int(bool(fatal or gallery.faults))


if __name__ == "__main__":
    sys.exit(main())
