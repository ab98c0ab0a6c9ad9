"""``labelloop train``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import format_seconds, headline, print_estimates, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration


class Method(StrEnum):
    """How to train."""

    guided = "guided"
    supervised = "supervised"


LabelsOption = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="5%|15|all|FILE",
        help="Labels to use: a share of the pool, a count, or a file that lists the images (FILE@5%).",
    ),
]
ModelOption = Annotated[str, typer.Option("--model", metavar="M", help="See labelloop models.")]
MethodOption = Annotated[
    Method,
    typer.Option("--method", help="guided learns from unlabelled images too; supervised is its baseline."),
]
TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="20m", help="Time for the whole run: 90s, 20m, 1h30m.")
]
IterationsOption = Annotated[
    int | None, typer.Option("--iterations", metavar="N", min=1, help="Length of the run instead of a time.")
]
RecipeOption = Annotated[str | None, typer.Option("--recipe", metavar="R", help="A recipe's name.")]
SeedOption = Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Of everything random.")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="auto: a GPU if there is one.")
]
DevicesOption = Annotated[int, typer.Option("--devices", metavar="N", min=1, help="How many of them.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="ID", help="The run's name. Default: made up.")
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", metavar="", help="Go on with a run that was interrupted: --name, or the newest."
    ),
]


def train(
    labels: LabelsOption = "all",
    model: ModelOption = "mask-rcnn-lite",
    method: MethodOption = Method.guided,
    time: TimeOption = None,
    iterations: IterationsOption = None,
    recipe: RecipeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    name: NameOption = None,
    resume: ResumeOption = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on labelled and unlabelled images, beside the supervised baseline, and promote the better model.

    Example: `labelloop train --labels 15 --time 20m`
    """
    time_s = None if time is None else parse_duration(time)
    opened = open_project(project)
    from labelloop.distill.train import TrainRequest
    from labelloop.distill.train import train as train_project

    request = TrainRequest(
        labels=labels,
        model=model,
        method=method.value,
        time_s=time_s,
        iterations=iterations,
        recipe=recipe,
        seed=seed,
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


def show_training(result: dict[str, Any]) -> None:
    """Prints what ``train`` returns."""
    labels = result["labels"]
    say(
        f"Run {result['run']}: {result['method']} {result['model']}, seed {result['seed']}, "
        f"{result['iterations']} iterations on {result['device']}",
        f"labels    {labels['used']} ({labels['requested']} asked for) in a pool of {labels['pool']} images",
    )
    seconds = result["seconds"]
    parts = "  ".join(f"{stage} {format_seconds(spent)}" for stage, spent in seconds.items())
    say(f"time      {parts}")
    columns = {name: result.get(name) for name in ("supervised", "guided", "difference")}
    if any(columns.values()):
        say("", f"On {result['split']}, with 95 % intervals:")
        print_estimates(headline(columns), signed=["difference"])
        say("labelloop evaluate prints all metrics.")
    else:
        say("", "No numbers: the project has neither validation nor test images with labels.")
    verified = (
        "verified on validation" if result["verified"] else "not verified: there was no validation part"
    )
    say("", f"Promoted: {result['promoted']} ({verified}).")
