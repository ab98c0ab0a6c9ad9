"""Resampling of images (or whole groups) and the intervals from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from labelloop.metrics.estimate import Estimate

BoolColumn = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
REPLICATES, SEED = 2000, 0  # of all that commands measure
MAX_UNDEFINED_SHARE = 0.1  # of the replicates; above it the interval would be one of the lucky draws only
FEW_UNITS = 50  # below it 95 % intervals hold less often; simulated in tests/benchmarks/bench_metrics.py
MOST_LEFT_OUT = 400  # with more units skewness moves an interval by less than a tenth of a standard error
_ROUNDING = 1e-9  # replicates that differ by less are alike; of large values relative to them
_BLOCK_ELEMENTS = 400_000  # replicates x images drawn at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A metric of many sets of the images, NaN where it is undefined.

    Attributes:
        replicates: float64 (r,), in each resample.
        left_out: float64 (n_units,) without each unit; (0,) where that was left undone.
    """

    replicates: npt.NDArray[np.float64]
    left_out: npt.NDArray[np.float64]

    def minus(self, other: Drawn) -> Drawn:
        """The difference of two models, on the same draws."""
        return Drawn(replicates=self.replicates - other.replicates, left_out=self.left_out - other.left_out)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampling:
    """How images are drawn anew: one by one, or in whole groups.

    Attributes:
        unit_of_image: int64 (n_images,), the unit that each image is drawn with.
        n_units: Number of units.
        by_group: Whether units are groups.
        one_group: Whether all images are of one known group, so that nothing is known of others.
        replicates: Number of replicates.
        seed: Same seed, same draws: what makes two models' intervals paired.
    """

    unit_of_image: npt.NDArray[np.int64]
    n_units: int
    by_group: bool
    one_group: bool
    replicates: int
    seed: int

    @classmethod
    def of(
        cls, n_images: int, groups: Sequence[str | None] | None, *, replicates: int, seed: int
    ) -> Resampling:
        """Groups are drawn whole where one is known; an image without one is its own group.

        Where all images are of one group they are drawn one by one: the interval is for this group alone,
        and not called reliable.

        Args:
            n_images: Number of images.
            groups: One name or None per image, or None if nothing is known of groups.
            replicates: Number of replicates.
            seed: Of the draws.
        """
        if groups is not None and len(groups) != n_images:
            raise ValueError(f"{n_images} images, but {len(groups)} groups")
        units: npt.NDArray[np.int64] = np.arange(n_images)
        some_known = groups is not None and any(group is not None for group in groups)
        one_group = some_known and len(set(groups or ())) == 1
        by_group = some_known and not one_group
        if groups is not None and by_group:
            index: dict[str | int, int] = {}
            keys: list[str | int] = [i if g is None else g for i, g in enumerate(groups)]
            units = np.asarray([index.setdefault(key, len(index)) for key in keys], np.int64)
        n_units = int(units.max()) + 1 if n_images else 0
        return cls(
            unit_of_image=units,
            n_units=n_units,
            by_group=by_group,
            one_group=one_group,
            replicates=replicates,
            seed=seed,
        )

    @property
    def n_groups(self) -> int | None:
        """Number of groups that the images are of, each image without one counted as one; None if none is."""
        if self.one_group:
            return 1
        return self.n_units if self.by_group else None

    def draws(self) -> Iterator[npt.NDArray[np.int32]]:
        """Blocks of int32 (r, n_images): how often each image is in each replicate."""
        if self.n_units < 2:
            return
        generator = np.random.default_rng(self.seed)
        block = max(1, min(self.replicates, _BLOCK_ELEMENTS // max(self.n_units, len(self.unit_of_image))))
        for start in range(0, self.replicates, block):
            rows = min(block, self.replicates - start)
            drawn = generator.integers(self.n_units, size=(rows, self.n_units))
            drawn += np.arange(rows)[:, None] * self.n_units
            times = np.bincount(drawn.ravel(), minlength=rows * self.n_units).astype(np.int32)
            yield np.ascontiguousarray(times.reshape(rows, self.n_units)[:, self.unit_of_image])

    def left_out(self) -> npt.NDArray[np.int32]:
        """int32 (n_units, n_images): how often each image is there when one unit is not.

        No rows where there are more than ``MOST_LEFT_OUT`` units or no replicates are wanted.
        """
        if not 2 <= self.n_units <= MOST_LEFT_OUT or self.replicates == 0:
            return np.zeros((0, len(self.unit_of_image)), np.int32)
        stays: npt.NDArray[np.bool_] = self.unit_of_image != np.arange(self.n_units)[:, None]
        return stays.astype(np.int32)

    def estimate(
        self,
        value: float,
        drawn: Drawn,
        *,
        undefined: str,
        surplus: bool = False,
        bounds: tuple[float, float] = (-np.inf, np.inf),
        unit: str | None = None,
        holding: Sequence[BoolColumn | None] = (),
    ) -> Estimate:
        """Value and interval.

        The interval runs between two percentiles of the replicates: those of BCa (Efron 1987,
        doi:10.1080/01621459.1987.10478410) with the acceleration from leaving out units, but without its
        correction of the median, with which some intervals hold less often; and somewhat farther out, as
        Student's t is wider than the normal distribution (expanded percentiles, Hesterberg 2015,
        doi:10.1080/00031305.2015.1089789). In simulations this holds more often than plain percentiles for
        rare mistakes and skewed metrics, and as often elsewhere.

        Replicates in which the metric is undefined are left out; if they are more than
        ``MAX_UNDEFINED_SHARE``, there is no interval. Where all are alike, the interval has no width and is
        not reliable: what no image shows may still happen in a few of a hundred others. That holds for the
        difference of two models too, as they may be equal only on these images.

        Args:
            value: On all images; NaN if undefined.
            drawn: The metric of the resamples.
            undefined: The reason to give where ``value`` is NaN.
            surplus: Whether noise makes the metric larger, so that the value is as much too large as the mean
                of the replicates is larger than the value. The interval then reaches from the percentiles
                less twice that to the percentiles as they are.
            bounds: Of the metric where it has a surplus.
            unit: Of the value, where it is not always the same.
            holding: bool (n_images,), which images hold anything to measure, None for all; one for each model
                that the value is made of. Only they make an interval reliable.
        """
        n = len(self.unit_of_image)
        if np.isnan(value):
            return Estimate(value=None, low=None, high=None, n=n, reason=undefined, unit=unit)
        reason = self._no_interval(drawn.replicates)
        if reason is not None:
            return Estimate(value=float(value), low=None, high=None, n=n, reason=reason, unit=unit)
        replicates = drawn.replicates[~np.isnan(drawn.replicates)]
        low, high = np.quantile(replicates, _levels(self.n_units, _acceleration(drawn.left_out)))
        alike = float(np.ptp(replicates)) <= _ROUNDING * max(1.0, abs(value))
        if alike:
            low = high = value
        elif surplus:
            bias = float(replicates.mean()) - value
            low, high = np.clip([min(low, low - 2 * bias), max(high, high - 2 * bias)], *bounds)
        return Estimate(
            value=float(value),
            low=float(low),
            high=float(high),
            n=n,
            unit=unit,
            reliable=not (alike or self.one_group)
            and all(self._units_of(each) >= FEW_UNITS for each in (None, *holding)),
        )

    def notes(self, holding: BoolColumn | None = None) -> tuple[str, ...]:
        """What a reader of the intervals should know.

        Args:
            holding: bool (n_images,), which images hold true objects; None for all.
        """
        if self.n_units < 2:
            return ()
        notes = []
        n_holding = self._units_of(holding)
        if 0 < n_holding < FEW_UNITS:
            what = "groups" if self.by_group else "images"
            of_all = "" if n_holding == self.n_units else f" with objects, of {self.n_units},"
            notes.append(f"intervals from {n_holding} {what}{of_all} are too narrow, most of all those of AP")
        if self.one_group:
            notes.append("all images are of one group: intervals say nothing about others")
        return tuple(notes)

    def _units_of(self, holding: BoolColumn | None) -> int:
        return self.n_units if holding is None else len(np.unique(self.unit_of_image[holding]))

    def _no_interval(self, replicates: npt.NDArray[np.float64]) -> str | None:
        if self.n_units < 2:
            return f"no interval from {self.n_units} {'group' if self.by_group else 'image'}"
        if len(replicates) == 0:
            return "no interval was asked for"
        share = float(np.isnan(replicates).mean())
        if share > MAX_UNDEFINED_SHARE:
            return f"no interval: undefined in {share:.0%} of the resamples, there are too few objects"
        return None


def _acceleration(left_out: npt.NDArray[np.float64]) -> float:
    """How skewed a metric is (Efron and Tibshirani 1993, eq. 14.15); 0 where it is not known or constant."""
    defined = left_out[~np.isnan(left_out)]
    if len(defined) < 3:
        return 0.0
    change = defined.mean() - defined
    spread = float((change**2).sum()) ** 1.5
    return float((change**3).sum()) / (6 * spread) if spread > 0 else 0.0


def _levels(n_units: int, acceleration: float) -> tuple[float, float]:
    """Which percentiles of the replicates, 0..1, are the ends of the interval."""
    z = float(np.sqrt(n_units / (n_units - 1)) * stdtrit(n_units - 1, (1 + CONFIDENCE) / 2))
    z = min(z, -float(ndtri(1e-9)))  # two units: the least and the largest replicate
    low, high = (ndtr(end / (1 - acceleration * end)) for end in (-z, z))
    return float(low), float(high)
