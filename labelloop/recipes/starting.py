"""Starting the training of a benchmark: its project, its labels and its model from one recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labelloop.errors import ModelError, UsageError
from labelloop.progress import Progress
from labelloop.project.project import Project
from labelloop.recipes.catalog import Benchmark, find_benchmark
from labelloop.recipes.datasets import add_dataset, dataset_project, find_dataset


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What a training of a benchmark is asked for, beside its recipe.

    Attributes:
        project: Holds the data set.
        labels: As ``train --labels`` takes it.
        model: As ``train --model`` takes it.
    """

    project: Project
    labels: str
    model: str


def require_benchmark(recipe: str | None) -> Benchmark:
    """The benchmark that ``--data`` is for.

    Raises:
        UsageError: The recipe reproduces none.
    """
    found = None if recipe is None else find_benchmark(recipe)
    if found is None:
        raise UsageError(
            "--data is for the recipe of a benchmark",
            value=recipe or "",
            way_out="labelloop recipes lists them; other data are added with labelloop add.",
        )
    return found


def make_ready(
    benchmark: Benchmark,
    data: Path,
    *,
    root: Path | None,
    labels: str | None,
    model: str | None,
    progress: Progress,
) -> Ready:
    """Makes the project of a benchmark's data set, or goes on with it.

    Args:
        benchmark: Which.
        data: The data set's folder, in the layout in which it is published.
        root: The project's folder; ``labelloop-DATASET`` in the working folder if None.
        labels: Other labels than the benchmark's; None for its own.
        model: Another model than the benchmark's, such as one with a file of weights; None for its own.
        progress: Told of what is added.

    Raises:
        UsageError: The folder does not have the right layout, a list is missing, or the project is another
            one.
        ModelError: The model is not there, or lacks something.
    """
    if model is None and benchmark.missing:
        raise ModelError(
            f"the recipe {benchmark.name} cannot run here", value=benchmark.missing, way_out=_OTHER_MODEL
        )
    dataset = find_dataset(benchmark.dataset)
    chosen = labels or labels_of(benchmark, data)
    for note in filter(None, (dataset.note, "" if labels else benchmark.note)):
        progress.note(f"note: {note}")
    project = dataset_project(root, dataset)
    add_dataset(project, dataset, data, progress)
    return Ready(project=project, labels=chosen, model=model or benchmark.model)


def labels_of(benchmark: Benchmark, data: Path | None) -> str:
    """A benchmark's labels as ``train --labels`` takes them; a list is looked for in the data set's folder.

    Raises:
        UsageError: The list is not there.
    """
    name, at, share = benchmark.labels.partition("@")
    if not name.endswith(".txt"):
        return benchmark.labels
    place = None if data is None else data / name
    if place is None or not place.is_file():
        where = find_dataset(benchmark.dataset).lists
        raise UsageError(
            "the list of labelled images is missing",
            value=name if place is None else place,
            way_out=f"It is in {where}; put it into the folder that --data names. A draw of your own is"
            f" --labels {100 * benchmark.fraction:g}%, whose numbers are not the published ones.",
        )
    return f"{place}{at}{share}"


_OTHER_MODEL = (
    "labelloop models lists what there is, and --model takes another one, which is another benchmark."
)
