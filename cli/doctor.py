"""``labelloop doctor``."""

from __future__ import annotations

import typer

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, print_table


def doctor(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Say whether this machine, and the project if there is one, are ready.

    Exits 1 if something is a problem.

    Example: `labelloop doctor`
    """
    from labelloop.doctor import examine

    findings = examine(project)
    problems = [f for f in findings if f.state == "problem"]
    if as_json:
        print_json({"ready": not problems, "findings": findings})
    else:
        print_table(
            ["", "", "", ""],
            [[finding.state, finding.name, finding.found, finding.way_out] for finding in findings],
        )
    if problems:
        raise typer.Exit(1)
