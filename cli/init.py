"""``labelloop init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from labelloop.cli.options import JsonOption, NewFolderOption, new_folder
from labelloop.cli.output import print_json, say
from labelloop.errors import UsageError


def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder of the new project; required, here or with -C."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="N", help="The project's name. Default: the folder's name."),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            "--classes",
            metavar="A[,B]",
            help="Names of the object classes, in order. Default: taken from the first labels added.",
        ),
    ] = "",
    pixel_size: Annotated[
        float | None,
        typer.Option(
            "--pixel-size", metavar="UM", help="µm per pixel, for images whose files do not give it."
        ),
    ] = None,
    project: NewFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a project.

    Example: `labelloop init my-screen --classes organoid --pixel-size 0.65`
    """
    from labelloop.project.starting import start_project

    root = new_folder(folder, project)
    if root is None:
        raise UsageError("no folder is given", way_out="Give one: labelloop init DIR")
    made = start_project(root, name=name, classes=classes, pixel_size_um=pixel_size)
    if as_json:
        config = made.config
        print_json(
            {
                "root": made.root,
                "name": config.name,
                "classes": config.classes,
                "pixel_size_um": config.pixel_size_um,
            }
        )
        return
    named = ", ".join(made.config.classes) or "taken from the first labels"
    say(f"Created the project {made.config.name} in {made.root} (classes: {named}).")
    say(f"Next: cd {shlex.quote(str(root))}, then labelloop add labels PATH and labelloop add images PATH.")
