"""``labelloop check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, print_table, say
from labelloop.cli.progress import shown_progress

if TYPE_CHECKING:
    from labelloop.data.checks.findings import CheckReport

SHOWN_PER_KIND = 10  # a screen; --json has them all


def check(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Look for what spoils training or makes its numbers look better than they are.

    Unreadable, blank, saturated and duplicate images; the same image, a piece of it or its group in two
    splits; masks that are empty, tiny, off the image or there twice. Findings are answers: exit code 0.

    Example: `labelloop check`
    """
    from labelloop.data.checks.check import check_project

    opened = open_project(project)
    with shown_progress() as progress:
        report = check_project(opened, progress=progress)
    if as_json:
        print_json(report)
    else:
        _show(report)


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
