"""The options that every command has, and what they become."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelloop.errors import UsageError

if TYPE_CHECKING:
    from labelloop.project.project import Project

PROJECT_HELP = "The project's folder. Default: the nearest one, from here upward, that holds labelloop.toml."


@dataclass
class Invocation:
    """What one call of the program has before its command is known."""

    as_json: bool = False
    project: Path | None = None


def _or_of_the_program(ctx: typer.Context, value: Path | None) -> Path | None:
    """``labelloop -C DIR status`` means ``labelloop status -C DIR``."""
    return value if value is not None else ctx.ensure_object(Invocation).project


ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", "-C", metavar="DIR", callback=_or_of_the_program, help=PROJECT_HELP),
]
NewFolderOption = Annotated[
    Path | None,
    typer.Option(
        "--project", "-C", metavar="DIR", callback=_or_of_the_program, help="The new folder, in place of DIR."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document on stdout; messages go to stderr.")
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Name of the run to use. Default: the newest finished one. Its promoted model is used.",
    ),
]
MinScoreOption = Annotated[
    str,
    typer.Option(
        "--min-score",
        metavar="auto|X",
        help="Ignore objects scored lower. auto: the run's score threshold, which has the best F1 on its"
        " validation images or out of fold; 0.5 without such images.",
    ),
]


class Split(StrEnum):
    """Where an image belongs."""

    train = "train"
    val = "val"
    test = "test"


SplitOption = Annotated[
    Split | None,
    typer.Option(
        "--split",
        help="The split of these images; known images are moved to it. Default: new images go to train,"
        " known ones stay where they are.",
    ),
]


def open_project(project: Path | None) -> Project:
    """The project that is named, or else the nearest one upward.

    Raises:
        ProjectError: There is none, or its files cannot be used.
    """
    from labelloop.project.project import Project

    return Project.find(Path.cwd()) if project is None else Project.open(project)


def new_folder(folder: Path | None, project: Path | None) -> Path | None:
    """The one folder that a command which makes a project is given, as DIR or with -C.

    Raises:
        UsageError: Two are given.
    """
    if folder is not None and project is not None:
        raise UsageError(
            "the folder is named twice",
            value=f"{folder} and {project}",
            way_out="Give DIR alone, without -C.",
        )
    return folder if folder is not None else project


def parse_min_score(text: str) -> float | None:
    """``--min-score``: None for ``auto``.

    Raises:
        UsageError: Neither auto nor a number in 0..1.
    """
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(
            "this is not a score", value=text, way_out="--min-score takes auto or a number from 0 to 1."
        )
    return value
