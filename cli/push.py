"""``labelloop push``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, RunOption, open_project
from labelloop.cli.output import about_minutes, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration
from labelloop.errors import UsageError
from labelloop.plurals import plural

if TYPE_CHECKING:
    from labelloop.budget.strategies import Budget
    from labelloop.integrations.label_studio.push import PushReport


class StrategyName(StrEnum):
    """The strategies of ``labelloop.budget.strategies``."""

    auto = "auto"
    random = "random"
    foreground_random = "foreground-random"
    uncertainty = "uncertainty"
    diversity = "diversity"


def push(
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="90m|N",
            help="Size of a new round: working time (90m) or number of tasks (40).",
        ),
    ] = "40",
    strategy: Annotated[
        StrategyName,
        typer.Option(
            "--strategy",
            help="How to choose. auto: images where a minute of review should correct most, no "
            "near-duplicates, about a quarter drawn at random as a control. That it saves time is not shown.",
        ),
    ] = StrategyName.auto,
    run: RunOption = None,
    suspects: Annotated[
        bool,
        typer.Option("--suspects", metavar="", help="Review labels that are probably wrong instead."),
    ] = False,
    new_round: Annotated[
        bool,
        typer.Option(
            "--new-round",
            metavar="",
            help="Open a new round, with the newest model's masks, even if the last is not finished.",
        ),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose what to review and write the model's masks to Label Studio as predictions.

    Every task says why it was chosen and how many minutes it should take, as learnt from the lab's own
    reviews (columns why and minutes in Label Studio). While a round has unreviewed tasks, push only completes
    it, with the masks of the model that it began with: repeating it changes nothing, and an interrupted push
    continues. Without a trained model it chooses the images that represent the pool best.

    With `--suspects` the round shows images whose labels are probably wrong (see `check --labels`).

    Examples: `labelloop push --budget 90m` or `labelloop push --budget 40 --strategy random`
    """
    worth = parse_budget(budget)
    if suspects and (run is not None or strategy is not StrategyName.auto):
        raise UsageError(
            "--suspects cannot be combined with --strategy or --run",
            value=strategy.value if run is None else run,
            way_out="Leave --strategy and --run out, or --suspects.",
        )
    opened = open_project(project)
    from labelloop.budget.opening import RoundRequest
    from labelloop.integrations.label_studio.push import push as push_round

    request = RoundRequest(budget=worth, strategy=strategy.value, run=run, suspects=suspects)
    with shown_progress() as progress:
        report = push_round(opened, request, new_round=new_round, progress=progress)
    if as_json:
        print_json(report)
    else:
        _show(report)


def _show(report: PushReport) -> None:
    waiting = plural(report.tasks, "task waits", "tasks wait")
    done = f"round {report.round} ({report.strategy}): {waiting} for review"
    if report.tasks and report.predicted_minutes is not None:
        ends = (report.predicted_minutes_low, report.predicted_minutes_high)
        done += f", {about_minutes(report.predicted_minutes, *ends)}"
    if report.sent:
        done += f"; {report.sent} sent now with {plural(report.regions, 'object')}, by {report.model_version}"
    if report.repaired:
        done += f"; predictions put right: {report.repaired}"
    if report.deleted:
        done += f"; found deleted on the server: {report.deleted}"
    if not (report.opened or report.sent or report.repaired or report.deleted):
        done += "; nothing was missing"
    if report.came_first:
        done += ". This round was still open and came first: --new-round opens the one that you asked for"
    elif not (report.opened or report.sent):
        done += ". --new-round opens another round"
    say(done, *(f"skipped {reason}" for reason in report.skipped))


def parse_budget(text: str) -> Budget:
    """``90m`` is minutes, ``40`` is tasks.

    Raises:
        UsageError: It is neither.
    """
    from labelloop.budget.strategies import Budget

    if text.isascii() and text.isdigit() and int(text) > 0:
        return Budget(tasks=int(text))
    try:
        return Budget(minutes=parse_duration(text) / 60)
    except UsageError as error:
        raise UsageError(
            "this is not a budget",
            value=text,
            way_out="Give a working time like 90m, or a number of tasks like 40.",
        ) from error
