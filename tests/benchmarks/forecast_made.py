"""Forecasts on made learning curves, whose every value is known: most of them of no family that is fitted.

Run by hand, a minute or two:

    python tests/benchmarks/forecast_made.py --curves 80

The noise is that of nested subsets: half of its variance is luck of the draw, a mean over the drawn images
that larger subsets inherit; the rest is new for every model. Labs have as many points as ``labelloop
forecast`` makes: two draws of four sizes. Then the same of full runs: their errors are a share of those of
the short trainings, one that drifts as labels grow; a lab has made three, with a quarter, half and all of
its labels, measured on the same images. Its forecasts know the newest of them, or all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from forecast_cases import Case, judge_expected, judge_target, print_table

from labelloop.forecast.answers import Level
from labelloop.forecast.curves import CurvePoint
from labelloop.forecast.levels import SAME_IMAGES

LABS = ((4, 6, 8, 12), (5, 9, 15, 26), (7, 14, 28, 56))
AHEAD = (1.5, 2.0, 3.0, 4.0)  # times the largest size
NOISES = (0.02, 0.04, 0.06)  # of a model on the smallest subset
LEAST_GAIN = 0.01
DRIFT = 0.1  # standard deviation of the power of the size that a run's share of the errors changes by
SE = 0.02  # of a run's metric over the images that measured it
KINDS = (
    "power law",
    "logistic in the logarithm",
    "power law with a bend",
    "two exponentials",
    "late plateau",
)

Curve = Callable[[float], float]


def made_curve(kind: str, rng: np.random.Generator) -> Curve:
    """A rising curve between 0 and 1."""
    top = rng.uniform(0.55, 0.95)
    if kind == "power law":
        steep, drop = rng.uniform(0.3, 1.2), rng.uniform(0.3, 1.0)
        return lambda n: max(top - drop * n**-steep, 0.01)
    if kind == "logistic in the logarithm":
        middle, width = rng.uniform(math.log(2), math.log(15)), rng.uniform(0.5, 1.2)
        return lambda n: top / (1 + math.exp(-(math.log(n) - middle) / width))
    if kind == "power law with a bend":
        bend, steep, drop = rng.uniform(8, 60), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.8)
        more = steep * rng.uniform(-0.3, 1.0)
        return lambda n: max(top - drop * n**-steep * (1 + n / bend) ** -more, 0.01)
    if kind == "two exponentials":
        fast, slow, share = rng.uniform(2, 8), rng.uniform(20, 150), rng.uniform(0.4, 0.9)
        return lambda n: top * (1 - share * math.exp(-n / fast) - (1 - share) * math.exp(-n / slow))
    start, rate, end = rng.uniform(0.2, 0.5), rng.uniform(0.03, 0.09), rng.uniform(40, 300)
    return lambda n: min(start + rate * math.log2(min(n, end)), 0.98)


def made_points(
    curve: Curve, sizes: Sequence[int], *, seeds: int, noise: float, rng: np.random.Generator
) -> list[CurvePoint]:
    """Models on nested subsets of ``seeds`` draws, all measured on the same images."""
    points = []
    for seed in range(seeds):
        luck = np.cumsum(rng.standard_normal(max(sizes)))
        for n in sizes:
            drawn = luck[n - 1] / n * math.sqrt(sizes[0] / 2)
            trained = rng.standard_normal() * math.sqrt(sizes[0] / n / 2)
            value = float(np.clip(curve(n) + noise * (drawn + trained), 0, 1))
            points.append(CurvePoint(n_images=n, value=value, seed=seed))
    return points


def made_case(kind: str, number: int, rng: np.random.Generator, *, runs: bool = False) -> Case:
    """A lab with a made curve; with ``runs``, it has made some and asks about the next."""
    sizes = LABS[number % len(LABS)]
    noise = NOISES[number // len(LABS) % len(NOISES)]
    curve, start = made_curve(kind, rng), sizes[-1]
    points = made_points(curve, sizes, seeds=2, noise=noise, rng=rng)
    share = rng.uniform(0.5, 0.9) if runs else 1.0
    drift = DRIFT * rng.standard_normal() if runs else 0.0

    def full(n: float) -> float:
        return float(np.clip(1 - share * (n / start) ** drift * (1 - curve(n)), 0, 1))

    def one(n: int) -> float:
        luck = share * noise * math.sqrt(sizes[0] / n) * float(rng.standard_normal())
        return float(np.clip(full(n) + luck, 0, 1))

    shift = math.sqrt(SAME_IMAGES) * SE * rng.standard_normal()
    own = math.sqrt(1 - SAME_IMAGES) * SE
    levels = [
        Level(
            run=f"{n} labels",
            n_images=n,
            value=float(np.clip(one(n) + shift + own * rng.standard_normal(), 0, 1)),
            se=SE,
        )
        for n in ((start // 4, start // 2, start) if runs else ())
    ]
    ahead = [round(start * times) for times in AHEAD]
    return Case(
        name=kind,
        metric="made",
        lab=number,
        start=start,
        points=points,
        later={n: one(n) for n in ahead},
        truth={n: full(n) for n in (start, *ahead)},
        levels=levels,
    )


def main() -> None:
    """Makes, forecasts, judges."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=int, default=80, help="of each kind")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    made = [made_case(kind, number, rng) for kind in KINDS for number in range(arguments.curves)]
    _tables("", made)
    runs = [made_case(kind, number, rng, runs=True) for kind in KINDS for number in range(arguments.curves)]
    _tables(", of full runs; the newest is known", [replace(c, levels=c.levels[-1:]) for c in runs])
    _tables(", of full runs; those of past rounds are known too", runs)
    unreachable = [judge_target(case, case.start * 100) for case in map(_beyond, made)]
    answered = sum(judged.factor is not None for judged in unreachable)
    print(
        f"targets 0.05 above all that the curve ever reaches: {len(made)}, answered with a number {answered}"
    )


def _tables(which: str, made: Sequence[Case]) -> None:
    asked = [(c, n) for c in made for n in c.later if c.truth[n] - c.truth[c.start] > LEAST_GAIN]
    judged = [judge_target(case, n) for case, n in asked]
    print_table(f"labels until a target{which}", judged, KINDS, ("made",))
    judged = [judge_expected(case, n) for case in made for n in case.later]
    print_table(f"metric at a size{which}", judged, KINDS, ("made",))


def _beyond(case: Case) -> Case:
    """The case with a target that is never reached, at a size that stands for never."""
    top = min(max(case.truth.values()) + 0.05, 0.995)
    return replace(case, truth={**case.truth, case.start * 100: top})


if __name__ == "__main__":
    main()
