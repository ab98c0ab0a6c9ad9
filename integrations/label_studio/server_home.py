"""Where the local Label Studio is kept, and what is remembered of it between two commands.

    <home>/label-studio-1.23.2/   its own Python environment; can be made again
    <home>/server/                its data: database, uploaded files, log
    <home>/server/settings.json   which database and port; stays
    <home>/server/running.json    the process, while there is one

Neither file holds a secret. Label Studio keeps a hash of a password and a token without its signature, in its
database, and the key that it signs with in ``<home>/server/.env``; only the user can read that folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from labelloop.errors import ServerError
from labelloop.locks import wait_for_lock
from labelloop.paths import plain_path
from labelloop.progress import Progress
from labelloop.whole_files import replacing

VERSION = "1.23.2"  # the only one that labelloop was tried with
HOME_VARIABLE = "LABELLOOP_SERVER_HOME"
FIRST_PORT = 8080
LOOK_EVERY_S = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ServerHome:
    """The places below one home.

    Attributes:
        root: The home itself, absolute.
    """

    root: Path

    @property
    def environment(self) -> Path:
        """The server's Python environment."""
        return self.root / f"label-studio-{VERSION}"

    @property
    def data(self) -> Path:
        """What Label Studio keeps."""
        return self.root / "server"

    @property
    def log(self) -> Path:
        """What the newest server process printed."""
        return self.data / "server.log"

    @property
    def settings_file(self) -> Path:
        """Holds a `ServerSettings`."""
        return self.data / "settings.json"

    @property
    def running_file(self) -> Path:
        """Holds a `ServerProcess`."""
        return self.data / "running.json"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What the next start needs to know.

    Attributes:
        database: ``sqlite``, or the address of a PostgreSQL database without its password.
        port: Where the server listened last.
        ready: The databases that have tables and an administrator.
    """

    database: str = "sqlite"
    port: int = FIRST_PORT
    ready: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    """A server process that was started.

    Attributes:
        pid: Its number; also that of its process group.
        identity: What tells it from a later process with the same number.
        machine: The machine that it runs on.
        version: Label Studio's version.
        database: As in `ServerSettings`.
        since: When it was started, ISO 8601 in UTC.
        url: Where it answers; None until it does.
    """

    pid: int
    identity: str
    machine: str
    version: str
    database: str
    since: str
    url: str | None = None


def server_home(home: Path | None = None) -> ServerHome:
    """The home that is named, or the one of LABELLOOP_SERVER_HOME, or the usual place for a user's data.

    Raises:
        ServerError: Processes cannot be told apart on this system.
    """
    if os.name != "posix":
        raise ServerError(
            "labelloop runs a server on Linux and macOS only",
            value=sys.platform,
            way_out="Start Label Studio yourself and tie the project to it with labelloop connect.",
        )
    named = home or os.environ.get(HOME_VARIABLE)
    return ServerHome(root=plain_path(Path(named)) if named else _usual_place())


def _usual_place() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "labelloop"
    share = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    # The specification has relative paths ignored.
    return (share if share.is_absolute() else Path.home() / ".local" / "share") / "labelloop"


def read_settings(home: ServerHome) -> ServerSettings:
    """The settings of the last start, or those of the first."""
    return _read(home.settings_file, ServerSettings) or ServerSettings()


def read_process(home: ServerHome) -> ServerProcess | None:
    """The process that was started last and not stopped; it may have ended since."""
    return _read(home.running_file, ServerProcess)


def keep(home: ServerHome, kept: ServerSettings | ServerProcess) -> None:
    """Writes settings or process, so that a reader finds the old or the new, and nothing else."""
    home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home.settings_file if isinstance(kept, ServerSettings) else home.running_file
    with replacing(path) as partial:
        partial.write_bytes(TypeAdapter(type(kept)).dump_json(kept, indent=2))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ServerError(
            "what is remembered of the local server cannot be read",
            value=path,
            way_out="Stop Label Studio if it still runs, and delete this file.",
        ) from error


@contextmanager
def only_one(home: ServerHome, progress: Progress) -> Iterator[None]:
    """Waits until no other command changes this server, and keeps others out until the block ends.

    A child that is started with ``close_fds=False`` holds the lock too: where this process is killed, others
    wait until what it had begun (pip, the making of tables) has ended.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / "server.lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        wait_for_lock(
            lock, progress, "Another labelloop is starting or stopping this server; waiting for it."
        )
        yield
