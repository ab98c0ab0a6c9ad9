"""Plots inside a page: the page's colours, the same bytes, nothing that clashes."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes

from labelloop.report.svg import ACCENT, INK, POINTS, SECOND, draw


def paint(axes: Axes) -> None:
    axes.plot([0, 1, 2], [1, 3, 2], color=ACCENT)
    axes.scatter([0, 1, 2], [1, 2, 3], color=SECOND, gid=POINTS)
    axes.axhline(1.5, color=INK)
    axes.set_xlabel("images")


def test_the_same_data_give_the_same_bytes() -> None:
    assert draw("a", "A plot", paint) == draw("a", "A plot", paint)


def test_it_has_no_colour_but_the_variables_of_the_page() -> None:
    svg = draw("a", "A plot", paint)
    assert {"var(--accent)", "var(--second)", "currentColor"} <= set(
        re.findall(r"var\(--\w+\)|currentColor", svg)
    )
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\"])", svg) == []


def test_two_plots_share_no_id_and_every_reference_is_met() -> None:
    first, second = (set(re.findall(r' id="([^"]+)"', draw(key, "A plot", paint))) for key in ("a", "b"))
    assert first
    assert first.isdisjoint(second)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', draw("a", "A plot", paint))
    assert set(used) <= first


def test_it_needs_nothing_from_elsewhere_and_has_a_title() -> None:
    svg = draw("a", "Less < more", paint)
    assert "http" not in svg
    assert "<style" not in svg
    assert '<title id="plot-a-title">Less &lt; more</title>' in svg
    assert ">images</text>" in svg


def test_each_point_bears_its_title_escaped() -> None:
    names = ["first", "<script>", 'a "third"']
    svg = draw("a", "A plot", paint, titles=names)
    found = re.findall(r"<use[^>]*><title>([^<]*)</title></use>", svg)
    assert found == ["first", "&lt;script&gt;", "a &quot;third&quot;"]


def test_many_points_stay_small() -> None:
    x = np.linspace(0, 1, 1500)

    def many(axes: Axes) -> None:
        axes.scatter(x, x, color=ACCENT, gid=POINTS)

    assert len(draw("a", "A plot", many)) < 400_000
