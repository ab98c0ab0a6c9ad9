"""``labelloop simulate``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import format_estimate, print_json, print_table, say
from labelloop.cli.progress import shown_progress
from labelloop.cli.push import StrategyName, parse_budget
from labelloop.durations import parse_duration
from labelloop.plurals import plural


class AnnotatorName(StrEnum):
    """The simulated people of ``labelloop.simulation.annotator``."""

    perfect = "perfect"
    sloppy = "sloppy"
    missing = "missing"
    slow = "slow"
    fast = "fast"
    idle = "idle"


def simulate(
    strategy: Annotated[
        list[StrategyName] | None,
        typer.Option("--strategy", help="Strategy to compare; repeatable. [default: random, auto]"),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Review rounds after the first training.")
    ] = 4,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="30m|N",
            help="Size of each round: working time (30m) or number of tasks (40).",
        ),
    ] = "30m",
    labels: Annotated[int, typer.Option("--labels", min=1, help="Labelled images to start with.")] = 5,
    annotator: Annotated[
        AnnotatorName,
        typer.Option(
            "--annotator",
            help="How the simulated person works. sloppy: inexact outlines; missing: overlooks objects; "
            "idle: leaves tasks open now and then.",
        ),
    ] = AnnotatorName.perfect,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First random seed.")] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Number of repeats, each with other starting images.")
    ] = 1,
    time: Annotated[str, typer.Option("--time", metavar="4m", help="Time for each training.")] = "4m",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay the loop with a simulated person on labelled data, to compare strategies.

    Labels that the simulated person has not given yet are hidden from everything. Trainings run in parallel,
    one per core. An interrupted simulation continues when the command is repeated; more strategies,
    seeds or rounds add to what is there.

    Example: `labelloop simulate --strategy random --strategy auto --rounds 4 --time 4m`
    """
    worth = parse_budget(budget)
    seconds = parse_duration(time)
    opened = open_project(project)
    from labelloop.simulation.simulation import SimulationRequest
    from labelloop.simulation.simulation import simulate as run_simulation

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
    seeds, steps = plural(len(result["seeds"]), "seed"), plural(result["iterations"], "iteration")
    say(f"{measured}, {seeds}, {steps} a training")
    for note in result["notes"]:
        say(f"note: {note}")
    say("")
    rows = [
        [
            name,
            str(point["round"]),
            f"{point['minutes']:.1f}",
            f"{point['images']:.1f}",
            format_estimate(point),
        ]
        for name, points in result["strategies"].items()
        for point in points
    ]
    print_table(["strategy", "round", "minutes", "images", result["metric"]], rows)
    compared = result["compared"]
    if not compared:
        return
    minutes, baseline = next(iter(compared.values()))["minutes"], result["baseline"]
    say("", f"Over the first {plural(round(minutes), 'minute')}, against {baseline}:")
    columns = ["strategy", "mean over the minutes", "difference", "at the end", "share of the minutes"]
    print_table(
        columns,
        [
            [
                name,
                format_estimate(each["area"]),
                format_estimate(each["difference"], signed=True),
                format_estimate(each["at_the_end"], signed=True),
                _share(each["minutes_share"]),
            ]
            for name, each in compared.items()
        ],
    )
    say(
        f"share of the minutes: after it a strategy is as good as {baseline} is at the end, both "
        "curves made monotone first",
        result["folder"],
    )


def _share(estimate: dict[str, Any]) -> str:
    low, value, high = (
        "never" if estimate[key] is None else f"{estimate[key]:.0%}" for key in ("low", "value", "high")
    )
    return f"{value} [{low}, {high}]"
