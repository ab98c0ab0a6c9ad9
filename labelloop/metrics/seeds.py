"""Metrics of a recipe that was trained with several seeds: intervals over seeds and images alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import REPLICATES, SEED, Drawn, Resampling
from labelloop.metrics.estimate import Estimate
from labelloop.metrics.matched import BOUNDS_OF_SURPLUS, METRICS, SURPLUS, MatchedModel
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import resample

FEW_SEEDS = 5  # below it the seeds' spread is hardly known, and no interval over seeds is called reliable


@dataclass(frozen=True, kw_only=True)
class SeededEstimate:
    """A metric of several runs that differ in their seed alone.

    Attributes:
        mean: Mean over seeds on all images; the interval is for other seeds and other images.
        of_seed: The metric of each run on all images, NaN where it is undefined.
        seed_sd: Standard deviation over seeds (n - 1), on all images; None with one seed.
    """

    mean: Estimate
    of_seed: tuple[float, ...]
    seed_sd: float | None

    def as_dict(self) -> dict[str, Any]:
        """The estimate as ``--json`` prints it, with ``of_seed`` and ``seed_sd``."""
        values = [None if np.isnan(value) else value for value in self.of_seed]
        return {**self.mean.as_dict(), "of_seed": values, "seed_sd": self.seed_sd}


@dataclass(frozen=True, kw_only=True)
class SeededRuns:
    """The predictions of runs that differ in their seed alone, for the same images.

    Attributes:
        predicted: Of each run, one Instances per image.
        min_scores: The working threshold of each run.
    """

    predicted: Sequence[Sequence[Instances]]
    min_scores: Sequence[float]

    def matched(self, truth: Sequence[Instances], n_classes: int) -> list[MatchedModel]:
        """Each run after matching.

        Raises:
            ValueError: There is no run, or not one threshold for each.
        """
        if not self.predicted or len(self.predicted) != len(self.min_scores):
            raise ValueError(f"{len(self.predicted)} runs with {len(self.min_scores)} thresholds")
        return [
            MatchedModel.of(PairTable.build(truth, predicted, n_classes=n_classes), min_score)
            for predicted, min_score in zip(self.predicted, self.min_scores, strict=True)
        ]


def evaluate_seeds(
    truth: Sequence[Instances],
    runs: SeededRuns,
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> dict[str, SeededEstimate]:
    """Each metric as the mean over seeds, with a two-level bootstrap interval: seeds x images.

    In each replicate images (or groups) are drawn as in ``evaluate``, the same for all runs, and of S runs
    S - 1 are drawn with replacement: so the spread of the drawn mean is that of the mean of S seeds (Rao and
    Wu 1988, doi:10.1080/01621459.1988.10478591).

    Args:
        truth: The annotations, one per image.
        runs: The runs.
        n_classes: Labels are 0..n_classes - 1.
        groups: As in ``evaluate``.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
    """
    models = runs.matched(truth, n_classes)
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    points, drawn = [model.point() for model in models], resample(models, resampling)
    return {
        name: _over_seeds(
            name,
            np.asarray([point[name] for point in points]),
            [of_run[name] for of_run in drawn],
            resampling,
            models=models,
            undefined=next((m for m, p in zip(models, points, strict=True) if np.isnan(p[name])), models[0]),
            bounds=BOUNDS_OF_SURPLUS,
        )
        for name in METRICS
    }


def difference_of_seeds(
    truth: Sequence[Instances],
    runs_a: SeededRuns,
    runs_b: SeededRuns,
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> dict[str, SeededEstimate]:
    """Each metric of a minus that of b, paired by seed and by image, with the interval of ``evaluate_seeds``.

    Args:
        truth: The annotations, one per image.
        runs_a: Runs of one recipe.
        runs_b: Runs of another one with the same seeds in the same order.
        n_classes: Labels are 0..n_classes - 1.
        groups: As in ``evaluate``.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.

    Raises:
        ValueError: The two have not as many runs.
    """
    sides = [runs.matched(truth, n_classes) for runs in (runs_a, runs_b)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{len(sides[0])} runs on one side, {len(sides[1])} on the other")
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    models = [*sides[0], *sides[1]]
    points = [[model.point() for model in side] for side in sides]
    drawn = [resample(side, resampling) for side in sides]
    result = {}
    for name in METRICS:
        a, b = (np.asarray([point[name] for point in side]) for side in points)
        undefined = next(
            (m for m, v in zip(models, np.concatenate([a, b]), strict=True) if np.isnan(v)), models[0]
        )
        paired = [x[name].minus(y[name]) for x, y in zip(*drawn, strict=True)]
        result[name] = _over_seeds(name, a - b, paired, resampling, models=models, undefined=undefined)
    return result


def _over_seeds(
    name: str,
    points: npt.NDArray[np.float64],
    drawn: Sequence[Drawn],
    resampling: Resampling,
    *,
    models: Sequence[MatchedModel],
    undefined: MatchedModel,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> SeededEstimate:
    """The mean of points (seeds,), of which some are drawn, and the resamples of each."""
    replicates = np.stack([of_seed.replicates for of_seed in drawn])
    n_seeds, n_replicates = replicates.shape
    generator = np.random.default_rng(resampling.seed + 1)
    chosen = generator.integers(n_seeds, size=(max(1, n_seeds - 1), n_replicates))
    means = Drawn(
        replicates=np.take_along_axis(replicates, chosen, axis=0).mean(axis=0),
        left_out=np.stack([of_seed.left_out for of_seed in drawn]).mean(axis=0),
    )
    estimate = resampling.estimate(
        float(points.mean()),
        means,
        undefined=undefined.why_undefined(name),
        surplus=name in SURPLUS,
        bounds=bounds,
        unit=undefined.unit(name),
        holding=[model.holding(name) for model in models],
    )
    if estimate.low is not None and n_seeds < FEW_SEEDS:
        estimate = replace(estimate, reliable=False)
    sd = float(points.std(ddof=1)) if n_seeds > 1 and not np.isnan(points).any() else None
    return SeededEstimate(mean=estimate, of_seed=tuple(points.tolist()), seed_sd=sd)
