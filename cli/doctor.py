"""``labelloop doctor``."""

from __future__ import annotations

import typer

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, print_table
from labelloop.errors import LabelloopError


def doctor(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Check whether this machine, and the project if there is one, are ready.

    The exit code is 1 if there is a problem.

    Example: `labelloop doctor`
    """
    from labelloop.doctor import examine

    findings = examine(project)
    problems = [f for f in findings if f.state == "problem"]
    if as_json:
        document = {"ready": not problems, "findings": findings}
        if problems:
            error = LabelloopError(
                "this machine or project is not ready",
                value=problems[0].found,
                way_out=problems[0].way_out or "See the findings.",
            )
            document["error"] = error.as_dict()
        print_json(document)
    else:
        print_table(
            ["", "", "", ""],
            [[finding.state, finding.name, finding.found, finding.way_out] for finding in findings],
        )
    if problems:
        raise typer.Exit(1)
