"""``labelloop forecast``."""

from __future__ import annotations

from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.cli.progress import shown_progress


def forecast(
    target: Annotated[
        str | None, typer.Option("--target", metavar="METRIC=X", help="What to reach, like coco_ap50=0.8.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", min=1, help="Minutes of annotation to spend.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast what more labels would bring: images and minutes until a target, or the metric after minutes.

    Trains small models on subsets of the labels, the first time for a quarter of an hour or more, and fits
    learning curves to them. Without options it says what twice the labels would bring.

    Example: `labelloop forecast --target coco_ap50=0.8`
    """
    opened = open_project(project)
    from labelloop.budget.forecast_project import (
        DEFAULT_METRIC,
        ForecastRequest,
        forecast_project,
        parse_target,
    )

    metric, value = (DEFAULT_METRIC, None) if target is None else parse_target(target)
    with shown_progress() as progress:
        result = forecast_project(
            opened, ForecastRequest(metric=metric, target=value, minutes=minutes), progress
        )
    if as_json:
        print_json(result.document)
        return
    say(*result.lines)
    if result.picture:
        say("", f"{metric}: o models on subsets, = forecast, . 80 % interval, | labels now", *result.picture)
    say("", *(str(path) for path in result.document["plots"].values()))
