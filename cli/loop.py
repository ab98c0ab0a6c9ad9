"""``labelloop loop``."""

from __future__ import annotations

from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json
from labelloop.cli.progress import shown_progress
from labelloop.durations import parse_duration
from labelloop.errors import UsageError


def loop(
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="How often to look for corrections.")
    ] = "60s",
    retrain_after: Annotated[
        int,
        typer.Option("--retrain-after", metavar="N", help="Retrain once this many images have new labels."),
    ] = 20,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pull, retrain and push again as corrections arrive.

    Retrains, with the settings of the newest run (the first time with the defaults) and all labels, when
    enough images have come back or the round is finished; then pushes the next round. Ctrl-C stops it at any
    time; started again, it continues.

    Example: `labelloop loop --every 60s --retrain-after 20`
    """
    if retrain_after < 1:
        raise UsageError("this is not a number of images", value=retrain_after, way_out="Give 1 or more.")
    every_s = parse_duration(every)
    opened = open_project(project)
    from labelloop.integrations.label_studio.loop import run_loop

    with shown_progress() as progress:
        last = run_loop(opened, every_s=every_s, retrain_after=retrain_after, progress=progress)
    if as_json:
        print_json(last)
