"""``labelloop demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labelloop.cli.options import JsonOption, NewFolderOption, new_folder
from labelloop.cli.output import headline, print_estimates, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.cli.train import show_training
from labelloop.durations import parse_duration
from labelloop.plurals import plural


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Folder for the demo. Default: labelloop-demo in the current folder."
        ),
    ] = None,
    time: Annotated[
        str, typer.Option("--time", metavar="8m", help="Approximate time for the whole demo.")
    ] = "8m",
    project: NewFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole path on synthetic organoid micrographs: project, training, prediction, pictures.

    Needs no data, server, network or GPU. If it is interrupted, the same command continues.

    Example: `labelloop demo --time 8m`
    """
    time_s = parse_duration(time)
    root = new_folder(folder, project)
    from labelloop.demo import demo as run_demo

    with shown_progress() as progress:
        result = run_demo(root, time_s=time_s, progress=progress)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    show_training(result["train"])
    made, test = result["micrographs"], result["test"]
    say("", f"On {plural(made['test'], 'test image')}, not used to choose anything, with 95 % intervals:")
    columns = {name: test[name] for name in ("supervised", "guided", "difference")}
    print_estimates(headline(columns), signed=["difference"])
    say(
        "",
        "Micrographs " + ", ".join(f"{count} {part}" for part, count in made.items()),
        f"Picture     {result['pictures'][0]} (truth, supervised and guided side by side)",
        f"Predictions {result['predictions']}",
        f"Project     {result['folder']} (look around with: labelloop status -C {result['folder']})",
    )
