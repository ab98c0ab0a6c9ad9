"""The server as a process of its own: started, recognised, waited for and ended.

A process is known by its number together with when it began, so that a later process with the same number is
never taken for the server, and never ended.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.server_environment import telling_line
from labelloop.integrations.label_studio.server_home import LOOK_EVERY_S
from labelloop.progress import Progress

START_LIMIT_S = 300.0
PATIENCE_S = 10.0  # from asking to end until ending
_SERVES = re.compile(r"Starting development server at (http://127\.0\.0\.1:\d+)")


def identify(pid: int) -> str | None:
    """What tells the process from any other that had or will have its number; None where it does not run."""
    proc = Path("/proc")
    if (proc / "self" / "stat").exists():
        return _identify_on_linux(proc, pid)
    return identify_with_ps(pid)


def _identify_on_linux(proc: Path, pid: int) -> str | None:
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    state, ticks_since_boot = fields[0], fields[19]
    if state in {"Z", "X"}:  # ended, though nobody took note
        return None
    boot = (proc / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
    return f"boot {boot} tick {ticks_since_boot}"


def identify_with_ps(pid: int) -> str | None:
    """`identify` where there is no ``/proc``, as on macOS."""
    ran = subprocess.run(
        ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C", "TZ": "UTC"},
        check=False,
    )
    state, _, started = ran.stdout.strip().partition(" ")
    return f"started {' '.join(started.split())}" if state and state[0] not in "ZX" else None


def launch(command: Sequence[str | Path], *, environment: Mapping[str, str], folder: Path, log: Path) -> int:
    """Starts a process that outlives this one and its terminal.

    Returns:
        Its number, which is that of its process group and session too.
    """
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    process.returncode = 0  # nobody here waits for it, and Python is not to warn of that
    return process.pid


def wait_until_it_answers(pid: int, identity: str, log: Path, progress: Progress) -> str:
    """Waits for the server's first answer.

    Returns:
        Where it answers, by what it says itself: it may have taken another port than asked for.

    Raises:
        ServerError: It ended, or it took too long.
    """
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        if identify(pid) != identity:
            raise ServerError(
                "Label Studio ended while starting",
                value=telling_line(_lines(log)),
                way_out=f"Its output is in {log}",
            )
        serves = _SERVES.search("\n".join(_lines(log)))
        if serves and answers(serves[1]):
            return serves[1]
        progress.advance(0)
        time.sleep(LOOK_EVERY_S)
    raise ServerError(
        f"Label Studio did not answer within {START_LIMIT_S:.0f} s",
        value=telling_line(_lines(log)),
        way_out=f"See {log}, and try again when the machine is less busy",
    )


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []


def answers(url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether a Label Studio there says that it is up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status == http.HTTPStatus.OK and b'"UP"' in response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end(pid: int, identity: str) -> None:
    """Ends the process and its group: asked first, and after a while made to. Nothing where it does not run.

    Raises:
        ServerError: It is still there.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            if identify(pid) != identity or os.getpgid(pid) != pid:
                return
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + PATIENCE_S
        while identify(pid) == identity and time.monotonic() < until:
            time.sleep(0.1)
    if identify(pid) == identity:
        raise ServerError("the server does not stop", value=f"process {pid}", way_out="Restart the machine.")
