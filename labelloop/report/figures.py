"""The plots of the report, each with its caption: counts, sizes, scores, minutes, the learning curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from labelloop.forecast.answers import Forecast
from labelloop.plurals import plural
from labelloop.report.markup import Child, Markup, tag
from labelloop.report.measured import ImageOutcome, Outcomes
from labelloop.report.metric_words import minutes_text, words_for
from labelloop.report.svg import ACCENT, INK, MUTED, POINTS, SECOND, draw

MOST_POINTS = 1500  # more are thinned out evenly, so that the page stays small


def figure(plot: Markup, *caption: Child) -> Markup:
    """A plot with its caption."""
    return tag("figure", plot, tag("figcaption", *caption))


def counts_figure(images: Sequence[ImageOutcome]) -> Markup:
    """Predicted against true number of objects, one mark per image."""
    true = np.array([o.true for o in images], np.float64)
    predicted = np.array([o.predicted for o in images], np.float64)
    shown = _thinned(len(images))

    def paint(axes: Axes) -> None:
        _identity(axes, 0.0, float(max(true.max(), predicted.max(), 1)) * 1.05)
        axes.scatter(true[shown], predicted[shown], s=22, color=ACCENT, alpha=0.55, linewidths=0, gid=POINTS)
        axes.set_xlabel("true objects")
        axes.set_ylabel("predicted objects")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))

    names = [_counted(images[i]) for i in shown]
    far = int(np.argmax(np.abs(predicted - true)))
    caption: list[Child] = [
        tag("b", "Counts. "),
        f"{plural(len(images), 'image')}; on the line the count is right.",
    ]
    if predicted[far] != true[far]:
        caption.append(f" Farthest off: {_counted(images[far])}.")
    title = f"Predicted against true number of objects in {plural(len(images), 'image')}"
    return figure(draw("counts", title, paint, titles=names), caption)


def sizes_figure(outcomes: Outcomes) -> Markup | None:
    """Predicted against true area of the objects that were found; None without any."""
    true, predicted = outcomes.true_area, outcomes.predicted_area
    if len(true) == 0:
        return None
    shown = _thinned(len(true))

    def paint(axes: Axes) -> None:
        low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
        axes.set_xscale("log")
        axes.set_yscale("log")
        _identity(axes, low / 1.15, high * 1.15)
        axes.scatter(true[shown], predicted[shown], s=9, color=ACCENT, alpha=0.35, linewidths=0)
        axes.set_xlabel(f"true area, {outcomes.unit}²")
        axes.set_ylabel(f"predicted area, {outcomes.unit}²")
        axes.minorticks_off()

    thinned = f" ({len(shown):,} shown)" if len(shown) < len(true) else ""
    title = f"Predicted against true area of {plural(len(true), 'found object')}, logarithmic"
    return figure(
        draw("sizes", title, paint),
        tag("b", "Sizes. "),
        f"{plural(len(true), 'found object')}{thinned}; above the line the prediction is too large.",
    )


def reliability_figure(outcomes: Outcomes) -> Markup | None:
    """Share of predictions that are right against their score; None without predictions."""
    if len(outcomes.in_bin) == 0:
        return None

    def paint(axes: Axes) -> None:
        _identity(axes, 0.0, 1.0)
        axes.plot(outcomes.mean_score, outcomes.right, "o-", color=ACCENT, lw=1.4, ms=4.5, clip_on=False)
        axes.set_xlabel("score")
        axes.set_ylabel("share that is right")

    total = int(outcomes.in_bin.sum())
    title = f"Share of right predictions against their score, {plural(total, 'prediction')}"
    return figure(
        draw("reliability", title, paint),
        tag("b", "Scores. "),
        f"{plural(total, 'prediction')} in {plural(len(outcomes.in_bin), 'group')} of about equal number. "
        "On the line a score of 0.8 means that 8 of 10 are right; below it the model is too sure of itself, "
        "above it not sure enough.",
    )


def minutes_figure(rounds: Sequence[tuple[int, float | None, float]]) -> Markup:
    """Predicted and reported minutes of each round.

    Args:
        rounds: Number, minutes predicted for its reviewed tasks or None, and minutes reported.
    """
    places = np.arange(len(rounds))
    predicted = [0.0 if each[1] is None else each[1] for each in rounds]
    reported = [each[2] for each in rounds]

    def paint(axes: Axes) -> None:
        axes.bar(places - 0.2, predicted, 0.38, color=ACCENT, label="predicted", linewidth=0)
        axes.bar(places + 0.2, reported, 0.38, color=SECOND, label="reported", linewidth=0)
        axes.set_xticks(places, [str(each[0]) for each in rounds])
        axes.set_xlabel("round")
        axes.set_ylabel("minutes")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)

    said = "; ".join(f"round {n}: {minutes_text(p)} and {minutes_text(r)}" for n, p, r in rounds)
    return figure(
        draw("minutes", f"Predicted and reported minutes: {said}", paint),
        tag("b", "Minutes. "),
        "Predicted and reported minutes of the tasks that were reviewed, by round.",
    )


def curve_figure(forecast: Forecast) -> Markup:
    """Small models on subsets of the labels, and the forecast with its interval."""
    words = words_for(forecast.question.metric)
    now = forecast.question.learns()
    points, band = forecast.points, forecast.band

    def paint(axes: Axes) -> None:
        sizes = [p.n_images for p in points]
        left, right = 0.9 * min(*sizes, now), 2.2 * max(*sizes, now)
        axes.set_xscale("log")
        if band is not None:
            inside = (band.sizes >= left) & (band.sizes <= right)
            x, low, high = band.sizes[inside], band.low[inside], band.high[inside]
            axes.fill_between(x, low, high, color=ACCENT, alpha=0.18, lw=0, label="80 %")
            axes.plot(x, band.middle[inside], color=ACCENT, lw=1.6, label="forecast")
        axes.plot(sizes, [p.value for p in points], "o", ms=4, color=INK, label="small models", mew=0)
        axes.axvline(now, color=MUTED, lw=0.9, ls=":", label="labels now")
        axes.set_xlim(left, right)
        axes.xaxis.set_major_locator(FixedLocator(_round_sizes(left, right)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("labelled images")
        axes.set_ylabel(words.title)
        axes.legend(loc="lower right")

    title = f"{words.title} against labelled images: {plural(len(points), 'small model')}"
    title += " and the forecast" if band is not None else ""
    return figure(
        draw("curve", title, paint),
        tag("b", "Learning curve. "),
        "Small models trained on subsets of the labels",
        ", the curve through them and its 80 % interval." if band is not None else ".",
    )


def _round_sizes(left: float, right: float) -> list[int]:
    """Round numbers of images between two sizes."""
    return [m * 10**e for e in range(7) for m in (1, 2, 5) if left <= m * 10**e <= right]


def _counted(outcome: ImageOutcome) -> str:
    return f"{outcome.image.name}, {outcome.true} true, {outcome.predicted} predicted"


def _identity(axes: Axes, low: float, high: float) -> None:
    """The line on which both sides are equal, in a square of the same limits."""
    axes.plot([low, high], [low, high], color=MUTED, lw=0.9, ls="--", zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _thinned(n: int) -> list[int]:
    """Indices of at most MOST_POINTS of n, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_POINTS))})
