"""Adding images and labels to a project.

Everything is read and checked first, outside any transaction; then one transaction stores the whole act.
Whatever interrupts it, the ledger holds all of the act or nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.errors import ProjectError, UsageError
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.plurals import plural
from labelloop.progress import Progress, Silent
from labelloop.project.classes import keep_classes
from labelloop.project.finding import find_files
from labelloop.project.grouping import Grouping
from labelloop.project.known_images import KnownImages, look_at_known
from labelloop.project.label_source import LabelSource
from labelloop.project.matching import with_images
from labelloop.project.project import SPLITS, Project
from labelloop.project.reading import ReadFile, read_files
from labelloop.project.storing import NewClasses, Revisions, UsedFile
from labelloop.project.tables import ImageRow

__all__ = ["UNNAMED_CLASS", "AddReport", "LabelSource", "SkippedFile", "add_images", "add_labels"]

UNNAMED_CLASS = "object"  # the class of labels without names in a project without classes

_SILENT: Progress = Silent()


@dataclass(frozen=True, kw_only=True)
class AddReport:
    """What one act of adding did.

    Attributes:
        added: Images that are new to the project.
        known: Images that the project had, and whose labels, if there were any, say nothing new.
        revised: Images that the project had, and that got labels or other labels.
        objects: Objects in the label revisions that were written.
        crowds: Areas marked as crowd in them: neither learnt nor measured.
        moved: Images that the project had in another split.
        files: The image files that could be used, and what became of each.
        skipped: What could not be used, with reasons.
        empty: Images that were labelled now as holding no object.
        replaced: Images of the project whose paths hold other files now, which the act has added or knew.
    """

    added: int = 0
    known: int = 0
    revised: int = 0
    objects: int = 0
    crowds: int = 0
    moved: int = 0
    files: tuple[UsedFile, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    empty: int = 0
    replaced: int = 0


def add_images(
    project: Project,
    paths: Sequence[str],
    *,
    group_by: str | None = None,
    channel: int | None = None,
    page: int | None = None,
    split: str | None = None,
    progress: Progress = _SILENT,
) -> AddReport:
    """Adds images to the pool.

    Images are recognised by their file's content, page and channel. A known one is not doubled: it gets its
    new path if the old one is gone, and its new group if ``group_by`` is given. An image whose path holds
    another file now is replaced: it stays in the ledger with all that is known of it, and is used no more.

    Args:
        project: Where to.
        paths: Folders (with the folders in them), globs or files.
        group_by: ``folder`` for the folder that a file lies in, by as much of the end of its path as tells it
            from other folders, or a regular expression that is searched in the file's name, then in its path;
            its first group, else the whole match, counts.
        channel: Channel of multi-channel images, from 0; None for RGB as it is or the first channel. Where
            neither it nor a page is given, a file of which some page or channel is known is known.
        page: Page of stacks, from 0; None for the first.
        split: train, val or test, of new images; None for that of the image which one replaces, else train.
        progress: Is told of each file.

    Raises:
        UsageError: ``group_by`` or ``split`` cannot be used.
        ProjectError: The ledger cannot be written; nothing was added.
    """
    if split is not None:
        _require_split(split)
    grouping = Grouping.asked(group_by)
    found = find_files(paths, leave_out=[project.runs_dir, project.curves_dir])
    named = page is not None or channel is not None
    wanted = (page or 0, -1 if channel is None else channel)
    read, unusable = read_files(found.files, page=wanted[0], channel=wanted[1], progress=progress)
    files: list[UsedFile] = []
    replaced = 0
    if read:
        look_at_known(project, read, progress)
        with project.ledger.write() as session:
            known = KnownImages(project, session, read)
            rows_of = known.exact if named else known.of_file
            placed: list[tuple[ImageRow, Path]] = []
            for image in read:
                rows = rows_of(image)
                files.append(UsedFile(path=str(image.path), state="known" if rows else "added"))
                placed += [(row, image.path) for row in rows or [known.add(image, split)]]
            if grouping is not None:
                grouping.apply(project, session, placed, progress)
            replaced = known.replaced
        _note_replaced(replaced, progress)
    return _report(files, skipped=(*found.skipped, *unusable), replaced=replaced)


def add_labels(
    project: Project,
    source: LabelSource,
    *,
    group_by: str | None = None,
    channel: int | None = None,
    page: int | None = None,
    split: str | None = None,
    progress: Progress = _SILENT,
) -> AddReport:
    """Adds annotations, and their images where these are new.

    Labels for an image that has some become its next revision; the very same labels change nothing. A project
    without classes takes those of the annotations, in their order.

    Args:
        project: Where to.
        source: Where the annotations lie, and where their images do.
        group_by: As in ``add_images``.
        channel: As in ``add_images``. Where neither it nor a page is given, labels of a file of which one
            channel or page was added are for that one.
        page: As in ``add_images``; None for the first.
        split: train, val or test; None leaves known images where they are and puts new ones into train.
        progress: Is told of each image.

    Raises:
        UsageError: An argument cannot be used; nothing was added.
        FormatError: The annotations cannot be read.
        ProjectError: The annotations have classes that the project lacks, the ledger or labelloop.toml cannot
            be written, or the classes have changed meanwhile; nothing was added.
    """
    if split is not None:
        _require_split(split)
    grouping = Grouping.asked(group_by)
    classes, label_set = _in_classes(source.read(), project.config.classes, source.path)
    wanted = (page or 0, -1 if channel is None else channel)
    named = page is not None or channel is not None
    labelled, skipped = with_images(project, source, label_set, wanted, progress)
    if not labelled:
        return AddReport(skipped=(*label_set.skipped, *skipped))
    files = [item.image for item in labelled]
    look_at_known(project, files, progress)
    with NewClasses(project, classes) as new_classes, project.ledger.write() as session:
        keep_classes(session, classes)
        known = KnownImages(project, session, files)
        revisions = Revisions(session, known, f"{label_set.format}:{source.place}")
        rows = [_row_for_labels(known, item.image, split, named=named) for item in labelled]
        if grouping is not None:
            placed = [(row, item.image.path) for row, item in zip(rows, labelled, strict=True)]
            grouping.apply(project, session, placed, progress)
        session.flush()  # now new images have their ids
        for row, item in zip(rows, labelled, strict=True):
            revisions.take(row, item if row.split == "train" else item.with_void(len(classes)))
        session.flush()
        new_classes.write()
    _note_replaced(known.replaced, progress)
    return _report(
        revisions.files,
        moved=known.moved,
        objects=revisions.objects,
        crowds=revisions.crowds,
        skipped=(*label_set.skipped, *skipped, *revisions.skipped),
        empty=revisions.empty,
        replaced=known.replaced,
    )


def _report(files: Sequence[UsedFile], **facts: Any) -> AddReport:
    """With the numbers of files in each state."""
    states = Counter(file.state for file in files)
    return AddReport(
        added=states["added"],
        known=states["known"],
        revised=states["revised"],
        files=tuple(files),
        **facts,
    )


def _row_for_labels(known: KnownImages, image: ReadFile, split: str | None, *, named: bool) -> ImageRow:
    rows = known.exact(image) if named else known.for_labels(image)
    if not rows:
        return known.add(image, split)
    known.moved += split is not None and any(row.split != split for row in rows)
    for row in rows:
        row.split = split or row.split
    return rows[0]


def _note_replaced(replaced: int, progress: Progress) -> None:
    if replaced:
        images = plural(
            replaced,
            "image was replaced by another file of the same path; what was known of it",
            "images were replaced by other files of the same path; what was known of them",
        )
        progress.note(f"note: {images} stays in the ledger, and is used no more")


def _in_classes(label_set: LabelSet, classes: tuple[str, ...], path: str) -> tuple[tuple[str, ...], LabelSet]:
    """The project's classes afterwards, and the same with labels that index them."""
    if label_set.classes is None:
        if len(classes) > 1:
            raise ProjectError(
                "these labels have no class names, but the project has several classes",
                value=", ".join(classes),
                way_out="Add labels that name their classes, as COCO does, or use a project with one class.",
            )
        return classes or (UNNAMED_CLASS,), label_set
    names = label_set.classes
    if not classes:
        return names, label_set
    used = {int(label) for record in label_set.records for label in np.unique(record.instances.labels)}
    used |= {outline.label for record in label_set.records for outline in record.outlines}
    unknown = [names[label] for label in sorted(used) if names[label] not in classes]
    if unknown:
        raise ProjectError(
            f"{path} has classes that the project does not have",
            value=", ".join(unknown),
            way_out=f"Append them to the classes in labelloop.toml ({', '.join(classes)}), or rename them.",
        )
    position = np.asarray([classes.index(name) if name in classes else -1 for name in names], np.int64)
    records = tuple(_with_labels(record, position) for record in label_set.records)
    return classes, replace(label_set, records=records)


def _with_labels(record: LabelledImage, position: npt.NDArray[np.int64]) -> LabelledImage:
    """The record with other class indices."""
    return replace(
        record,
        instances=replace(record.instances, labels=position[record.instances.labels]),
        outlines=tuple(replace(o, label=int(position[o.label])) for o in record.outlines),
    )


def _require_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError("there is no such split", value=split, way_out=f"Splits: {', '.join(SPLITS)}.")
