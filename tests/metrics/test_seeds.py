"""Means over seeds that are drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.metrics.seeds import mean_over_seeds


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_drawn_means_spread_as_a_mean_of_so_many_seeds(n_seeds: int) -> None:
    """Of seeds with a standard deviation of 1 the mean has a variance of 1 / S; draws have it on average."""
    levels = np.random.default_rng(0).standard_normal((n_seeds, 1, 2000))
    means = mean_over_seeds(np.broadcast_to(levels, (n_seeds, 1001, 2000)))
    assert means[0] == pytest.approx(levels.mean(axis=(0, 1)))
    assert means[1:].var(axis=0).mean() == pytest.approx(1 / n_seeds, rel=0.05)


def test_seeds_and_images_add_their_spread() -> None:
    """Resampled images move all seeds alike, so their variance is not divided by the number of seeds."""
    rng = np.random.default_rng(0)
    levels, of_images = rng.standard_normal((3, 1, 500)), rng.normal(scale=0.5, size=(1, 1001, 500))
    means = mean_over_seeds(levels + of_images)
    assert means[1:].var(axis=0).mean() == pytest.approx(1 / 3 + 0.5**2, rel=0.05)


def test_one_seed_has_no_spread_of_its_own() -> None:
    rows = np.arange(5.0)[None]
    assert mean_over_seeds(rows).tolist() == rows[0].tolist()


def test_models_that_differ_alike_in_every_seed_differ_so_in_every_draw() -> None:
    a = np.random.default_rng(0).standard_normal((4, 50))
    assert mean_over_seeds(a) - mean_over_seeds(a - 0.1) == pytest.approx(np.full(50, 0.1))
