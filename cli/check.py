"""``labelloop check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, print_table, say
from labelloop.cli.progress import shown_progress
from labelloop.plurals import plural

if TYPE_CHECKING:
    from labelloop.data.checks.findings import CheckReport

SHOWN_PER_KIND = 10  # a screen; --json has them all
SHOWN_NAMES = 3  # of the images of one finding; a group may have thousands


def check(
    labels: Annotated[
        bool,
        typer.Option("--labels", metavar="", help="Also look for annotation errors; this trains models."),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for problems that spoil training or make its numbers look better than they are.

    Unreadable, changed, blank, saturated and duplicate images; the same image, a piece of it or its group in
    two splits; masks that are empty, tiny, outside the image or duplicated. The exit code is 0 whatever is
    found.

    With `--labels` it also lists objects that are probably missed, spurious, merged, split, sloppily drawn or
    of the wrong class: places where models that were not trained on an image disagree with its labels, the
    most suspicious first. Five models are trained, which takes about half an hour on two cores; the same
    command continues an interrupted check.

    Examples: `labelloop check` and `labelloop check --labels`
    """
    from labelloop.data.checks.check import check_project

    opened = open_project(project)
    with shown_progress() as progress:
        report = check_project(opened, progress=progress)
        suspects = None
        if labels:
            from labelloop.label_errors import suspects_of

            suspects = suspects_of(opened, progress)
    if as_json:
        print_json(report.as_dict() if suspects is None else {**report.as_dict(), "suspects": suspects})
        return
    _show(report)
    if suspects is not None:
        _show_suspects(suspects)


def _show_suspects(suspects: list[dict[str, Any]]) -> None:
    shown = suspects[: max(SHOWN_PER_KIND, len(suspects) // 10)]
    say("", f"{len(shown)} of {plural(len(suspects), 'place')}, the most suspicious first:")
    print_table(
        ["score", "what", "image", "at x, y", "area"],
        [
            [
                f"{suspect['score']:.2f}",
                suspect["kind"],
                suspect["file_name"],
                ", ".join(f"{value:.0f}" for value in suspect["at_xy"]),
                f"{suspect['area_px']} px",
            ]
            for suspect in shown
        ],
    )


def _show(report: CheckReport) -> None:
    rows = []
    for kind, count in report.counts.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        rows += [[f.severity, kind, _some(f.images), f.message] for f in found[:SHOWN_PER_KIND]]
        if count > SHOWN_PER_KIND:
            rows.append(["", kind, f"and {count - SHOWN_PER_KIND} more", "--json lists them all"])
    if rows:
        print_table(["", "what", "images", ""], rows)
        say("")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items()) or "nothing found"
    checked = plural(report.images_checked, "image")
    say(f"Checked {checked} and the labels of {report.labels_checked}: {counts}.")


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
