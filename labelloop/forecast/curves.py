"""Learning curves: a family of shapes fitted together to points, and what they say of other sizes.

A single power law through a few points misleads (Mahmood et al., How Much More Data Do I Need?, CVPR 2022,
sections 3 and 4: every shape errs, some too high and some too low). So several shapes are fitted at once, and
each counts as much as the points speak for it. All of them have the form

    f(n) = first + (last - first) * h(n),    h = (g(smallest) - g(n)) / (g(smallest) - g(largest))

where ``first`` and ``last`` are the curve's values at the smallest and the largest size that was trained,
and the shape g falls with n: n^-c (power law), exp(-cn) (exponential), 1 - 2/pi arctan(cn) (arctan), 1/(1 +
cn) (algebraic root) and -log(n) (logarithm). Given shape and noise that is linear, so its posterior is known
in closed form (Gelman et al., Bayesian Data Analysis, section 14.2); the prior is flat in ``first``,
``last`` and over the shapes. Curves are drawn from that mixture, and those that fall or whose limit is above
1 are thrown away. No optimiser runs, nothing depends on a start value, and the intervals are those of the
draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# of a model trained on the smallest size, as a standard deviation
NOISES: Floats = np.asarray(np.geomspace(0.01, 0.25, 13), np.float64)
USUAL_NOISE, NOISE_FACTOR = 0.025, 1.5  # its prior, lognormal; found by tests/benchmarks/forecast_cases.py
LUCK_SHARES = (0.0, 0.5, 0.9)  # of the noise's variance: luck of the draw, which larger subsets inherit
SHIFTS = (0.0, 0.5, 1.0, 2.0)  # how far other images to measure on move all values, as a share of that noise
DRAWS = 8000


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One small model, measured.

    Attributes:
        n_images: Labelled images that it was trained on, 1 or more.
        value: A metric in 0..1, larger is better.
        se: Standard error over the measured images; None where it is not known.
        seed: Which draw; models of one seed were trained on nested subsets.
        measured: Which images measured it; points of one number were measured on the same.
    """

    n_images: int
    value: float
    se: float | None = None
    seed: int = 0
    measured: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """One shape of the family.

    Attributes:
        family: Its name.
        falling: g of the module's docstring, of float64 (k,) sizes.
        limit: Of g as the number of images grows; minus infinity for the logarithm.
        prior: Its weight before any point is seen; the weights of all shapes add up to 1.
    """

    family: str
    falling: Callable[[Floats], Floats]
    limit: float
    prior: float


def shapes(n_max: float) -> list[Shape]:
    """The family for points up to this size; every family weighs the same beforehand."""
    rates = np.geomspace(0.4, 12.0, 8) / n_max
    families: dict[str, list[tuple[Callable[[Floats], Floats], float]]] = {
        "power law": [(_power(c), 0.0) for c in np.geomspace(0.1, 2.0, 10)],
        "exponential": [(_exponential(c, p), 0.0) for c in rates for p in (0.5, 0.75, 1.0)],
        "arctan": [(_arctan(c), 0.0) for c in rates],
        "algebraic": [(_algebraic(c, p), 0.0) for c in rates for p in (0.7, 1.0, 1.5, 2.5)],
        "logarithm": [(lambda n: -np.log(n), -math.inf)],
    }
    return [
        Shape(family=name, falling=g, limit=limit, prior=1 / len(families) / len(members))
        for name, members in families.items()
        for g, limit in members
    ]


def _power(c: float) -> Callable[[Floats], Floats]:
    return lambda n: n**-c


def _exponential(c: float, p: float) -> Callable[[Floats], Floats]:
    return lambda n: np.exp(-((c * n) ** p))


def _arctan(c: float) -> Callable[[Floats], Floats]:
    return lambda n: 1 - 2 / np.pi * np.arctan(c * n)


def _algebraic(c: float, p: float) -> Callable[[Floats], Floats]:
    return lambda n: 1 / (1 + (c * n) ** p)


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurves:
    """Draws of the curve that points lie on.

    Attributes:
        sizes: Smallest and largest size of the points.
        shapes: The family.
        chosen: int64 (d,), the shape of each draw.
        ends: float64 (d, 2), values at the smallest and the largest size.
        noise: float64 (d,), standard deviation of one model trained on the smallest size.
        kept: Share of the raw draws that rise and stay below 1.
    """

    sizes: tuple[float, float]
    shapes: Sequence[Shape]
    chosen: npt.NDArray[np.int64]
    ends: Floats
    noise: Floats
    kept: float

    def values(self, sizes: Floats) -> Floats:
        """float64 (d, k): every draw at these sizes, 0..1.

        Args:
            sizes: float64 (k,), numbers of labelled images.
        """
        share = np.stack([rise(shape, self.sizes, sizes) for shape in self.shapes])[self.chosen]
        first, last = self.ends[:, :1], self.ends[:, 1:]
        return np.clip(first + (last - first) * share, 0.0, 1.0)

    def family_shares(self) -> dict[str, float]:
        """How much each family counts, 0..1, all of them together 1."""
        names = np.array([shape.family for shape in self.shapes])[self.chosen]
        return {name: float((names == name).mean()) for name in dict.fromkeys(s.family for s in self.shapes)}


def rise(shape: Shape, ends: tuple[float, float], sizes: Floats) -> Floats:
    """H of the module's docstring: 0 at the smallest size, 1 at the largest."""
    first, last = shape.falling(np.asarray(ends, np.float64))
    rising: Floats = (first - shape.falling(sizes)) / (first - last)
    return rising


def fit_curves(points: Sequence[CurvePoint], *, draws: int = DRAWS, seed: int = 0) -> LearningCurves:
    """Draws curves from what the points say.

    A model trained on n images errs by ``noise * sqrt(smallest / n)``: larger subsets differ less from each
    other. A part of that is luck of the draw, which a subset shares with those that it lies in: as of means
    of nested samples, its covariance is that of the larger one. The rest is luck of the training, each time
    anew. Points with their own standard errors count by these, relative to their mean. Points that were
    measured on other images may lie higher or lower all together.

    Args:
        points: Of two or more sizes.
        draws: Raw draws; ``kept`` says how many stay.
        seed: Of the draws.

    Raises:
        ValueError: All points have one size.
    """
    n = np.array([point.n_images for point in points], np.float64)
    if len(points) == 0 or n.min() == n.max():
        raise ValueError(f"a curve needs points of two sizes, not {sorted(set(n.tolist()))}")
    y = np.array([point.value for point in points])
    ends = (float(n.min()), float(n.max()))
    members = shapes(ends[1])
    rng = np.random.default_rng([seed, len(points)])
    cells = list(_cells(members, ends, n, y, _relative_covariances(points, n)))
    evidence = np.concatenate([cell.log_evidence for cell in cells])
    weights = np.exp(evidence - evidence.max())
    picked = rng.choice(len(weights), size=draws, p=weights / weights.sum())
    cell_index, noise_index = picked // len(NOISES), picked % len(NOISES)
    noise = NOISES[noise_index]
    centre = np.stack([cell.centre for cell in cells])[cell_index]
    root = np.stack([cell.root for cell in cells])[cell_index]
    normal = rng.standard_normal((draws, 2, 1))
    first_last = centre + noise[:, None] * (root @ normal)[..., 0]
    chosen = np.array([cell.shape for cell in cells], np.int64)[cell_index]
    keep = _possible(members, ends, chosen, first_last)
    return LearningCurves(
        sizes=ends,
        shapes=members,
        chosen=chosen[keep],
        ends=first_last[keep],
        noise=noise[keep],
        kept=float(keep.mean()),
    )


def gain_per_doubling(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """What twice the labels bring on average over the points, and the standard error of that.

    Least squares in the logarithm of the size, weighted by the size as noise is in ``fit_curves``, each seed
    with a level of its own; the error is infinite where no points are left to tell it from.

    Args:
        points: At least one.
    """
    doublings = np.log2(np.array([point.n_images for point in points], np.float64))
    values = np.array([point.value for point in points])
    seeds = np.array([point.seed for point in points])
    weights = np.exp2(doublings)
    for seed in set(seeds.tolist()):
        mine = seeds == seed
        doublings[mine] -= np.average(doublings[mine], weights=weights[mine])
        values[mine] -= np.average(values[mine], weights=weights[mine])
    squares = float((weights * doublings**2).sum())
    if squares == 0:
        return 0.0, math.inf
    gain = float((weights * doublings * values).sum()) / squares
    free = len(points) - len(set(seeds.tolist())) - 1
    left = float((weights * (values - gain * doublings) ** 2).sum())
    return gain, math.sqrt(left / free / squares) if free > 0 else math.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cell:
    """The posterior given one shape and one covariance: normal, and wider in proportion to the noise."""

    shape: int
    centre: Floats  # (2,)
    root: Floats  # (2, 2): times the noise, a square root of the covariance
    log_evidence: Floats  # (noises,)


def _cells(
    members: Sequence[Shape], ends: tuple[float, float], n: Floats, y: Floats, covariances: Sequence[Floats]
) -> Iterator[_Cell]:
    off = (np.log(NOISES) - math.log(USUAL_NOISE)) / math.log(NOISE_FACTOR)
    for index, shape in enumerate(members):
        h = rise(shape, ends, n)
        x = np.stack([1 - h, h], 1)
        for covariance in covariances:
            inverse = np.linalg.inv(covariance)
            precision = x.T @ inverse @ x
            spread = np.linalg.inv(precision)
            centre = spread @ x.T @ inverse @ y
            left = y - x @ centre
            evidence = -(len(y) - 2) * np.log(NOISES) - left @ inverse @ left / (2 * NOISES**2) - off**2 / 2
            evidence += -0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * np.linalg.slogdet(precision)[1]
            evidence += math.log(shape.prior / len(covariances))
            yield _Cell(shape=index, centre=centre, root=np.linalg.cholesky(spread), log_evidence=evidence)


def _relative_covariances(points: Sequence[CurvePoint], n: Floats) -> list[Floats]:
    """Of the points, in units of the noise squared: one for each share of luck and each shift."""
    errors = np.array([np.nan if point.se is None else point.se for point in points])
    known = bool(np.all(np.isfinite(errors) & (errors > 0)))
    own = errors / errors.mean() if known else np.ones(len(points))
    seeds = np.array([point.seed for point in points])
    measured = np.array([point.measured for point in points])
    training = np.diag(n.min() / n * own**2)
    draw = (seeds[:, None] == seeds[None]) * n.min() / np.maximum(n[:, None], n[None]) * np.outer(own, own)
    same_images = (measured[:, None] == measured[None]).astype(np.float64)
    shifts = SHIFTS if len(set(measured.tolist())) > 1 else SHIFTS[:1]
    return [
        (1 - share) * training + share * draw + shift**2 * same_images
        for share in LUCK_SHARES
        for shift in shifts
    ]


def _possible(
    members: Sequence[Shape], ends: tuple[float, float], chosen: npt.NDArray[np.int64], values: Floats
) -> npt.NDArray[np.bool_]:
    """Which draws rise, start above 0, and have a limit of 1 at most; a logarithm has none below 1."""
    limits = []
    for shape in members:
        first, last = shape.falling(np.asarray(ends))
        limits.append(1.0 if math.isinf(shape.limit) else (first - shape.limit) / (first - last))
    first, last = values.T
    limit = first + (last - first) * np.array(limits)[chosen]
    possible: npt.NDArray[np.bool_] = (first >= 0) & (last >= first) & (limit <= 1)
    return possible
