"""The gate: whether a new model takes the place of the one in use, by images that neither has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.coco_ap import RankedClass, average_precision, rank
from labelloop.metrics.estimate import Estimate
from labelloop.metrics.pairs import PairTable
from labelloop.plurals import plural

ERROR = 0.05  # how often a model that is no better (or no worse) is called better (or worse), at most

FEWEST_ALIKE = 5  # images or groups with the very same difference that are no coincidence

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """What the gate says of a new model.

    Attributes:
        promote: Whether the new model is to be used from now on.
        verdict: What the images show: the new model is better, worse, or neither can be said.
        difference: COCO AP of the new model minus that of the old, fraction of one, with its 90 % interval:
            each of its ends is passed by chance in 5 % of cases.
        rule: By which ``promote`` follows from the interval; one sentence without a full stop.
        reason: What was found; one sentence without a full stop.
    """

    promote: bool
    verdict: Verdict
    difference: Estimate
    rule: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The decision as ``--json`` prints it."""
        return {
            "promote": self.promote,
            "verdict": self.verdict,
            "difference": self.difference.as_dict(),
            "rule": self.rule,
            "reason": self.reason,
        }


def decide(
    truth: Sequence[Instances],
    predicted_new: Sequence[Instances],
    predicted_old: Sequence[Instances],
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    presume: Literal["old", "new"] = "old",
) -> GateDecision:
    """Compares two models on the same images by their difference in COCO AP.

    The interval is Student's t on the jackknife's pseudo-values (Tukey 1958; Efron and Stein 1981), which
    leaves out one image (or group) at a time: unlike bootstrap percentiles it widens as it must where images
    are few, so one rule serves every number of images. How often it is right: tests/benchmarks/bench_gate.py.

    Args:
        truth: The annotations, one per image; of validation, or of images out of fold where labels are few.
        predicted_new: Predictions of the new model for the same images.
        predicted_old: Predictions of the model in use.
        n_classes: Labels are 0..n_classes - 1.
        groups: The group of each image, None where unknown; groups are the units, unless all images are of
            one.
        presume: Which model is used where the images cannot tell. ``old``: the new one has to be shown
            better. ``new``: it has to be shown worse to be refused; where other evidence favours it.
    """
    difference, units = _difference(truth, predicted_new, predicted_old, n_classes, groups)
    verdict: Verdict = "undecided"
    if difference.low is not None and difference.high is not None:
        verdict = "better" if difference.low > 0 else "worse" if difference.high < 0 else "undecided"
    promote = verdict == "better" if presume == "old" else verdict != "worse"
    return GateDecision(
        promote=promote,
        verdict=verdict,
        difference=difference,
        rule=(
            "the new model is promoted where the 90 % interval of its gain in AP lies above zero"
            if presume == "old"
            else "the new model is promoted unless the 90 % interval of its gain in AP lies below zero"
        ),
        reason=_reason(verdict, difference, units),
    )


def _reason(verdict: Verdict, difference: Estimate, units: str) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return f"the models cannot be told apart: {difference.reason}"
    low, value, high = (100 * end for end in (difference.low, difference.value, difference.high))
    said = {
        "better": "the new model is better",
        "worse": "the new model is worse",
        "undecided": f"{units} cannot tell which model is better",
    }[verdict]
    return f"{said}: {value:+.1f} AP points, 90 % interval {low:+.1f} to {high:+.1f} on {units}"


def _difference(
    truth: Sequence[Instances],
    new: Sequence[Instances],
    old: Sequence[Instances],
    n_classes: int,
    groups: Sequence[str | None] | None,
) -> tuple[Estimate, str]:
    """The difference with its interval, and what was counted, such as ``8 images``."""
    tables = [PairTable.build(truth, predicted, n_classes=n_classes) for predicted in (new, old)]
    resampling = Resampling.of(len(truth), groups, replicates=0, seed=0)
    n = resampling.n_units
    units = plural(n, "group" if resampling.by_group else "image")
    ranked_new, ranked_old = (rank(table) for table in tables)
    without = (resampling.unit_of_image != np.arange(n)[:, None]).astype(np.int32)
    times = np.concatenate([np.ones((1, len(truth)), np.int32), without])
    gain = _ap(ranked_new, times) - _ap(ranked_old, times)
    value, left_out = gain[0], gain[1:]
    if np.isnan(value):
        return Estimate(
            value=None, low=None, high=None, n=len(truth), reason="there are no true objects"
        ), units
    reason = None
    if n < 2:
        reason = f"no interval from {units}"
    elif np.isnan(left_out).any():
        reason = f"no interval: one of {units} holds all true objects"
    if reason is not None:
        return Estimate(value=float(value), low=None, high=None, n=len(truth), reason=reason), units
    pseudo_values = n * value - (n - 1) * left_out
    spread = float(pseudo_values.std(ddof=1))
    if spread < 1e-9 < abs(value) and n < FEWEST_ALIKE:
        reason = f"no interval: all {units} show the same difference, and so few say nothing of others"
        return Estimate(value=float(value), low=None, high=None, n=len(truth), reason=reason), units
    reach = float(t.ppf(1 - ERROR, n - 1)) * spread / np.sqrt(n)
    return Estimate(
        value=float(value), low=float(value) - reach, high=float(value) + reach, n=len(truth)
    ), units


def _ap(ranked: list[RankedClass], times: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """float64 (r,): COCO AP of each resample."""
    return np.asarray(average_precision(ranked, times).mean(axis=1))
