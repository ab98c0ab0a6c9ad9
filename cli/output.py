"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelloop.errors import LabelloopError
from labelloop.plurals import plural

Estimates = Mapping[str, Mapping[str, Any]]

HEADLINE = (
    "coco_ap", "coco_ap50", "coco_ap75", "f1_50", "precision_50", "recall_50", "pq", "sq", "rq",
    "count_bias", "count_mae",
)  # fmt: skip


def print_json(document: Any) -> None:
    """Prints the one JSON document of ``--json``, in ASCII: any pipe takes any file name."""
    sys.stdout.write(json.dumps(document, indent=2, default=_as_json, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_error(error: LabelloopError, *, as_json: bool) -> None:
    """Prints what could not be done: one line on stderr, or the JSON document on stdout."""
    if as_json:
        print_json({"error": error.as_dict()})
        return
    line = " ".join(str(error).split())
    to_stderr().print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)


def to_stderr() -> Console:
    """A console for progress and messages."""
    return Console(stderr=True, highlight=False)


def to_stdout() -> Console:
    """A console for results."""
    return Console(highlight=False)


class Remarks(logging.Handler):
    """What the core logs, on stderr, each remark once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._made: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a remark that was not made before."""
        remark = record.getMessage()
        if remark not in self._made:
            self._made.add(remark)
            to_stderr().print(Text(remark), soft_wrap=True)


def say(*lines: str) -> None:
    """Prints lines of a result as they are."""
    console = to_stdout()
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def about_minutes(value: float, low: float | None, high: float | None) -> str:
    """Work to be done, with its interval where that is known."""
    interval = "" if low is None or high is None else f" ({low:.0f} to {high:.0f})"
    return f"about {plural(round(value), 'minute')} of work{interval}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table without lines; without a header where no column has a name."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = to_stdout()
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a file or a pipe has no width to fold at
    console.print(table)


_STAR = "* unreliable: too few images or groups tell of it, or it is the same in all of them"
_FEW = "Too few images or groups were measured: the intervals are unreliable."
_ALIKE = "Where all images are alike, an interval has no width and is unreliable."


class Numbers:
    """Writes estimates, with a star behind an unreliable interval where not all of them are.

    Args:
        starred: Whether stars are set; where all intervals are unreliable, one sentence is enough.
    """

    def __init__(self, *, starred: bool) -> None:
        self._starred, self._any = starred, False

    def text(self, estimate: Mapping[str, Any] | None, *, signed: bool = False) -> str:
        """As ``format_estimate`` has it, and the star."""
        found = estimate or {}
        star = self._starred and _has_interval(found) and not found.get("reliable", True)
        self._any |= star
        return format_estimate(estimate, signed=signed) + (" *" if star else "")

    def footnotes(self) -> list[str]:
        """What a star means, if there is one."""
        return [_STAR] if self._any else []


def print_estimates(columns: Mapping[str, Estimates | None], *, signed: Iterable[str] = ()) -> None:
    """Prints metrics, one row each, with one column per set of estimates; null sets are left out.

    Says so where intervals come from too few images or groups to be relied on, or are without any width.

    Args:
        columns: Title to ``{metric: {value, low, high, n, reason}}``.
        signed: Titles whose numbers show their plus.
    """
    plus = set(signed)
    shown = {title: estimates for title, estimates in columns.items() if estimates}
    names = list(dict.fromkeys(name for estimates in shown.values() for name in estimates))
    all_estimates = [each for estimates in shown.values() for each in estimates.values()]
    none_reliable = not any(each.get("reliable", True) for each in all_estimates if _has_interval(each))
    numbers = Numbers(starred=not none_reliable)
    print_table(
        ["", *shown],
        (
            [name, *(numbers.text(found.get(name), signed=title in plus) for title, found in shown.items())]
            for name in names
        ),
    )
    notes = numbers.footnotes()
    if none_reliable and any(_has_interval(each) for each in all_estimates):
        few = any(each["low"] != each["high"] for each in all_estimates if _has_interval(each))
        notes = [_FEW if few else _ALIKE]
    if notes:
        say(*notes)


def _has_interval(estimate: Mapping[str, Any]) -> bool:
    return estimate.get("low") is not None and estimate.get("high") is not None


def headline(columns: Mapping[str, Estimates | None]) -> dict[str, Estimates | None]:
    """Those of many metrics that a result has room for."""
    return {
        title: estimates and {name: estimates[name] for name in HEADLINE if name in estimates}
        for title, estimates in columns.items()
    }


def format_estimate(estimate: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """``0.671 [0.633, 0.705]``; where there is no number, the reason."""
    reason = (estimate or {}).get("reason") or ""
    reason = f"({reason})" if reason else ""
    if estimate is None or estimate.get("value") is None:
        return f"- {reason}".rstrip()
    pattern = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = estimate["value"], estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return f"{pattern.format(value)} {reason}".rstrip()
    return f"{pattern} [{pattern}, {pattern}]".format(value, low, high)


def format_seconds(seconds: float) -> str:
    """``8 s``, ``2:05`` or ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _as_json(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
