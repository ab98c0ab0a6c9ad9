"""The learning curve with its forecast: as lines of text, as a PNG, and as one HTML file."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from labelloop.errors import OutputError
from labelloop.forecast.answers import Band, Forecast
from labelloop.forecast.curves import CurvePoint, Floats

_BAND, _MIDDLE, _POINT, _TARGET = "#9ecae1", "#08519c", "#333333", "#d94801"
_LEFT = 7  # characters of the axis of values


def curve_text(forecast: Forecast, *, width: int = 72, height: int = 15) -> list[str]:
    """The curve in plain ASCII: ``o`` models, ``=`` the middle, ``.`` the interval, ``-`` the target.

    Labelled images learnt from run to the right in a logarithmic scale; a column of ``|`` are those of a
    full run now.

    Args:
        forecast: What is drawn; without a band its points alone.
        width: Characters of a line.
        height: Lines of the drawing, without the axis and its two lines of text.

    Returns:
        No lines where there is nothing to draw.
    """
    if not forecast.points:
        return []
    left, right = _span(forecast)
    low, high = _range(forecast)
    columns = width - _LEFT
    canvas = [[" "] * columns for _ in range(height)]

    def column(n: float) -> int:
        return round((columns - 1) * math.log(n / left) / math.log(right / left))

    def row(value: float) -> int:
        return round((height - 1) * (high - min(max(value, low), high)) / (high - low))

    now = forecast.question.learns()
    if left <= now <= right:
        for line in canvas:
            line[column(now)] = "|"
    if forecast.band is not None:
        _text_band(canvas, forecast.band, (left, right), row)
    if forecast.question.target is not None:
        line = canvas[row(forecast.question.target)]
        line[:] = ["-" if mark == " " else mark for mark in line]
    for point in forecast.points:
        canvas[row(point.value)][column(point.n_images)] = "o"
    values = [high - (high - low) * i / (height - 1) for i in range(height)]
    lines = [f"{value:5.2f} |{''.join(line)}".rstrip() for value, line in zip(values, canvas, strict=True)]
    return [*lines, " " * 6 + "+" + "-" * columns, *_text_axis(left, right, columns, column)]


def _text_band(
    canvas: list[list[str]], band: Band, span: tuple[float, float], row: Callable[[float], int]
) -> None:
    """Marks interval and middle of every column."""
    columns = len(canvas[0])
    sizes = np.asarray(np.geomspace(*span, columns), np.float64)
    low, middle, high = (_at(band, curve, sizes) for curve in (band.low, band.middle, band.high))
    for i in range(columns):
        for y in range(row(high[i]), row(low[i]) + 1):
            canvas[y][i] = "."
        canvas[row(middle[i])][i] = "="


def _text_axis(left: float, right: float, columns: int, column: Callable[[float], int]) -> list[str]:
    text = [" "] * (columns + 8)
    free = 0
    for tick in _ticks(left, right):
        at, label = column(tick), str(tick)
        if at >= free:
            text[at : at + len(label)] = label
            free = at + len(label) + 2
    return [" " * _LEFT + "".join(text).rstrip(), " " * _LEFT + "labelled images learnt from"]


def draw_curve(forecast: Forecast) -> bytes:
    """The curve as a PNG file: points, middle, interval, target, and the labels there are now."""
    figure = Figure(figsize=(7.2, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    band = forecast.band
    if band is not None:
        axes.fill_between(
            band.sizes, band.low, band.high, color=_BAND, alpha=0.6, lw=0, label="80 % interval"
        )
        axes.plot(band.sizes, band.middle, color=_MIDDLE, label="forecast")
    _plot_points(axes, forecast.points)
    question = forecast.question
    if question.target is not None:
        axes.axhline(question.target, color=_TARGET, ls="--", label=f"target {question.target:g}")
    learnt, now = round(question.learns()), f"{question.labelled} labelled now"
    now += "" if learnt == question.labelled else f", {learnt} learnt from"
    axes.axvline(question.learns(), color="grey", ls=":", label=now)
    if forecast.points:
        left, right = _span(forecast)
        axes.set_xscale("log")
        axes.set_xlim(left * 0.93, right * 1.07)
        axes.set_ylim(*_range(forecast))
        axes.set_xticks(_ticks(left, right))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("labelled images learnt from")
    axes.set_ylabel(question.metric)
    axes.legend(loc="lower right", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plot_points(axes: Axes, points: Sequence[CurvePoint]) -> None:
    sizes, values = [p.n_images for p in points], [p.value for p in points]
    axes.plot(sizes, values, "o", ms=4, color=_POINT, label="models on subsets")


def curve_page(forecast: Forecast, lines: Sequence[str]) -> str:
    """One HTML page that needs no other file.

    Args:
        forecast: What is shown.
        lines: The answer in words.
    """
    picture = base64.b64encode(draw_curve(forecast)).decode("ascii")
    words = "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
    rows = "".join(
        f"<tr><td>{p.n_images}</td><td>{p.seed}</td><td>{p.value:.3f}</td></tr>\n"
        for p in sorted(forecast.points, key=lambda p: (p.n_images, p.seed))
    )
    metric = html.escape(forecast.question.metric)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Forecast</title>\n'
        "<style>body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.1em 1em;text-align:right}img{max-width:100%}</style>\n"
        f"<h1>What more labels would bring</h1>\n{words}"
        f'<img alt="Learning curve of {metric} with its forecast" src="data:image/png;base64,{picture}">\n'
        f"<h2>Models on subsets</h2>\n<table><tr><th>images</th><th>draw</th><th>{metric}</th></tr>\n"
        f"{rows}</table>\n</html>\n"
    )


def write_curve(folder: Path, forecast: Forecast, lines: Sequence[str]) -> dict[str, Path]:
    """Writes ``forecast.png`` and ``forecast.html``.

    Args:
        folder: Is made where it is missing.
        forecast: What is shown.
        lines: The answer in words, for the page.

    Returns:
        Paths, as ``png`` and ``html``.

    Raises:
        OutputError: They cannot be written.
    """
    paths = {"png": folder / "forecast.png", "html": folder / "forecast.html"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths["png"].write_bytes(draw_curve(forecast))
        paths["html"].write_text(curve_page(forecast, lines), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the forecast's pictures cannot be written ({error.strerror or error})",
            value=folder,
            way_out="Free space or make the project folder writable; the next forecast trains nothing anew.",
        ) from error
    return paths


def _span(forecast: Forecast) -> tuple[float, float]:
    """Sizes at the left and the right edge: what is asked about has its place, far beyond is left out."""
    sizes = [float(p.n_images) for p in forecast.points]
    question, images = forecast.question, forecast.images
    now = question.learns()
    right = max(2 * max(*sizes, now), *(1.2 * question.learns(n or 0.0) for n in (images.value, images.high)))
    if forecast.band is not None:
        right = min(right, float(forecast.band.sizes[-1]))
    return min(*sizes, now), max(right, 1.5 * min(*sizes, now))


def _range(forecast: Forecast) -> tuple[float, float]:
    """Lowest and highest value shown, at tenths."""
    shown = [p.value for p in forecast.points]
    if forecast.band is not None:
        left, right = _span(forecast)
        inside = (forecast.band.sizes >= left) & (forecast.band.sizes <= right)
        shown += [float(forecast.band.low[inside].min()), float(forecast.band.high[inside].max())]
    if forecast.question.target is not None:
        shown.append(forecast.question.target)
    low, high = math.floor(10 * min(shown)) / 10, math.ceil(10 * max(shown)) / 10
    return (low, high) if high > low else (max(low - 0.1, 0.0), min(high + 0.1, 1.0))


def _ticks(left: float, right: float) -> list[int]:
    """Round numbers of images between two sizes."""
    steps = [m * 10**e for e in range(7) for m in (1, 2, 3, 5, 7)]
    return [tick for tick in steps if left <= tick <= right]


def _at(band: Band, curve: Floats, sizes: Floats) -> Floats:
    """A curve at other sizes, interpolated in the logarithm."""
    values: Floats = np.interp(np.log(sizes), np.log(band.sizes), curve)
    return values
