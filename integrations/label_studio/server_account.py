"""The administrator of the local Label Studio, and its token, without a browser."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelloop.errors import ServerError
from labelloop.integrations.label_studio import inside_server
from labelloop.integrations.label_studio.server_database import (
    POSTGRESQL,
    SQLITE,
    SQLITE_FILE,
    Database,
    parse_database,
    server_environment,
)
from labelloop.integrations.label_studio.server_environment import (
    environment_is_complete,
    python_of,
    telling_line,
)
from labelloop.integrations.label_studio.server_home import ServerHome, read_settings, server_home
from labelloop.progress import Progress, Silent

ADMINISTRATOR = "admin@labelloop.local"
LIMIT_S = 900.0  # a first start takes a minute; on a machine where others work, several
TICK_S = 1.0


def prepare_database(home: ServerHome, database: Database, progress: Progress) -> str:
    """Makes tables and administrator.

    A new SQLite database appears under its name when it is whole: one that was interrupted is begun anew.

    Returns:
        The administrator's password, which is stored nowhere.

    Raises:
        ServerError: The database cannot be reached, or refuses.
    """
    password = secrets.token_urlsafe(12)
    request = {"do": "prepare", "email": ADMINISTRATOR, "password": password}
    environment = server_environment(home, database)
    home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole = home.data / SQLITE_FILE
    if database.kind != SQLITE or whole.exists():
        _ask(home, database, environment, request, progress)
        return password
    begun = home.data / "begun.sqlite3"
    for left in home.data.glob(f"{begun.name}*"):
        left.unlink()
    _ask(home, database, environment | {"DATABASE_NAME": str(begun)}, request, progress)
    begun.replace(whole)
    return password


def mint_token(home: Path | None = None) -> str:
    """A token for the local server's administrator, good for the ``api_key`` of Label Studio's SDK.

    It is made from the server's database, so no password is needed, and the same one is given again until it
    is revoked. It takes as long as Label Studio needs to load, several seconds. The caller must not write it
    into a file or a log.

    Args:
        home: As for `start_server`.

    Raises:
        ServerError: There is no local server, or its database cannot be reached.
    """
    place = server_home(home)
    settings = read_settings(place)
    if settings.database not in settings.ready or not environment_is_complete(place):
        raise ServerError(
            "there is no local Label Studio", value=place.root, way_out="Run labelloop server up."
        )
    database = parse_database(settings.database)
    request = {"do": "token", "email": ADMINISTRATOR}
    answer = _ask(place, database, server_environment(place, database), request, Silent())
    return str(answer["token"])


def _ask(
    home: ServerHome,
    database: Database,
    environment: Mapping[str, str],
    request: Mapping[str, str],
    progress: Progress,
) -> Any:
    """Has the script in the server's environment answer one request; secrets go through pipes only."""
    process = subprocess.Popen(
        [python_of(home), "-I", inside_server.__file__],  # -I: the script's folder stays off its path
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home.data,
        env=dict(environment),
        close_fds=False,  # see only_one
        text=True,
    )
    with process:
        try:
            answer, said = _answer(process, json.dumps(request), progress)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        raise database_error(database, telling_line(said.splitlines()))
    return json.loads(answer)


def _answer(process: subprocess.Popen[str], request: str, progress: Progress) -> tuple[str, str]:
    unsent: str | None = request
    for _ in range(int(LIMIT_S / TICK_S)):
        try:
            return process.communicate(unsent, timeout=TICK_S)
        except subprocess.TimeoutExpired:
            unsent = None  # it is sent, or will be
            progress.advance(0)
    process.kill()
    return process.communicate()


def database_error(database: Database, line: str) -> ServerError:
    """What Label Studio said about its database, with what can be done."""
    way_out = "Free space on the disk, or check that nothing else has the data folder open."
    if database.kind == POSTGRESQL:
        way_out = (
            "Check that PostgreSQL runs there and has this database and user, and give the password in "
            "PGPASSWORD or ~/.pgpass; labelloop does not keep it."
        )
    return ServerError(
        f"Label Studio cannot use its database {database.address}", value=line, way_out=way_out
    )
