"""The benchmarks that have a recipe: what each reproduces, and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from labelloop.distill.recipe import BENCHMARK, benchmark_table, packaged_names, recipe_document
from labelloop.errors import UsageError
from labelloop.metrics.protocols import Protocol
from labelloop.models.catalog import find_architecture
from labelloop.recipes.datasets import DATASETS

State = Literal["reproduced", "runs on a made miniature"]
Kind = Literal["paper", "later work", "leaderboard"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number that somebody published.

    Attributes:
        metric: What was measured.
        value: In AP points, 0..100.
        source: Where it can be read.
        kind: Who published it.
    """

    metric: str
    value: float
    source: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The row of a published table that a recipe is meant to reproduce.

    Attributes:
        name: Of the recipe.
        dataset: A name of ``datasets.DATASETS``.
        fraction: Share of the training images with labels, 0..1.
        labels: As ``train --labels`` takes it; a list lies in the data set's folder.
        model: A name of the models' catalogue, which may lack it still.
        protocol: How the published number was measured; the run is measured so too.
        hardware: On what the reference runs, or what is expected to be needed.
        published: The number; None where there is none to be relied upon.
        unpublished: Why there is none; empty where there is one.
        later: Numbers of later work on the same row.
        state: What a test, or a run, has shown of the recipe; None where nothing has yet.
        note: What its labels are more exactly than ``fraction`` says; empty where that is all.
    """

    name: str
    dataset: str
    fraction: float
    labels: str
    model: str
    protocol: Protocol
    hardware: str
    published: Published | None
    unpublished: str
    later: tuple[Published, ...]
    state: State | None
    note: str = ""

    @property
    def missing(self) -> str:
        """What is missing to run it here, in words; empty where nothing is."""
        try:
            architecture, _ = find_architecture(self.model)
        except UsageError:
            return f"the model {self.model} is not in this labelloop"
        return architecture.missing()


def list_benchmarks() -> list[Benchmark]:
    """All of them, by data set, then by share of the labels, then by name."""
    found = [_benchmark(name, table) for name, table in _tables().items()]
    order = [dataset.name for dataset in DATASETS]
    return sorted(found, key=lambda b: (order.index(b.dataset), b.fraction, b.name))


def find_benchmark(name: str) -> Benchmark | None:
    """The benchmark that a recipe reproduces, or that a recipe which it is based on does; None if none does.

    Raises:
        UsageError: There is no such recipe.
    """
    found = benchmark_table(name)
    return None if found is None else _benchmark(*found)


def _tables() -> dict[str, dict[str, Any]]:
    documents = {name: recipe_document(name) for name in packaged_names()}
    return {name: document[BENCHMARK] for name, document in documents.items() if BENCHMARK in document}


def _benchmark(name: str, table: dict[str, Any]) -> Benchmark:
    published, later = table.get("published"), table.get("later", ())
    return Benchmark(
        name=name,
        published=None if published is None else Published(**published),
        unpublished=table.get("unpublished", ""),
        later=tuple(Published(**entry) for entry in later),
        state=table.get("state"),
        note=table.get("note", ""),
        **{key: table[key] for key in ("dataset", "fraction", "labels", "model", "protocol", "hardware")},
    )


STATES, KINDS = get_args(State), get_args(Kind)
