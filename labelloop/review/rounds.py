"""Rounds of review in the ledger: what was asked, of which tile, and where each task stands."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.orm import Session, defer

from labelloop.predict.tiles import Tile
from labelloop.project.classes import keep_classes
from labelloop.project.ledger import decode_instances, encode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import Meta, ProposalRow, ReviewTaskRow, RoundRow, now
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.tiles import cut_to_box

PLANNED, SENT, REVIEWED, SKIPPED, DELETED, DROPPED = (
    "planned", "sent", "reviewed", "skipped", "deleted", "dropped",
)  # fmt: skip
UNSETTLED = (PLANNED, SENT)
SUSPECTS = "suspects"  # the strategy of rounds about labels that are there already
KNOWN = "known"  # in the key of an object that was a label before it was shown


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round.

    Attributes:
        id: Counted from 1.
        run: Whose model proposed; None where there was none.
        which: guided or supervised; None likewise.
        model_version: Its name on the annotation server.
        server: Where the tasks are.
        strategy: How they were chosen.
        min_score: Objects scored lower were not shown.
        opened_at: UTC.
        closed_at: UTC, or None while it is open.
        tasks: How many, by state.
        left_out: Images that could not be asked about when it was opened, with reasons.
    """

    id: int
    run: str | None
    which: str | None
    model_version: str
    server: str
    strategy: str
    min_score: float
    opened_at: datetime
    closed_at: datetime | None
    tasks: Mapping[str, int]
    left_out: tuple[str, ...] = ()

    @property
    def unsettled(self) -> int:
        """Tasks that nobody has decided about."""
        return sum(self.tasks.get(state, 0) for state in UNSETTLED)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskRecord:
    """One task.

    Attributes:
        key: Its name for ever.
        round_id: Of its round.
        image_id: Of its image.
        tile: Its part of the image.
        shown: Keys of the objects that it shows, in the order of the proposal.
        owned: Those that belong to it.
        confidence: Of its image, 0..1.
        chosen: By which arm, why, and the minutes it should cost; None in rounds of older versions.
        state: See the module's constants.
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


def rounds(project: Project) -> list[RoundRecord]:
    """All rounds, oldest first."""
    with project.ledger.read() as session:
        return _rounds(session)


def current_round(project: Project, server: str) -> RoundRecord | None:
    """The newest round on this server, if it is open and has unsettled tasks."""
    there = [record for record in rounds(project) if record.server == server]
    return there[-1] if there and there[-1].closed_at is None and there[-1].unsettled else None


def reviewed_images(project: Project) -> set[int]:
    """Images that a task was made of, whatever became of it, but for tasks never sent."""
    statement = select(ReviewTaskRow.image_id).where(ReviewTaskRow.state != DROPPED)
    with project.ledger.read() as session:
        return set(session.scalars(statement))


def plan_round(
    project: Project,
    choices: Sequence[Choice],
    *,
    run: str | None,
    which: str | None,
    server: str,
    min_score: float,
    strategy: str,
    settings: Mapping[str, Any] | None = None,
) -> RoundRecord:
    """Opens a round in one transaction; rounds before it on this server are closed.

    Tasks of theirs that were never sent are dropped; what was sent can still be reviewed and pulled.

    Args:
        project: Whose ledger.
        choices: What will be asked.
        run: Whose model proposed; None if none did.
        which: guided or supervised; None if no model proposed.
        server: Where the tasks will be.
        min_score: Objects scored lower are not shown.
        strategy: How the choices were made.
        settings: What else the choice depended on; ``left_out`` as in the record.
    """
    with project.ledger.write() as session:
        for before in session.scalars(
            select(RoundRow).where(RoundRow.server == server, RoundRow.closed_at.is_(None))
        ):
            before.closed_at = now()
            for task in session.scalars(
                select(ReviewTaskRow).where(
                    ReviewTaskRow.round_id == before.id, ReviewTaskRow.state == PLANNED
                )
            ):
                task.state = DROPPED
        row = RoundRow(
            run=run,
            which=which,
            model_version="",
            server=server,
            strategy=strategy,
            min_score=min_score,
            settings=dict(settings or {}),
        )
        session.add(row)
        keep_classes(session, project.config.classes)
        session.flush()
        row.model_version = f"{run}-{which}-round-{row.id}" if run else f"no-model-round-{row.id}"
        for choice in choices:
            _add_tasks(session, row.id, choice)
        session.flush()
        return _round(row, _states(session)[row.id])


def _add_tasks(session: Session, round_id: int, choice: Choice) -> None:
    keys = [
        f"r{round_id}-i{choice.image.id}-{KNOWN if i < choice.known else 'o'}{i}"
        for i in range(len(choice.proposed))
    ]
    session.add(
        ProposalRow(
            round_id=round_id,
            image_id=choice.image.id,
            keys=keys,
            instances=encode_instances(choice.proposed),
        )
    )
    for view, chosen in zip(choice.views, choice.chosen, strict=True):
        shown = [keys[i] for i in view.shown.tolist()]
        tile = {
            "box": view.tile.box,
            "core": view.tile.core,
            "inner": view.tile.inner,
            "shown": shown,
            "owned": [key for key, owned in zip(shown, view.owned.tolist(), strict=True) if owned],
        }
        session.add(
            ReviewTaskRow(
                key=uuid4().hex,
                round_id=round_id,
                image_id=choice.image.id,
                tile=tile,
                confidence=choice.confidence,
                chosen=chosen,
                state=PLANNED,
            )
        )


def round_tasks(project: Project, round_id: int, *, with_sent: bool = False) -> list[TaskRecord]:
    """The tasks of a round, the least confident first; with what was sent, if that is wanted."""
    statement = select(ReviewTaskRow).where(ReviewTaskRow.round_id == round_id)
    if not with_sent:
        statement = statement.options(defer(ReviewTaskRow.sent))
    with project.ledger.read() as session:
        records = [task_record(row, with_sent=with_sent) for row in session.scalars(statement)]
    return sorted(records, key=lambda task: (task.confidence, task.image_id, task.tile.box))


def predicted_minutes(tasks: Iterable[TaskRecord]) -> float | None:
    """What these tasks should cost in all; None where that was not predicted."""
    minutes = [(task.chosen or {}).get("minutes") for task in tasks]
    known = [float(each["value"]) for each in minutes if each is not None]
    return round(sum(known), 2) if len(known) == len(minutes) else None


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


def set_states(project: Project, states: Mapping[str, str]) -> None:
    """Moves tasks, by key, to other states, and closes rounds that have nothing unsettled left."""
    with project.ledger.write() as session:
        for key, state in states.items():
            session.get_one(ReviewTaskRow, key).state = state
        close_settled(session)


def close_settled(session: Session) -> None:
    """Closes the open rounds in which every task is settled."""
    session.flush()
    counts = _states(session)
    for row in session.scalars(select(RoundRow).where(RoundRow.closed_at.is_(None))):
        if not any(counts.get(row.id, Counter())[state] for state in UNSETTLED):
            row.closed_at = now()


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


def pack_json(document: Any) -> bytes:
    """Compressed JSON, for the ledger."""
    return pack_text(compact_json(document))


def compact_json(document: Any) -> str:
    """JSON as it goes to a server, without blanks."""
    return json.dumps(document, separators=(",", ":"))


def pack_text(text: str) -> bytes:
    """ASCII text, compressed."""
    return zlib.compress(text.encode("ascii"), 1)


def unpack_json(packed: bytes) -> Any:
    """The inverse of ``pack_json``."""
    return json.loads(zlib.decompress(packed))


def images_by_id(project: Project, ids: Collection[int]) -> dict[int, ImageRecord]:
    """Some images of the project."""
    wanted = set(ids)
    return {image.id: image for image in project.images() if image.id in wanted}


def _rounds(session: Session) -> list[RoundRecord]:
    counts = _states(session)
    return [
        _round(row, counts.get(row.id, Counter()))
        for row in session.scalars(select(RoundRow).order_by(RoundRow.id))
    ]


def _states(session: Session) -> dict[int, Counter[str]]:
    counts: dict[int, Counter[str]] = {}
    for round_id, state in session.execute(select(ReviewTaskRow.round_id, ReviewTaskRow.state)):
        counts.setdefault(round_id, Counter())[state] += 1
    return counts


def _round(row: RoundRow, tasks: Mapping[str, int]) -> RoundRecord:
    return RoundRecord(
        id=row.id,
        run=row.run,
        which=row.which,
        model_version=row.model_version,
        server=row.server,
        strategy=row.strategy,
        min_score=row.min_score,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        tasks=dict(tasks),
        left_out=tuple((row.settings or {}).get("left_out", ())),
    )


def move_rounds(project: Project, old: str, new: str) -> None:
    """Writes down that a server is found at another address: its rounds and what was pulled go on there.

    Args:
        project: Whose ledger.
        old: What the rounds call it now.
        new: What they are to call it.
    """
    if old == new:
        return
    with project.ledger.write() as session:
        session.execute(update(RoundRow).where(RoundRow.server == old).values(server=new))
        cursor = session.get(Meta, f"pull:{old}")
        if cursor is not None:
            session.merge(Meta(key=f"pull:{new}", value=cursor.value))
            session.delete(cursor)
