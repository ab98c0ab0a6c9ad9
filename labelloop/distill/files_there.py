"""Files that are gone or have changed, found before the first step rather than in the middle of a run."""

from __future__ import annotations

from collections.abc import Sequence

from labelloop.errors import TrainingError
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import require_unchanged

MOST_LEFT_OUT = 0.1
"""Share of a pool; where more is gone, a folder was moved or a drive is not there."""


def require_files(images: Sequence[ImageRecord], progress: Progress | None = None) -> None:
    """Looks whether the files of labelled images are there, and are those that were added.

    Args:
        images: Whose files.
        progress: Where progress is reported, if files have to be read.

    Raises:
        TrainingError: A file is gone.
        ImageError: A file has changed since it was added: its labels are those of another image.
    """
    gone = _gone(images, Silent())
    if gone:
        raise _error(gone)
    require_unchanged(images, progress)


def pool_there(pool: Sequence[ImageRecord], progress: Progress) -> tuple[ImageRecord, ...]:
    """The pool without the few images whose files are gone, which are reported.

    Raises:
        TrainingError: More than a tenth of the pool is gone.
    """
    if not pool:
        return ()
    with stage(progress, "looking for images", len(pool)):
        gone = _gone(pool, progress)
    if len(gone) > MOST_LEFT_OUT * len(pool):
        raise _error(gone)
    if gone:
        progress.note(f"note: {len(gone)} of {len(pool)} images of the pool are left out: {_error(gone)}")
    left_out = {image.id for image in gone}
    return tuple(image for image in pool if image.id not in left_out)


def _gone(images: Sequence[ImageRecord], progress: Progress) -> list[ImageRecord]:
    gone = []
    for image in images:
        if not image.path.is_file():
            gone.append(image)
        progress.advance()
    return gone


def _error(gone: Sequence[ImageRecord]) -> TrainingError:
    more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    return TrainingError(
        "images of the project are no longer where they were",
        value=f"{gone[0].path}{more}",
        way_out="Put them back, or add them from their new place with labelloop add images.",
    )
