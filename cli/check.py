"""``labelloop check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, print_table, say
from labelloop.cli.progress import shown_progress

if TYPE_CHECKING:
    from labelloop.data.checks.findings import CheckReport

SHOWN_PER_KIND = 10  # a screen; --json has them all


def check(
    labels: Annotated[
        bool,
        typer.Option("--labels", metavar="", help="Look for annotation errors too; trains models first."),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what spoils training or makes its numbers look better than they are.

    Unreadable, blank, saturated and duplicate images; the same image, a piece of it or its group in two
    splits; masks that are empty, tiny, off the image or there twice. Findings are answers: exit code 0.

    With `--labels` also objects that were missed, drawn where there is none, merged, split, drawn sloppily or
    given the wrong class: where models that did not learn an image disagree with its labels, the most
    suspicious first. Five models are trained, about half an hour on two cores; an interrupted check goes on.

    Examples: `labelloop check` and `labelloop check --labels`
    """
    from labelloop.data.checks.check import check_project

    opened = open_project(project)
    with shown_progress() as progress:
        report = check_project(opened, progress=progress)
        suspects = None
        if labels:
            from labelloop.data.label_errors import suspects_of

            suspects = suspects_of(opened, progress)
    if as_json:
        print_json(report.as_dict() if suspects is None else {**report.as_dict(), "suspects": suspects})
        return
    _show(report)
    if suspects is not None:
        _show_suspects(suspects)


def _show_suspects(suspects: list[dict[str, Any]]) -> None:
    shown = suspects[: max(SHOWN_PER_KIND, len(suspects) // 10)]
    say("", f"{len(shown)} of {len(suspects)} places, the most suspicious first:")
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
        rows += [[f.severity, kind, ", ".join(f.images), f.message] for f in found[:SHOWN_PER_KIND]]
        if count > SHOWN_PER_KIND:
            rows.append(["", kind, f"and {count - SHOWN_PER_KIND} more", "--json lists them all"])
    if rows:
        print_table(["", "what", "images", ""], rows)
        say("")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items()) or "nothing found"
    say(f"{report.images_checked} images and the labels of {report.labels_checked} looked at: {counts}.")
