"""``labelloop recipes``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from labelloop.recipes.catalog import Benchmark


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
    print_table(["recipe", "labels", "published", "protocol"], map(_row, found))
    states = Counter(
        f"not ready ({benchmark.missing})" if benchmark.missing else benchmark.state or "not tried"
        for benchmark in found
    )
    say("", *(f"{n} of {len(found)}: {state}" for state, n in states.items()))


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


def _row(benchmark: Benchmark) -> list[str]:
    published = benchmark.published
    return [
        benchmark.name,
        f"{100 * benchmark.fraction:g} %",
        "-" if published is None else f"{published.value:.1f} {published.kind}",
        benchmark.protocol + (" (not ready)" if benchmark.missing else ""),
    ]
