"""What a score is worth: the chance that an object is right, and scores above which few are wrong.

An object is right where it is the match of a true object of its class with IoU >= 0.5 in COCO's matching,
best score first: then what is right above a threshold does not depend on what lies below it. Predictions that
lie in crowds are neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import beta, t

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.matching import coco_match
from labelloop.metrics.pairs import PairTable

KNOTS = (0.5, 0.7, 0.85)  # scores where the curve may become steeper; from images that no test set holds
CANDIDATES = 40  # thresholds that are tried; more find no lower one and are wrong more often
_KIND = "monotone logistic"
_AS_IT_IS = (0.0, 1.0, 1.0, *(0.0 for _ in KNOTS))  # coefficients that return the score
_RIDGE = 1.0  # the prior's weight; some ten objects move it
_EDGE = 1e-4  # scores are kept this far from 0 and 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """P(IoU >= 0.5 with a true object) as a rising function of the score.

    Beta calibration (Kull et al. 2017, PMLR 54:623: a logistic model of ln s and -ln(1 - s)), which can also
    become steeper at ``KNOTS``: scores that are a product of class and mask quality are flat in the middle
    and steep near the top. No slope can be negative, so the order of objects never changes. Coefficients are
    drawn towards those that return the score as it is, so few objects change little. That another model
    agrees on the object was tried as well and told nothing more.

    Attributes:
        coefficients: Constant, slopes of ln s and -ln(1 - s), and of tenths of a score above each knot.
        n_objects: Predictions that it was fitted to.
        n_images: Images that they came from.
    """

    coefficients: tuple[float, ...]
    n_objects: int
    n_images: int

    @classmethod
    def fit(
        cls, truth: Sequence[Instances], predicted: Sequence[Instances], *, n_classes: int
    ) -> Calibration:
        """Fits to images that the model has not learnt: validation, or the random arm of reviews.

        Args:
            truth: The annotations, one per image.
            predicted: All predictions of the same images with their scores, not only those that are shown.
            n_classes: Labels are 0..n_classes - 1; all share one curve.
        """
        seen = _judge(truth, predicted, n_classes)
        rows, right = _features(seen.score), seen.right.astype(np.float64)
        prior = np.asarray(_AS_IT_IS)

        def loss(coefficients: Floats) -> tuple[float, Floats]:
            logit, off = rows @ coefficients, coefficients - prior
            value = np.logaddexp(0, logit).sum() - (right * logit).sum() + _RIDGE / 2 * (off**2).sum()
            return float(value), np.asarray(rows.T @ (_logistic(logit) - right) + _RIDGE * off)

        bounds = [(None, None), *((0.0, None) for _ in prior[1:])]
        found = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(coefficients=tuple(float(c) for c in found.x), n_objects=len(right), n_images=len(truth))

    def probability(self, predicted: Instances) -> Floats:
        """float64 (n,), 0..1: the chance of each object to be right; without scores all count as 1."""
        scores = np.ones(len(predicted)) if predicted.scores is None else predicted.scores
        return _logistic(_features(scores.astype(np.float64)) @ np.asarray(self.coefficients))

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "kind": _KIND,
            "knots": list(KNOTS),
            "coefficients": list(self.coefficients),
            "n_objects": self.n_objects,
            "n_images": self.n_images,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Calibration:
        """What ``as_dict`` gave.

        Raises:
            ValueError: It is a calibration of another kind, or its curve may fall.
        """
        coefficients = tuple(float(c) for c in document["coefficients"])
        known = document["kind"] == _KIND and tuple(document["knots"]) == KNOTS
        if not known or len(coefficients) != len(_AS_IT_IS) or min(coefficients[1:]) < 0:
            raise ValueError(f"not a calibration of this version: {document}")
        return cls(
            coefficients=coefficients,
            n_objects=int(document["n_objects"]),
            n_images=int(document["n_images"]),
        )


def threshold_for_precision(
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    target: float,
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    confidence: float = 0.975,
) -> float | None:
    """The lowest score above which objects are right often enough, with a margin for chance.

    Of thresholds that let through ever more objects, the lowest whose precision has its lower bound
    (``precision_bound``) at or above the target. Chance draws images, or groups where they are known.

    Args:
        truth: The annotations of images that the model has not learnt.
        predicted: All predictions of the same images with their scores.
        target: Wanted share of right objects, 0..1.
        n_classes: Labels are 0..n_classes - 1.
        groups: The group of each image, None where unknown.
        confidence: How sure the bound of one threshold is, 0..1; for less than 0.95 the lowest of all that
            are tried keeps its promise too seldom (tests/benchmarks/bench_calibration.py).

    Returns:
        A score, or None where no threshold can be shown to reach the target: there are too few objects (for
        0.9 at 97.5 % at least 36, all right), or too few of them are right.

    Raises:
        ValueError: ``target`` or ``confidence`` does not lie between 0 and 1.
    """
    if not (0 < target < 1 and 0 < confidence < 1):
        raise ValueError(f"target {target} and confidence {confidence} must lie between 0 and 1")
    seen = _judge(truth, predicted, n_classes)
    unit = Resampling.of(len(truth), groups, replicates=0, seed=0).unit_of_image[seen.image]
    order = np.argsort(-seen.score, kind="stable")
    score, unit, right = seen.score[order], unit[order], seen.right[order]
    fewest = max(math.ceil(math.log1p(-confidence) / math.log(target)), 1)  # with all of them right
    if fewest > len(score):
        return None
    lowest = None
    for count in np.unique(np.geomspace(fewest, len(score), CANDIDATES).round().astype(np.int64)):
        through = int(np.searchsorted(-score, -score[count - 1], side="right"))  # with those of equal score
        hits = np.bincount(unit[:through], weights=right[:through])
        counted = np.bincount(unit[:through])
        if precision_bound(hits[counted > 0], counted[counted > 0], confidence) >= target:
            lowest = float(score[count - 1])
    return lowest


def precision_bound(hits: npt.NDArray[Any], counted: npt.NDArray[Any], confidence: float) -> float:
    """Lower confidence bound of the share of right objects, where objects of an image are alike.

    Korn and Graubard 1998 (Survey Methodology 24:193): the exact bound of Clopper and Pearson for as many
    objects as would say as much if they were independent. The variance between images gives that number;
    never more than there are objects. An average over few images is trusted less, as Student's t says.

    Args:
        hits: (u,), right objects of each image or group.
        counted: (u,), objects of each, 1 or more.
        confidence: One-sided, 0..1.

    Returns:
        0..1; 0 where there are fewer than two images or nothing is right.
    """
    units, n = len(counted), float(np.sum(counted))
    share = float(np.sum(hits)) / n if n else 0.0
    if units < 2 or share == 0:
        return 0.0
    effective = n
    if share < 1:
        off = hits - share * counted
        variance = units / (units - 1) * float((off**2).sum()) / n**2
        effective = n / max(variance * n / (share * (1 - share)), 1.0)
    effective *= float(t.ppf(confidence, n - 1) / t.ppf(confidence, units - 1)) ** 2
    return float(beta.ppf(1 - confidence, share * effective, (1 - share) * effective + 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judged:
    """Predictions that are right or wrong: int64 image, float64 score and bool right, (n,) each."""

    image: npt.NDArray[np.int64]
    score: Floats
    right: npt.NDArray[np.bool_]


def _judge(truth: Sequence[Instances], predicted: Sequence[Instances], n_classes: int) -> _Judged:
    table = PairTable.build(truth, predicted, n_classes=n_classes)
    matches = coco_match(table)
    counts = ~matches.ignored[0]
    return _Judged(
        image=table.det_image[counts],
        score=table.det_score[counts].astype(np.float64),
        right=matches.hit[0, counts],
    )


def _features(score: Floats) -> Floats:
    """float64 (n, 3 + knots): what the logistic model is linear in; all but the constant rise."""
    inside = np.clip(score, _EDGE, 1 - _EDGE)
    steeper = [10 * np.maximum(inside - knot, 0) for knot in KNOTS]
    return np.column_stack([np.ones(len(inside)), np.log(inside), -np.log1p(-inside), *steeper])


def _logistic(logit: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logit)))
