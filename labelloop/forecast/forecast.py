"""Forecast: what more labels would buy, read off the learning curves; or why nobody can tell yet.

The answer is only as good as the curves foresee. So they are fitted to the smaller subsets alone and asked
for the larger ones, which are known (leave-future-out): where they miss, all intervals are widened, and where
they miss by far there is no answer. Intervals hold 80 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from labelloop.budget.effort import Z_80, Z_95
from labelloop.budget.span import Span
from labelloop.forecast.answers import (
    CANNOT_TELL,
    EXPECTED,
    OUT_OF_REACH,
    REACHABLE,
    REACHED,
    Band,
    Forecast,
    Level,
    Question,
)
from labelloop.forecast.checks import (
    FEWEST_DRAWS,
    WIDEST_FACTOR,
    hardly_found,
    held_out_misses,
    hidden_trend,
    too_little,
    widening,
)
from labelloop.forecast.curves import CurvePoint, Floats, LearningCurves, fit_curves, gain_per_doubling
from labelloop.forecast.levels import Lifted, lift
from labelloop.metrics.estimate import Estimate

CONFIDENCE = 0.80
REACH = 4.0  # times the largest subset: a middle estimate beyond is not given
LEAST_SHARE = 0.5  # of a middle estimate: one whose interval begins below that is not given
FAR = 8.0  # times the largest subset: ends of intervals beyond are not given
WIDEST = 0.3  # an expected metric that is known no better than this is not given
LEAST_GAIN = 0.0005  # what rounds to less than 0.001 cannot be told from nothing
_GRID = 160


def forecast(
    points: Sequence[CurvePoint],
    question: Question,
    *,
    levels: Sequence[Level] = (),
    no_points: str | None = None,
) -> Forecast:
    """Answers from points.

    Args:
        points: Models trained on subsets of the labels, all with the same schedule.
        question: What is asked.
        levels: Finished runs, oldest first, that set the height of the curve, and where they are several, how
            fast it rises; none to forecast the short trainings.
        no_points: Why there are none, or why the metric has no value for models that were measured; None
            where it has for all.
    """
    why_not = too_little(points, question.labelled)
    if why_not is not None:
        return _silent(points, question, no_points or why_not)
    if (hardly := hardly_found(points, question.metric)) is not None:
        return _silent(points, question, hardly)
    curves = fit_curves(points)
    falls = "the metric falls as labels are added, which no learning curve does"
    misses = held_out_misses(points)
    if len(curves.noise) < FEWEST_DRAWS or not misses:
        return _silent(points, question, falls)
    lifted = lift(curves, levels) if levels else None
    if lifted is not None and len(lifted.ab) < FEWEST_DRAWS:
        return _silent(points, question, falls)
    widened = widening([*misses, *(() if lifted is None else lifted.misses)])
    if widened > WIDEST_FACTOR:
        reason = "curves through the small subsets do not predict the larger ones"
        if widening(misses) <= WIDEST_FACTOR:
            reason = f"runs {_names(levels)} lie on no curve that the short trainings allow"
        return _silent(points, question, reason, widened=widened)
    if (hidden := hidden_trend(points)) is not None:
        return _silent(points, question, hidden, widened=widened)
    seen = _Seen(curves if lifted is None else lifted.curves, widened, lifted)
    band = _band(seen, question.learns())
    images, minutes, expected, verdict = _answer(seen, band, question)
    now, gain, told_from_zero = _gain(seen, question, expected, points)
    return Forecast(
        question=question,
        verdict=verdict,
        reason=next((s.reason for s in (images, expected) if s is not None and s.reason is not None), None),
        images=images,
        minutes=minutes,
        expected=expected,
        points=points,
        band=band,
        widened=widened,
        families=seen.curves.family_shares(),
        levels=levels,
        now=now,
        gain=gain,
        told_from_zero=told_from_zero,
    )


class _Seen:
    """Quantiles of the curves, lifted to the runs' level and widened.

    Args:
        curves: Draws.
        widened: Factor of every interval.
        lifted: The same draws as full runs have them; None for the short trainings.
    """

    def __init__(self, curves: LearningCurves, widened: float, lifted: Lifted | None) -> None:
        self.curves, self._widened, self._lifted = curves, widened, lifted
        self.smallest, self.largest = curves.sizes

    def quantiles(self, sizes: Floats, *, one_model: bool = False) -> Floats:
        """float64 (3, k): low end, middle and high end of the metric at sizes.

        Args:
            sizes: float64 (k,).
            one_model: Of the one model that will be trained, with its luck; else of the mean of many.
        """
        values = self._values(sizes)
        if one_model:
            luck = np.random.default_rng(1).standard_normal(len(values))
            spread = self.curves.noise[:, None] * np.sqrt(self.smallest / sizes)
            values = values + luck[:, None] * spread * self._shares(sizes)
        return np.clip(self._ends(values), 0.0, 1.0)

    def gains(self, now: float, sizes: Floats) -> Floats:
        """float64 (3, k): low end, middle and high end of what the mean model gains from a size to others.

        Args:
            now: The size.
            sizes: float64 (k,).
        """
        return self._ends(self._values(sizes) - self._values(np.array([now])))

    def _values(self, sizes: Floats) -> Floats:
        """float64 (d, k), of the mean model in each draw."""
        return np.clip(1 - self._shares(sizes) * (1 - self.curves.values(sizes)), 0.0, 1.0)

    def _shares(self, sizes: Floats) -> Floats:
        """float64 (d or 1, k), of the errors of short trainings."""
        return np.ones((1, 1)) if self._lifted is None else self._lifted.shares(sizes)

    def _ends(self, values: Floats) -> Floats:
        """float64 (3, k), quantiles over the draws, widened."""
        tail = (1 - CONFIDENCE) / 2
        ends = np.quantile(values, (tail, 0.5, 1 - tail), axis=0)
        wide: Floats = ends[1] + self._widened * (ends - ends[1])
        return wide


def _answer(seen: _Seen, band: Band, question: Question) -> tuple[Span, Span, Span | None, str]:
    """Images, minutes, expected metric and verdict."""
    images, minutes, verdict = Span(), Span(), EXPECTED
    if question.target is not None:
        images, verdict = _needed(seen, band, question, question.target)
        minutes = _minutes_of(images, question.minutes_per_image)
    if question.target is not None and question.minutes is None:
        return images, minutes, None, verdict
    bought = _bought(question)
    expected = _expected(seen, question, bought)
    if question.target is None:
        images = bought
        known = question.minutes is not None
        minutes = Span(value=question.minutes) if known else _minutes_of(images, question.minutes_per_image)
        verdict = EXPECTED if expected.value is not None else CANNOT_TELL
    return images, minutes, expected, verdict


def _needed(seen: _Seen, band: Band, question: Question, target: float) -> tuple[Span, str]:
    """Labelled images until the metric reaches a target, and the verdict."""
    now, labelled, far = question.learns(), question.labelled, REACH * seen.largest

    def labels(learnt: float) -> int:
        return question.learnt.labels(learnt, least=labelled)

    high, value, low = (_first(band.sizes, curve, target) for curve in (band.low, band.middle, band.high))
    left = [None if n is None else float(labels(n) - labelled) for n in (value, low, high)]
    end = labels(round(FAR * seen.largest))
    if high is not None and high <= now:
        return Span(value=0.0, low=0.0, high=0.0), REACHED
    if low is None:
        reason = f"not even {end} labelled images would be enough, {FAR:.0f} times the largest subset"
        return Span(low=float(end - labelled), reason=reason), OUT_OF_REACH
    if value is None or value > max(far, now) or max(low, now) < LEAST_SHARE * value:
        early = "have reached it" if low <= now else f"reach it with {labels(low)} labelled images"
        late = labels(far if value is None else min(value, far))
        reason = f"the curves disagree: some {early}, half of them do not with {late}"
        return Span(low=left[1], reason=reason), CANNOT_TELL
    if high is None and left[1] == 0:
        reason = f"the curve is too flat: {target:g} may be reached now, or not with {end} labelled images"
        return Span(low=0.0, reason=reason), CANNOT_TELL
    no_end = None if high is not None else f"one curve in ten does not reach it with {end} labelled images"
    return Span(value=left[0], low=left[1], high=left[2], reason=no_end), REACHABLE


def _bought(question: Question) -> Span:
    """Images that the minutes are enough for; without minutes, as many as there are."""
    if question.minutes is None:
        more = float(question.labelled)
        return Span(value=more, low=more, high=more)
    cost = question.minutes_per_image
    if cost is None or cost.value is None:
        return Span(reason=_no_cost(cost))
    low, high = _eighty_percent(cost)
    return Span(
        value=float(round(question.minutes / cost.value)),
        low=float(math.floor(question.minutes / high)),
        high=float(math.ceil(question.minutes / low)),
    )


def _sizes(seen: _Seen, question: Question, low: float, value: float, high: float) -> Floats:
    """float64 (3,): the fewest, the expected and the most images that are learnt after so many more labels.

    Where ``train`` begins to set labels aside, it learns fewer images of more labels.
    """
    ends = [max(question.learns(more), 1.0) for more in (low, value, min(high, FAR * seen.largest))]
    return np.array([min(ends), ends[1], max(ends)])


def _expected(seen: _Seen, question: Question, bought: Span) -> Span:
    """The metric after so many more images; the interval covers the images that the minutes may buy."""
    if bought.value is None or bought.low is None or bought.high is None:
        return Span(reason=bought.reason)
    learnt = question.learns(bought.value)
    if learnt > FAR * seen.largest:
        return Span(reason=f"{learnt:.0f} images are more than {FAR:.0f} times the largest subset")
    sizes = _sizes(seen, question, bought.low, bought.value, bought.high)
    ends = seen.quantiles(sizes, one_model=True)
    low, value, high = float(ends[0, 0]), float(ends[1, 1]), float(ends[2, 2])
    if high - low > WIDEST:
        return Span(low=low, high=high, reason=f"anything from {low:.2f} to {high:.2f} is possible")
    return Span(value=value, low=low, high=high)


def _gain(
    seen: _Seen, question: Question, expected: Span | None, points: Sequence[CurvePoint]
) -> tuple[Span | None, Span | None, bool | None]:
    """The metric now, the gain from now to the expected, and whether that can be told from zero.

    Curves that fall are thrown away, so they always gain something. So the points themselves have to show
    growth, or the gain's interval begins at zero; and its lower end must not be written as zero.
    """
    if expected is None:
        return None, None, None
    learnt = question.learns()
    low, value, high = seen.quantiles(np.array([learnt]), one_model=True)[:, 0].tolist()
    now, bought = Span(value=value, low=low, high=high), _bought(question)
    if expected.value is None or bought.value is None or bought.low is None or bought.high is None:
        return now, Span(reason=expected.reason), None
    gains = seen.gains(learnt, _sizes(seen, question, bought.low, bought.value, bought.high))
    slope, error = gain_per_doubling(points)
    seen_to_grow = slope - Z_80 * error > 0
    middle, least = expected.value - value, float(gains[0, 0])
    least = min(least, middle) if seen_to_grow else min(least, middle, 0.0)
    gain = Span(value=middle, low=least, high=max(float(gains[2, 2]), middle))
    told = bool(seen_to_grow and gains[0, 1] >= LEAST_GAIN)
    then = question.labelled + bought.value
    begins = learnt == question.labelled and question.learns(bought.value) < then  # to set labels aside
    unknown = not bought.value or (begins and seen_to_grow and not told)
    return now, gain, None if unknown else told


def _minutes_of(images: Span, cost: Estimate | None) -> Span:
    """What images cost. Their number and the cost of one are independent, so their errors add in squares."""
    if cost is None or cost.value is None:
        return Span(reason=_no_cost(cost))
    if images.value == 0 and images.high == 0:
        return Span(value=0.0, low=0.0, high=0.0)
    cheap, dear = _eighty_percent(cost)

    def end(count: float | None, of_one: float, towards: Callable[[float], float]) -> float | None:
        if count is None or count == 0:
            return None if count is None else 0.0
        middle = images.value or count
        off = math.hypot(math.log(count / middle), math.log(of_one / (cost.value or 1.0)))
        return round(middle * (cost.value or 1.0) * math.exp(towards(off)), 1)

    value = None if images.value is None else round(images.value * cost.value, 1)
    low = end(images.low, cheap, lambda off: -off)
    return Span(value=value, low=low, high=end(images.high, dear, lambda off: off), reason=images.reason)


def _eighty_percent(cost: Estimate) -> tuple[float, float]:
    """The 80 % interval of a positive number whose 95 % interval is known; a factor of 2 where it is not."""
    assert cost.value is not None
    shrink = Z_80 / Z_95
    low = cost.low if cost.low is not None and cost.low > 0 else cost.value / 4
    high = cost.high if cost.high is not None else cost.value * 4
    return (
        cost.value * math.exp(shrink * math.log(low / cost.value)),
        cost.value * math.exp(shrink * math.log(high / cost.value)),
    )


def _no_cost(cost: Estimate | None) -> str:
    return (cost.reason if cost is not None else None) or "what an image costs is not known yet"


def _band(seen: _Seen, learnt: float) -> Band:
    """From one label to as far as answers go."""
    far = max(FAR * seen.largest, 2.0 * learnt)
    sizes = np.asarray(np.geomspace(min(seen.smallest, learnt), far, _GRID), np.float64)
    low, middle, high = seen.quantiles(sizes)
    return Band(sizes=sizes, middle=middle, low=low, high=high)


def _first(sizes: Floats, curve: Floats, target: float) -> float | None:
    """The size at which a curve first is at a target, interpolated in the logarithm; None if it never is."""
    above = np.flatnonzero(curve >= target)
    if len(above) == 0:
        return None
    i = int(above[0])
    if i == 0:
        return float(sizes[0])
    share = (target - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share)


def _silent(
    points: Sequence[CurvePoint], question: Question, reason: str, *, widened: float = 1.0
) -> Forecast:
    """An answer without numbers."""
    nothing = Span(reason=reason)
    minutes = nothing if question.minutes is None else Span(value=question.minutes)
    asks_expected = question.target is None or question.minutes is not None
    return Forecast(
        question=question,
        verdict=CANNOT_TELL,
        reason=reason,
        images=nothing,
        minutes=minutes,
        expected=nothing if asks_expected else None,
        points=points,
        widened=widened,
    )


def _names(levels: Sequence[Level]) -> str:
    return ", ".join(level.run for level in levels)
