"""What the ledger knows of reviews that came back: for the next pull, and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import load_only

from labelloop.project.ledger import scalars_with
from labelloop.project.project import Project
from labelloop.project.tables import (
    AnnotationRow,
    ImageRow,
    LabelRow,
    Meta,
    ReviewTaskRow,
    RoundRow,
    RunRow,
    is_newest_label,
)


def pull_cursor(project: Project, name: str) -> str | None:
    """What the last pull stored under this name."""
    with project.ledger.read() as session:
        row = session.get(Meta, name)
    return row.value if row else None


@dataclass(frozen=True, kw_only=True)
class KnownTask:
    """What the ledger knows of a task on the server: its number, and those of its annotations."""

    server_id: int | None
    annotations: frozenset[int]


def known_tasks(project: Project, keys: Sequence[str]) -> dict[str, KnownTask]:
    """What the ledger knows of the tasks with these keys; keys that it does not know are left out."""
    tasks = select(ReviewTaskRow).options(load_only(ReviewTaskRow.server_id))
    states = select(AnnotationRow).options(
        load_only(AnnotationRow.task_key, AnnotationRow.server_id, AnnotationRow.gone_at)
    )
    with project.ledger.read() as session:
        numbers = {row.key: row.server_id for row in scalars_with(session, tasks, ReviewTaskRow.key, keys)}
        rows = sorted(scalars_with(session, states, AnnotationRow.task_key, keys), key=lambda row: row.id)
        last = {(row.task_key, row.server_id): row.gone_at is None for row in rows}
    annotations: dict[str, set[int]] = {}
    for (key, number), live in last.items():
        if live:
            annotations.setdefault(key, set()).add(number)
    return {
        key: KnownTask(server_id=number, annotations=frozenset(annotations.get(key, ())))
        for key, number in numbers.items()
    }


def live_annotations(project: Project, server: str) -> int:
    """How many annotations of this server's tasks the ledger takes to be there still."""
    statement = (
        select(AnnotationRow.task_key, AnnotationRow.server_id, AnnotationRow.gone_at)
        .join(ReviewTaskRow, ReviewTaskRow.key == AnnotationRow.task_key)
        .join(RoundRow, RoundRow.id == ReviewTaskRow.round_id)
        .where(RoundRow.server == server)
        .order_by(AnnotationRow.id)
    )
    with project.ledger.read() as session:
        last = {(key, server_id): gone_at for key, server_id, gone_at in session.execute(statement)}
    return sum(gone_at is None for gone_at in last.values())


def minutes_spent(project: Project) -> float:
    """Minutes that people had annotations open, by the last state of each.

    One that is gone and there again by another number, as after an export and import, counts once.
    """
    row = AnnotationRow
    statement = select(
        row.task_key, row.server_id, row.created_at, row.who, row.lead_time_s, row.gone_at
    ).order_by(row.id)
    with project.ledger.read() as session:
        last = {(state.task_key, state.server_id): state for state in session.execute(statement)}
    there = {_made(state) for state in last.values() if state.gone_at is None}
    counted = [s for s in last.values() if s.gone_at is None or _made(s) not in there]
    return sum(state.lead_time_s or 0.0 for state in counted) / 60


def _made(state: Any) -> tuple[Any, ...]:
    """By which an annotation is known that has another number now."""
    return state.task_key, state.created_at, state.who


def new_labels(project: Project) -> int:
    """Images whose newest labels came from review, and that no finished run that is there has seen so.

    A run on all labels has seen those that there were when it read them, also the ones that it had no use
    for; a run on some has seen the revisions that it learnt or was chosen by.
    """
    reviewed = (
        select(LabelRow.image_id, LabelRow.revision, LabelRow.added_at)
        .join(ImageRow, ImageRow.id == LabelRow.image_id)
        .where(is_newest_label(), LabelRow.source.startswith("review:"), ImageRow.replaced_at.is_(None))
    )
    names = [run.name for run in project.finished_runs()]
    runs = select(RunRow.started_at, RunRow.config).where(RunRow.name.in_(names))
    with project.ledger.read() as session:
        rows, finished = session.execute(reviewed).all(), session.execute(runs).all()
    whole = [
        _labels_read_at(config, began)
        for began, config in finished
        if config.get("request", {}).get("labels", "all") == "all"
    ]
    newest_whole = max(whole, default=None)
    seen = {item for _, config in finished for item in config.get("label_revisions", {}).items()}
    return sum(
        (newest_whole is None or added_at > newest_whole) and (str(image_id), revision) not in seen
        for image_id, revision, added_at in rows
    )


def _labels_read_at(config: Mapping[str, Any], began: datetime) -> datetime:
    """When a run read the labels; runs of older versions noted only when they began, which was later."""
    stored = config.get("labels_read_at")
    return began if stored is None else datetime.fromisoformat(stored)
