"""Tables of metrics: each number with its interval, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from labelloop.metrics.bootstrap import FEW_UNITS
from labelloop.plurals import plural
from labelloop.report.markup import Child, Markup, details, joined, table, tag
from labelloop.report.metric_words import (
    HEADLINE,
    NO_NUMBER,
    OTHER,
    SECTIONS,
    SHARE,
    ZERO,
    Estimate,
    MetricWords,
    has_width,
    in_order,
    interval_text,
    is_unreliable,
    number_text,
    unit_text,
    which_is_better,
    words_for,
)

Estimates = Mapping[str, Estimate]
Words = Callable[[str], MetricWords]
MOST_PARTS = 30  # rows of classes or groups
STAR = "* from too few images or groups, or the same in all: unreliable"
OF_PARTS = ("recall_50", "precision_50", "coco_ap50", "pq", "area_bias")


def number(
    words: MetricWords, estimate: Estimate | None, *, signed: bool = False, with_unit: bool = True
) -> Markup:
    """A value with its interval; without a value the reason."""
    if estimate is None or estimate.get("value") is None:
        return _no_number((estimate or {}).get("reason"))
    value = tag("b", number_text(words, float(estimate["value"]), signed=signed))
    unit = unit_text(words, estimate) if with_unit else ""
    interval = interval_text(words, estimate, signed=signed)
    return tag(
        "span",
        value,
        tag("span", f" {unit}", class_="soft") if unit else None,
        tag("span", interval, class_="iv") if interval else _no_interval(estimate),
    )


def starred(words: MetricWords, estimate: Estimate | None) -> Markup:
    """A number, with a star behind it where it is unreliable; ``STAR`` says what that means."""
    found = number(words, estimate)
    return tag("span", found, "\N{NO-BREAK SPACE}*") if is_unreliable(estimate or {}) else found


def metrics_table(
    caption: str, estimates: Estimates, names: Iterable[str], *, words: Words = words_for
) -> Markup:
    """One column of estimates, each with a strip that shows it between 0 and 1 where that is its range.

    Args:
        caption: Says what they are.
        estimates: By name.
        names: Those that are shown.
        words: How to read each.
    """
    rows = [
        [
            _name(words(name)),
            [
                number(words(name), estimates[name]),
                _why_unreliable(estimates[name], beside=estimates),
                _strip(words(name), estimates[name]),
            ],
        ]
        for name in names
    ]
    return table(caption, ["", "value, 95 % interval"], rows, class_="num metrics")


def all_metrics(estimates: Estimates, *, opened_by: str) -> Markup:
    """Every metric of a document, section by section, behind a click."""
    names = in_order(estimates)
    sections = [(title, [name for name in names if words_for(name).section == title]) for title in SECTIONS]
    tables = [metrics_table(title, estimates, here) for title, here in sections if here]
    return details(opened_by, tables)


def comparison_table(
    caption: str,
    baseline: Estimates,
    guided: Estimates,
    difference: Estimates,
    names: Iterable[str],
    *,
    words: Words = words_for,
) -> Markup:
    """Baseline, guided model, and their paired difference with what it says."""
    rows = []
    stars = any(map(_is_reliable, difference.values()))  # else all are called so at once
    names = list(names)
    if stars and any(is_unreliable(difference[name]) for name in names):
        caption = f"{caption}; {STAR}"
    for name in names:
        of = words(name)
        nearer = _nearer(of, baseline[name], guided[name])
        verdict = which_is_better(of, difference[name], nearer=nearer)
        rows.append(
            [
                _short_name(of, baseline[name]),
                number(of, baseline[name], with_unit=False),
                number(of, guided[name], with_unit=False),
                tag(
                    "span",
                    number(of, difference[name], signed=True, with_unit=False),
                    _verdict(verdict),
                    " *" if stars and is_unreliable(difference[name]) else None,
                ),
            ]
        )
    return table(caption, ["", "baseline", "guided", "difference"], rows, class_="num")


def parts_table(
    caption: str,
    parts: Mapping[str, Estimates],
    *,
    names: Sequence[str] = OF_PARTS,
    words: Words = words_for,
) -> Markup:
    """A few metrics of each class, size or group; those that come first, where there are very many."""
    shown = list(parts)[:MOST_PARTS]
    known = [name for name in names if all(name in parts[part] for part in shown)]
    if len(shown) < len(parts):
        caption = f"{caption}; the first {len(shown)} of {len(parts)}"
    if any(is_unreliable(parts[part][name]) for part in shown for name in known):
        caption = f"{caption}; {STAR}"
    rows = [[part, *(starred(words(name), parts[part][name]) for name in known)] for part in shown]
    return table(caption, ["", *(words(name).title for name in known)], rows, class_="num")


def worst_groups_table(worst: Mapping[str, Estimate]) -> Markup:
    """The group in which each of the metrics that tell most is worst.

    Args:
        worst: ``worst_group`` of ``Parts.as_dict``.
    """
    names = [name for name in HEADLINE if name in worst]
    caption = "The worst group of each metric"
    if any(is_unreliable(worst[name]) for name in names):
        caption = f"{caption}; {STAR}"
    rows = [
        [words_for(name).title, str(worst[name]["group"]), starred(words_for(name), worst[name])]
        for name in names
    ]
    return table(caption, ["", "group", "value, 95 % interval"], rows, class_="num", stacks=True)


def reliability_tag(document: Mapping[str, Any]) -> Markup | None:
    """``n = 12: unreliable`` where all intervals come from too few images or groups.

    Where some do not, or where it is the width that an interval lacks, it stands beside the number.
    """
    estimates, groups = document["metrics"].values(), document.get("n_groups")
    unreliable = [estimate for estimate in estimates if is_unreliable(estimate)]
    if not unreliable:
        return None
    n = f"n = {document['n_images']}" if groups is None else f"n = {plural(groups, 'group')}"
    if (groups or document["n_images"]) >= FEW_UNITS:
        if any(map(_is_reliable, estimates)) or not any(map(has_width, unreliable)):
            return None
        n = "few images with objects, or few groups"  # how many was not kept
    return tag("span", f"{n}: unreliable", class_="tag")


def unreliable_mark(document: Mapping[str, Any], estimate: Estimate) -> Markup | None:
    """What stands at a number by itself: why its interval is unreliable, or nothing where it is not."""
    if not is_unreliable(estimate):
        return None
    return reliability_tag(document) or _why_unreliable(estimate, beside=document["metrics"])


def _name(words: MetricWords) -> Child:
    if words.section == OTHER:
        return tag("code", words.name)
    return [words.title, " ", tag("code", words.name), tag("small", words.meaning)]


def _short_name(words: MetricWords, estimate: Estimate) -> Child:
    unit = unit_text(words, estimate)
    return [words.title, tag("small", unit) if unit else None]


def _nearer(words: MetricWords, before: Estimate, after: Estimate) -> bool | None:
    """Whether a metric that is best at zero came nearer to it; None of others.

    None too where it went past zero: how sure the difference is says nothing of how near the values are then.
    """
    if words.better != ZERO or before.get("value") is None or after.get("value") is None:
        return None
    old, new = float(before["value"]), float(after["value"])
    return abs(new) < abs(old) if old * new >= 0 else None


def _verdict(verdict: str) -> Markup | None:
    if not verdict:
        return None
    style = {"better": "good", "worse": "bad"}.get(verdict, "soft")
    return joined([" ", tag("span", verdict, class_=style)])


def _no_number(reason: object) -> Markup:
    return tag("span", NO_NUMBER, " ", tag("span", str(reason), class_="why") if reason else None)


def _no_interval(estimate: Estimate) -> Markup | None:
    reason = estimate.get("reason")
    return tag("span", f" {reason}", class_="why") if reason else None


def _is_reliable(estimate: Estimate) -> bool:
    return estimate.get("low") is not None and not is_unreliable(estimate)


def _why_unreliable(estimate: Estimate, *, beside: Estimates) -> Markup | None:
    """What is said at an interval itself; where all are of few images, ``reliability_tag`` says so once."""
    if not is_unreliable(estimate):
        return None
    if has_width(estimate):
        why = "few images tell of it" if any(map(_is_reliable, beside.values())) else None
    else:
        why = "the same in all images" if int(estimate.get("n", 0)) >= FEW_UNITS else None
    return tag("span", f" {why}: unreliable", class_="why") if why else None


def _strip(words: MetricWords, estimate: Estimate) -> Markup | None:
    """The interval as a line from 0 to 1; for the eye only, as the numbers stand beside it."""
    value = estimate.get("value")
    if words.kind != SHARE or words.section == OTHER or value is None or not 0 <= float(value) <= 1:
        return None
    low, high = estimate.get("low"), estimate.get("high")
    left = max(0.0, float(value if low is None else low))
    right = min(1.0, float(value if high is None else high))

    def line(start: float, end: float, colour: str, width: int) -> Markup:
        return tag(
            "line", x1=f"{200 * start + 4:.1f}", x2=f"{200 * end + 4:.1f}", y1=8, y2=8,
            style=f"stroke:var(--{colour});stroke-width:{width};stroke-linecap:round",
        )  # fmt: skip

    dot = tag("circle", cx=f"{200 * float(value) + 4:.1f}", cy=8, r=4, style="fill:var(--accent)")
    marks = [line(0, 1, "line", 2), line(left, right, "accent", 3), dot]
    return tag("svg", marks, class_="strip", viewBox="0 0 208 16", aria_hidden="true")
