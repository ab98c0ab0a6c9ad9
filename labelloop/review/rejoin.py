"""Joins all rounds that asked about an image, oldest first: what is changed in any of them counts.

A round starts from what the rounds before it make known now, not from what they had made known when it was
planned: a correction that came later, in a task of an earlier round, is not undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.project.ledger import decode_instances
from labelloop.project.tables import LabelRow, RoundRow
from labelloop.review.edits import KeyedInstances
from labelloop.review.join import ReturnedTile, join_tiles
from labelloop.review.joined import Joined
from labelloop.review.rounds import SUSPECTS
from labelloop.review.tasks import is_known_key

REVIEW = "review:"  # how the source of labels begins that come from review


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedRound:
    """What a round asked about an image, and what came back.

    Attributes:
        id: Of the round; later ones have higher ones.
        opened_at: UTC.
        of_labels: It showed what was labelled then.
        proposed: What it proposed in the image.
        returned: The tiles that came back.
    """

    id: int
    opened_at: datetime
    of_labels: bool
    proposed: KeyedInstances
    returned: tuple[ReturnedTile, ...]

    @classmethod
    def of(cls, row: RoundRow, proposed: KeyedInstances, returned: Sequence[ReturnedTile]) -> AskedRound:
        """The round of a row in the ledger."""
        return cls(
            id=row.id,
            opened_at=row.opened_at,
            of_labels=row.strategy == SUSPECTS or any(map(is_known_key, proposed.keys)),
            proposed=proposed,
            returned=tuple(returned),
        )


def join_rounds(session: Session, image_id: int, rounds: Sequence[AskedRound]) -> tuple[int, Joined] | None:
    """The last round that brought something, and what is known after all; None where none did.

    Args:
        session: Of the ledger.
        image_id: Of the image.
        rounds: All that asked about it.
    """
    last: tuple[int, Joined] | None = None
    for asked in sorted(rounds, key=lambda asked: asked.id):
        if asked.returned:
            before = _before(session, image_id, asked, last[1] if last else None)
            last = asked.id, join_tiles(asked.proposed, asked.returned, before=before)
    return last


def _before(session: Session, image_id: int, asked: AskedRound, reviewed: Joined | None) -> Joined | None:
    """What a round starts from: labels that were added after the rounds before it, else what these brought.

    A round in which no labels were shown does not know of any that were added.
    """
    if not asked.of_labels:
        return reviewed
    statement = (
        select(LabelRow.source, LabelRow.instances)
        .where(LabelRow.image_id == image_id, LabelRow.added_at <= asked.opened_at)
        .order_by(LabelRow.revision.desc())
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    if row is None or (reviewed is not None and row.source.startswith(REVIEW)):
        return reviewed
    return Joined.of_labels(decode_instances(row.instances))
