"""Tasks of review in the ledger: which part of an image each shows, of what, and where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, defer

from labelloop.predict.tiles import Tile
from labelloop.project.ledger import decode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, ProposalRow, ReviewTaskRow, RoundRow
from labelloop.review.edits import KeyedInstances
from labelloop.review.packing import unpack_json
from labelloop.review.tiles import cut_to_box

PLANNED, SENT, REVIEWED, SKIPPED, DELETED, DROPPED = (
    "planned", "sent", "reviewed", "skipped", "deleted", "dropped",
)  # fmt: skip
UNSETTLED = (PLANNED, SENT)
KNOWN = "known"  # in the key of an object that was a label before it was shown


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskRecord:
    """One task.

    Attributes:
        key: Its permanent name.
        round_id: Of its round.
        image_id: Of its image.
        tile: Its part of the image.
        shown: Keys of the objects that it shows, in the order of the proposal.
        owned: Those that belong to it.
        confidence: Of its image, 0..1.
        chosen: By which arm, why, and the minutes it should cost; None in rounds of older versions.
        state: One of this module's constants.
        server_id: Its number on the server, None where it is not there; numbers are used again there, so it
            names nothing.
        sent: The regions as they were sent, or None.
    """

    key: str
    round_id: int
    image_id: int
    tile: Tile
    shown: tuple[str, ...]
    owned: frozenset[str]
    confidence: float
    chosen: Mapping[str, Any] | None
    state: str
    server_id: int | None
    sent: list[dict[str, Any]] | None


def round_tasks(project: Project, round_id: int, *, with_sent: bool = False) -> list[TaskRecord]:
    """The tasks of a round, the least confident first; with what was sent, if that is wanted."""
    statement = select(ReviewTaskRow).where(ReviewTaskRow.round_id == round_id)
    if not with_sent:
        statement = statement.options(defer(ReviewTaskRow.sent))
    with project.ledger.read() as session:
        records = [task_record(row, with_sent=with_sent) for row in session.scalars(statement)]
    return sorted(records, key=lambda task: (task.confidence, task.image_id, task.tile.box))


def waiting_tasks(project: Project, round_id: int) -> list[TaskRecord]:
    """The tasks of a round that nobody has decided about, without those of images that were replaced."""
    of_round = select(ReviewTaskRow.key).where(ReviewTaskRow.round_id == round_id, waits())
    with project.ledger.read() as session:
        waiting = set(session.scalars(of_round))
    return [task for task in round_tasks(project, round_id) if task.key in waiting]


def waits() -> ColumnElement[bool]:
    """Of a task's row: whether nobody has decided about it, and its image was not replaced."""
    used = select(ImageRow.id).where(ImageRow.replaced_at.is_(None))
    return ReviewTaskRow.state.in_(UNSETTLED) & ReviewTaskRow.image_id.in_(used)


def all_tasks(project: Project, server: str) -> list[TaskRecord]:
    """The tasks of all rounds on a server, without what was sent."""
    statement = (
        select(ReviewTaskRow)
        .join(RoundRow, RoundRow.id == ReviewTaskRow.round_id)
        .where(RoundRow.server == server)
        .options(defer(ReviewTaskRow.sent))
    )
    with project.ledger.read() as session:
        return [task_record(row, with_sent=False) for row in session.scalars(statement)]


def proposals(session: Session, round_id: int, image_ids: Sequence[int]) -> dict[int, KeyedInstances]:
    """What a round proposed in these few images, by image id."""
    rows = session.scalars(
        select(ProposalRow).where(ProposalRow.round_id == round_id, ProposalRow.image_id.in_(image_ids))
    )
    return {row.image_id: proposal(row) for row in rows}


def proposal(row: ProposalRow) -> KeyedInstances:
    """What was proposed in an image."""
    return KeyedInstances(keys=tuple(row.keys), instances=decode_instances(row.instances))


def is_known_key(key: str) -> bool:
    """Whether a proposed object was a label before."""
    return f"-{KNOWN}" in key


def shown_by(task: TaskRecord, proposed: KeyedInstances) -> KeyedInstances:
    """What a task shows of an image's proposal, in the coordinates of its tile."""
    if task.shown == proposed.keys and task.tile.box == (0, 0, *proposed.instances.size_hw):
        return proposed
    place = {key: i for i, key in enumerate(proposed.keys)}
    instances = proposed.instances.select([place[key] for key in task.shown])
    return KeyedInstances(keys=task.shown, instances=cut_to_box(instances, task.tile.box))


def mark_sent(project: Project, sent: Iterable[tuple[str, int, bytes]]) -> None:
    """Remembers tasks that are on the server, in one transaction.

    Args:
        project: Whose ledger.
        sent: Key, number there, and the regions as they were sent, packed.
    """
    with project.ledger.write() as session:
        for key, server_id, packed in sent:
            row = session.get_one(ReviewTaskRow, key)
            row.server_id, row.sent = server_id, packed
            if row.state == PLANNED:
                row.state = SENT


def set_numbers(project: Project, numbers: Mapping[str, int]) -> None:
    """Remembers the numbers of tasks on the server, by key."""
    with project.ledger.write() as session:
        for key, number in numbers.items():
            session.get_one(ReviewTaskRow, key).server_id = number


def task_record(row: ReviewTaskRow, *, with_sent: bool = True) -> TaskRecord:
    """A task as the ledger holds it."""
    top, left, bottom, right = row.tile["box"]
    core_top, core_left, core_bottom, core_right = row.tile["core"]
    a, b, c, d = row.tile["inner"]
    return TaskRecord(
        key=row.key,
        round_id=row.round_id,
        image_id=row.image_id,
        tile=Tile(
            box=(top, left, bottom, right),
            core=(core_top, core_left, core_bottom, core_right),
            inner=(a, b, c, d),
        ),
        shown=tuple(row.tile["shown"]),
        owned=frozenset(row.tile["owned"]),
        confidence=row.confidence,
        chosen=row.chosen,
        state=row.state,
        server_id=row.server_id,
        sent=unpack_json(row.sent) if with_sent and row.sent is not None else None,
    )
