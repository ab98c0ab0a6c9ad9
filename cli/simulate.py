"""``labelloop simulate``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, print_table, say
from labelloop.cli.progress import shown_progress
from labelloop.cli.push import StrategyName, parse_budget
from labelloop.durations import parse_duration


class AnnotatorName(StrEnum):
    """The simulated people of ``labelloop.budget.annotator``."""

    perfect = "perfect"
    sloppy = "sloppy"
    missing = "missing"
    slow = "slow"
    fast = "fast"
    idle = "idle"


def simulate(
    strategy: Annotated[
        list[StrategyName] | None,
        typer.Option("--strategy", help="May be repeated. [default: random, auto]"),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of review, after the start.")] = 4,
    budget: Annotated[
        str, typer.Option("--budget", metavar="30m|N", help="Of each round: minutes of work, or tasks.")
    ] = "30m",
    labels: Annotated[
        int, typer.Option("--labels", min=1, help="Labelled images before the first round.")
    ] = 5,
    annotator: Annotated[
        AnnotatorName, typer.Option("--annotator", help="How the simulated person works.")
    ] = AnnotatorName.perfect,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first one.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many, each with its own start.")] = 1,
    time: Annotated[str, typer.Option("--time", metavar="4m", help="For each training.")] = "4m",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay the loop with a simulated person on labelled data, to compare strategies.

    Labels that the simulated person has not given yet are hidden from everything. Trainings run in parallel,
    one per processor. A simulation that was interrupted goes on when the command is repeated; more
    strategies, seeds or rounds add to what is there.

    Example: `labelloop simulate --strategy random --strategy auto --rounds 4 --time 4m`
    """
    worth = parse_budget(budget)
    seconds = parse_duration(time)
    opened = open_project(project)
    from labelloop.budget.simulation import SimulationRequest
    from labelloop.budget.simulation import simulate as run_simulation

    request = SimulationRequest(
        strategies=tuple(name.value for name in dict.fromkeys(strategy or ())) or ("random", "auto"),
        rounds=rounds,
        budget=worth,
        seed=seed,
        seeds=seeds,
        time_s=seconds,
        labels=labels,
        annotator=annotator.value,
    )
    with shown_progress() as progress:
        result = run_simulation(opened, request, progress)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    measured = f"{result['metric']} on {result['split']} images"
    say(f"{measured}, {len(result['seeds'])} seeds, {result['iterations']} iterations a training", "")
    rows = [
        [name, str(point["round"]), f"{point['minutes']:.1f}", f"{point['images']:.1f}", _span(point)]
        for name, points in result["strategies"].items()
        for point in points
    ]
    print_table(["strategy", "round", "minutes", "images", result["metric"]], rows)
    compared = result["compared"]
    if not compared:
        return
    first = next(iter(compared.values()))
    say("", f"Over the first {first['minutes']:.0f} minutes, against {first['baseline']}:")
    columns = ["strategy", "mean over the minutes", "difference", "at the end", "share of the minutes"]
    print_table(
        columns,
        [
            [
                name,
                _span(each["area"]),
                _span(each["difference"], signed=True),
                _span(each["at_the_end"], signed=True),
                _share(each["minutes_share"]),
            ]
            for name, each in compared.items()
        ],
    )
    say(f"share of the minutes: after which a strategy is where {first['baseline']} ends", result["folder"])


def _span(estimate: dict[str, Any] | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    pattern = "{:+.3f} [{:+.3f}, {:+.3f}]" if signed else "{:.3f} [{:.3f}, {:.3f}]"
    return pattern.format(estimate["value"], estimate["low"], estimate["high"])


def _share(estimate: dict[str, Any]) -> str:
    low, value, high = (
        "never" if estimate[key] is None else f"{estimate[key]:.0%}" for key in ("low", "value", "high")
    )
    return f"{value} [{low}, {high}]"
