"""Joins all rounds that asked about an image, oldest first: what is changed in any of them counts.

A round starts from what the rounds before it make known now, not from what they had made known when it was
planned: a correction that came later, in a task of an earlier round, is not undone. Labels that were added
otherwise, such as by ``add labels``, stand for all that had come back before: the rounds start from them, and
only what came back later is joined onto them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.project.ledger import decode_instances
from labelloop.project.tables import LabelRow
from labelloop.review.edits import KeyedInstances
from labelloop.review.join import ReturnedTile, join_tiles
from labelloop.review.joined import Joined

REVIEW = "review:"  # how the source of labels begins that come from review


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedRound:
    """What a round asked about an image, and what came back.

    Attributes:
        id: Of the round; later ones have higher ones.
        proposed: What it proposed in the image.
        returned: The tiles that came back, each with when it was pulled, UTC.
    """

    id: int
    proposed: KeyedInstances
    returned: tuple[tuple[datetime, ReturnedTile], ...]


def join_rounds(session: Session, image_id: int, rounds: Sequence[AskedRound]) -> tuple[int, Joined] | None:
    """The last round that brought something, and what is known after all; None where none did.

    Args:
        session: Of the ledger.
        image_id: Of the image.
        rounds: All that asked about it.
    """
    added_at, known = _added(session, image_id)
    last: tuple[int, Joined] | None = None
    for asked in sorted(rounds, key=lambda asked: asked.id):
        tiles = [tile for pulled_at, tile in asked.returned if pulled_at >= added_at]
        if tiles:
            known = join_tiles(asked.proposed, tiles, before=known)
            last = asked.id, known
    return last


def _added(session: Session, image_id: int) -> tuple[datetime, Joined | None]:
    """The newest labels that are not from review, and since when; None where there are none."""
    statement = (
        select(LabelRow.added_at, LabelRow.instances)
        .where(LabelRow.image_id == image_id, LabelRow.source.not_like(f"{REVIEW}%"))
        .order_by(LabelRow.revision.desc())
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    return (datetime.min, None) if row is None else (row.added_at, Joined.of_labels(decode_instances(row[1])))
