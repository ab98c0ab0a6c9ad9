"""Whether points of a learning curve can be relied on: what is checked, and the reasons for no answer.

Curves are fitted to the smaller subsets alone and asked for the larger ones, which are known. That takes
``FITTED_SIZES`` sizes to fit and one more to check by; without such a check there is no answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labelloop.budget.effort import Z_80
from labelloop.forecast.curves import CurvePoint, fit_curves, gain_per_doubling
from labelloop.plurals import plural

FITTED_SIZES = 3  # at least
FEWEST_SIZES = FITTED_SIZES + 1
HIDDEN_GAIN = 0.02  # of twice the labels: chance that may hide so much or more leaves no answer
LEAST_FOUND = 0.05  # of the metric at the largest size: short trainings that find less show no growth yet
FEWEST_DRAWS = 200  # curves left after those that fall or pass 1 are thrown away
TRUST = 4.0  # how many right forecasts the curves are credited with before they are checked
WIDEST_FACTOR = 2.5  # where the check wants intervals wider than so, the curves do not fit


def held_out_misses(points: Sequence[CurvePoint]) -> list[float]:
    """By how much curves through the points up to each size miss the mean at every larger size.

    Args:
        points: As for ``forecast``.

    Returns:
        In foreseen standard deviations; none where sizes are fewer than ``FEWEST_SIZES``, or where the
        metric falls over the smaller ones.
    """
    sizes = sorted({point.n_images for point in points})
    misses: list[float] = []
    for cut in sizes[FITTED_SIZES - 1 : -1]:
        curves = fit_curves([point for point in points if point.n_images <= cut])
        if len(curves.noise) < FEWEST_DRAWS:
            continue
        for size in (s for s in sizes if s > cut):
            known = [point.value for point in points if point.n_images == size]
            spread = curves.noise * math.sqrt(sizes[0] / size / len(known))
            chance = np.random.default_rng(size).standard_normal(len(spread)) * spread
            low, middle, high = np.quantile(
                curves.values(np.array([float(size)]))[:, 0] + chance, (0.16, 0.5, 0.84)
            )
            misses.append((float(np.mean(known)) - middle) / max((high - low) / 2, 1e-6))
    return misses


def widening(misses: Sequence[float]) -> float:
    """The factor, 1 or more, by which intervals must be wider for what is known to lie in them.

    ``TRUST`` forecasts that missed by one standard deviation are counted in beforehand, as a few misses say
    little.

    Args:
        misses: Of all that the curves should agree with, in foreseen standard deviations.
    """
    squares = TRUST + sum(min(abs(miss), 10.0) ** 2 for miss in misses)
    return max(1.0, math.sqrt(squares / (TRUST + len(misses))))


def too_little(points: Sequence[CurvePoint], labelled: int) -> str | None:
    """Says so where points are too few for a curve and its check."""
    sizes = len({point.n_images for point in points})
    if sizes >= FEWEST_SIZES:
        return None
    needs = f"{FEWEST_SIZES} sizes of subsets, {FITTED_SIZES} to fit it and a larger one to check it"
    have = plural(labelled, "labelled image gives", "labelled images give")
    return f"a curve needs {needs}, and {have} {sizes}"


def hardly_found(points: Sequence[CurvePoint], metric: str) -> str | None:
    """Says so where the short trainings lie near 0: that they do not grow says nothing of more labels."""
    largest = max(point.n_images for point in points)
    value = float(np.mean([point.value for point in points if point.n_images == largest]))
    if value >= LEAST_FOUND:
        return None
    found = (
        f"{metric} {value:.3f} with {plural(largest, 'label')}, and growth is not seen below {LEAST_FOUND:g}"
    )
    way_out = "label more images; labelloop check looks for faults in the labels there are"
    return f"the short trainings hardly find anything yet: {found} ({way_out})"


def hidden_trend(points: Sequence[CurvePoint]) -> str | None:
    """Says so where chance hides whether labels help: neither growth nor its absence can be seen."""
    gain, error = gain_per_doubling(points)
    if gain - Z_80 * error > 0 or gain + Z_80 * error < HIDDEN_GAIN:
        return None
    return f"the models differ by chance: twice the labels bring {gain:+.3f}, give or take {Z_80 * error:.3f}"
