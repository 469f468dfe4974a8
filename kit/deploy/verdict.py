"""What the parity gate says of a file: the figures, what it must keep to, and why it is refused."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from kit.deploy.about import Precision
from kit.deploy.parity import Pairs
from kit.plots.parity import Parity


@dataclass(frozen=True)
class Limits:
    """What a file must keep to. AP and F1 count where there are annotations."""

    share_matched: float  # of the boxes that either finds, at least
    iou_mean: float  # of matched boxes, at least
    score_p99: float  # 99 of 100 matched boxes differ in score by at most this
    ap_drop: float  # at most
    f1_drop: float  # at most, at the threshold that is best before
    min_score: float = 0.1  # of boxes that are compared


LIMITS: Mapping[Precision, Limits] = MappingProxyType(
    {
        "fp32": Limits(share_matched=0.998, iou_mean=0.9999, score_p99=0.0002, ap_drop=0.001, f1_drop=0.001),
        "fp16": Limits(share_matched=0.98, iou_mean=0.995, score_p99=0.01, ap_drop=0.003, f1_drop=0.003),
        "int8": Limits(share_matched=0.90, iou_mean=0.90, score_p99=0.15, ap_drop=0.01, f1_drop=0.01),
    }
)


@dataclass(frozen=True)
class Accuracy:
    """On the images of the gate: COCO AP and AP50, and the official F1 at one threshold."""

    ap: float
    ap50: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate has seen. Figures of matched boxes are None where none matched."""

    reference: str
    candidate: str
    images: int
    boxes: int  # compared
    min_score: float  # of those
    share_matched: float
    iou_mean: float | None
    iou_min: float | None
    score_mean: float | None  # differences, never negative
    score_p99: float | None
    score_max: float | None
    before: Accuracy | None
    after: Accuracy | None
    threshold: float | None  # of F1
    limits: Limits
    reasons: tuple[str, ...]  # why it is refused; none: it passed
    first_layer: str = ""  # that diverges, where that has been looked for
    pairs: Pairs | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single boxes."""
        figures = {name: value for name, value in asdict(replace(self, pairs=None)).items() if name != "pairs"}
        return {"passed": self.passed} | figures | {"reasons": list(self.reasons)}

    def table(self) -> str:
        """To be printed."""
        limits = self.limits
        rows = [
            ("boxes matched", share(self.share_matched), f"at least {share(limits.share_matched)}"),
            ("IoU of matched, mean", number(self.iou_mean), f"at least {limits.iou_mean}"),
            ("IoU of matched, least", number(self.iou_min), ""),
            ("score difference, mean", number(self.score_mean), ""),
            ("score difference, 99 %", number(self.score_p99), f"at most {limits.score_p99}"),
            ("score difference, largest", number(self.score_max), ""),
        ]
        if self.before and self.after:
            at = f"F1 at {self.threshold:.2f}"
            for name, key, drop in (("AP", "ap", limits.ap_drop), ("AP50", "ap50", None), (at, "f1", limits.f1_drop)):
                old, new = getattr(self.before, key), getattr(self.after, key)
                rows.append((name, f"{old:.4f} -> {new:.4f}", "" if drop is None else f"drop at most {drop}"))
        against = f"{self.candidate} against {self.reference}"
        head = f"{against}: {self.images} images, {self.boxes} boxes of score {self.min_score:.2g} and more"
        body = [f"  {name:26} {value:>18}   {limit}".rstrip() for name, value, limit in rows]
        end = [f"  refused: {reason}" for reason in self.reasons] or ["  passed"]
        return "\n".join([head, *body, *end, *([f"  first layer: {self.first_layer}"] if self.first_layer else [])])

    def picture(self, name: str = "") -> Parity:
        """What kit.plots.parity draws. name: of the file, in place of its runtime and precision."""
        assert self.pairs is not None, "a verdict that was read from a file has no single boxes"
        accuracy = {"AP": "ap", "AP50": "ap50", "F1": "f1"} if self.before and self.after else {}
        return Parity(
            heading=f"{name or self.candidate}: {'passed' if self.passed else 'refused'}",
            passed=self.passed,
            reference=self.pairs.reference,
            candidate=self.pairs.candidate,
            iou=self.pairs.iou,
            missing=self.pairs.missing,
            added=self.pairs.added,
            before={name: getattr(self.before, key) for name, key in accuracy.items()},
            after={name: getattr(self.after, key) for name, key in accuracy.items()},
        )


class GateFailed(ValueError):
    """A file that finds less than it may; verdict says what was seen."""

    def __init__(self, verdict: Verdict):
        where = f"; the first layer that diverges is {verdict.first_layer}" if verdict.first_layer else ""
        super().__init__(
            f"{verdict.candidate}: refused by the parity gate: {'; '.join(verdict.reasons)}{where}; take more fp32 "
            "islands (kit.deploy.retry.accept_mixed) or another precision, or let it pass with allow_drop"
        )
        self.verdict = verdict


def verdict_of(
    reference: str,
    candidate: str,
    images: int,
    pairs: Pairs,
    before: Accuracy | None,
    after: Accuracy | None,
    threshold: float | None,
    limits: Limits,
) -> Verdict:
    difference, is_any = pairs.score_difference, len(pairs.iou) > 0
    verdict = Verdict(
        reference=reference,
        candidate=candidate,
        images=images,
        boxes=pairs.boxes,
        min_score=pairs.min_score,
        share_matched=pairs.share_matched,
        iou_mean=float(pairs.iou.mean()) if is_any else None,
        iou_min=float(pairs.iou.min()) if is_any else None,
        score_mean=float(difference.mean()) if is_any else None,
        score_p99=float(np.quantile(difference, 0.99)) if is_any else None,
        score_max=float(difference.max()) if is_any else None,
        before=before,
        after=after,
        threshold=threshold,
        limits=limits,
        reasons=(),
        pairs=pairs,
    )
    return replace(verdict, reasons=tuple(reasons_against(verdict, pairs)))


def reasons_against(verdict: Verdict, pairs: Pairs) -> list[str]:
    limits, reasons = verdict.limits, []
    if pairs.broken:
        reasons.append(f"{pairs.broken} numbers that are not finite")
    if pairs.min_score <= 0:
        return [*reasons, "the reference itself finds nothing on these images, so nothing can be compared"]
    if verdict.iou_mean is None or verdict.score_p99 is None:
        return [*reasons, f"none of {verdict.boxes} boxes is found by both"]
    if verdict.share_matched < limits.share_matched:
        reasons.append(
            f"{share(verdict.share_matched)} of the boxes matched, limit {share(limits.share_matched)} "
            f"({pairs.missing} missing, {pairs.added} added)"
        )
    if verdict.iou_mean < limits.iou_mean:
        reasons.append(f"mean IoU of matched boxes {number(verdict.iou_mean)}, limit {limits.iou_mean}")
    if verdict.score_p99 > limits.score_p99:
        reasons.append(f"scores differ by {number(verdict.score_p99)} (99 %), limit {limits.score_p99}")
    if verdict.before and verdict.after:
        drops = (("AP", "ap", limits.ap_drop), ("F1", "f1", limits.f1_drop))
        for name, key, most in drops:
            old, new = getattr(verdict.before, key), getattr(verdict.after, key)
            if old - new > most:
                reasons.append(f"{name} falls from {old:.4f} to {new:.4f}, limit {most}")
    return reasons


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5f}" if value >= 1e-4 or value == 0 else f"{value:.1e}"
