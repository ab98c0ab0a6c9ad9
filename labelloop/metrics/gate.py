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

ROUNDING = 1e-9  # of sums; smaller differences are none

RULE = (
    "the new model is promoted unless its AP on these images is lower;"
    " the 90 % interval of its gain says how sure that is"
)

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """What the gate says of a new model.

    Attributes:
        promote: Whether the new model is to be used from now on.
        verdict: What the images show: the new model is better, worse, or neither can be said.
        difference: COCO AP of the new model minus that of the old, fraction of one, with its 90 % interval:
            each of its ends is passed by chance in 5 % of cases.
        reason: What was found, and what is used where that shows neither; one sentence without a full stop.
        rule: By which ``promote`` follows from the difference; one sentence without a full stop.
    """

    promote: bool
    verdict: Verdict
    difference: Estimate
    reason: str
    rule: str = RULE

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
) -> GateDecision:
    """Compares two models on the same images by their difference in COCO AP.

    Where the interval leaves zero out it decides, and where it does not the estimate itself does: on paired
    images its sign is right far more often than the interval is clear, and more often than either model
    taken on trust would be. The new model is used where there is no difference, or nothing to measure it on:
    it is taken to be the better one, having learnt more.

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
    """
    tables = [PairTable.build(truth, seen, n_classes=n_classes) for seen in (predicted_new, predicted_old)]
    resampling = Resampling.of(len(truth), groups, replicates=0, seed=0)
    n = resampling.n_units
    without = (resampling.unit_of_image != np.arange(n)[:, None]).astype(np.int32)
    times = np.concatenate([np.ones((1, len(truth)), np.int32), without])
    gain = gains(rank(tables[0]), rank(tables[1]), times)
    units = plural(n, "group" if resampling.by_group else "image")
    return decision(estimated(gain, n_images=len(truth), units=units), units)


def gains(
    new: list[RankedClass], old: list[RankedClass], times: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """float64 (r,): COCO AP of the new model minus that of the old on each resample.

    Args:
        new: What the new model found.
        old: What the model in use found, in the same images.
        times: int32 (r, n_images), how often each image is in each resample.
    """
    ap_new, ap_old = (average_precision(ranked, times).mean(axis=1) for ranked in (new, old))
    return np.asarray(ap_new - ap_old)


def estimated(gain: npt.NDArray[np.float64], *, n_images: int, units: str) -> Estimate:
    """The gain with its 90 % interval, or why there is none.

    Args:
        gain: float64 (1 + n,), on all images, and without each of the n units.
        n_images: In all.
        units: What was left out in turn, such as ``8 images``.
    """
    value, left_out = float(gain[0]), gain[1:]
    n = len(left_out)
    if np.isnan(value):
        return Estimate(value=None, low=None, high=None, n=n_images, reason="there are no true objects")
    pseudo_values = n * value - (n - 1) * left_out
    spread = float(pseudo_values.std(ddof=1)) if n > 1 else 0.0
    reason = None
    if n < 2:
        reason = f"no interval from {units}"
    elif np.isnan(left_out).any():
        reason = f"no interval: one of {units} holds all true objects"
    elif spread < ROUNDING < abs(value) and n < FEWEST_ALIKE:
        reason = f"no interval: all {units} show the same difference, and so few say nothing of others"
    if reason is not None:
        return Estimate(value=value, low=None, high=None, n=n_images, reason=reason)
    reach = float(t.ppf(1 - ERROR, n - 1) * spread / np.sqrt(n))
    return Estimate(value=value, low=value - reach, high=value + reach, n=n_images)


def decision(difference: Estimate, units: str) -> GateDecision:
    """What follows from the difference.

    Args:
        difference: The gain of the new model with its interval, as far as there is one.
        units: What measured it, such as ``8 images``.
    """
    value = difference.value or 0.0
    verdict: Verdict = "undecided"
    if difference.low is not None and difference.high is not None:
        verdict = "better" if difference.low > 0 else "worse" if difference.high < 0 else "undecided"
    return GateDecision(
        promote=value > -ROUNDING,
        verdict=verdict,
        difference=difference,
        reason=_reason(verdict, difference, units),
    )


def _reason(verdict: Verdict, difference: Estimate, units: str) -> str:
    if difference.value is None:
        return f"the models cannot be told apart: {difference.reason}; the new one is used"
    value = 100 * difference.value
    if abs(difference.value) < ROUNDING:
        used = "the new one is used, as they differ by nothing on them"
    else:
        used = f"the better of the two on them is used, the {'new' if value > 0 else 'old'} one"
    if difference.low is None or difference.high is None:
        return (
            f"the models cannot be told apart: {difference.reason}; {used}: {value:+.1f} AP points on {units}"
        )
    said = {
        "better": "the new model is better",
        "worse": "the new model is worse",
        "undecided": f"{units} cannot tell which model is better; {used}",
    }[verdict]
    interval = f"90 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return f"{said}: {value:+.1f} AP points, {interval} on {units}"
