"""Rounds of review in the ledger: what was asked, of which tile, and where each task stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from labelloop.project.classes import keep_classes
from labelloop.project.ledger import encode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import Meta, ProposalRow, ReviewTaskRow, RoundRow, now
from labelloop.review.choice import Choice
from labelloop.review.tasks import DROPPED, KNOWN, PLANNED, UNSETTLED, waits

SUSPECTS = "suspects"  # the strategy of rounds about labels that are there already


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
        tasks: How many, by state; those of images that were replaced do not wait.
        left_out: Images that could not be asked about when it was opened, with reasons.
        beside: Whether it was opened though tasks of the round before it waited.
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
    beside: bool = False

    @property
    def unsettled(self) -> int:
        """Tasks that nobody has decided about."""
        return sum(self.tasks.get(state, 0) for state in UNSETTLED)


def rounds(project: Project) -> list[RoundRecord]:
    """All rounds, oldest first."""
    with project.ledger.read() as session:
        return _rounds(session)


def current_round(project: Project, server: str) -> RoundRecord | None:
    """The newest round on this server, if it is open and has unsettled tasks."""
    there = [record for record in rounds(project) if record.server == server]
    return there[-1] if there and there[-1].closed_at is None and there[-1].unsettled else None


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
        states, beside = _states(session), False
        for before in session.scalars(
            select(RoundRow).where(RoundRow.server == server, RoundRow.closed_at.is_(None))
        ):
            beside = beside or any(states.get(before.id, Counter())[state] for state in UNSETTLED)
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
            settings={**(settings or {}), "beside": beside},
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


def images_by_id(project: Project, ids: Collection[int]) -> dict[int, ImageRecord]:
    """Some images of the project, also those that were replaced."""
    wanted = set(ids)
    return {image.id: image for image in project.images(replaced=True) if image.id in wanted}


def _rounds(session: Session) -> list[RoundRecord]:
    counts = _states(session)
    return [
        _round(row, counts.get(row.id, Counter()))
        for row in session.scalars(select(RoundRow).order_by(RoundRow.id))
    ]


def _states(session: Session) -> dict[int, Counter[str]]:
    counts: dict[int, Counter[str]] = {}
    statement = select(ReviewTaskRow.round_id, ReviewTaskRow.state).where(
        ReviewTaskRow.state.not_in(UNSETTLED) | waits()
    )
    for round_id, state in session.execute(statement):
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
        beside=bool((row.settings or {}).get("beside")),
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
