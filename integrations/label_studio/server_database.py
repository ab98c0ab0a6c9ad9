"""Where the local Label Studio keeps its work, and the environment variables that tell it so."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from labelloop.errors import UsageError
from labelloop.integrations.label_studio.server_home import ServerHome

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
SQLITE_FILE = "label_studio.sqlite3"

# Of the user's own variables only these reach the server: what a process needs to run, and what PostgreSQL's
# library reads. Nobody's token, and no setting that would change what labelloop asks for.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|PG[A-Z]+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+"
)


@dataclass(frozen=True, kw_only=True)
class Database:
    """SQLite in the server's data folder, or a PostgreSQL database.

    Attributes:
        kind: ``sqlite`` or ``postgresql``.
        user: May be empty, as may be ``host``: PostgreSQL's own defaults then.
        password: As it was given, or empty: PGPASSWORD, or what ``~/.pgpass`` says. It is never stored.
    """

    kind: str = SQLITE
    user: str = ""
    host: str = ""
    port: int = 5432
    name: str = ""
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """The database as it may be shown and stored: without its password."""
        if self.kind == SQLITE:
            return SQLITE
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"{POSTGRESQL}://{user}{host}:{self.port}/{quote(self.name, safe='')}"


def parse_database(text: str) -> Database:
    """``sqlite``, or ``postgresql://user@host:5432/name``.

    Raises:
        UsageError: It is neither. The message does not repeat a password.
    """
    if text == SQLITE:
        return Database()
    try:
        parts = urlsplit(text)
        port = parts.port or 5432
    except ValueError:
        raise _no_database(text) from None  # the cause may hold the password
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in {POSTGRESQL, "postgres"} or not name or parts.query or parts.fragment:
        raise _no_database(text)
    return Database(
        kind=POSTGRESQL,
        user=unquote(parts.username or ""),
        host=unquote(parts.hostname or ""),
        port=port,
        name=name,
        password=unquote(parts.password or ""),
    )


def _no_database(text: str) -> UsageError:
    shown = re.sub(r"//.*@", "//...@", text.partition("?")[0], flags=re.DOTALL)
    return UsageError(
        "this is not a database",
        value=shown,
        way_out="Write sqlite, or postgresql://user@host:5432/name with the password in PGPASSWORD.",
    )


def server_environment(home: ServerHome, database: Database) -> dict[str, str]:
    """The variables that the server, and whatever works on its database, is started with.

    Nothing is sent anywhere: error reports, usage statistics and the look for newer versions are off. A
    prediction that does not fit its project is refused with a reason instead of dropped. Only who was given
    a link can sign up, and only this machine's own names for itself are answered.
    """
    kept = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    return {**kept, **_database_variables(database), **_of_labelloop(home)}


def command_environment(home: ServerHome, database: Database) -> Mapping[str, str]:
    """What a person has to set, besides PGPASSWORD, to run Label Studio's own commands on this server."""
    variables = _database_variables(database)
    variables.pop("PGPASSWORD", None)
    return {"LABEL_STUDIO_BASE_DATA_DIR": str(home.data), "SENTRY_DSN": "", **variables}


def _of_labelloop(home: ServerHome) -> dict[str, str]:
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(home.data),
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "LOG_LEVEL": "WARNING",  # less would put requests, and what is in them, into the log
        "DEBUG": "false",
        "ALLOWED_HOSTS": "127.0.0.1,localhost,[::1]",
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "fflag_feat_utc_210_prediction_validation_15082025": "true",
        "PYTHONUNBUFFERED": "1",  # the port is read from what the server prints
    }


def _database_variables(database: Database) -> dict[str, str]:
    if database.kind == SQLITE:
        return {"DJANGO_DB": SQLITE}
    variables = {
        "DJANGO_DB": "default",
        "POSTGRE_NAME": database.name,
        "POSTGRE_USER": database.user,
        "POSTGRE_HOST": database.host,
        "POSTGRE_PORT": str(database.port),
        "POSTGRE_PASSWORD": "",  # empty: PostgreSQL's library looks itself, in PGPASSWORD and ~/.pgpass
    }
    return variables | ({"PGPASSWORD": database.password} if database.password else {})
