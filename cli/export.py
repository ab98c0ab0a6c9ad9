"""``labelloop export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.errors import UsageError
from labelloop.plurals import plural

FORMATS = ("label-studio",)


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")],
    format_name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Output format: label-studio.")
    ],
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write labels and predictions as a file for Label Studio.

    label-studio: one JSON file of tasks that Label Studio imports, and that `add labels` reads back: a task
    for each image that has labels, or predictions of the newest finished run in the ledger. These come from
    train, evaluate, push (of the pool) and report, not from predict; their model version names the run.

    Example: `labelloop export --format label-studio --out tasks`
    """
    if format_name not in FORMATS:
        raise UsageError(
            "there is no such export format", value=format_name, way_out=f"Formats: {', '.join(FORMATS)}."
        )
    opened = open_project(project)
    from labelloop.integrations.label_studio.exporting import export_project

    report = export_project(opened, out)
    if as_json:
        print_json(report)
        return
    run = f" of {report.run} ({report.which})" if report.run else ""
    parts = f"{report.labelled} with labels and {report.predicted} with predictions{run}"
    say(f"{plural(report.images, 'task')}, {parts}: {report.out}")
    if report.partly_labelled:
        why = "a part of the image is unknown and would come back as background"
        say(f"labels left out: {report.partly_labelled} ({why})")
    if report.not_predicted:
        why = f"the ledger has none of their predictions by {report.run}"
        why = why if report.run else "no finished run is there"
        say(f"left out: {plural(report.not_predicted, 'image')} of the pool without labels ({why})")
