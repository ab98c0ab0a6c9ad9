"""``labelloop recipes``."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, say

if TYPE_CHECKING:
    from labelloop.recipes.catalog import Benchmark


WIDTH = 80  # of a new terminal


def recipes(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the published benchmarks that have a recipe, their numbers, and how far each recipe was tested.

    Start one with labelloop train --recipe NAME --data DIR, where DIR holds the data set as published.

    Example: `labelloop recipes`
    """
    from labelloop.recipes.catalog import list_benchmarks

    found = list_benchmarks()
    if as_json:
        print_json([_document(benchmark) for benchmark in found])
        return
    rows = [("recipe", "published", "state"), *map(_row, found)]
    wide = [max(len(row[column]) for row in rows) for column in range(2)]
    say(*(f"{name:<{wide[0]}} {published:<{wide[1]}} {state}" for name, published, state in rows))
    _tell_more(found)


def _tell_more(found: list[Benchmark]) -> None:
    """What has no place in a row, once for all recipes of which it is true."""
    lacks = Counter(benchmark.missing for benchmark in found if benchmark.missing)
    notes = {b.note: f"{b.dataset}-{100 * b.fraction:g}" for b in found if b.note}
    say("")
    for missing, n in lacks.items():
        say(*textwrap.wrap(f"{n} of {len(found)} cannot start on this machine yet: {missing}", WIDTH))
    say("The number in a name is the share of the training images with labels, in %.")
    say("--json has protocols, sources, hardware, and why a number is missing.")
    for note, row in notes.items():
        say(*textwrap.wrap(f"{row}: {note}", WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _document(benchmark: Benchmark) -> dict[str, Any]:
    """The contract's fields first; ``architecture`` is the model's name."""
    document = asdict(benchmark)
    return {
        **{key: document.pop(key) for key in ("name", "dataset", "fraction")},
        "architecture": document.pop("model"),
        **{key: document.pop(key) for key in ("published", "state")},
        **document,
        "missing": benchmark.missing,
    }


def _row(benchmark: Benchmark) -> tuple[str, str, str]:
    published = benchmark.published
    return (
        benchmark.name,
        "-" if published is None else f"{published.value:.1f} {published.kind}",
        benchmark.state or "not tried",
    )
