"""The Python environment of the local Label Studio: apart from labelloop's, which it would not fit into."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.server_home import VERSION, ServerHome
from labelloop.progress import Progress, stage

MARK = "complete"  # written last: an environment without it is half made

# What would make pip install elsewhere, or reach the child without being needed there.
_NOT_FOR_PIP = {
    "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV",
    "LABEL_STUDIO_API_KEY", "PGPASSWORD",
}  # fmt: skip


def python_of(home: ServerHome) -> Path:
    """The environment's interpreter."""
    return home.environment / "bin" / "python"


def environment_is_complete(home: ServerHome) -> bool:
    """Whether the environment was made to its end and its Python still finds Label Studio.

    It no longer does after the Python that it was made with was upgraded or removed.
    """
    if not (home.environment / MARK).is_file() or not python_of(home).exists():
        return False
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('label_studio') is None)"
    return subprocess.run([python_of(home), "-I", "-c", look], check=False).returncode == 0


def make_environment(home: ServerHome, progress: Progress) -> None:
    """Makes the environment where there is none, or one that was left half made.

    Raises:
        ServerError: Python has no venv, or pip could not install Label Studio.
    """
    if environment_is_complete(home):
        return
    if home.environment.is_symlink():
        home.environment.unlink()
    elif home.environment.exists():
        shutil.rmtree(home.environment)
    home.root.mkdir(parents=True, exist_ok=True)
    with stage(progress, f"Label Studio {VERSION}: packages, once, 1 GB", 0):
        _run(
            [sys.executable, "-P", "-m", "venv", str(home.environment)],
            progress,
            what="an environment for Label Studio could not be made",
            way_out="Install Python's venv module (python3-venv on Debian and Ubuntu) and run it again.",
        )
        _run(
            [
                str(python_of(home)), "-P", "-m", "pip", "install", "--no-input",
                "--disable-pip-version-check", "--progress-bar", "off", f"label-studio=={VERSION}",
            ],
            progress,
            what="Label Studio could not be installed",
            way_out="Check the network, the free disk space and pip's settings, and run it again.",
        )  # fmt: skip
        (home.environment / MARK).write_text(f"label-studio {VERSION}\n", encoding="ascii")


def _run(command: Sequence[str], progress: Progress, *, what: str, way_out: str) -> None:
    """Runs one step; every package that it names is a step of the progress."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_PIP}
    last: deque[str] = deque(maxlen=30)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        close_fds=False,  # see only_one
        text=True,
        errors="replace",
    )
    with process:
        ended = False
        try:
            for line in process.stdout or ():
                last.append(line)
                for package in _collected(line):
                    progress.advance(1, package=package)
            ended = True
        finally:
            if not ended:
                process.terminate()
    if process.returncode != 0:
        raise ServerError(what, value=telling_line(last), way_out=way_out)


def _collected(line: str) -> Iterator[str]:
    package = re.match(r"Collecting ([\w.-]+)", line)
    if package:
        yield package[1]
    elif line.startswith("Installing collected packages"):
        yield "(unpacking)"


def telling_line(lines: Sequence[str]) -> str:
    """The last line that names an error, or else the last line that says anything."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if "error" in line.split(":")[0].lower()]
    return (errors or said or ["it printed nothing"])[-1]
