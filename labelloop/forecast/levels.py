"""Finished runs as heights of the learning curve, one for each round that trained anew.

Short trainings on subsets give the curve its shape. A full run is better: its errors are a share of theirs,

    log(1 - run(n)) = log(1 - curve(n)) + a + b log(n / newest)

One run tells a. Runs of past rounds, with fewer labels, tell b, for which 0 is expected, and which draws of
the curve fall as full runs do: others count less. Given a draw, this is a linear regression with a normal
prior for b, so posterior and evidence are known in closed form (Gelman et al., Bayesian Data Analysis,
sections 14.2 and 14.8).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from labelloop.budget.effort import Z_95
from labelloop.forecast.answers import Level
from labelloop.forecast.curves import Floats, LearningCurves
from labelloop.project.project import Project, RunRecord

NEWEST = 8  # runs that are looked at
SAME_IMAGES = (
    0.8  # correlation of two models' errors on the same images: of a demo's two, on its validation images
)
USUAL_B = 0.1  # standard deviation of b: with twice the labels the share changes by 7 % or less, mostly
LEAST_ERROR = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Lifted:
    """Draws of the curve as full runs have it.

    Attributes:
        curves: Draws of the short trainings' curve; those that agree with the runs are there more often.
        newest: Labelled images of the newest run.
        ab: float64 (d, 2), a and b of the module's docstring in each draw.
        misses: How far the runs lie from the best lift of the curves, in standard deviations, 0 or more: one
            number for each run but one.
    """

    curves: LearningCurves
    newest: float
    ab: Floats
    misses: Sequence[float]

    def shares(self, sizes: Floats) -> Floats:
        """float64 (d, k): a run's share of the errors of short trainings.

        Args:
            sizes: float64 (k,), numbers of labelled images.
        """
        share: Floats = np.exp(self.ab[:, :1] + self.ab[:, 1:] * np.log(sizes / self.newest))
        return share


def levels_of(project: Project, metric: str) -> list[Level]:
    """The newest finished run that validation images have measured, behind the runs before it of its kind.

    Runs are of one kind if they were asked for alike: model, recipe, method and length. Their seeds and
    their labels may differ.

    Args:
        project: Whose runs; those count too whose files were deleted.
        metric: Name of a metric in 0..1.

    Returns:
        Oldest first, ``NEWEST`` at most; empty where no run was measured so.
    """
    measured = [run for run in project.finished_runs(deleted=True) if _level(run, metric) is not None]
    alike = [run for run in measured if _kind(run) == _kind(measured[-1])]
    return [level for run in alike[-NEWEST:] if (level := _level(run, metric)) is not None]


def lift(curves: LearningCurves, levels: Sequence[Level]) -> Lifted:
    """Curves as the runs have them; none of them falls behind the newest run.

    Args:
        curves: Draws of the short trainings' curve, at least one.
        levels: Runs, at least one.
    """
    rng = np.random.default_rng(levels[-1].n_images)
    sizes = np.array([level.n_images for level in levels], np.float64)
    seen = np.maximum(1 - np.array([level.value for level in levels]), LEAST_ERROR)
    errors = np.maximum(1 - curves.values(sizes), LEAST_ERROR)  # (d, runs)
    inverse, log_determinant = _inverse_covariances(curves, levels, errors, seen)
    x = np.stack([np.ones(len(sizes)), np.log(sizes / sizes[-1])], 1)
    off = np.log(seen) - np.log(errors)
    precision = x.T @ inverse @ x + np.diag([0.0, USUAL_B**-2])  # (d, 2, 2)
    spread = np.linalg.inv(precision)
    centre = np.einsum("dij,dj->di", spread @ x.T @ inverse, off)
    left = off - centre @ x.T
    squares = np.einsum("di,dij,dj->d", left, inverse, left) + (centre[:, 1] / USUAL_B) ** 2
    evidence = -0.5 * (log_determinant + np.linalg.slogdet(precision)[1] + squares)
    weights = np.exp(evidence - evidence.max())
    kept = rng.choice(len(weights), size=len(weights), p=weights / weights.sum())
    normal = rng.standard_normal((len(kept), 2, 1))
    ab = centre[kept] + (np.linalg.cholesky(spread[kept]) @ normal)[..., 0]
    more = len(levels) - 1
    miss = math.sqrt(float(squares[kept].mean()) / more) if more else 0.0
    lifted = Lifted(curves=_chosen(curves, kept), newest=float(sizes[-1]), ab=ab, misses=[miss] * more)
    ahead = np.array([1.0, 2.0]) * sizes[-1]
    now, later = (lifted.shares(ahead) * (1 - lifted.curves.values(ahead))).T
    rises = np.flatnonzero(later <= now)
    return replace(lifted, curves=_chosen(lifted.curves, rises), ab=ab[rises])


def _chosen(curves: LearningCurves, kept: npt.NDArray[np.int64]) -> LearningCurves:
    """These draws of the curves."""
    return replace(curves, chosen=curves.chosen[kept], ends=curves.ends[kept], noise=curves.noise[kept])


def _inverse_covariances(
    curves: LearningCurves, levels: Sequence[Level], errors: Floats, seen: Floats
) -> tuple[Floats, Floats]:
    """Of the logarithm of the runs' errors, one for each draw: float64 (d, runs, runs) and (d,).

    Each run has the luck of its training, as short trainings have, and its images' chance, which runs that
    were measured on the same images share.
    """
    sizes = np.array([level.n_images for level in levels], np.float64)
    chance = np.array([level.se for level in levels]) / seen
    same = np.array([[a.measured == b.measured for b in levels] for a in levels])
    shared = np.where(same, SAME_IMAGES, 0.0) * np.outer(chance, chance)
    shared[np.diag_indices(len(levels))] = chance**2
    luck = curves.noise[:, None] * np.sqrt(curves.sizes[0] / sizes) / errors
    covariance = shared + np.einsum("di,ij->dij", luck**2, np.eye(len(levels)))
    inverse: Floats = np.linalg.inv(covariance)
    log_determinant: Floats = np.linalg.slogdet(covariance)[1]
    return inverse, log_determinant


def _level(run: RunRecord, metric: str) -> Level | None:
    """A run as a level; None where validation images have not measured this metric."""
    result = run.result or {}
    if result.get("split") != "val" or run.promoted is None:
        return None
    estimate = (result.get(run.promoted) or {}).get(metric, {})
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    images = (sorted(run.config.get("val_images", ())), estimate.get("n"))
    return Level(
        run=run.name,
        n_images=len(run.config.get("train_images", ())),
        value=value,
        se=(high - low) / (2 * Z_95),
        measured=hashlib.sha256(repr(images).encode()).hexdigest()[:16],
    )


def _kind(run: RunRecord) -> tuple[object, ...]:
    """What runs must have in common to lie on one curve."""
    request = run.config.get("request", {})
    asked = (request.get(key) for key in ("recipe", "time_s", "iterations", "teacher_iterations"))
    return run.model, run.method, *asked
