"""``labelloop add images`` and ``labelloop add labels``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from labelloop.cli.options import JsonOption, ProjectOption, SplitOption, open_project
from labelloop.cli.output import print_json, say, to_stderr
from labelloop.cli.progress import shown_progress
from labelloop.errors import ImageError
from labelloop.plurals import plural

if TYPE_CHECKING:
    from labelloop.project.adding import AddReport

GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="folder|REGEX",
        help="Which images belong together (plate, donor, culture): those in one folder, or those for which "
        "this pattern finds the same text in the path (its first bracketed group, if it has one). Labels "
        "are drawn one group after another, and intervals draw whole groups.",
    ),
]
ChannelOption = Annotated[
    int | None,
    typer.Option(
        "--channel",
        metavar="C",
        min=0,
        help="Channel to use, counted from 0. Default: all of an RGB image, else the first channel.",
    ),
]
PageOption = Annotated[
    int | None,
    typer.Option(
        "--page", metavar="P", min=0, help="Page of a stack to use, counted from 0. Default: the first."
    ),
]


def images(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Image files, folders or globs.")],
    group_by: GroupOption = None,
    channel: ChannelOption = None,
    page: PageOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add images to the pool; known ones are recognised by their content.

    Files that cannot be used are listed with the reason; the others are added.

    Example: `labelloop add images plates/ --group-by folder`
    """
    from labelloop.project.adding import add_images

    opened = open_project(project)
    with shown_progress() as progress:
        report = add_images(opened, paths, group_by=group_by, channel=channel, page=page, progress=progress)
    _print_report(report, as_json=as_json)


def labels(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A COCO file, a JSON export of Label Studio, or a folder of labels."
        ),
    ],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|NAME",
            help="The annotation format: coco, label-image, mask-folder, label-studio, cityscapes, ade20k, "
            "orgasegment or yolo. auto recognises it from PATH (not orgasegment).",
        ),
    ] = "auto",
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="DIR", help="Folder of the images. Default: beside the labels."),
    ] = None,
    split: SplitOption = None,
    group_by: GroupOption = None,
    channel: ChannelOption = None,
    page: PageOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add annotations, and their images where these are new.

    Labels for an image that has some become its new revision; the old ones are kept.

    Example: `labelloop add labels train.json --images train/`
    """
    from labelloop.integrations.label_studio.export import READER
    from labelloop.project.adding import LabelSource, add_labels

    opened = open_project(project)
    with shown_progress() as progress:
        report = add_labels(
            opened,
            LabelSource(path=path, format=format_name, images=images, readers=[READER]),
            split=None if split is None else split.value,
            group_by=group_by,
            channel=channel,
            page=page,
            progress=progress,
        )
    _print_report(report, as_json=as_json)


def _print_report(report: AddReport, *, as_json: bool) -> None:
    """Prints what was added and what was not; exits 1 where nothing of what was given could be used."""
    from labelloop.formats.records import first_reasons

    document = asdict(report)
    failed = not (report.added or report.known or report.revised)
    if failed:
        nothing = ImageError(
            "nothing could be added",
            value=first_reasons(report.skipped) or "there are no images in the paths given",
            way_out="Fix these files or name others.",
        )
        document["error"] = nothing.as_dict()
    if as_json:
        print_json(document)
    else:
        for skipped in report.skipped:
            to_stderr().print(f"skipped {skipped.path}: {skipped.reason}", soft_wrap=True, markup=False)
        if failed:
            said = f"{nothing.what}. {nothing.way_out}" if report.skipped else str(nothing)
            to_stderr().print(said, soft_wrap=True, markup=False)
        say(_summary(report))
    if failed:
        raise typer.Exit(1)


def _summary(report: AddReport) -> str:
    parts = [f"{report.added} added"]
    if report.revised:
        parts.append(f"{report.revised} with a new label revision")
    if report.known:
        parts.append(f"{report.known} already known")
    if report.moved:
        parts.append(f"{report.moved} moved from another split")
    if report.skipped:
        parts.append(f"{len(report.skipped)} skipped")
    held = [plural(report.objects, "object")] if report.objects or report.crowds else []
    if report.crowds:
        areas = plural(report.crowds, "area marked as crowd, which is", "areas marked as crowd, which are")
        held.append(f"{areas} neither learnt nor measured")
    objects = f" ({', '.join(held)})" if held else ""
    if report.empty:
        objects += f"; {report.empty} without any object"
    return f"Images: {', '.join(parts)}{objects}."
