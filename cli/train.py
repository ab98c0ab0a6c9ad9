"""``labelloop train``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import format_seconds, headline, print_estimates, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration, parse_iterations
from labelloop.errors import UsageError
from labelloop.plurals import plural

if TYPE_CHECKING:
    from labelloop.project.project import Project


SPLITS = {"val": "validation", "out-of-fold": "out-of-fold", "test": "test"}


class Method(StrEnum):
    """How to train."""

    guided = "guided"
    supervised = "supervised"


LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="5%|15|all|FILE",
        help="Labels to use: 5% (of all training images, labelled or not), 15, all, or a file that lists"
        " images. Default: all, or what the recipe says.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="M",
        help="The model to train, from labelloop models. Default: mask-rcnn-lite, or what the recipe says.",
    ),
]
MethodOption = Annotated[
    Method,
    typer.Option("--method", help="guided also learns from unlabelled images; supervised does not."),
]
TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time", metavar="20m", help="Time for the whole run: 90s, 20m, 1h30m. Default: the recipe's length."
    ),
]
IterationsOption = Annotated[
    str | None,
    typer.Option(
        "--iterations",
        metavar="N",
        help="Length in training steps instead of a time: in all (1200), or for teacher and student"
        " (1000+200). A finished run prints its own length like this.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="R",
        help="Training settings: default, reference, one of labelloop recipes, or a .toml file.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of the recipe's data set, as published. Its project is created in labelloop-DATASET, or"
        " where -C says.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="S",
        min=0,
        help="Random seed. With the length that the run printed (--iterations 1000+200) it repeats the run.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", help="Where to compute. auto: on a GPU if there is one."
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        help="Number of processes on this machine that share the run, each with a GPU or some cores.",
    ),
]
AccumulateOption = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        metavar="N",
        min=1,
        help="Gradient accumulation: parts in which each process sees its images of a step, one after the"
        " other, so that a step of any size fits into a GPU's memory. Default: what the recipe says.",
    ),
]
FoldsOption = Annotated[
    int,
    typer.Option(
        "--folds",
        metavar="K",
        min=0,
        help="Cross-validate where there are too few labels for validation: train K more models, each without"
        " 1/K of the labels, and compare by what they see there. Takes K + 1 times as long.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="ID", help="The run's name. Default: generated, such as guided-all-s0-1."),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", metavar="", help="Continue an interrupted run: the one that --name gives, or the newest."
    ),
]


def train(
    labels: LabelsOption = None,
    model: ModelOption = None,
    method: MethodOption = Method.guided,
    time: TimeOption = None,
    iterations: IterationsOption = None,
    recipe: RecipeOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    folds: FoldsOption = 0,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    accumulate: AccumulateOption = None,
    name: NameOption = None,
    resume: ResumeOption = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on labelled and unlabelled images, and compare with a supervised baseline.

    The guided model is used unless it is worse on validation images; without any it is used unchecked.

    Examples: `labelloop train --time 20m` or, as if only 15 were labelled,
    `labelloop train --labels 15 --time 20m` or, for a published benchmark,
    `labelloop train --recipe coco-1-mask2former-r50 --data coco`
    """
    time_s = None if time is None else parse_duration(time)
    steps, teacher_steps = (None, None) if iterations is None else parse_iterations(iterations)
    opened, asked = _asked(recipe, data, project, labels=labels, model=model, resume=resume)
    from labelloop.distill.train import TrainRequest
    from labelloop.distill.train import train as train_project

    request = TrainRequest(
        **asked,
        method=method.value,
        time_s=time_s,
        iterations=steps,
        teacher_iterations=teacher_steps,
        recipe=recipe,
        accumulate=accumulate,
        seed=seed,
        folds=folds,
        device=device,
        devices=devices,
        name=name,
        resume=resume,
    )
    with shown_progress() as progress:
        result = train_project(opened, request, progress)
    if as_json:
        print_json(result)
    else:
        show_training(result)


def _asked(
    recipe: str | None,
    data: Path | None,
    project: Path | None,
    *,
    labels: str | None,
    model: str | None,
    resume: bool,
) -> tuple[Project, dict[str, str]]:
    """The project, and the labels and the model that were named or that the recipe of a benchmark names."""
    if recipe is None and data is None:
        opened = open_project(project)
        return opened, _named(labels=labels, model=model)
    from labelloop.recipes.catalog import find_benchmark
    from labelloop.recipes.starting import labels_of, make_ready, require_benchmark

    if data is not None:
        _require_one_process()
        with shown_progress() as progress:
            ready = make_ready(
                require_benchmark(recipe), data, root=project, labels=labels, model=model, progress=progress
            )
        return ready.project, _named(labels=ready.labels, model=ready.model)
    opened = open_project(project)
    benchmark = None if recipe is None or resume else find_benchmark(recipe)
    if benchmark is not None:
        labels, model = labels or labels_of(benchmark, None), model or benchmark.model
    return opened, _named(labels=labels, model=model)


def _require_one_process() -> None:
    """Refuses to have several processes that a launcher has started make one project."""
    from labelloop.processes import outside_place

    place = outside_place(os.environ)
    if place is not None:
        raise UsageError(
            "a data set's project has to be created by one process",
            value=f"a launcher has started {place.size}",
            way_out="Start it without the launcher, stop it with Ctrl-C when the training begins, and"
            " continue it under the launcher with --resume.",
        )


def _named(**choices: str | None) -> dict[str, str]:
    """The choices that were made; the others are left at their defaults."""
    return {name: choice for name, choice in choices.items() if choice is not None}


def _show_protocol(protocol: dict[str, Any] | None, split: str) -> None:
    """What the recipe's benchmark is measured by; published numbers are of its test images."""
    if protocol is None:
        return
    say("", f"By the protocol {protocol['name']}, on {SPLITS[split]} images:")
    columns = {name: protocol[name] for name in ("supervised", "guided", "difference")}
    print_estimates(columns, signed=["difference"])
    if split != "test":
        say("Published numbers are of the test images: labelloop evaluate --split test measures these.")


def show_training(result: dict[str, Any]) -> None:
    """Prints what ``train`` returns."""
    labels = result["labels"]
    say(
        f"Run {result['run']}: {result['method']} {result['model']}, seed {result['seed']}, "
        f"{result.get('length', result['iterations'])} iterations on {result['device']}",
        f"labels    {labels['used']} ({labels['requested']} asked for) in a pool of "
        f"{plural(labels['pool'], 'image')}",
    )
    seconds = result["seconds"]
    parts = "  ".join(f"{stage} {format_seconds(spent)}" for stage, spent in seconds.items())
    say(f"time      {parts}")
    columns = {name: result.get(name) for name in ("supervised", "guided", "difference")}
    if any(columns.values()):
        say("", f"On {SPLITS[result['split']]} images, with 95 % intervals:")
        print_estimates(headline(columns), signed=["difference"])
        _show_protocol(result.get("protocol"), result["split"])
        if result["split"] != "out-of-fold":  # no single model has these numbers
            say("labelloop evaluate prints all metrics.")
    else:
        say("", "No numbers: the project has neither validation nor test images with labels.")
    gate = result.get("gate")
    no_images = "there were no validation images; --folds can stand in for them"
    unverified = f"not verified: {no_images if gate is None else gate['reason']}"
    undecided = gate is not None and gate["verdict"] == "undecided"
    is_verified = result["verified"] and not undecided
    verified = f"verified on {SPLITS[result['split']]} images" if is_verified else unverified
    say("", f"Promoted: {result['promoted']} ({verified}).")
