"""``labelloop push``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, RunOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration
from labelloop.errors import UsageError

if TYPE_CHECKING:
    from labelloop.budget.strategies import Budget


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
            "--budget", metavar="90m|N", help="Of a new round: minutes of a person's time, or tasks."
        ),
    ] = "40",
    strategy: Annotated[
        StrategyName,
        typer.Option(
            "--strategy",
            help="How to choose. auto: what the model doubts, varied, per minute, beside a random arm.",
        ),
    ] = StrategyName.auto,
    run: RunOption = None,
    suspects: Annotated[
        bool,
        typer.Option("--suspects", metavar="", help="Ask about labels that are probably wrong instead."),
    ] = False,
    new_round: Annotated[
        bool,
        typer.Option("--new-round", metavar="", help="Open a new round though the last one is not finished."),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose what to review and write the model's masks to Label Studio as predictions.

    Every task says why it was chosen and what it should cost; minutes are learnt from the lab's own reviews.
    While a round has tasks that nobody has reviewed, push only completes it: repeating it changes nothing,
    and one that was interrupted goes on. Without a trained model, the images that stand best for the pool
    are asked about.

    With `--suspects` the round shows labelled images whose labels are probably wrong (see check --labels).

    Examples: `labelloop push --budget 90m` or `labelloop push --budget 40 --strategy random`
    """
    worth = parse_budget(budget)
    if suspects and (run is not None or strategy is not StrategyName.auto):
        raise UsageError(
            "a round of suspects has neither a strategy nor a run",
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
        return
    done = f"round {report.round} ({report.strategy}): {report.tasks} tasks wait for review"
    if report.predicted_minutes is not None:
        done += f", about {report.predicted_minutes:.0f} minutes of work"
    if report.sent:
        done += f"; {report.sent} sent now with {report.regions} objects, by {report.model_version}"
    elif not report.opened:
        done += "; nothing was missing. --new-round opens another round"
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
            "this is no budget",
            value=text,
            way_out="Give minutes of work like 90m, or a number of tasks like 40.",
        ) from error
