"""Curves: what is fitted to points of a known curve, and what cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.forecast.curves import CurvePoint, fit_curves, gain_per_doubling, rise, shapes

SIZES = (4, 6, 9, 13, 20)


def power_law(n):
    return 0.85 - 0.9 * np.asarray(n, float) ** -0.6


def saturating(n):
    return 0.9 * np.asarray(n, float) / (np.asarray(n, float) + 8)


def points_on(truth, sizes=SIZES, *, seeds=1, noise=0.0, rng=None, se=None):
    rng = rng or np.random.default_rng(0)
    return [
        CurvePoint(
            n_images=n,
            value=float(truth(n)) + noise * float(rng.standard_normal()) * math.sqrt(sizes[0] / n),
            seed=seed,
            se=se,
        )
        for seed in range(seeds)
        for n in sizes
    ]


def interval(points, size, *, confidence=0.8):
    tail = (1 - confidence) / 2
    values = fit_curves(points).values(np.array([float(size)]))[:, 0]
    return tuple(float(v) for v in np.quantile(values, (tail, 0.5, 1 - tail)))


@pytest.mark.parametrize("truth", [power_law, saturating])
def test_points_on_a_curve_are_met_and_its_next_values_foreseen(truth):
    points = points_on(truth, seeds=3)
    for size in SIZES:
        assert interval(points, size)[1] == pytest.approx(float(truth(size)), abs=0.015)
    for factor in (1.5, 2, 4):
        low, middle, high = interval(points, 20 * factor)
        assert low <= truth(20 * factor) <= high
        assert middle == pytest.approx(float(truth(20 * factor)), abs=0.03 * factor)


def test_eighty_percent_intervals_hold_about_that_often_for_curves_of_several_kinds():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(60):
        ceiling, scale, bend = rng.uniform(0.6, 0.95), rng.uniform(0.4, 1.0), rng.uniform(0.4, 1.1)
        kind = rng.integers(3)
        truth = (
            lambda n, a=ceiling, b=scale, c=bend: a - b * n**-c,
            lambda n, a=ceiling, b=scale: a * n / (n + 12 * b),
            lambda n, a=ceiling, b=scale, c=bend: a * (1 - np.exp(-((n / (20 * b)) ** min(c, 0.9)))),
        )[kind]
        curves = fit_curves(points_on(truth, seeds=2, noise=0.04, rng=rng), draws=2000)
        low, high = np.quantile(curves.values(np.array([40.0]))[:, 0], (0.1, 0.9))
        held.append(bool(low <= truth(40.0) <= high))
    assert np.mean(held) >= 0.7


def test_intervals_grow_with_distance_and_noise_and_shrink_with_more_models():
    rng = np.random.default_rng(2)

    def width(points, size):
        low, _, high = interval(points, size)
        return high - low

    few = points_on(power_law, noise=0.05, rng=rng)
    many = points_on(power_law, noise=0.05, seeds=8, rng=rng)
    exact = points_on(power_law)
    assert width(few, 20) < width(few, 40) < width(few, 120)
    assert width(many, 60) < width(few, 60)
    assert width(exact, 60) < width(few, 60)


def test_points_measured_on_other_images_may_lie_higher_without_bending_the_curve():
    shifted = [
        CurvePoint(n_images=p.n_images, value=p.value + 0.08 * (p.seed - 1), seed=p.seed, measured=p.seed)
        for p in points_on(saturating, seeds=3)
    ]
    low, middle, high = interval(shifted, 40)
    assert low <= saturating(40) <= high
    assert middle == pytest.approx(float(saturating(40)), abs=0.05)


def test_the_luck_of_a_draw_of_few_images_does_not_last():
    """Of a third draw, known at small sizes only and 0.1 too good, little is left at 30 images."""
    lucky = [CurvePoint(n_images=n, value=float(saturating(n)) + 0.1, seed=2) for n in (4, 6)]
    plain = points_on(saturating, (4, 6, 9, 13, 20, 30), seeds=2)
    _, middle, _ = interval([*plain, *lucky], 30)
    assert middle == pytest.approx(float(saturating(30)), abs=0.015)


def test_a_point_with_a_larger_standard_error_counts_less():
    good = points_on(power_law, se=0.02)
    outlier = power_law(13) - 0.12

    def pulled(se):
        point = CurvePoint(n_images=13, value=float(outlier), seed=0, se=se)
        return abs(interval([*good, point], 13)[1] - float(power_law(13)))

    assert pulled(0.2) < pulled(0.02) / 2


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.floats(0, 1), st.integers(0, 2)), min_size=3, max_size=12
    ).filter(lambda rows: len({n for n, _, _ in rows}) > 1)
)
def test_every_curve_rises_and_stays_between_0_and_1(rows):
    points = [CurvePoint(n_images=n, value=value, seed=seed) for n, value, seed in rows]
    curves = fit_curves(points, draws=300)
    values = curves.values(np.geomspace(curves.sizes[0], 20 * curves.sizes[1], 40))
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values, axis=1) >= -1e-9).all()
    assert np.isfinite(values).all()


def test_few_curves_are_left_where_the_metric_falls():
    falling = [CurvePoint(n_images=n, value=0.8 - 0.01 * n, seed=0) for n in SIZES]
    assert fit_curves(falling).kept < 0.02
    assert fit_curves(points_on(power_law)).kept > 0.2


def test_the_same_points_give_the_same_curves():
    points = points_on(saturating, noise=0.03)
    one, other = fit_curves(points), fit_curves(points)
    assert np.array_equal(one.ends, other.ends)
    assert np.array_equal(one.chosen, other.chosen)


def test_shares_of_the_families_add_up():
    shares = fit_curves(points_on(power_law, seeds=2)).family_shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert len(shares) == 5


def test_every_shape_goes_from_0_at_the_smallest_size_to_1_at_the_largest():
    members = shapes(50.0)
    assert sum(shape.prior for shape in members) == pytest.approx(1)
    for shape in members:
        h = rise(shape, (4.0, 50.0), np.array([4.0, 10.0, 50.0, 500.0]))
        assert h[0] == pytest.approx(0)
        assert h[2] == pytest.approx(1)
        assert 0 < h[1] < 1 <= h[3]


def test_the_gain_of_a_doubling_is_that_of_a_line_in_the_logarithm_whatever_the_level_of_a_seed():
    points = [
        CurvePoint(n_images=n, value=0.3 + 0.05 * math.log2(n) + 0.1 * seed, seed=seed)
        for seed in range(3)
        for n in (4, 8, 16)
    ]
    gain, error = gain_per_doubling(points)
    assert gain == pytest.approx(0.05)
    assert error == pytest.approx(0, abs=1e-9)
    assert gain_per_doubling(points[:1]) == (0.0, math.inf)


def test_points_of_one_size_are_no_curve():
    with pytest.raises(ValueError, match="two sizes"):
        fit_curves([CurvePoint(n_images=5, value=0.5), CurvePoint(n_images=5, value=0.6)])
