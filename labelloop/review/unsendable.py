"""Tasks that a push could not send. They were never asked, so their images can be asked about again.

What is wrong with a file passes when the file is back; masks that the editor cannot take stay so for as long
as the same model proposes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import select

from labelloop.project.project import Project
from labelloop.project.tables import ReviewTaskRow, RoundRow
from labelloop.review.rounds import close_settled
from labelloop.review.tasks import DROPPED

_RAGGED = "ragged"  # beside why a task was chosen: the editor cannot take its masks

Box = tuple[int, int, int, int]


def drop_unsendable(project: Project, keys: Iterable[str], *, ragged: Collection[str]) -> None:
    """Drops tasks, and closes rounds that have nothing unsettled left, in one transaction.

    Args:
        project: Whose ledger.
        keys: Of the tasks.
        ragged: Keys of those whose masks the editor cannot take.
    """
    with project.ledger.write() as session:
        for key in keys:
            task = session.get_one(ReviewTaskRow, key)
            task.state = DROPPED
            if key in ragged:
                task.chosen = {**(task.chosen or {}), _RAGGED: True}
        close_settled(session)


def ragged_tiles(project: Project, *, run: str | None, which: str | None) -> set[tuple[int, Box]]:
    """Image id and box of the tasks whose masks the editor could not take when this model proposed them."""
    statement = (
        select(ReviewTaskRow.image_id, ReviewTaskRow.tile, ReviewTaskRow.chosen)
        .join(RoundRow, RoundRow.id == ReviewTaskRow.round_id)
        .where(ReviewTaskRow.state == DROPPED, RoundRow.run == run, RoundRow.which == which)
    )
    with project.ledger.read() as session:
        rows = session.execute(statement).all()
    return {(image_id, tuple(tile["box"])) for image_id, tile, chosen in rows if (chosen or {}).get(_RAGGED)}
