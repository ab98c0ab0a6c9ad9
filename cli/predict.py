"""``labelloop predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelloop.cli.options import (
    JsonOption,
    MinScoreOption,
    ProjectOption,
    RunOption,
    open_project,
    parse_min_score,
)
from labelloop.cli.output import format_seconds, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.plurals import plural

if TYPE_CHECKING:
    from labelloop.predict.pool import PredictReport


def predict(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Image files, folders or glob patterns. Default: the pool."),
    ] = None,
    run: RunOption = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="A,B", help="Any of coco, label-tiff, overlay, separated by commas."
        ),
    ] = "coco,label-tiff,overlay",
    min_score: MinScoreOption = "auto",
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            metavar="N",
            min=1,
            help="Number of processes on this machine that share the images, each with a GPU or some cores.",
        ),
    ] = 1,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write masks for any images, or for the whole pool: all training images, labelled or not.

    predictions.json holds every detection scored 0.05 or more; label TIFFs and overlays show those that reach
    --min-score. A label TIFF numbers the objects of all classes together. Validation and test images are
    predicted only when they are named. If it is interrupted, the same command continues.

    Example: `labelloop predict --out masks --format coco,overlay`
    """
    threshold = parse_min_score(min_score)
    opened = open_project(project)
    from labelloop.predict.predict import predict as predict_for_project

    with shown_progress() as progress:
        report = predict_for_project(
            opened,
            paths or (),
            out=out,
            run=run,
            formats=tuple(part for part in map(str.strip, formats.split(",")) if part),
            min_score=threshold,
            devices=devices,
            progress=progress,
        )
    if as_json:
        print_json(report)
    else:
        _show(report)


def _show(report: PredictReport) -> None:
    skipped = f", {plural(len(report.skipped), 'file')} skipped" if report.skipped else ""
    say(
        f"{plural(report.objects, 'object')} scored {report.min_score:.2f} or more in "
        f"{plural(report.images, 'image')}{skipped}, "
        f"by {report.run} ({report.which}), in {format_seconds(report.seconds)}: {report.out}"
    )
