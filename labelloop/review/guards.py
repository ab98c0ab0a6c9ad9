"""What must hold before a review goes on: nobody else is at it, and the classes are as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labelloop.errors import ProjectError
from labelloop.locks import wait_for_lock
from labelloop.progress import Progress
from labelloop.project import classes
from labelloop.project.project import Project


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


def check_classes(project: Project) -> None:
    """Looks whether class indices still mean what they meant: the project may have been opened long ago.

    Raises:
        ProjectError: A class was removed, renamed or moved. Classes that were added at the end are fine.
    """
    with project.ledger.read() as session:
        classes.check_classes(session, project.config.classes)
