"""``labelloop connect``."""

from __future__ import annotations

from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, say


def connect(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the Label Studio server.")],
    ls_project: Annotated[
        int | None,
        typer.Option(
            "--ls-project",
            metavar="ID",
            help="Number of an existing project there. Default: the one already connected, else a new one.",
        ),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Connect the project to a Label Studio project.

    Checks the server, the token and the labelling configuration; without --ls-project a project is created
    there, configured with this project's classes. The token comes from LABEL_STUDIO_API_KEY, from the
    keyring, or from the server that server up started; it is never written to a file. The project needs
    classes first: from init --classes, from labels, or written into labelloop.toml.

    Example: `labelloop connect http://127.0.0.1:8080`
    """
    opened = open_project(project)
    from labelloop.integrations.label_studio.connecting import connect as connect_project

    report = connect_project(opened, url, ls_project=ls_project)
    if as_json:
        print_json(report)
        return
    made = "created" if report.made else "found"
    say(
        f"{made} project {report.ls_project} ({report.title}) on Label Studio {report.version}, "
        f"{report.url}, as {report.user}",
        *report.notes,
        "next: labelloop push",
    )
