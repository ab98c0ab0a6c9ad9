"""``labelloop forecast``."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration
from labelloop.errors import UsageError


def forecast(
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="METRIC=X", help="Metric and value to reach, such as coco_ap50=0.8."
        ),
    ] = None,
    minutes: Annotated[
        str | None,
        typer.Option(
            "--minutes", metavar="120|2h", help="Annotation time to spend: minutes, or a time such as 2h."
        ),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast what more labels would bring: images and minutes to a target, or the metric after minutes.

    Trains small models on subsets of the labels, the first time for a quarter of an hour or more, and fits
    learning curves to them. Without options it forecasts what twice as many labels would bring.

    Example: `labelloop forecast --target coco_ap50=0.8`
    """
    worth = None if minutes is None else parse_minutes(minutes)
    opened = open_project(project)
    from labelloop.forecast.forecast_project import (
        DEFAULT_METRIC,
        ForecastRequest,
        forecast_project,
        parse_target,
    )

    metric, value = (DEFAULT_METRIC, None) if target is None else parse_target(target)
    with shown_progress() as progress:
        result = forecast_project(
            opened, ForecastRequest(metric=metric, target=value, minutes=worth), progress
        )
    if as_json:
        print_json(result.document)
        return
    say(*result.lines)
    if result.picture:
        say("", f"{metric}: o models on subsets, = forecast, . 80 % interval, | labels now", *result.picture)
    say("", *(str(path) for path in result.document["plots"].values()))


def parse_minutes(text: str) -> float:
    """``120``, ``90.5``, ``90m`` or ``2h`` in minutes, 1 or more.

    Raises:
        UsageError: It is neither, or less.
    """
    try:
        minutes = float(text)
    except ValueError:
        minutes = parse_duration(text) / 60
    if not 1 <= minutes < math.inf:
        raise UsageError("--minutes must be 1 or more", value=text, way_out="Write them like 120, 90m or 2h.")
    return minutes
