"""How well predictions agree with the truth in number, area and outline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.metrics.pairs import FloatColumn, IntColumn, PairTable
from labelloop.metrics.working_point import Tally, Values, ratio

LIMITS_SD = 1.96  # of the limits of agreement (Bland and Altman 1986)
_BLOCK_ELEMENTS = 2_000_000  # resamples x pairs at once


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedPairs:
    """The matched pairs of all images, smallest relative difference of area first.

    Attributes:
        n_images: Number of images.
        image: int64 (m,), of each pair.
        area_difference: float64 (m,), (predicted - true) / true area, ascending.
        distance: float64 (m,), average symmetric boundary distance in ``unit``.
        unit: ``µm`` where the pixel size of every image is known, else ``px``.
    """

    n_images: int
    image: IntColumn
    area_difference: FloatColumn
    distance: FloatColumn
    unit: str

    @classmethod
    def of(
        cls, table: PairTable, matched: IntColumn, pixel_sizes_um: Sequence[float | None] | None = None
    ) -> MatchedPairs:
        """Looks up areas and distances of the matched pairs.

        Args:
            table: The pairs of all images.
            matched: int64 (m,), rows of its pairs, at IoU 0.5 and the score threshold.
            pixel_sizes_um: Side of a pixel of each image, µm; None where it is not known.
        """
        dets, truths = table.pair_det[matched], table.pair_truth[matched]
        true_area = table.truth_area[truths]
        difference = (table.det_area[dets] - true_area) / true_area
        image, distance, unit = table.truth_image[truths], table.pair_distance[matched], "px"
        known = [size for size in pixel_sizes_um or () if size is not None]
        if known and len(known) == table.n_images:
            distance, unit = distance * np.asarray(known)[image], "µm"
        order = np.argsort(difference, kind="stable")
        return cls(
            n_images=table.n_images,
            image=image[order],
            area_difference=difference[order],
            distance=distance[order],
            unit=unit,
        )


def counts_of(t: Tally) -> tuple[Values, Values]:
    """True and predicted objects of each image, float64 (n_images,) each; what lies in crowds left out."""
    hits, false_alarms, misses = (counts.sum(axis=1) for counts in (t.hits, t.false_alarms, t.misses))
    return hits + misses, hits + false_alarms


def count_errors(t: Tally, times: Values) -> tuple[Values, Values]:
    """Mean and mean absolute error of the count of objects, all classes together; objects per image.

    Predicted minus true, so a positive mean is too many; 0 is best. Crowds, and predictions that lie in them,
    are not counted on either side. NaN without images.

    Args:
        t: Counted at IoU 0.5.
        times: float64 (r, n_images).

    Returns:
        Two float64 (r,).
    """
    true, predicted = counts_of(t)
    images = times.sum(axis=1)
    return ratio(times @ (predicted - true), images), ratio(times @ np.abs(predicted - true), images)


def count_concordance(t: Tally, times: Values) -> Values:
    """Lin's concordance correlation coefficient of predicted and true counts, over images.

    2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2), with moments over n (Lin 1989,
    doi:10.2307/2532051); -1..1, 1 is best. NaN where there is nothing to agree on: the counts of neither side
    vary and they are equal, or there are fewer than two images.

    Args:
        t: Counted at IoU 0.5.
        times: float64 (r, n_images).
    """
    true, predicted = counts_of(t)
    images = times.sum(axis=1)
    centre = true.mean() if len(true) else 0.0  # keeps the squares small
    x, y = true - centre, predicted - centre
    mean_x, mean_y = ratio(times @ x, images), ratio(times @ y, images)
    covariance = ratio(times @ (x * y), images) - mean_x * mean_y
    mean_squares = ratio(times @ (x - y) ** 2, images)  # var(x) + var(y) + (mean difference)^2 - 2 cov
    below = mean_squares + 2 * covariance
    return np.where((images > 1) & (below > 1e-12), ratio(2 * covariance, below), np.nan)


def area_agreement(pairs: MatchedPairs, times: npt.NDArray[np.int32]) -> tuple[Values, Values, Values]:
    """Median relative error of the area of matched objects, and its limits of agreement; 0 is best.

    The error is (predicted - true) / true area: 0.1 is a tenth too large. The limits are mean -/+ 1.96
    standard deviations (Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8); most errors lie between
    them. NaN without pairs, the limits also with one.

    Args:
        pairs: Of all images.
        times: int32 (r, n_images).

    Returns:
        Three float64 (r,): median, lower and upper limit.
    """
    weights = times.astype(np.float64)
    n = weights @ _sums(pairs, np.ones(len(pairs.image)))
    mean = ratio(weights @ _sums(pairs, pairs.area_difference), n)
    squares = ratio(weights @ _sums(pairs, pairs.area_difference**2), n) - mean**2
    variance = np.where(n > 1, np.maximum(squares, 0) * ratio(n, n - 1), np.nan)
    half = LIMITS_SD * np.sqrt(variance)
    return _median(pairs, times, n.astype(np.int64)), mean - half, mean + half


def boundary_error(pairs: MatchedPairs, times: Values) -> Values:
    """Mean over matched pairs of the average symmetric boundary distance, in ``pairs.unit``; 0 is best.

    NaN without pairs, and where the table was built without outlines.
    """
    n = times @ _sums(pairs, np.ones(len(pairs.image)))
    return ratio(times @ _sums(pairs, pairs.distance), n)


def _sums(pairs: MatchedPairs, values: FloatColumn) -> Values:
    return np.asarray(np.bincount(pairs.image, weights=values, minlength=pairs.n_images), np.float64)


def _median(pairs: MatchedPairs, times: npt.NDArray[np.int32], n: IntColumn) -> Values:
    """Median of the area differences in each resample; the mean of the middle two of an even number.

    In nearly all resamples it lies among the middle quarter of all pairs, so these are looked at first.
    """
    median = np.full(len(times), np.nan)
    m = len(pairs.image)
    todo = np.flatnonzero(n > 0)
    for part in (slice(3 * m // 8, 5 * m // 8 + 1), slice(0, m)):
        rows = max(1, _BLOCK_ELEMENTS // max(1, part.stop - part.start))
        for start in range(0, len(todo), rows):
            block = todo[start : start + rows]
            median[block] = _median_within(pairs, times[block], n[block], part)
        todo = todo[np.isnan(median[todo])]
    return median


def _median_within(pairs: MatchedPairs, times: npt.NDArray[np.int32], n: IntColumn, part: slice) -> Values:
    """The median where the middle two both lie in this part of the pairs, else NaN; n is 1 or more."""
    before = times @ np.bincount(pairs.image[: part.start], minlength=pairs.n_images)
    seen = np.cumsum(np.take(times, pairs.image[part], axis=1), axis=1, dtype=np.int32)
    wanted = np.stack([(n + 1) // 2, n // 2 + 1], axis=1) - before[:, None]
    inside = (wanted[:, 0] > 0) & (wanted[:, 1] <= seen[:, -1])
    seen, wanted = seen[inside], wanted[inside]
    lift = np.arange(len(seen), dtype=np.int64)[:, None] * (int(seen.max(initial=0)) + 2)  # one sequence
    place = np.searchsorted((seen + lift).ravel(), (wanted + lift).ravel()).reshape(-1, 2)
    column = place - np.arange(len(seen))[:, None] * seen.shape[1]
    median = np.full(len(times), np.nan)
    median[inside] = pairs.area_difference[part][column].mean(axis=1)
    return median
