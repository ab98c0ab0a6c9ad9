"""``labelloop push``."""

from __future__ import annotations

from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, RunOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.errors import UsageError


def push(
    budget: Annotated[
        str, typer.Option("--budget", metavar="N", help="Tasks of a new round; a large image is several.")
    ] = "40",
    run: RunOption = None,
    new_round: Annotated[
        bool,
        typer.Option("--new-round", metavar="", help="Open a new round though the last one is not finished."),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose what to review and write the model's masks to Label Studio as predictions.

    Opens a round of the images of which the model is least sure. While a round has tasks that nobody has
    reviewed, push only completes it: repeating it changes nothing, and one that was interrupted goes on.

    Example: `labelloop push --budget 40`
    """
    max_tasks = _tasks(budget)
    opened = open_project(project)
    from labelloop.integrations.label_studio.push import push as push_round

    with shown_progress() as progress:
        report = push_round(opened, max_tasks=max_tasks, run=run, new_round=new_round, progress=progress)
    if as_json:
        print_json(report)
        return
    done = f"round {report.round}: {report.tasks} tasks wait for review"
    if report.sent:
        done += f", {report.sent} sent now with {report.regions} objects, by {report.model_version}"
    elif not report.opened:
        done += "; nothing was missing. --new-round opens another round"
    say(done, *(f"skipped {reason}" for reason in report.skipped))


def _tasks(budget: str) -> int:
    if not budget.isascii() or not budget.isdigit() or int(budget) < 1:
        raise UsageError("this is no number of tasks", value=budget, way_out="Give --budget 40, for example.")
    return int(budget)
