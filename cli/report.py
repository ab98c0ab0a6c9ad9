"""``labelloop report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, RunOption, open_project
from labelloop.cli.output import print_json, say, to_stderr
from labelloop.cli.progress import shown_progress


def report(
    run: RunOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File to write. Default: report.html in the run's folder."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", metavar="", help="Open the report in a browser.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a report on the project as one HTML file, which needs no network and can be mailed.

    It shows how good the model is and on which images, what labels cost and what more would bring, what is
    to be reviewed next, and every setting. Nothing is trained; test images without predictions are predicted.

    Example: `labelloop report --open`
    """
    opened = open_project(project)
    import webbrowser
    from datetime import date

    from labelloop.report.page import write_report

    with shown_progress() as progress:
        path = write_report(opened, run=run, out=out, written=date.today(), progress=progress)
    if show:
        opens = webbrowser.open(path.resolve().as_uri())
        if not opens:
            to_stderr().print("No web browser could be opened; the report is written.")
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        say(str(path))
