"""``labelloop server up``, ``labelloop server down`` and ``labelloop server status``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from labelloop.cli.options import JsonOption, ProjectOption
from labelloop.cli.output import print_json, say, to_stderr
from labelloop.cli.progress import shown_progress


def up(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="Port to listen on, or the next free one. Default: the last one used, at first 8080.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="sqlite, or postgresql://user@host:port/name with the password in PGPASSWORD. "
            "Default: the last one used, at first sqlite.",
        ),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a local Label Studio; the first time, install it.

    It has its own Python environment, answers this machine only and sends nothing anywhere. All projects
    share it. The first start takes a few minutes and 1 GB of disk, and shows the administrator's password
    once, on the terminal. If it is already running, it is left as it is.

    Example: `labelloop server up`
    """
    from labelloop.integrations.label_studio.server import start_server
    from labelloop.integrations.label_studio.server_database import parse_database

    with shown_progress() as progress:
        if database is not None and parse_database(database).password:
            progress.note("While this runs, others can see the password in the process list: use PGPASSWORD.")
        state = start_server(database=database, port=port, tell_password=_tell_password, progress=progress)
    if as_json:
        print_json(state)
    else:
        say(f"Label Studio {state.version} is running at {state.url}; its data are in {state.data}")


def down(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Stop the local Label Studio. Its data are kept.

    Example: `labelloop server down`
    """
    from labelloop.integrations.label_studio.server import stop_server

    with shown_progress() as progress:
        stopped = stop_server(progress=progress)
    if as_json:
        print_json({"stopped": stopped is not None, "pid": None if stopped is None else stopped.pid})
    else:
        stays = "Label Studio is stopped; its data are kept."
        say("Label Studio was not running." if stopped is None else stays)


def status(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show whether the local Label Studio is running, where, and since when.

    Example: `labelloop server status`
    """
    from labelloop.integrations.label_studio.server import (
        reset_password_command,
        server_answers,
        server_status,
    )

    state = server_status()
    answering = state is not None and server_answers(state)
    if as_json:
        fields = ("url", "data", "pid", "version", "database", "since")
        known = {name: None if state is None else getattr(state, name) for name in fields}
        print_json({"running": state is not None, "answers": answering, **known})
    elif state is None:
        say("Label Studio is not running. Start it with labelloop server up.")
    else:
        say(
            f"url       {state.url}" + ("" if answering else " (does not answer)"),
            f"version   {state.version}",
            f"database  {state.database}",
            f"data      {state.data}",
            f"process   {state.pid}, since {state.since}",
            f"password  lost? {reset_password_command()}",
        )


def _tell_password(email: str, password: str) -> None:
    """Shows it on the terminal, once. Where stderr is none, as in a job's log, it is not written at all."""
    from labelloop.integrations.label_studio.server import reset_password_command

    line = f"Administrator: {email}. Set a password to log in with: {reset_password_command()}"
    if sys.stderr.isatty():
        line = (
            f"Log in as {email} with the password {password}\n"
            "It is shown only this once; keep it. Lost? labelloop server status says how to set another."
        )
    to_stderr().print(Text(line), soft_wrap=True)
