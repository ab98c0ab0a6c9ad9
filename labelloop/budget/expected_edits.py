"""Expected edits: what a person will have to do in a task, from the scores of what it will show.

What becomes of a shown object depends on its score: in each bin of scores the shares of edits are a Dirichlet
mean of what was expected beforehand and what was seen, and between bins they run linearly. Missed objects are
a Poisson count: a part of what was not shown for its score, and of what only other looks at the image saw,
some per shown object, some per task; each of the four rates is a gamma mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from labelloop.budget.effort import IMAGES_DIFFER
from labelloop.budget.work import Work
from labelloop.review.edits import EditKind

FATES: tuple[EditKind, ...] = ("accepted", "moved", "deleted", "relabelled", "split", "merged")
BINS = 5  # of equal width in scores 0..1
BIN_COUNTS = 8.0  # the prior counts as if seen in so many objects of each bin
MISSED_PRIOR = (0.5, 1.0, 0.03, 0.1)  # per unit of score not shown, of doubt, shown object and task
MISSED_COUNTS = (4.0, 4.0, 40.0, 8.0)  # the prior counts as if seen in so much of each
LABELLED_COUNT = 5.0  # from so many labelled images on, their objects say more than the prior
MISSED_STEPS = 100
SPREAD_PRIOR = 0.5  # relative standard error of expected edits before any was seen,
SPREAD_LEAST = 0.1  # and with any number: models change between rounds, and images too

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRecord:
    """What was shown in a task that came back, and what was done to it.

    Attributes:
        scores: float64 (n,) in 0..1, of the model's objects that were shown, whole or in part.
        fates: What became of each of them, one of ``FATES``.
        unshown: Sum of the scores of the detections that lie in the task's own part of the image and were not
            shown.
        added: How many objects were drawn.
        unmatched: Objects there that only other looks at the image saw, as in ``doubt.ImageDoubt``; 0 where
            the model looked once.
        weight: How much it counts.
    """

    scores: Floats
    fates: tuple[EditKind, ...]
    unshown: float
    added: int
    unmatched: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.fates) or not set(self.fates) <= set(FATES):
            raise ValueError(f"{len(self.scores)} objects need as many of {FATES}, not {self.fates}")


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRates:
    """How often objects are edited, by score, and how many are missed.

    Attributes:
        shares: float64 (BINS, len(FATES)), what becomes of shown objects; rows sum to 1.
        missed: float64 (4,), missed objects per unit of score not shown, per object that only other looks
            saw, per shown object and per task.
        spread: Relative standard error of the expected edits, which all tasks share.
    """

    shares: Floats = field(repr=False)
    missed: Floats
    spread: float

    @classmethod
    def prior(cls) -> EditRates:
        """Before any edit was seen.

        A score is taken for the probability that the object is there at all: of the others all are deleted.
        Of those that are there, most are right where scores are high and half need a better boundary where
        they are low, few are split or merged, hardly any has another class. Half of the score that was not
        shown is missed, all that only other looks saw, and three objects in a hundred shown, and one in ten
        tasks. All of these are guesses which count little once edits came back.
        """
        return cls.fit([])

    @classmethod
    def fit(cls, records: Sequence[EditRecord], missed_prior: Floats | None = None) -> EditRates:
        """Learns from tasks that came back.

        Args:
            records: Empty for the prior.
            missed_prior: As ``missed_prior`` raises it; None for what is expected of any model.
        """
        counts = BIN_COUNTS * _prior_shares()
        for record in records:
            for row, fate in zip(_bin(record.scores).tolist(), record.fates, strict=True):
                counts[row, FATES.index(fate)] += record.weight
        return cls(
            shares=counts / counts.sum(axis=1, keepdims=True),
            missed=_missed(records, np.array(MISSED_PRIOR) if missed_prior is None else missed_prior),
            spread=_spread(records),
        )

    def by_fate(self, scores: Floats) -> Floats:
        """float64 (n, len(FATES)): how probable each of ``FATES`` is for shown objects of these scores."""
        columns = [np.interp(scores, _bin_centres(), self.shares[:, k]) for k in range(len(FATES))]
        return np.stack(columns, axis=1)

    def expect(
        self,
        scores: npt.ArrayLike,
        min_score: float,
        *,
        unmatched: float = 0.0,
        outline_px: float | None = None,
    ) -> Work:
        """What an image that is one task will need.

        Args:
            scores: (n,) in 0..1, of all detections of the image, 0.05 and up: those that are not shown tell
                what will be missed.
            min_score: Those scored lower are not shown.
            unmatched: As in ``EditRecord``.
            outline_px: Of the objects shown, where it is known: see ``effort.Work``.
        """
        all_scores = np.asarray(scores, np.float64).reshape(-1)
        shown = all_scores >= min_score
        unshown = float(all_scores[~shown].sum())
        return self.expect_task(all_scores[shown], unshown, unmatched=unmatched, outline_px=outline_px)

    def expect_task(
        self,
        shown: Floats,
        unshown: float,
        *,
        unmatched: float = 0.0,
        labels: int = 0,
        outline_px: float | None = None,
    ) -> Work:
        """What a task will need, a tile for instance. It counts what an ``EditRecord`` of it would count.

        Args:
            shown: float64 (n,) in 0..1, scores of the model's objects that it shows, whole or in part.
            unshown: As in ``EditRecord``.
            unmatched: Likewise.
            labels: How many labels it shows beside them: they are looked at, and right as a rule.
            outline_px: As in ``expect``.
        """
        fates = self.by_fate(shown).sum(axis=0).tolist()
        edits: Mapping[str, float] = {
            **{kind: count for kind, count in zip(FATES, fates, strict=True) if kind != "accepted"},
            "added": self.expect_missed(unshown, unmatched, len(shown)),
        }
        objects = float(len(shown) + labels)
        return Work(objects=objects, edits=edits, spread=self.spread, outline_px=outline_px)

    def expect_missed(self, unshown: float, unmatched: float, n_shown: int) -> float:
        """How many objects a task lacks that shows so many; ``unshown`` and ``unmatched`` as in a record."""
        return float(self.missed @ exposure(unshown, unmatched, n_shown))


def missed_prior(objects: Sequence[int], seen: float, mean_exposure: Floats) -> Floats:
    """Rates of missed objects, raised where labelled images hold more objects than a model sees in others.

    A model of few labels is blind to much, and sure of it: neither its scores nor other looks tell. How many
    objects images hold is known from those with labels, as far as these are like the pool.

    Args:
        objects: In each labelled image that is known as a whole.
        seen: True objects among those that the model would show, expected in a mean image of the pool.
        mean_exposure: float64 (4,), ``exposure`` of a mean image of the pool.

    Returns:
        float64 (4,), as ``EditRates.missed``; never below what is expected of any model.
    """
    prior = np.array(MISSED_PRIOR)
    if not objects:
        return prior
    missed = float(prior @ mean_exposure)
    trust = len(objects) / (len(objects) + LABELLED_COUNT)
    lacking = trust * (float(np.mean(objects)) - seen - missed)
    return np.asarray(prior * max(1.0, 1 + lacking / missed), np.float64)


def _bin(scores: Floats) -> npt.NDArray[np.int64]:
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1)


def _bin_centres() -> Floats:
    return (np.arange(BINS) + 0.5) / BINS


def _prior_shares() -> Floats:
    """float64 (BINS, len(FATES)): see ``EditRates.prior``."""
    score = _bin_centres()
    of_real: dict[EditKind, Floats | float] = {
        "moved": 0.5 * (1 - score) + 0.1, "relabelled": 0.01, "split": 0.03, "merged": 0.02,
    }  # fmt: skip
    shares = np.zeros((BINS, len(FATES)))
    for kind, share in of_real.items():
        shares[:, FATES.index(kind)] = score * share
    shares[:, FATES.index("deleted")] = 1 - score
    shares[:, FATES.index("accepted")] = 1 - shares.sum(axis=1)
    return shares


def _spread(records: Sequence[EditRecord]) -> float:
    """Relative standard error of the edits that are expected of all tasks."""
    edits = sum(
        record.weight * (record.added + sum(fate != "accepted" for fate in record.fates))
        for record in records
    )
    if edits == 0:
        return SPREAD_PRIOR
    of_seen = 1 / edits + IMAGES_DIFFER**2 / sum(record.weight for record in records)
    return max(SPREAD_LEAST, 1 / math.sqrt(SPREAD_PRIOR**-2 + 1 / of_seen))


def exposure(unshown: float, unmatched: float, n_shown: int) -> Floats:
    """float64 (4,): what the rates of missed objects are of, in one task."""
    return np.array([unshown, unmatched, float(n_shown), 1.0])


def _missed(records: Sequence[EditRecord], prior: Floats) -> Floats:
    """float64 (4,): rates of a Poisson count that is a sum of four, by expectation maximisation.

    In each step the missed objects of a task are shared out among the four causes, and each rate becomes its
    gamma mean (as for emission tomography: Shepp and Vardi 1982; with priors).
    """
    strength = np.array(MISSED_COUNTS)
    rates = prior
    if not records:
        return rates
    weight = np.array([record.weight for record in records])[:, None]
    exposures = np.stack([exposure(each.unshown, each.unmatched, len(each.fates)) for each in records])
    added = np.array([record.added for record in records], np.float64)
    for _ in range(MISSED_STEPS):
        causes = exposures * rates
        causes = causes / causes.sum(axis=1, keepdims=True) * added[:, None]
        rates = (strength * prior + (weight * causes).sum(axis=0)) / (
            strength + (weight * exposures).sum(axis=0)
        )
    return rates
