"""HTML made of elements: text is escaped, and every element that is opened is closed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias

MOST_BESIDE = 3  # columns that a phone has room for
VOID = frozenset({"br", "hr", "img", "meta"})


class Markup(str):
    """Text that is HTML already. Only this module and the drawing of plots make it."""

    __slots__ = ()


Child: TypeAlias = "str | int | Sequence[Child] | None"


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """One element.

    Args:
        name: Of the element.
        children: Its content; text is escaped, None is nothing, sequences are their members.
        attributes: Underscores become hyphens, one at the end is dropped (``class_``). None and False leave
            an attribute out, True gives it without a value.

    Raises:
        ValueError: An element without content has children.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    written = "".join(
        f" {key.removesuffix('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        if children:
            raise ValueError(f"<{name}> has no content")
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Child) -> Markup:
    """Content as markup: text escaped, sequences one after the other."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int):
        return Markup(_escaped(children))
    return Markup("".join(joined(child) for child in children))


def paragraph(*children: Child) -> Markup:
    """A paragraph."""
    return tag("p", *children)


def note(*children: Child) -> Markup:
    """A paragraph that stands back."""
    return tag("p", *children, class_="note")


def items(lines: Iterable[Child]) -> Markup:
    """A list with bullets."""
    return tag("ul", [tag("li", line) for line in lines])


def details(summary: Child, *children: Child) -> Markup:
    """Something that opens at a click or a key; on paper it is open."""
    return tag("details", tag("summary", summary), tag("div", *children, class_="inside"))


def table(
    caption: str,
    columns: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    class_: str = "",
    stacks: bool | None = None,
) -> Markup:
    """A table whose first column names its rows; where the window is narrow it scrolls by itself, or stacks.

    Args:
        caption: Says what it holds.
        columns: Heads.
        rows: As many cells each.
        class_: For its style.
        stacks: Whether each row becomes a list in a narrow window; from four columns on if None.
    """
    if stacks is None:
        stacks = len(columns) > MOST_BESIDE
    heads = [tag("th", column, scope="col", role="columnheader") for column in columns]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", role="rowheader"),
            [
                tag("td", cell, role="cell", data_label=_plain(column))
                for column, cell in zip(columns[1:], row[1:], strict=True)
            ],
            role="row",
        )
        for row in rows
    ]
    found = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", heads, role="row"), role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        class_=f"{class_} stacks".strip() if stacks else class_ or None,
        role="table",  # browsers forget it of a table that a style sheet stacks
    )
    return tag("div", found, class_="scroll", role="region", aria_label=caption, tabindex=0)


def facts(pairs: Iterable[tuple[Child, Child]]) -> Markup:
    """Names with their values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs], class_="facts")


def _escaped(value: str | int) -> str:
    return html.escape(str(value), quote=True)


def _plain(column: Child) -> str:
    return column if isinstance(column, str) else ""
