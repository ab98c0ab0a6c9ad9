"""Metrics in plain words, and their numbers: one way to write them for the whole report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.metrics.bootstrap import FEW_UNITS

Estimate = Mapping[str, Any]
HIGHER, LOWER, ZERO = "higher", "lower", "zero"  # what is better
SHARE, RATE, COUNT, PERCENT, LENGTH = "share", "rate", "count", "percent", "length"
_DIGITS = {SHARE: 3, RATE: 1, COUNT: 2, PERCENT: 1, LENGTH: 2}
NO_NUMBER = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True)
class MetricWords:
    """How a person reads a metric.

    Attributes:
        name: As in ``--json``.
        title: In a few words.
        meaning: In a sentence or two.
        section: Under which it stands.
        kind: How its numbers are written.
        better: higher, lower or zero.
        unit: After a number; empty where the title says it.
    """

    name: str
    title: str
    meaning: str
    section: str
    kind: str = SHARE
    better: str = HIGHER
    unit: str = ""


FINDING, OUTLINES, MISTAKES, MEASURING, SCORES, OTHER = (
    "Finding objects", "Outlines", "Mistakes", "Counts and sizes", "Scores", "Other",
)  # fmt: skip
SECTIONS = (FINDING, OUTLINES, MISTAKES, MEASURING, SCORES, OTHER)
_RANGE = "0 to 1, higher is better."

_KNOWN = (
    MetricWords(
        name="recall_50", section=FINDING, title="Objects found (recall)",
        meaning="Share of the true objects that are found, with an IoU of 0.5 or more.",
    ),
    MetricWords(
        name="precision_50", section=FINDING, title="Predictions that are right (precision)",
        meaning="Share of the predicted objects that meet a true one, with an IoU of 0.5 or more.",
    ),
    MetricWords(
        name="f1_50", section=FINDING, title="F1",
        meaning=f"Recall and precision in one number, their harmonic mean. {_RANGE}",
    ),
    MetricWords(
        name="recall_70", section=FINDING, title="Recall with strict outlines",
        meaning="As recall, but only an IoU of 0.7 or more counts as found.",
    ),
    MetricWords(
        name="precision_70", section=FINDING, title="Precision with strict outlines",
        meaning="As precision, but only an IoU of 0.7 or more counts as right.",
    ),
    MetricWords(
        name="f1_70", section=FINDING, title="F1 with strict outlines",
        meaning="As F1, but only an IoU of 0.7 or more counts as found.",
    ),
    MetricWords(
        name="coco_ap50", section=FINDING, title="AP at IoU 0.5 (COCO)",
        meaning=f"Average precision over all score thresholds, as papers report it. {_RANGE}",
    ),
    MetricWords(
        name="coco_ap75", section=FINDING, title="AP at IoU 0.75 (COCO)",
        meaning="The same, where outlines must fit well.",
    ),
    MetricWords(
        name="coco_ap", section=FINDING, title="AP (COCO)",
        meaning="Mean of AP over IoU 0.50 to 0.95: finding and outlines in one number.",
    ),
    MetricWords(
        name="cellpose_ap50", section=FINDING, title="AP at IoU 0.5 (Cellpose)",
        meaning="Found / (found + missed + false positives), mean over images. Not comparable to COCO's AP.",
    ),
    MetricWords(
        name="cellpose_ap75", section=FINDING, title="AP at IoU 0.75 (Cellpose)",
        meaning="The same with IoU 0.75.",
    ),
    MetricWords(
        name="cellpose_ap90", section=FINDING, title="AP at IoU 0.9 (Cellpose)",
        meaning="The same with IoU 0.9.",
    ),
    MetricWords(
        name="pq", section=OUTLINES, title="Panoptic quality",
        meaning=f"Outline quality times recognition quality. {_RANGE}",
    ),
    MetricWords(
        name="sq", section=OUTLINES, title="Outline quality",
        meaning="Mean IoU of the objects that are found.",
    ),
    MetricWords(
        name="rq", section=OUTLINES, title="Recognition quality",
        meaning="F1 of panoptic quality: IoU above 0.5, mean over classes.",
    ),
    MetricWords(
        name="aji", section=OUTLINES, title="Aggregated Jaccard index",
        meaning="Overlap of all true and predicted area, object by object. Not defined where masks overlap.",
    ),
    MetricWords(
        name="boundary_error", section=OUTLINES, title="Distance between outlines", kind=LENGTH, better=LOWER,
        meaning="Mean distance between the true and the predicted outline of found objects.",
    ),
    MetricWords(
        name="misses_per_100", section=MISTAKES, title="Missed", kind=RATE, better=LOWER,
        meaning="True objects that no prediction meets, per 100 true objects.",
    ),
    MetricWords(
        name="spurious_per_100", section=MISTAKES, title="False positives", kind=RATE, better=LOWER,
        meaning="Predictions that meet no true object, per 100 true objects.",
    ),
    MetricWords(
        name="merges_per_100", section=MISTAKES, title="Merged", kind=RATE, better=LOWER,
        meaning="Predictions that cover two or more true objects, per 100 true objects.",
    ),
    MetricWords(
        name="splits_per_100", section=MISTAKES, title="Split", kind=RATE, better=LOWER,
        meaning="True objects that two or more predictions share, per 100 true objects.",
    ),
    MetricWords(
        name="count_bias", section=MEASURING, title="Mean count error", kind=COUNT, better=ZERO,
        unit="objects per image", meaning="Predicted minus true. Above 0: too many.",
    ),
    MetricWords(
        name="count_mae", section=MEASURING, title="Mean absolute count error", kind=COUNT, better=LOWER,
        unit="objects per image", meaning="Mean distance between predicted and true count, either way.",
    ),
    MetricWords(
        name="count_ccc", section=MEASURING, title="Agreement of counts",
        meaning="Lin's concordance over images: 1 is equal counts in every image.",
    ),
    MetricWords(
        name="area_bias", section=MEASURING, title="Median area error", kind=PERCENT,
        better=ZERO, meaning="Median of (predicted - true) / true area of found objects. Above 0: too large.",
    ),
    MetricWords(
        name="area_low_loa", section=MEASURING, title="Area error, lower limit", kind=PERCENT,
        better=ZERO, meaning="About 95 % of found objects lie between this limit and the next.",
    ),
    MetricWords(
        name="area_high_loa", section=MEASURING, title="Area error, upper limit", kind=PERCENT,
        better=ZERO, meaning="See the lower limit.",
    ),
    MetricWords(
        name="detection_ece", section=SCORES, title="Calibration error", better=LOWER,
        meaning="How far scores are, on average, from the share of predictions that are right. 0 is best.",
    ),
)  # fmt: skip
_BY_NAME = {words.name: words for words in _KNOWN}
HEADLINE = (
    "recall_50", "precision_50", "coco_ap50", "coco_ap", "pq", "boundary_error", "count_bias", "area_bias",
)  # fmt: skip


def words_for(name: str) -> MetricWords:
    """How to read a metric; one that is not known stands under its name."""
    return _BY_NAME.get(name) or MetricWords(name=name, title=name, meaning="", section=OTHER, better="")


def in_order(names: Iterable[str]) -> list[str]:
    """Known metrics as a reader wants them, then others by name."""
    given = set(names)
    return [name for name in _BY_NAME if name in given] + sorted(given - _BY_NAME.keys())


def number_text(words: MetricWords, value: float, *, signed: bool = False) -> str:
    """``0.853``, ``+2.77``, ``-4.3 %`` (a real minus): as every number of a metric is written; no unit.

    Args:
        words: Of the metric.
        value: As in ``--json``.
        signed: Writes the plus of positive numbers, as differences have it.
    """
    scaled = 100 * value if words.kind == PERCENT else value
    digits = _DIGITS[words.kind]
    plus = "+" if signed or words.better == ZERO else ""
    text = f"{scaled:{plus}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}") + (" %" if words.kind == PERCENT else "")


def interval_text(words: MetricWords, estimate: Estimate, *, signed: bool = False) -> str:
    """``[0.830, 0.874]``, or nothing where there is no interval."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return ""
    ends = [number_text(words, end, signed=signed) for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def unit_text(words: MetricWords, estimate: Estimate) -> str:
    """The unit behind a number; may be empty."""
    return str(estimate.get("unit") or words.unit)


def size_limits_text(thirds_px: Sequence[float] | None) -> str:
    """``small up to 63 px, medium up to 254 px, large above (area)``; nothing where there are no limits.

    Args:
        thirds_px: Area of the largest small and of the largest medium object, px, as in ``--json``.
    """
    if not thirds_px:
        return ""
    small, medium = (f"{math.floor(limit):,}" for limit in thirds_px)  # areas are whole numbers
    return f"small up to {small} px, medium up to {medium} px, large above (area)"


def is_unreliable(estimate: Estimate) -> bool:
    """Whether an interval says little; of few images also where the result does not say so itself."""
    if estimate.get("low") is None:
        return False
    return estimate.get("reliable") is False or int(estimate.get("n", FEW_UNITS)) < FEW_UNITS


def has_width(estimate: Estimate) -> bool:
    """Whether an interval has any: it has none where all images are alike."""
    return bool(estimate.get("low") != estimate.get("high"))


def which_is_better(words: MetricWords, estimate: Estimate, *, nearer: bool | None = None) -> str:
    """What a difference says: better, worse, or not sure where its interval holds 0.

    Args:
        words: Of the metric.
        estimate: Of the difference, new minus old.
        nearer: For metrics that are best at zero: whether the new value is nearer to it.

    Returns:
        ``better``, ``worse``, ``not sure``, or nothing where that is not known.
    """
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None or words.better == "":
        return ""
    if low <= 0 <= high:
        return "not sure"
    if words.better == ZERO and nearer is None:
        return ""
    rises = low > 0
    good = nearer if words.better == ZERO else rises == (words.better == HIGHER)
    return "better" if good else "worse"


def minutes_text(minutes: float | None) -> str:
    """``0.4 min``, ``35 min`` or ``2 h 05 min``."""
    if minutes is None:
        return NO_NUMBER
    if minutes == 0:
        return "0 min"
    if minutes < 10:
        return f"{minutes:.1f} min"
    whole = round(minutes)
    return f"{whole} min" if whole < 120 else f"{whole // 60} h {whole % 60:02d} min"
