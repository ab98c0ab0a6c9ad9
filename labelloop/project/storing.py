"""Inside the one transaction of an act of adding: new revisions, new classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.errors import LabelloopError, ProjectError
from labelloop.formats.records import SkippedFile
from labelloop.instances import Instances
from labelloop.project.config import FILE_NAME, read_config, write_config
from labelloop.project.known_images import KnownImages
from labelloop.project.ledger import decode_instances, encode_instances, rows_with
from labelloop.project.project import Project
from labelloop.project.reading import ReadFile
from labelloop.project.tables import ImageRow, LabelRow, is_newest_label

FileState = Literal["added", "known", "revised"]


@dataclass(frozen=True, kw_only=True)
class UsedFile:
    """An image file that an act of adding could use.

    Attributes:
        path: Absolute.
        state: ``added``, new to the project; ``known``, it had the image, and what labels there are say
            nothing new; ``revised``, it had the image, which got labels or other labels.
    """

    path: str
    state: FileState


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFile:
    """An image file with its labels in the project's classes.

    Attributes:
        image: The file.
        labels: Its objects.
        void: Run lengths of what nobody may be judged by, or None.
    """

    image: ReadFile
    labels: Instances
    void: bytes | None = None

    def with_void(self, n_classes: int) -> LabelledFile:
        """The same for an image that is measured: what is void is a crowd of every class."""
        if self.void is None:
            return self
        labels = Instances(
            size_hw=self.labels.size_hw,
            rles=(*self.labels.rles, *[self.void] * n_classes),
            labels=np.concatenate([self.labels.labels, np.arange(n_classes)]),
            crowd=np.concatenate([self.labels.crowd, np.ones(n_classes, np.bool_)]),
        )
        return replace(self, labels=labels)


class Revisions:
    """Writes labels as new revisions where they say something new, and counts.

    Attributes:
        files: Those whose labels were taken, and what became of their images.
        objects: Objects in the revisions written.
        crowds: Areas marked as crowd in them.
        empty: Revisions without an object.
        skipped: Second labels for one image.
    """

    def __init__(self, session: Session, known: KnownImages, source: str) -> None:
        self._session = session
        self._known = known
        self._source = source
        self._taken: dict[ImageRow, LabelledFile] = {}
        self._newest = newest_labels(session, known.ids)
        self.objects = self.crowds = self.empty = 0
        self.files: list[UsedFile] = []
        self.skipped: list[SkippedFile] = []

    def take(self, row: ImageRow, item: LabelledFile) -> None:
        """Stores the labels of an image that has its id already."""
        first = self._taken.setdefault(row, item)
        if first is not item:
            differ = "" if same_objects(first.labels, item.labels) else ", and its labels differ"
            reason = f"it is the same image as {first.image.path}, whose labels were taken{differ}"
            self.skipped.append(SkippedFile(path=str(item.image.path), reason=reason))
            return
        is_old = self._known.is_old(row)
        revision, labels = self._newest.get(row.id, (0, None)) if is_old else (0, None)
        if labels is not None and same_objects(labels, item.labels):
            self._note(item, "known")
            return
        n_objects = int((~item.labels.crowd).sum())
        self._session.add(
            LabelRow(
                image_id=row.id,
                revision=revision + 1,
                source=self._source,
                n_objects=n_objects,
                instances=encode_instances(item.labels),
            )
        )
        self._note(item, "revised" if is_old else "added")
        self.objects += n_objects
        # What is void is a crowd of every class, and still one area.
        self.crowds += len(
            {rle for rle, crowd in zip(item.labels.rles, item.labels.crowd, strict=True) if crowd}
        )
        self.empty += n_objects == 0

    def _note(self, item: LabelledFile, state: FileState) -> None:
        self.files.append(UsedFile(path=str(item.image.path), state=state))


class NewClasses:
    """New class names in labelloop.toml: written just before the ledger commits, taken back if it cannot.

    If the process dies in between, the names stand there without labels, which the next act finds right.
    """

    def __init__(self, project: Project, classes: tuple[str, ...]) -> None:
        self._project = project
        self._classes = classes
        self._before = project.config

    def write(self) -> None:
        """Writes the names, if they are new. Called while the ledger is locked for writing."""
        if self._classes == self._before.classes:
            return
        path = self._project.root / FILE_NAME
        self._project.config = read_config(path)
        if self._project.config.classes not in (self._before.classes, self._classes):
            raise ProjectError(
                "the classes were changed by another command", value=path, way_out="Add the labels again."
            )
        self._before = self._project.config
        try:
            self._project.set_classes(self._classes)
        except OSError as error:
            raise ProjectError(
                f"labelloop.toml cannot be written ({error.strerror})",
                value=path,
                way_out="Nothing was added. Free space or make the folder writable, then add again.",
            ) from error

    def __enter__(self) -> NewClasses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        # Only where the ledger is known to hold nothing of the act: an interrupt may come after the commit.
        if isinstance(error, LabelloopError) and self._project.config != self._before:
            self._project.config = self._before
            path = self._project.root / FILE_NAME
            try:
                write_config(path, self._before)
            except OSError as fault:
                error.add_note(f"labelloop.toml keeps the new classes ({fault.strerror})")


def newest_labels(session: Session, image_ids: Sequence[int]) -> dict[int, tuple[int, Instances]]:
    """Newest revision and labels by image id."""
    statement = select(LabelRow.image_id, LabelRow.revision, LabelRow.instances).where(is_newest_label())
    rows = rows_with(session, statement, LabelRow.image_id, image_ids)
    return {image_id: (revision, decode_instances(stored)) for image_id, revision, stored in rows}


def same_objects(one: Instances, other: Instances) -> bool:
    """Whether both hold the same objects, in whatever order."""

    def objects(instances: Instances) -> list[tuple[bytes, int, bool]]:
        return sorted(zip(instances.rles, instances.labels.tolist(), instances.crowd.tolist(), strict=True))

    return one.size_hw == other.size_hw and objects(one) == objects(other)
