"""Which run is meant: names of new runs, the run to go on with, and one process per run."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelloop.distill.asked_labels import word_for
from labelloop.errors import OutputError, TrainingError, UsageError
from labelloop.locks import wait_for_lock
from labelloop.progress import Progress
from labelloop.project.project import Project, RunRecord
from labelloop.runs.files import RunFiles

if TYPE_CHECKING:
    from labelloop.distill.request import TrainRequest

_NAME = re.compile(r"[^\W_][\w.+= -]{0,99}")  # one folder, on every file system
_NOT_COMPARED = frozenset(("name", "resume", "device", "devices"))


def check_name(name: str) -> None:
    """Raises a UsageError for a name that cannot be a folder of its own under runs/."""
    if not _NAME.fullmatch(name) or name != name.strip(" ."):
        raise UsageError(
            "a run cannot have this name",
            value=repr(name),
            way_out="Use up to 100 letters, digits, spaces and . _ - + =, with a letter or digit first.",
        )


def run_stem(request: TrainRequest) -> str:
    """What generated names of such a run begin with; a number follows."""
    return f"{request.method}-{word_for(request.labels)}-s{request.seed}"


def free_name(project: Project, stem: str) -> str:
    """A generated name that no run or folder has now, for callers that need it before the run begins."""
    known = {run.name for run in project.runs()}
    names = (f"{stem}-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in known and not (project.runs_dir / name).exists())


@contextmanager
def run_begins(project: Project, progress: Progress) -> Iterator[None]:
    """Keeps other processes from beginning a run, from before its folder is made until it is stored.

    Raises:
        OutputError: The project cannot be written.
    """
    path = project.root / ".labelloop" / "runs.lock"
    try:
        lock = path.open("w")
    except OSError as error:
        raise OutputError(
            f"the project cannot be written ({error.strerror})",
            value=path,
            way_out="Free space or make the project folder writable.",
        ) from error
    with lock:
        wait_for_lock(lock, progress, "waiting for another run of this project to begin")
        yield


def make_run_folder(project: Project, name: str | None, stem: str) -> str:
    """Makes the folder of a new run, inside ``run_begins``; returns the run's name.

    A named folder that a killed process has left before its run was stored is taken again.

    Args:
        project: Where the run belongs.
        name: As asked for; None to generate one.
        stem: Generated names are the stem and a number.

    Raises:
        UsageError: There is a run of this name, or a folder that holds something.
        OutputError: The folder cannot be made.
    """
    known = {run.name for run in project.runs()}  # some without a folder, where a person deleted it
    if name in known:
        raise name_taken(name)
    for number in itertools.count(1):
        chosen = name or f"{stem}-{number}"
        if chosen in known:
            continue
        folder = project.runs_dir / chosen
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if name is None:
                continue
            if not _only_begun(folder):
                raise UsageError(
                    "a folder of this name is there already, but no such run",
                    value=folder,
                    way_out="Choose another name, or move that folder away.",
                ) from error
        except OSError as error:
            raise OutputError(
                f"the folder of the run cannot be made ({error.strerror})",
                value=folder,
                way_out="Free space or make the project folder writable.",
            ) from error
        return chosen
    raise AssertionError("numbers do not end")


def _only_begun(folder: Path) -> bool:
    """Whether a folder holds no more than what is written there before its run is stored."""
    if not folder.is_dir():
        return False
    configuration = RunFiles(folder=folder).config
    return all(path == configuration or path.suffix == ".partial" for path in folder.iterdir())


def name_taken(name: str) -> UsageError:
    """The error where a new run would have the name of another."""
    return UsageError(
        "a run of this name exists already",
        value=name,
        way_out="Choose another name, or continue that run with --resume.",
    )


def run_to_resume(project: Project, request: TrainRequest) -> RunRecord:
    """The named run, or the newest unfinished one.

    Raises:
        UsageError: There is no run of this name, or it was started with other settings than this request has.
        TrainingError: No run is unfinished.
    """
    if request.name is not None:
        run = project.run(request.name)
    else:
        unfinished = project.unfinished_runs()
        if not unfinished:
            raise TrainingError(
                "there is no unfinished run", value=project.root, way_out="Leave --resume out to start one."
            )
        run = unfinished[-1]
    _require_same_request(project, run, request)
    return run


def _require_same_request(project: Project, run: RunRecord, request: TrainRequest) -> None:
    """What a request leaves at its default is not held against the run."""
    stored: Mapping[str, Any] = run.config.get("request", {})
    contradictions = [
        f"{field.name.removesuffix('_s')} {getattr(request, field.name)} instead of {stored[field.name]}"
        for field in dataclasses.fields(request)
        if field.name in stored
        and field.name not in _NOT_COMPARED
        and getattr(request, field.name) not in (field.default, stored[field.name])
    ]
    if contradictions:
        raise UsageError(
            f"the run {run.name} was started with other settings",
            value=", ".join(contradictions),
            way_out=f"Continue it with {project.resume_command(run.name, Path.cwd())}, or leave --resume out"
            " to start another run.",
        )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other processes from training the same run; the claim ends with the process, however it ends.

    Raises:
        TrainingError: Another process trains it.
        OutputError: The folder cannot be written.
    """
    try:
        lock = (folder / ".lock").open("w")
    except FileNotFoundError:  # reading the run's configuration says what is missing
        yield
        return
    except OSError as error:
        raise OutputError(
            f"the run's folder cannot be written ({error.strerror})",
            value=folder,
            way_out="Make it writable, then run the same command with --resume.",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                "another process is training this run",
                value=folder.name,
                way_out="Wait for it, or start another run.",
            ) from error
        yield
