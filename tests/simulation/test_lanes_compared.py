"""Curves of strategies, and their intervals over seeds and images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labelloop.simulation.lane import Point
from labelloop.simulation.lanes_compared import (
    GRID,
    REPLICATES,
    LaneCurve,
    compare_curves,
    exhaustion_notes,
    interval,
    minutes_shares,
    monotone,
)


def lane(values: np.ndarray) -> LaneCurve:
    """A curve of float64 (1 + REPLICATES, 2): at the start and after ten minutes."""
    spent = {"reported_minutes": 0.0, "predicted_minutes": 0.0}
    points = [Point(round=k, minutes=10.0 * k, images=5 + k, run="r", **spent) for k in range(2)]
    return LaneCurve(points=points, values=values)


def test_a_resample_without_any_object_is_left_out_of_the_interval() -> None:
    values = np.full((1 + REPLICATES, 2), 0.5)
    values[7] = np.nan
    result = compare_curves({"random": [lane(values)], "auto": [lane(values + 0.1)]}, n_images=10)
    assert result["strategies"]["auto"][1]["low"] == result["strategies"]["auto"][1]["high"] == 0.6
    assert result["compared"]["auto"]["difference"]["low"] == pytest.approx(0.1)
    assert result["compared"]["auto"]["minutes_share"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(("names", "baseline"), [(("auto", "random"), "random"), (("auto", "doubt"), "auto")])
def test_the_strategy_that_others_are_compared_with_is_named_also_where_nobody_worked(
    names: tuple[str, ...], baseline: str
) -> None:
    worked = lane(np.full((1 + REPLICATES, 2), 0.5))
    idle = LaneCurve(points=[replace(point, minutes=0.0) for point in worked.points], values=worked.values)
    for curve in (worked, idle):
        result = compare_curves({name: [curve] for name in names}, n_images=10)
        assert result["baseline"] == baseline
    assert result["compared"] == {}


def test_a_value_that_no_replicate_has_is_infinite_and_not_a_number_of_minutes() -> None:
    assert interval(np.array([np.inf, np.inf, 0.5, np.nan])) == {"value": None, "low": 0.5, "high": None}


@pytest.mark.parametrize(("n_seeds", "noted"), [(1, 1), (3, 1), (5, 0)])
def test_few_seeds_are_said(n_seeds: int, noted: int) -> None:
    values = np.full((1 + REPLICATES, 2), 0.5)
    result = compare_curves({"random": [lane(values)] * n_seeds}, n_images=60)
    assert len(result["notes"]) == noted


def test_lanes_that_ended_early_are_said_with_their_own_reasons_and_what_they_cut_short() -> None:
    values = np.full((1 + REPLICATES, 2), 0.5)
    one_round = replace(lane(values), ended="no image is left")
    only_start = LaneCurve(points=one_round.points[:1], values=values[:, :1], ended="2 images are damaged")
    curves = {"random": [one_round, one_round], "auto": [one_round, only_start]}
    where = "a curve ends with the first of its seeds, and the comparison with the first of all lanes"
    assert exhaustion_notes(curves, 1) == [
        "auto ended after round 0 of 1 (1 of 2 seeds): 2 images are damaged", where,
    ]  # fmt: skip
    assert exhaustion_notes(curves, 2) == [
        "random ended after round 1 of 2 (2 of 2 seeds): no image is left",
        "auto ended after round 0 of 2 (2 of 2 seeds): no image is left or 2 images are damaged", where,
    ]  # fmt: skip
    assert "random ended after round 1 of 2: no" in exhaustion_notes({"random": [one_round]}, 2)[0]
    assert exhaustion_notes({"random": [one_round]}, 1) == []


def noisy_curves(truth: np.ndarray, *, sd: float, n: int, seed: int) -> np.ndarray:
    """float64 (n, GRID): means over three seeds at the start and four rounds, linear between them."""
    noise = np.random.default_rng(seed).normal(0, sd / np.sqrt(3), (n, 5))
    rounds, grid = np.linspace(0, 1, 5), np.linspace(0, 1, GRID)
    return np.stack([np.interp(grid, rounds, row) for row in truth + noise])


@pytest.mark.parametrize("rise", [2 * np.linspace(0, 1, 5), 2 * np.log10(1 + 9 * np.linspace(0, 1, 5))])
def test_two_equal_strategies_take_the_same_minutes_however_noisy_they_are(rise: np.ndarray) -> None:
    one, other = (noisy_curves(rise, sd=1.5, n=2001, seed=seed) for seed in (1, 2))
    shares = minutes_shares(one, other)
    assert np.quantile(shares, 0.47, method="nearest") > 0.9
    assert np.isinf(shares).mean() == pytest.approx(0.5, abs=0.05)


def test_a_strategy_that_takes_half_of_the_minutes_is_found_so() -> None:
    rise = np.linspace(0, 6, 5)
    faster = noisy_curves(2 * rise, sd=1.5, n=2001, seed=1)
    shares = minutes_shares(faster, noisy_curves(rise, sd=1.5, n=2001, seed=2))
    assert np.median(shares) == pytest.approx(0.5, abs=0.05)


def test_adjacent_violators_are_pooled() -> None:
    curves = np.array([[1.0, 3.0, 2.0, 4.0, 0.5], [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, np.nan, 2.0, 1.0]])
    pooled = [1.0, 2.375, 2.375, 2.375, 2.375]
    np.testing.assert_allclose(monotone(curves), [pooled, [1.0, 2.0, 3.0, 4.0, 5.0], [np.nan] * 5])
