"""``labelloop status``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import about_minutes, print_estimates, print_json, say
from labelloop.plurals import plural


def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show where the project stands and what to do next.

    Example: `labelloop status`
    """
    from labelloop.status import project_status

    opened = open_project(project)
    found = project_status(opened)
    if as_json:
        print_json(found)
    else:
        _show(found, opened.program(Path.cwd()))


def _show(found: dict[str, Any], program: str) -> None:
    images = found["images"]
    say(
        f"{found['project']}  {found['root']}",
        f"classes   {', '.join(found['classes']) or '- (taken from the first labels)'}",
        f"images    {images['total']}: {images['labelled']} labelled and {images['unlabelled']} unlabelled "
        f"to train on, {images['val']} val, {images['test']} test",
        f"objects   {found['objects']} annotated",
    )
    for run in found["runs"]:
        ended = f", promoted: {run['promoted']}" if run["promoted"] else ""
        state = "finished" if run["state"] == "finished" else "not finished"
        trained = f"{run['method']} {run['model']}, seed {run['seed']}"
        gone = "" if run["there"] else "; its folder was deleted"
        say(f"run       {run['name']}: {state}, {trained}{ended}{gone}")
    looped = found["loop"]
    if looped["refused"]:
        say(
            f"loop      {looped['proposer']} proposes; the gate refused {looped['refused']}: "
            f"{looped['gate']['reason']}"
        )
    if found["rounds"]:
        waiting = found["waiting"]
        minutes, *ends = (waiting[key] for key in ("minutes", "minutes_low", "minutes_high"))
        left = f", {about_minutes(minutes, *ends)}" if waiting["tasks"] and minutes is not None else ""
        say(
            f"review    {plural(found['rounds'], 'round')}, "
            f"{plural(round(found['minutes_spent']), 'minute')} spent; {_wait(waiting['tasks'])}{left}"
        )
        for server, tasks in waiting["elsewhere"].items():
            say(f"          {_wait(tasks)} at {server}, which the project is not tied to now")
    if found["next_hour"]:
        say(f"forecast  {found['next_hour']['advice']}")
    if found["audit"]:
        say(f"audit     {found['audit']['verdict']}")
    newest = found["newest_result"]
    if newest is not None:
        say("", f"Newest result: {newest['run']}" + (f", on {newest['split']}" if newest["split"] else ""))
        columns = {name: newest[name] for name in ("supervised", "guided", "difference")}
        if any(columns.values()):
            print_estimates(columns, signed=["difference"])
    if found["next"]:
        say("", "Next:", *(f"  {line.replace('labelloop', program, 1)}" for line in found["next"]))


def _wait(tasks: int) -> str:
    return plural(tasks, "task waits", "tasks wait")
