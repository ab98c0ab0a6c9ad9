"""Plots of matplotlib as SVG inside a page: in the page's colours and letters, the same bytes each time."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labelloop.report.markup import Markup

# matplotlib knows no variables of style sheets: each stands for one, and becomes it in the SVG.
INK, MUTED, LINE, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
_BECOMES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
SIZE_INCHES = (4.2, 3.3)
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "axes.unicode_minus": True,
}
POINTS = "points"  # gid of the marks that ``titles`` of ``draw`` belong to


def draw(
    key: str,
    title: str,
    paint: Callable[[Axes], None],
    *,
    titles: Sequence[str] = (),
    size_inches: tuple[float, float] = SIZE_INCHES,
) -> Markup:
    """A plot as an inline SVG with a title for those who do not see it.

    Args:
        key: Of the plot, unique in its page: letters only.
        title: What is seen.
        paint: Draws into the axes, in the colours of this module.
        titles: Of the marks with the gid ``POINTS``, in their order; shown where the mouse rests.
        size_inches: Width and height; text has 11 points.
    """
    name = f"plot-{key}"
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size_inches, layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return Markup(_for_page(file.getvalue(), name, title, titles))


def _for_page(svg: str, key: str, title: str, titles: Sequence[str]) -> str:
    """Leaves out what only a file of its own needs, and everything that could clash with other plots."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    head = (
        f'<svg class="plot" role="img" aria-labelledby="{key}-title" viewBox="{box[1]}">'
        f'<title id="{key}-title">{html.escape(title)}</title>'
    )
    body = body[body.index(">") + 1 :].replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in {*used, POINTS} else "", body)
    body = re.sub(r'( id="|href="#|url\(#)', rf"\1{key}-", body)
    body = re.sub(
        r"font: ([\d.]+px)[^;\"]*|font-family: [^;\"]*; ",
        lambda m: f"font-size: {m[1]}" if m[1] else "",
        body,
    )
    for colour, becomes in _BECOMES.items():
        body = body.replace(colour, becomes)
    body = re.sub(r"\s+", " ", body).replace("> <", "><").replace(' "', '"').strip()
    return head + _with_titles(body, f'id="{key}-{POINTS}"', titles)


def _with_titles(svg: str, group: str, titles: Sequence[str]) -> str:
    """Puts a title into each mark of the group of points."""
    start = svg.find(group)
    if start < 0 or not titles:
        return svg
    waiting = iter(titles)

    def titled(mark: re.Match[str]) -> str:
        text = next(waiting, None)
        return mark[0] if text is None else f"<use{mark[1]}><title>{html.escape(text)}</title></use>"

    return svg[:start] + re.sub(r"<use([^>]*?)\s*/>", titled, svg[start:], count=len(titles))
