"""Takes what came back from review into the ledger: annotations, edit records, label revisions.

Everything that one pull brought is stored in one transaction, in which the ledger is read as well: two pulls
at once store nothing twice.

Of several annotations of one task one counts (``counting``); the others are kept. Where all are skipped the
task is skipped. What was deleted or skipped later takes nothing back from the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from labelloop.project.ledger import VALUES_AT_ONCE, encode_instances, scalars_with
from labelloop.project.project import Project
from labelloop.project.storing import newest_labels, same_objects
from labelloop.project.tables import (
    AnnotationRow,
    EditRow,
    LabelRow,
    Meta,
    ProposalRow,
    ReviewTaskRow,
    is_newest_label,
    now,
)
from labelloop.review.counting import counted_last, counting, live, said_time
from labelloop.review.edits import Edit, KeyedInstances
from labelloop.review.join import ReturnedTile
from labelloop.review.packing import pack_json, unpack_json
from labelloop.review.pulled import PulledAnnotation, PulledTask, PullReport, ReadResult, ReadReview
from labelloop.review.rejoin import REVIEW, AskedRound, join_rounds
from labelloop.review.rounds import close_settled
from labelloop.review.tasks import (
    DELETED,
    REVIEWED,
    SENT,
    SKIPPED,
    TaskRecord,
    proposal,
    shown_by,
    task_record,
)
from labelloop.review.unknown import made_edits, unknown_areas


def store_pull(
    project: Project,
    tasks: Sequence[PulledTask],
    *,
    read: ReadResult,
    deleted: Iterable[str] = (),
    cursor: tuple[str, str] | None = None,
    read_again: bool = False,
) -> PullReport:
    """Stores a pull, whole or not at all; what the ledger knows already changes nothing.

    Args:
        project: Whose ledger.
        tasks: Those that may have changed, each with all its annotations.
        read: Reads an annotation's regions: task, regions, and what the task had shown.
        deleted: Keys of tasks that are no longer on the server.
        cursor: Name and value of what the next pull starts from.
        read_again: Reads all annotations anew, as when a class was added that some of them name.
    """
    with project.ledger.write() as session:
        pull = _Pull(session, read, n_classes=len(project.config.classes))
        pull.take(tasks, read_again=read_again)
        pull.delete(deleted)
        pull.renew_labels()
        pull.store_edits()
        close_settled(session)
        if cursor is not None:
            session.merge(Meta(key=cursor[0], value=cursor[1]))
    return pull.report


class _Pull:
    def __init__(self, session: Session, read: ReadResult, *, n_classes: int) -> None:
        self._session = session
        self._n_classes = n_classes
        self._read = read
        self._tasks: dict[str, TaskRecord] = {}  # those of all images that the pull is about
        self._rows: dict[str, ReviewTaskRow] = {}
        self._states: dict[str, list[AnnotationRow]] = {}
        self._proposed: dict[tuple[int, int], KeyedInstances] = {}
        self._tasks_of: dict[int, dict[int, list[TaskRecord]]] = {}  # by image, then by round
        self._results: dict[AnnotationRow, Any] = {}  # of new annotations, as they came
        self._reviews: dict[AnnotationRow, ReadReview] = {}
        self._edits: list[tuple[AnnotationRow, Edit]] = []
        self._touched: set[int] = set()  # images whose labels may be new
        self._now = _not_before_labels(session)
        self.report = PullReport()

    def take(self, pulled: Sequence[PulledTask], *, read_again: bool) -> None:
        """Tasks with their annotations; those without any, now and before, are nothing new."""
        had = set(
            scalars_with(
                self._session,
                select(AnnotationRow.task_key),
                AnnotationRow.task_key,
                [task.key for task in pulled],
            )
        )
        wanted = [task for task in pulled if task.annotations or task.key in had]
        again = self._reviewed() if read_again else []
        self._load([*(task.key for task in wanted), *again])
        self._touched |= {self._rows[key].image_id for key in again}
        with self._session.no_autoflush:
            for task in wanted:
                if task.key in self._rows:  # else it is another project's
                    self._take(task)
            self._renew_edits(again)

    def _reviewed(self) -> list[str]:
        """Reviewed tasks of the images whose labels come from review, or are no newer than what came back."""
        pulled = select(AnnotationRow.task_key, func.max(AnnotationRow.pulled_at).label("at"))
        came = pulled.where(AnnotationRow.skipped.is_(False)).group_by(AnnotationRow.task_key).subquery()
        statement = (
            select(ReviewTaskRow.key)
            .join(came, came.c.task_key == ReviewTaskRow.key)
            .outerjoin(LabelRow, (LabelRow.image_id == ReviewTaskRow.image_id) & is_newest_label())
            .where(
                LabelRow.image_id.is_(None)
                | LabelRow.source.startswith(REVIEW)
                | (LabelRow.added_at <= came.c.at),
            )
        )
        return list(self._session.scalars(statement))

    def _renew_edits(self, keys: Sequence[str]) -> None:
        """The edits of annotations that were stored before, of tasks that are read again."""
        states = [
            (key, state)
            for key in keys
            for state in self._states.get(key, ())
            if not state.skipped and state not in self._results
        ]
        for start in range(0, len(states), VALUES_AT_ONCE):
            numbers = [state.id for _, state in states[start : start + VALUES_AT_ONCE]]
            self._session.execute(delete(EditRow).where(EditRow.annotation_id.in_(numbers)))
        for key, state in states:
            task = self._tasks[key]
            made = made_edits(task, self._shown(task), self._review(task, state))
            self._edits += [(state, edit) for edit in made]

    def _load(self, keys: Iterable[str]) -> None:
        """All that the ledger has of the images of these tasks."""
        asked = list(keys)
        of_tasks = select(ReviewTaskRow.image_id)
        images = set(scalars_with(self._session, of_tasks, ReviewTaskRow.key, asked))
        rows = scalars_with(self._session, select(ReviewTaskRow), ReviewTaskRow.image_id, sorted(images))
        self._rows = {row.key: row for row in rows}
        self._tasks = {key: task_record(row) for key, row in self._rows.items()}
        for task in self._tasks.values():
            self._tasks_of.setdefault(task.image_id, {}).setdefault(task.round_id, []).append(task)
        states = scalars_with(self._session, select(AnnotationRow), AnnotationRow.task_key, list(self._rows))
        for state in sorted(states, key=lambda state: state.id):
            self._states.setdefault(state.task_key, []).append(state)
        for row in scalars_with(self._session, select(ProposalRow), ProposalRow.image_id, sorted(images)):
            self._proposed[row.round_id, row.image_id] = proposal(row)

    def _take(self, pulled: PulledTask) -> None:
        row = self._rows[pulled.key]
        row.server_id = pulled.server_id
        states = self._states.setdefault(pulled.key, [])
        last_counted = counted_last(states)
        known = {state.server_id: state for state in states}
        fresh = [a for a in pulled.annotations if not _is_known(a, states)]
        here = {annotation.server_id for annotation in pulled.annotations}
        gone = [state for state in known.values() if state.gone_at is None and state.server_id not in here]
        back = [state for state in known.values() if state.gone_at is not None and state.server_id in here]
        moved = {(state.result, state.lead_time_s): state for state in gone}  # or gone from this number
        added = [_annotation_row(pulled.key, annotation, self._now) for annotation in fresh]
        for annotation, state in zip(fresh, added, strict=True):
            self.report.annotations_new += annotation.server_id not in known
            self.report.annotations_changed += annotation.server_id in known
            before = known.get(annotation.server_id)
            if before is None:  # what was exported and imported is made anew there, and says nothing new
                before = moved.get((state.result, state.lead_time_s))
                state.pulled_at = state.pulled_at if before is None else before.pulled_at
            if before is not None:
                state.created_at = before.created_at
            counted = 0.0 if before is None else before.lead_time_s or 0.0  # the server adds to it
            self.report.minutes += max((annotation.lead_time_s or 0.0) - counted, 0.0) / 60
        self._session.add_all(added)
        self._results |= zip(added, (annotation.result for annotation in fresh), strict=True)
        states += added
        when = now()
        for state in gone:
            state.gone_at = when
        for state in back:
            state.gone_at = None
        self.report.annotations_gone += len(gone)
        starred = _stars(pulled.annotations, known)
        if added or gone or back or starred:
            self._decide(row, states, added)
        if counted_last(states) is not last_counted:
            self._touched.add(row.image_id)

    def _decide(
        self, row: ReviewTaskRow, states: Sequence[AnnotationRow], fresh: Sequence[AnnotationRow]
    ) -> None:
        """The task's new state, and the edits of what is new."""
        alive = live(states)
        counts = counting(alive)
        row.state = REVIEWED if counts else SKIPPED if alive else SENT
        if counts is None:
            return
        task = self._tasks[row.key]
        for state in fresh:
            if state.skipped:
                continue
            review = self._review(task, state)
            edits = made_edits(task, self._shown(task), review)
            self._edits += [(state, edit) for edit in edits]
            if state is counts:
                for edit in edits:
                    self.report.edits[edit.kind] += 1
                self.report.unusable += review.unusable

    def delete(self, keys: Iterable[str]) -> None:
        """Tasks that are gone from the server: what was reviewed stays, the others are settled."""
        when = now()
        for key in keys:
            row = self._session.get(ReviewTaskRow, key)
            if row is None or row.state == DELETED or (row.state == REVIEWED and row.server_id is None):
                continue
            self.report.tasks_deleted += 1
            states = self._session.scalars(select(AnnotationRow).where(AnnotationRow.task_key == key)).all()
            alive = live(states)
            self.report.annotations_gone += len(alive)
            for state in alive:
                state.gone_at = when
            row.server_id = None
            if row.state != REVIEWED:
                row.state = DELETED

    def renew_labels(self) -> None:
        """Label revisions of the images whose reviews changed."""
        self._session.flush()
        newest = newest_labels(self._session, sorted(self._touched))
        for image_id in sorted(self._touched):
            joined = join_rounds(self._session, image_id, self._asked(image_id))
            if joined is None:
                continue
            round_id, labels = joined[0], joined[1].labels(self._n_classes)
            revision, before = newest.get(image_id, (0, None))
            if before is not None and same_objects(before, labels):
                continue
            self._session.add(
                LabelRow(
                    image_id=image_id,
                    revision=revision + 1,
                    source=f"{REVIEW}round-{round_id}",
                    n_objects=int((~labels.crowd).sum()),
                    instances=encode_instances(labels),
                )
            )
            self.report.images += 1

    def _asked(self, image_id: int) -> list[AskedRound]:
        """All rounds that asked about an image."""
        asked = []
        for round_id, tasks in self._tasks_of[image_id].items():
            returned = [tile for task in tasks if (tile := self._returned(task)) is not None]
            proposed = self._proposed[round_id, image_id]
            asked.append(AskedRound(id=round_id, proposed=proposed, returned=tuple(returned)))
        return asked

    def store_edits(self) -> None:
        """The edit records of the new annotations, which have their numbers now."""
        self._session.flush()
        if self._edits:
            self._session.execute(insert(EditRow), [_edit_row(state.id, edit) for state, edit in self._edits])

    def _returned(self, task: TaskRecord) -> tuple[datetime, ReturnedTile] | None:
        """What a task came back with, and when; None where it has not, or says nothing."""
        counts = counted_last(self._states.get(task.key, ()))
        if counts is None:
            return None
        review = self._review(task, counts)
        if review.says_nothing:
            return None
        tile = ReturnedTile(
            tile=task.tile,
            shown=frozenset(task.shown),
            owned=task.owned,
            returned=review.objects,
            untouched=review.untouched,
            unreadable=unknown_areas(task, self._proposed[task.round_id, task.image_id], review),
            lost=review.lost,
        )
        return counts.pulled_at, tile

    def _review(self, task: TaskRecord, state: AnnotationRow) -> ReadReview:
        if state not in self._reviews:
            result = self._results[state] if state in self._results else unpack_json(state.result)
            self._reviews[state] = self._read(task, result, self._shown(task))
        return self._reviews[state]

    def _shown(self, task: TaskRecord) -> KeyedInstances:
        return shown_by(task, self._proposed[task.round_id, task.image_id])


def _is_known(annotation: PulledAnnotation, states: Sequence[AnnotationRow]) -> bool:
    """Whether the ledger has this state of the annotation, or a later one."""
    of_it = [state.updated_at for state in states if state.server_id == annotation.server_id]
    return annotation.updated_at in of_it or any(is_after(known, annotation.updated_at) for known in of_it)


def _stars(annotations: Sequence[PulledAnnotation], known: Mapping[int, AnnotationRow]) -> bool:
    """Takes over which known annotations are ground truth: the server takes the mark off one silently.

    Returns:
        Whether anything is new.
    """
    new = [
        state
        for annotation in annotations
        if (state := known.get(annotation.server_id)) is not None
        and state.updated_at == annotation.updated_at
        and state.ground_truth != annotation.ground_truth
    ]
    for state in new:
        state.ground_truth = not state.ground_truth
    return bool(new)


def is_after(when: str, other: str) -> bool:
    """Whether a time as the server says it is later than another."""
    return said_time(when) > said_time(other)


def _not_before_labels(session: Session) -> datetime:
    """The time, UTC; where this machine's clock was set back, when the newest labels came."""
    newest = session.scalar(select(LabelRow.added_at).order_by(LabelRow.id.desc()).limit(1))
    return now() if newest is None else max(now(), newest)


def _annotation_row(key: str, annotation: PulledAnnotation, pulled_at: datetime) -> AnnotationRow:
    return AnnotationRow(
        task_key=key,
        server_id=annotation.server_id,
        created_at=annotation.created_at,
        updated_at=annotation.updated_at,
        who=annotation.who,
        lead_time_s=annotation.lead_time_s,
        maybe_twice=annotation.maybe_twice,
        skipped=annotation.skipped,
        ground_truth=annotation.ground_truth,
        bulk=annotation.bulk,
        result=pack_json(annotation.result),
        pulled_at=pulled_at,
    )


def _edit_row(annotation_id: int, edit: Edit) -> dict[str, Any]:
    return {
        "annotation_id": annotation_id,
        "kind": edit.kind,
        "before": list(edit.before),
        "after": list(edit.after),
        "iou": edit.iou,
        "label_before": edit.label_before,
        "label_after": edit.label_after,
        "outline_px": edit.outline_px,
    }
