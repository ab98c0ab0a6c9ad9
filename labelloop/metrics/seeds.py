"""Means over runs that differ in their seed alone, for intervals over seeds and images alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FEW_SEEDS = 5  # below it the seeds' spread is hardly known

Floats = npt.NDArray[np.float64]


def mean_over_seeds(per_seed: Floats) -> Floats:
    """float64 (r, ...): the mean over all seeds in the first row, over seeds drawn anew in the others.

    Of S seeds S - 1 are drawn with replacement, so that the spread of the means is that of a mean of S seeds
    (Rao and Wu 1988, doi:10.1080/01621459.1988.10478591); from one seed it is not known, and they have none.
    Each row draws the same in every call for as many seeds: differences are paired.

    Args:
        per_seed: float64 (s, r, ...): each seed's value on all images in its first row, and on resamples of
            the images, the same for all seeds, in the others.
    """
    n_seeds, rows = per_seed.shape[:2]
    n_drawn = max(1, n_seeds - 1)
    weights = np.random.default_rng(1).multinomial(n_drawn, np.full(n_seeds, 1 / n_seeds), rows) / n_drawn
    weights[0] = 1 / n_seeds
    return np.asarray(np.einsum("sr...,rs->r...", per_seed, weights))
