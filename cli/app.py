"""The program: its commands, and what happens when one fails.

Exit codes: 0 done; 1 could not do it (one line on stderr: what, the value, the way out); 2 wrong usage (a
flag, a value or a combination that the command does not take); 130 interrupted. A bug keeps its traceback.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from labelloop import __version__
from labelloop.cli import (
    add,
    check,
    connect,
    demo,
    doctor,
    evaluate,
    export,
    forecast,
    init,
    loop,
    models,
    predict,
    pull,
    push,
    recipes,
    report,
    server,
    simulate,
    status,
    train,
)
from labelloop.cli.options import PROJECT_HELP, Invocation
from labelloop.cli.output import Remarks, print_error
from labelloop.errors import LabelloopError, OutputError, UsageError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
ORDER = (
    "demo", "init", "add", "check", "train", "evaluate", "predict", "server", "connect", "push", "pull",
    "loop", "forecast", "simulate", "export", "status", "report", "models", "recipes",
    "doctor",
)  # fmt: skip

# The state of the machine, not a bug: these may come from any write.
_MACHINE_ERRORS = {
    errno.ENOSPC: "Free space on the disk and run the same command again.",
    errno.EDQUOT: "Free some of your disk quota and run the same command again.",
    errno.EROFS: "The disk is read-only; choose a folder that you can write to.",
    errno.EACCES: "Make it readable and writable for yourself, or choose another place.",
    errno.EPERM: "Make it readable and writable for yourself, or choose another place.",
}


class Program(TyperGroup):
    """The root of the commands. Turns what is raised on purpose into one line or one JSON document."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs one command line and exits."""
        arguments = list(sys.argv[1:] if args is None else args)
        invocation = Invocation(as_json=_wants_json(arguments))
        if not invocation.as_json:
            return super().main(
                arguments,
                prog_name,
                complete_var,
                standalone_mode,
                windows_expand_args,
                obj=invocation,
                **extra,
            )
        try:
            code = super().main(arguments, prog_name, standalone_mode=False, obj=invocation, **extra)
        except typer.TyperException as error:  # wrong usage, which typer would print as text
            print_error(_wrong_usage(error), as_json=True)
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else DONE)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order in which a project meets them."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that the context names."""
        as_json = ctx.ensure_object(Invocation).as_json
        try:
            return super().invoke(ctx)
        except LabelloopError as error:
            print_error(error, as_json=as_json)
            raise typer.Exit(WRONG_USAGE if isinstance(error, UsageError) else FAILED) from error
        except KeyboardInterrupt as interrupt:
            print_error(_interrupted(interrupt), as_json=as_json)
            raise typer.Exit(INTERRUPTED) from interrupt
        except OSError as error:
            if error.errno not in _MACHINE_ERRORS:
                raise
            print_error(_of_the_machine(error), as_json=as_json)
            raise typer.Exit(FAILED) from error


def _wants_json(arguments: Sequence[str]) -> bool:
    before_dashes = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before_dashes


def _wrong_usage(error: typer.TyperException) -> UsageError:
    """Names the command and what is wrong: the rest of the command line may hold a password."""
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, str(context.info_name))
        context = context.parent
    what = re.sub(r"://.*@", "://...@", error.format_message())  # an argument that is quoted there
    return UsageError(what, value=" ".join(["labelloop", *names]), way_out="See its options with --help.")


def _interrupted(interrupt: KeyboardInterrupt) -> LabelloopError:
    """Passes on what the command said about how to continue, if anything."""
    way_out = str(interrupt) or "Nothing is lost; run the same command again."
    return LabelloopError("interrupted", way_out=way_out)


def _of_the_machine(error: OSError) -> LabelloopError:
    assert error.errno is not None
    return OutputError(
        os.strerror(error.errno).lower(), value=error.filename or "", way_out=_MACHINE_ERRORS[error.errno]
    )


app = typer.Typer(
    name="labelloop",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labelloop {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    project: Annotated[Path | None, typer.Option("--project", "-C", metavar="DIR", help=PROJECT_HELP)] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Instance segmentation for biology labs from few labels: guided distillation with people in the loop.

    A project goes through init, add images, add labels, check, train, evaluate and predict; people review
    its masks between connect, push and pull. See it at work in a few minutes, without data of your own:
    `labelloop demo`
    """
    ctx.ensure_object(Invocation).project = project


_add = typer.Typer(no_args_is_help=True, help="Add images or labels to the project.")
_add.command("images")(add.images)
_add.command("labels")(add.labels)

_server = typer.Typer(no_args_is_help=True, help="Run a local Label Studio, for labs that have none.")
_server.command("up")(server.up)
_server.command("down")(server.down)
_server.command("status")(server.status)

app.command("demo")(demo.demo)
app.command("init")(init.init)
app.add_typer(_add, name="add")
app.command("check")(check.check)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(_server, name="server")
app.command("connect")(connect.connect)
app.command("push")(push.push)
app.command("pull")(pull.pull)
app.command("loop")(loop.loop)
app.command("forecast")(forecast.forecast)
app.command("simulate")(simulate.simulate)
app.command("export")(export.export)
app.command("status")(status.status)
app.command("report")(report.report)
app.command("models")(models.models)
app.command("recipes")(recipes.recipes)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The program, where it has loaded; it begins in ``labelloop.__main__``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no command fails for a terminal's encoding
    # Read once, when the OpenMP runtime loads with torch: waiting threads sleep instead of spinning, which
    # costs 3 to 5 times the time on a machine where anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # Fabric announces its precision between the progress lines; the run's configuration holds it.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    remarks = logging.getLogger("labelloop")
    remarks.setLevel(logging.INFO)
    remarks.addHandler(Remarks())
    app()
