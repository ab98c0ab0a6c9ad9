"""``labelloop pull``."""

from __future__ import annotations

from labelloop.cli.options import JsonOption, ProjectOption, open_project
from labelloop.cli.output import print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.plurals import plural


def pull(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Fetch corrections from Label Studio: all that changed since the last pull.

    What was done to every object is recorded, and every reviewed image gets new labels. Drafts are ignored;
    of several annotations of one task the one marked as ground truth counts, else the one changed last.

    Example: `labelloop pull`
    """
    opened = open_project(project)
    from labelloop.integrations.label_studio.pull import pull as pull_corrections

    with shown_progress() as progress:
        report = pull_corrections(opened, progress=progress)
    if as_json:
        print_json(report)
        return
    edits = ", ".join(f"{n} {kind}" for kind, n in report.edits.items() if n) or "no edits"
    say(
        f"{plural(report.annotations_new, 'new annotation')}, {report.annotations_changed} changed, "
        f"{report.annotations_gone} gone; {edits}; {report.minutes:.1f} minutes; "
        f"new labels for {plural(report.images, 'image')}",
        *(f"left out: {reason}" for reason in report.unusable),
        *([report.audit["verdict"]] if report.audit else []),
    )
