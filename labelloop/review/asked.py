"""What was asked about already, and so is not asked again.

A task counts for good once somebody has reviewed or skipped it. Until then it counts on the server that the
project is tied to now, unless its round of several tasks was deleted there as a whole before any was
reviewed. A task that was deleted by itself was declined, and counts.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import aliased

from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, ReviewTaskRow, RoundRow
from labelloop.review.tasks import DELETED, DROPPED

Box = tuple[int, int, int, int]  # top, left, bottom, right, px


def counts_as_asked(server: str) -> ColumnElement[bool]:
    """Of a task's row: whether what it shows is not to be asked about again.

    Args:
        server: Where the next tasks will be, as rounds name it.
    """
    answered = select(AnnotationRow.id).where(AnnotationRow.task_key == ReviewTaskRow.key).exists()
    its_round, other = aliased(RoundRow), aliased(ReviewTaskRow)
    with_others = select(other.round_id).where(other.state.not_in((DELETED, DROPPED)))
    of_several = select(other.round_id).group_by(other.round_id).having(func.count() > 1)
    here = select(its_round.id).where(
        its_round.id == ReviewTaskRow.round_id,
        its_round.server == server,
        or_(
            ReviewTaskRow.state != DELETED,
            its_round.closed_at.is_(None),
            its_round.id.in_(with_others),
            its_round.id.not_in(of_several),
        ),
    )
    return (ReviewTaskRow.state != DROPPED) & (answered | here.exists())


def asked_boxes(project: Project, server: str) -> dict[int, list[Box]]:
    """What was asked about, by image id: the part of each task, once, from the top left on.

    Args:
        project: Whose tasks.
        server: As for ``counts_as_asked``.
    """
    statement = select(ReviewTaskRow.image_id, ReviewTaskRow.tile).where(counts_as_asked(server))
    boxes: dict[int, set[Box]] = {}
    with project.ledger.read() as session:
        for image_id, tile in session.execute(statement.order_by(ReviewTaskRow.image_id)):
            top, left, bottom, right = tile["box"]
            boxes.setdefault(image_id, set()).add((top, left, bottom, right))
    return {image_id: sorted(of_image) for image_id, of_image in boxes.items()}
