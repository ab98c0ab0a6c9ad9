"""A local Label Studio for labs that have none: up, down, and how it stands.

There is one per home (`server_home`), so by default one per user, and all projects share it. It listens on
this machine only.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.server_account import (
    ADMINISTRATOR,
    database_error,
    prepare_database,
)
from labelloop.integrations.label_studio.server_database import (
    SQLITE,
    SQLITE_FILE,
    Database,
    command_environment,
    parse_database,
    server_environment,
)
from labelloop.integrations.label_studio.server_environment import make_environment, python_of
from labelloop.integrations.label_studio.server_home import (
    VERSION,
    ServerHome,
    ServerProcess,
    ServerSettings,
    keep,
    only_one,
    read_process,
    read_settings,
    server_home,
)
from labelloop.integrations.label_studio.server_process import (
    answers,
    end,
    identify,
    launch,
    wait_until_it_answers,
)
from labelloop.progress import Progress, Silent, stage


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """A local Label Studio that runs.

    Attributes:
        url: Where it is, without a slash at the end.
        data: The folder of its database, files and log.
        pid: Its process.
        version: Label Studio's version.
        database: ``sqlite``, or the address of a PostgreSQL database without its password.
        since: When it was started, ISO 8601 in UTC.
    """

    url: str
    data: Path
    pid: int
    version: str
    database: str
    since: str


def start_server(
    *,
    database: str | None = None,
    port: int | None = None,
    home: Path | None = None,
    tell_password: Callable[[str, str], None] | None = None,
    progress: Progress | None = None,
) -> ServerState:
    """Starts the local Label Studio, and makes it first where there is none. One that runs stays as it is.

    Args:
        database: ``sqlite`` or ``postgresql://user@host:port/name``; that of the last start if None.
        port: Where to listen, or on the next free one above; that of the last start if None.
        home: Where all of it is kept; LABELLOOP_SERVER_HOME or the usual place for a user's data if None.
        tell_password: Called with the administrator's e-mail address and password when they are made. The
            password is stored nowhere, so this is the one time to show it.
        progress: Told what is going on; a first start takes minutes.

    Raises:
        UsageError: ``database`` is none.
        ServerError: It cannot be installed or started, or one runs on another database.
    """
    place, progress = server_home(home), progress or Silent()
    asked = None if database is None else parse_database(database)
    with only_one(place, progress):
        settings = read_settings(place)
        wanted = asked or parse_database(settings.database)
        process = _running(place)
        if process is not None:
            if process.database != wanted.address:
                raise ServerError(
                    f"the running server keeps its work in {process.database}",
                    value=wanted.address,
                    way_out="Run labelloop server down, and then up again.",
                )
            return _wait(place, settings, process, progress)
        make_environment(place, progress)
        if wanted.address != settings.database and settings.ready:
            progress.note(
                f"Until now the work was in {settings.database}; it stays there, and is not copied."
            )
        settings = replace(settings, database=wanted.address)
        if not _is_ready(place, settings):
            settings = _prepare(place, settings, wanted, tell_password, progress)
        keep(place, settings)
        # Its port is kept when it answers there: one that cannot be used is not tried again.
        return _start(place, replace(settings, port=port or settings.port), wanted, progress)


def server_status(home: Path | None = None) -> ServerState | None:
    """The local Label Studio that runs; None where none does, or while one is still starting.

    Raises:
        ServerError: It was started on another machine, which shares the folder.
    """
    place = server_home(home)
    process = _running(place)
    return None if process is None or process.url is None else _state(place, process)


def stop_server(home: Path | None = None, *, progress: Progress | None = None) -> ServerProcess | None:
    """Stops what `start_server` started, and nothing else.

    Returns:
        What was stopped; None where nothing ran.

    Raises:
        ServerError: It does not end, or runs on another machine.
    """
    place = server_home(home)
    with only_one(place, progress or Silent()):
        process = _running(place)
        if process is not None:
            end(process.pid, process.identity)
        place.running_file.unlink(missing_ok=True)
    return process


def reset_password_command(home: Path | None = None) -> str:
    """The command line, for a person, that gives the administrator another password."""
    place = server_home(home)
    variables = command_environment(place, parse_database(read_settings(place).database))
    setting = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    command = [str(python_of(place).with_name("label-studio")), "reset_password", "--username", ADMINISTRATOR]
    return " ".join([*setting, shlex.join(command)])


def _is_ready(place: ServerHome, settings: ServerSettings) -> bool:
    """Whether the database has its tables and the administrator; one whose file is gone does not."""
    if settings.database == SQLITE and not (place.data / SQLITE_FILE).exists():
        return False
    return settings.database in settings.ready


def _running(place: ServerHome) -> ServerProcess | None:
    """The process that was started, if it is still that one: it may have ended, or the machine restarted."""
    process = read_process(place)
    if process is None:
        return None
    if identify(process.pid) == process.identity:  # whatever the machine is called in this network
        return process
    if process.machine != platform.node():
        raise ServerError(
            "the server was started on another machine that shares this folder",
            value=process.machine,
            way_out=f"Use it there; or, if nothing runs there any more, delete {place.running_file}",
        )
    return None


def _prepare(
    place: ServerHome,
    settings: ServerSettings,
    database: Database,
    tell_password: Callable[[str, str], None] | None,
    progress: Progress,
) -> ServerSettings:
    settings = replace(settings, ready=tuple(r for r in settings.ready if r != database.address))
    with stage(progress, "Label Studio: tables and administrator, once", 1):
        password = prepare_database(place, database, progress)
        progress.advance()
    keep(place, settings)  # it works; but it counts as ready only when the password was told
    if tell_password is not None:
        tell_password(ADMINISTRATOR, password)
    return replace(settings, ready=(*settings.ready, database.address))


def _start(
    place: ServerHome, settings: ServerSettings, database: Database, progress: Progress
) -> ServerState:
    python = python_of(place)
    command: list[str | Path] = [
        python, python.with_name("label-studio"), "start", "--no-browser", "--internal-host", "127.0.0.1",
        "--port", str(settings.port),
    ]  # fmt: skip
    if place.log.exists():
        place.log.replace(place.log.with_suffix(".log.before"))
    pid = launch(command, environment=server_environment(place, database), folder=place.data, log=place.log)
    identity = identify(pid) or "ended at once"
    process = ServerProcess(
        pid=pid,
        identity=identity,
        machine=platform.node(),
        version=VERSION,
        database=database.address,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with ExitStack() as undo:
        undo.callback(place.running_file.unlink, missing_ok=True)
        undo.callback(end, pid, identity)
        keep(place, process)  # before it answers: whoever kills this command leaves no unknown server behind
        try:
            state = _wait(place, settings, process, progress)
        except ServerError as error:
            if "OperationalError" in error.value:
                raise database_error(database, error.value) from error
            raise
        undo.pop_all()
    return state


def _wait(
    place: ServerHome, settings: ServerSettings, process: ServerProcess, progress: Progress
) -> ServerState:
    """Waits until the process answers, which may have been started by a command that was killed."""
    if process.url is not None and answers(process.url):
        return _state(place, process)
    with stage(progress, "Label Studio: starting", 1):
        url = wait_until_it_answers(process.pid, process.identity, place.log, progress)
        progress.advance()
    port = int(url.rpartition(":")[2])
    if port != settings.port:
        progress.note(f"Port {settings.port} is not free; Label Studio took {port}.")
    keep(place, replace(settings, port=port))
    if process.url is None:
        process = replace(process, url=url)
        keep(place, process)
    return _state(place, process)


def _state(place: ServerHome, process: ServerProcess) -> ServerState:
    known = asdict(process)
    return ServerState(
        data=place.data, **{name: known[name] for name in ("url", "pid", "version", "database", "since")}
    )


def server_answers(state: ServerState) -> bool:
    """Whether the server that runs answers now."""
    return answers(state.url)
