"""What must hold before a review goes on: nobody else is at it, and the classes are as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from labelloop.errors import ProjectError
from labelloop.locks import wait_for_lock
from labelloop.progress import Progress
from labelloop.project.project import Project
from labelloop.project.tables import Meta

_CLASSES = "review:classes"  # in the ledger: what class indices meant when the newest round was planned


@contextmanager
def alone(project: Project, progress: Progress) -> Iterator[None]:
    """Waits until no other labelloop pushes or pulls this project, and keeps others out during the block.

    Two pushes at once would send a task twice, and of two pulls at once the one that looked first could be
    the one that stores last. The lock ends with the process, however it ends.

    Raises:
        ProjectError: The project's folder cannot be written.
    """
    path = project.root / ".labelloop" / "review.lock"
    try:
        lock = path.open("w")
    except OSError as error:
        raise ProjectError(
            f"the project cannot be written ({error.strerror})",
            value=path,
            way_out="Make the project folder writable.",
        ) from error
    with lock:
        wait_for_lock(lock, progress, "Another labelloop is pushing or pulling this project; waiting for it.")
        yield


def remember_classes(session: Session, classes: tuple[str, ...]) -> None:
    """Notes what class indices mean, for ``check_classes``."""
    session.merge(Meta(key=_CLASSES, value=json.dumps(classes)))


def check_classes(project: Project) -> None:
    """Looks whether class indices still mean what they meant when the newest round was planned.

    Raises:
        ProjectError: A class was removed, renamed or moved. Classes that were added at the end are fine.
    """
    with project.ledger.read() as session:
        row = session.get(Meta, _CLASSES)
    before = tuple(json.loads(row.value)) if row is not None else ()
    if project.config.classes[: len(before)] != before:
        raise ProjectError(
            "the classes in labelloop.toml are not those that the reviews and labels in the ledger mean",
            value=", ".join(project.config.classes),
            way_out=f"Write them in this order again: {', '.join(before)}. New ones go at the end.",
        )
