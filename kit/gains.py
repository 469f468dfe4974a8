"""What each step of a method gives: views, further models, finer thresholds, tried one after the other.

All choices are made on the images of `tune`, and F1 is told with thresholds that were fitted without the image's own
fold. `report` holds images that no choice has seen; nothing here looks at them but to tell.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from kit.data.coco import CocoFile, as_coco
from kit.data.views import group_of
from kit.metrics import Groups, Level, Matches, Thresholds, cross_fit, f1_at, match, search_thresholds
from kit.metrics.bootstrap import Difference, official_f1, paired_difference
from kit.metrics.f1 import mean_defined
from kit.metrics.result import interpolated_precision
from kit.metrics.thresholds import kept_by
from kit.sources import Fusion, Method, Source, combined, named, views_of
from kit.tta import WHOLE, Results, fuse_lists, without_doubles

Metric = Literal["ap", "f1"]
Change = Callable[["Method"], "Method"]
LEVELS: tuple[Level, ...] = ("none", "global", "class", "class_group")  # coarse to fine
LEVEL_NAMES: dict[Level, str] = {
    "none": "no threshold",
    "global": "one threshold",
    "class": "thresholds by class",
    "class_group": "thresholds by class, day/night",
}


# --- what they are worth ---


@dataclass(frozen=True)
class Score:
    """The worth of one set of detections. AP is of all of them: it does not see thresholds."""

    ap: float
    ap50: float
    f1: float  # held out: each fold judged with thresholds that were fitted on the others
    f1_fitted: float  # fitted and judged on the same images: flatters
    thresholds: Thresholds  # fitted on all of tune: what is sent
    shown: Thresholds  # those of F1: the same, but where AP counts and everything is sent, one for all classes
    sent: Matches  # what the held-out thresholds keep
    report: "Report | None" = None

    def of(self, metric: Metric) -> float:
        return self.ap if metric == "ap" else self.f1


@dataclass(frozen=True)
class Report:
    """On images that no choice has seen, with the thresholds fitted on tune."""

    ap: float
    ap50: float
    f1: float

    def of(self, metric: Metric) -> float:
        return self.ap if metric == "ap" else self.f1


@dataclass(frozen=True)
class Judge:
    """The images that choices are made on, those of the report, and what counts."""

    tune: CocoFile
    folds: Mapping[int, int]  # of tune: image id -> fold
    view_pattern: str | None = None
    metric: Metric = "f1"
    report: CocoFile | None = None

    @property
    def groups(self) -> Groups:
        """Day or night, of every image."""
        records = [*self.tune.records, *(self.report.records if self.report else [])]
        return {record.image_id: group_of(record.file_name, self.view_pattern) for record in records}

    def score(self, predictions: Results, level: Level) -> Score:
        """predictions: of any images of tune and report. Where AP counts, the F1 of everything would say nothing."""
        told: Level = "global" if level == "none" and self.metric == "ap" else level
        matches, groups = matches_of(predictions, self.tune), self.groups
        thresholds, shown = (search_level(matches, groups, each) for each in (level, told))
        sent = held_out(matches, self.folds, groups, told)
        f1_fitted = f1_at(matches, shown, groups)
        report = None if self.report is None else report_of(predictions, self.report, shown, groups)
        return Score(*ap_and_ap50(matches), official_f1(sent), f1_fitted, thresholds, shown, sent, report)


def report_of(predictions: Results, coco: CocoFile, thresholds: Thresholds, groups: Groups) -> Report:
    matches = matches_of(predictions, coco)
    return Report(*ap_and_ap50(matches), f1_at(matches, thresholds, groups))


def matches_of(predictions: Results, coco: CocoFile) -> Matches:
    return match(within(predictions, coco), as_coco(coco))


def within(predictions: Results, coco: CocoFile) -> Results:
    """Those on the images of `coco`."""
    image_ids = {record.image_id for record in coco.records}
    return [each for each in predictions if each["image_id"] in image_ids]


def search_level(matches: Matches, groups: Groups, level: Level) -> Thresholds:
    return search_thresholds(matches, groups_for(matches, groups, level))[level]


def groups_for(matches: Matches, groups: Groups, level: Level) -> Groups | None:
    """Of these images alone: a group that none of them is in would have no threshold to be fitted."""
    return {image_id: groups[image_id] for image_id in matches.image_ids} if level == "class_group" else None


def ap_and_ap50(matches: Matches) -> tuple[float, float]:
    """COCO's AP and AP50."""
    precision = interpolated_precision(matches)
    return mean_defined(precision), mean_defined(precision[0])


def held_out(matches: Matches, folds: Mapping[int, int], groups: Groups, level: Level) -> Matches:
    """What thresholds keep that were fitted without the image's own fold; of a single fold, those fitted on itself."""
    if len({folds[image_id] for image_id in matches.image_ids}) < 2:
        return matches.keep(kept_by(matches, search_level(matches, groups, level), groups))
    return matches.keep(cross_fit(matches, folds, groups_for(matches, groups, level)).kept[level])


# --- step by step ---


@dataclass(frozen=True)
class Step:
    """One thing tried on top of what was kept before."""

    name: str
    score: Score
    kept: bool = True
    gain: float | None = None  # of the metric that counts; None for the first step
    spread: Difference | None = None  # of a gain in F1
    seconds: float | None = None  # an image, of the whole method with this step; None: not known


@dataclass(frozen=True)
class Choice:
    """The method that was kept, and how it came to be."""

    method: Method
    steps: list[Step]
    alone: pd.DataFrame  # each view of each source, without any fusion
    single: Results  # of the first step, before thresholds
    predictions: Results  # of the method, before thresholds

    @property
    def score(self) -> Score:
        """Of the method: the last step that was kept."""
        return [step.score for step in self.steps if step.kept][-1]


def choose_method(
    sources: Sequence[Source],
    judge: Judge,
    fusion: Fusion,
    sizes_hw: Mapping[int, tuple[int, int]],
    *,
    finest: Level = "class",
    drop_losing_steps: bool = True,
    least_gain: float = 0.0,
) -> Choice:
    """From the best single source on, step by step: NMS, its further views, the other sources, finer thresholds.

    drop_losing_steps: a step stays only if it raises the metric on tune by more than least_gain; otherwise all stay.
    Where AP counts, no thresholds are tried then: they cannot raise it. finest: of the thresholds that are tried.
    """
    if not sources:
        raise ValueError("expected a model or a results file, got none; name one in models or results")
    in_vain = judge.metric == "ap" and drop_losing_steps
    level: Level = "none" if in_vain or finest == "none" else "global"
    singles = {each.name: judge.score(each.views[WHOLE], level) for each in sources}
    order = sorted(singles, key=lambda name: -singles[name].of(judge.metric))
    warm_up(sources[0].views[WHOLE], fusion, sizes_hw)
    bench = Bench(sources, judge, fusion, sizes_hw, least_gain if drop_losing_steps else None)
    bench.start(Method((order[0],), (WHOLE,), level=level), singles[order[0]])
    for name, change in changes(sources, order, fusion):
        bench.attempt(name, change)
    for finer in () if in_vain else finer_levels(level, finest, judge):
        bench.attempt(LEVEL_NAMES[finer], with_level(finer))
    single = named(sources, order[0]).views[WHOLE]
    table = alone(sources, judge, bench.method, fusion, sizes_hw)
    return Choice(bench.method, bench.steps, table, single, bench.predictions)


def warm_up(results: Results, fusion: Fusion, sizes_hw: Mapping[int, tuple[int, int]]) -> None:
    """The first fusion compiles itself, which no step shall be charged for."""
    few = results[:9]
    sizes_hw = {each["image_id"]: sizes_hw[each["image_id"]] for each in few}
    fuse_lists([few, few], sizes_hw, method=fusion.method, iou=fusion.iou, skip=fusion.skip)
    without_doubles(few, sizes_hw, fusion.iou)


def changes(sources: Sequence[Source], order: Sequence[str], fusion: Fusion) -> Iterator[tuple[str, Change]]:
    """What is tried, by name. What lost alone may pay together, so all views and all sources are tried too.

    Views are tried on a source that has them: at once where the best one does, else after all have joined.
    """
    yield f"NMS at IoU {fusion.iou:g}", lambda method: replace(method, nms=True)
    views = list(dict.fromkeys(view for each in sources for view in each.views))
    tried = [(f"TTA: {view}", with_view(view)) for view in views if view != WHOLE]
    tried.append((f"TTA: all {len(views)} views", lambda method: replace(method, views=tuple(views))))
    joined = [(f"ensemble: {name}", with_source(name)) for name in order[1:]]
    joined.append((f"ensemble: all {len(order)}", lambda method: replace(method, sources=tuple(order))))
    has_views = len(named(sources, order[0]).views) > 1
    yield from [*tried, *joined] if has_views else [*joined, *tried]


def finer_levels(level: Level, finest: Level, judge: Judge) -> list[Level]:
    """By day and night only where tune has both: nothing can be fitted for what is not there."""
    has_both = len({judge.groups[record.image_id] for record in judge.tune.records}) > 1
    finer = LEVELS[LEVELS.index(level) + 1 : LEVELS.index(finest) + 1]
    return [each for each in finer if each != "class_group" or has_both]


def with_view(view: str) -> Change:
    return lambda method: replace(method, views=(*method.views, view))


def with_source(source: str) -> Change:
    return lambda method: replace(method, sources=(*method.sources, source))


def with_level(level: Level) -> Change:
    return lambda method: replace(method, level=level)


class Bench:
    """The method so far, with its detections and its score; `attempt` tries one more thing on it, once."""

    def __init__(
        self,
        sources: Sequence[Source],
        judge: Judge,
        fusion: Fusion,
        sizes_hw: Mapping[int, tuple[int, int]],
        least_gain: float | None,
    ):
        self.sources, self.judge, self.fusion, self.sizes_hw = sources, judge, fusion, sizes_hw
        self.least_gain = least_gain  # None: every step stays
        self.steps: list[Step] = []

    def start(self, method: Method, score: Score) -> None:
        self.method, self.score = method, score
        self.predictions = named(self.sources, method.sources[0]).views[WHOLE]
        self.fusing_s = 0.0  # an image
        self.judged = {method}
        self.steps = [Step(f"single: {method.sources[0]}", score, seconds=self.seconds(method, 0.0))]

    def attempt(self, name: str, change: Change) -> None:
        method = change(self.method)
        if method in self.judged:
            return
        self.judged.add(method)
        predictions, fusing_s = self.predictions, self.fusing_s
        if replace(method, level=self.method.level) != self.method:  # more than the thresholds
            started = time.perf_counter()
            predictions = combined(self.sources, method, self.fusion, self.sizes_hw)
            fusing_s = (time.perf_counter() - started) / max(len(self.sizes_hw), 1)
        score = self.judge.score(predictions, method.level)
        gain = score.of(self.judge.metric) - self.score.of(self.judge.metric)
        spread = paired_difference(self.score.sent, score.sent, official_f1) if self.judge.metric == "f1" else None
        kept = self.least_gain is None or gain > self.least_gain
        self.steps.append(Step(name, score, kept, gain, spread, self.seconds(method, fusing_s)))
        if kept:
            self.method, self.score, self.predictions, self.fusing_s = method, score, predictions, fusing_s

    def seconds(self, method: Method, fusing_s: float) -> float | None:
        """An image, of all models in all their views; files of others took their time elsewhere."""
        chosen = [named(self.sources, name) for name in method.sources]
        known = [each.seconds[view] for each in chosen if each.seconds for view in views_of(each, method)]
        return sum(known) + fusing_s if known else None


# --- tables ---


def alone(
    sources: Sequence[Source],
    judge: Judge,
    method: Method,
    fusion: Fusion,
    sizes_hw: Mapping[int, tuple[int, int]],
) -> pd.DataFrame:
    """What each view of each source gives without the others, with NMS where the method has it, at one threshold."""
    rows = []
    level: Level = "none" if method.level == "none" else "global"
    for each in sources:
        for view in each.views:
            only = Method((each.name,), (view,), method.nms)
            score = judge.score(combined(sources, only, fusion, sizes_hw), level)
            about = {"source": each.name, "view": view, "weight": each.weight}
            rows.append(about | {"ap": score.ap, "ap50": score.ap50, "f1": score.f1, "seconds": each.seconds.get(view)})
    return pd.DataFrame(rows).set_index(["source", "view"]).astype(float)


def steps_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row a step; the columns of the report only where there is one."""
    rows = []
    for step in steps:
        score, report = step.score, step.score.report
        row = {"step": step.name, "kept": step.kept, "gain": step.gain}
        row |= {"gain_low": step.spread.low, "gain_high": step.spread.high} if step.spread else {}
        row |= {"ap": score.ap, "ap50": score.ap50, "f1": score.f1, "f1_fitted": score.f1_fitted}
        row |= {"seconds": step.seconds}
        if report:
            row |= {"report_ap": report.ap, "report_ap50": report.ap50, "report_f1": report.f1}
        rows.append(row)
    table = pd.DataFrame(rows).set_index("step")
    return table.astype({name: float for name in table.columns if name != "kept"})
