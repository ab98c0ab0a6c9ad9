"""Takes what came back from review into the ledger: annotations, edit records, label revisions.

Everything that one pull brought is stored in one transaction, in which the ledger is read as well: two pulls
at once store nothing twice.

Of several annotations of one task the one marked as ground truth counts, else the one changed last; the
others are kept. Where all are skipped the task is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.instances import Instances
from labelloop.predict.tiles import Tile
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.storing import newest_labels, same_objects
from labelloop.project.tables import AnnotationRow, EditRow, LabelRow, Meta, ReviewTaskRow, RoundRow, now
from labelloop.review.edits import EDIT_KINDS, Edit, KeyedInstances, find_edits
from labelloop.review.join import ReturnedTile, join_tiles
from labelloop.review.rounds import (
    DELETED,
    REVIEWED,
    SENT,
    SKIPPED,
    TaskRecord,
    close_settled,
    pack_json,
    proposals,
    task_record,
    unpack_json,
)
from labelloop.review.tiles import cut_to_box


@dataclass(frozen=True, kw_only=True, eq=False)
class PulledAnnotation:
    """One annotation as the server has it now.

    Attributes:
        server_id: Its number there.
        created_at: As the server says it.
        updated_at: As the server says it; another one is another state.
        who: Who made it.
        lead_time_s: Seconds a person had it open, or None.
        skipped: The person declined the task.
        ground_truth: It is marked so.
        bulk: It was accepted with many others at once.
        result: Its regions, in the server's words.
    """

    server_id: int
    created_at: str
    updated_at: str
    who: str
    lead_time_s: float | None
    skipped: bool
    ground_truth: bool
    bulk: bool
    result: list[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class PulledTask:
    """A task with all its annotations, as the server has them now."""

    key: str
    server_id: int
    annotations: tuple[PulledAnnotation, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadReview:
    """An annotation in labelloop's words.

    Attributes:
        objects: In the coordinates of the task's tile.
        untouched: Keys that came back as they were sent.
        unusable: Regions that say nothing that can be used, with reasons.
    """

    objects: KeyedInstances
    untouched: frozenset[str]
    unusable: tuple[str, ...] = ()


ReadResult = Callable[[TaskRecord, list[Any], KeyedInstances], ReadReview]


@dataclass(kw_only=True)
class PullReport:
    """What a pull brought.

    Attributes:
        annotations_new: Annotations that were not known.
        annotations_changed: Known ones that were changed.
        annotations_gone: Known ones that were deleted.
        edits: How many of each kind, in the annotations that count.
        minutes: That people had the new and changed annotations open.
        images: Images whose labels are new.
        unusable: Regions that were left out, with reasons.
        tasks_deleted: Tasks that are no longer on the server.
    """

    annotations_new: int = 0
    annotations_changed: int = 0
    annotations_gone: int = 0
    edits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EDIT_KINDS, 0))
    minutes: float = 0.0
    images: int = 0
    unusable: list[str] = field(default_factory=list)
    tasks_deleted: int = 0


def store_pull(
    project: Project,
    tasks: Sequence[PulledTask],
    *,
    read: ReadResult,
    deleted: Iterable[str] = (),
    cursor: tuple[str, str] | None = None,
) -> PullReport:
    """Stores a pull, whole or not at all; what the ledger knows already changes nothing.

    Args:
        project: Whose ledger.
        tasks: Those that may have changed, each with all its annotations.
        read: Reads an annotation's regions: task, regions, and what the task had shown.
        deleted: Keys of tasks that are no longer on the server.
        cursor: Name and value of what the next pull starts from.
    """
    with project.ledger.write() as session:
        pull = _Pull(session, read)
        for task in tasks:
            pull.take(task)
        pull.delete(deleted)
        pull.renew_labels()
        close_settled(session)
        if cursor is not None:
            session.merge(Meta(key=cursor[0], value=cursor[1]))
    return pull.report


def pull_cursor(project: Project, name: str) -> str | None:
    """What the last pull stored under this name."""
    with project.ledger.read() as session:
        row = session.get(Meta, name)
    return row.value if row else None


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
    """Minutes that people had annotations open, by the last state of each."""
    statement = select(AnnotationRow.task_key, AnnotationRow.server_id, AnnotationRow.lead_time_s).order_by(
        AnnotationRow.id
    )
    with project.ledger.read() as session:
        last = {(key, server_id): seconds or 0.0 for key, server_id, seconds in session.execute(statement)}
    return sum(last.values()) / 60


class _Pull:
    def __init__(self, session: Session, read: ReadResult) -> None:
        self._session = session
        self._read = read
        self._touched: dict[tuple[int, int], None] = {}  # (round, image) whose labels may be new
        self._proposed: dict[int, dict[int, KeyedInstances]] = {}
        self.report = PullReport()

    def take(self, pulled: PulledTask) -> None:
        row = self._session.get(ReviewTaskRow, pulled.key)
        if row is None:
            return  # another project's task
        row.server_id = pulled.server_id
        states = list(
            self._session.scalars(
                select(AnnotationRow).where(AnnotationRow.task_key == pulled.key).order_by(AnnotationRow.id)
            )
        )
        known = {state.server_id: state for state in states}
        fresh = [a for a in pulled.annotations if not _is_known(a, states)]
        here = {annotation.server_id for annotation in pulled.annotations}
        gone = [state for state in known.values() if state.gone_at is None and state.server_id not in here]
        for annotation in fresh:
            added = _annotation_row(pulled.key, annotation)
            self._session.add(added)
            states.append(added)
            self.report.annotations_new += annotation.server_id not in known
            self.report.annotations_changed += annotation.server_id in known
            self.report.minutes += (annotation.lead_time_s or 0) / 60
        for state in gone:
            state.gone_at = now()
        self.report.annotations_gone += len(gone)
        if fresh or gone:
            self._session.flush()
            self._decide(row, states, {annotation.server_id for annotation in fresh})

    def _decide(self, row: ReviewTaskRow, states: Sequence[AnnotationRow], fresh: set[int]) -> None:
        """The task's new state, and the edits of what is new."""
        live = _live(states)
        counts = counting(live)
        row.state = REVIEWED if counts else SKIPPED if live else SENT
        if counts is None:
            return
        self._touched[row.round_id, row.image_id] = None
        task = task_record(row)
        for state in live:
            if state.server_id not in fresh or state.skipped:
                continue
            review = self._read_annotation(task, state)
            edits = [
                edit
                for edit in find_edits(self._shown(task), review.objects, untouched=review.untouched)
                if edit.kind != "accepted" or task.owned.issuperset(edit.before)
            ]
            self._session.add_all(_edit_row(state.id, edit) for edit in edits)
            if state is counts:
                self.report.edits = {
                    kind: n + sum(edit.kind == kind for edit in edits)
                    for kind, n in self.report.edits.items()
                }
                self.report.unusable += review.unusable

    def delete(self, keys: Iterable[str]) -> None:
        """Tasks that are gone from the server: what was reviewed stays, the others are settled."""
        for key in keys:
            row = self._session.get(ReviewTaskRow, key)
            if row is None or row.state == DELETED:
                continue
            self.report.tasks_deleted += 1
            states = self._session.scalars(select(AnnotationRow).where(AnnotationRow.task_key == key)).all()
            live = _live(states)
            self.report.annotations_gone += len(live)
            for state in live:
                state.gone_at = now()
            if row.state != REVIEWED:
                row.state = DELETED

    def renew_labels(self) -> None:
        """Label revisions of the images whose reviews changed."""
        newest = newest_labels(self._session, [image_id for _, image_id in self._touched])
        for round_id, image_id in self._touched:
            labels = self._labels(round_id, image_id)
            revision, before = newest.get(image_id, (0, None))
            if labels is None or (before is not None and same_objects(before, labels)):
                continue
            self._session.add(
                LabelRow(
                    image_id=image_id,
                    revision=revision + 1,
                    source=f"review:round-{round_id}",
                    n_objects=int((~labels.crowd).sum()),
                    instances=encode_instances(labels),
                )
            )
            newest[image_id] = (revision + 1, labels)
            self.report.images += 1

    def _labels(self, round_id: int, image_id: int) -> Instances | None:
        rows = self._session.scalars(
            select(ReviewTaskRow).where(
                ReviewTaskRow.round_id == round_id, ReviewTaskRow.image_id == image_id
            )
        ).all()
        tasks = [task_record(row) for row in rows]
        returned = [tile for task in tasks if (tile := self._returned(task)) is not None]
        if not returned:
            return None
        tiles: list[Tile] = [task.tile for task in tasks]
        return join_tiles(self._proposal(round_id, image_id), returned, tiles)

    def _returned(self, task: TaskRecord) -> ReturnedTile | None:
        """What a task came back with; None where it has not."""
        states = self._session.scalars(
            select(AnnotationRow).where(AnnotationRow.task_key == task.key).order_by(AnnotationRow.id)
        ).all()
        counts = counting(_live(states))
        if counts is None:
            return None
        review = self._read_annotation(task, counts)
        return ReturnedTile(
            tile=task.tile,
            shown=frozenset(task.shown),
            owned=task.owned,
            returned=review.objects,
            untouched=review.untouched,
        )

    def _read_annotation(self, task: TaskRecord, state: AnnotationRow) -> ReadReview:
        return self._read(task, unpack_json(state.result), self._shown(task))

    def _shown(self, task: TaskRecord) -> KeyedInstances:
        """What the task showed, in the coordinates of its tile."""
        proposal = self._proposal(task.round_id, task.image_id)
        place = {key: i for i, key in enumerate(proposal.keys)}
        instances = proposal.instances.select([place[key] for key in task.shown])
        return KeyedInstances(keys=task.shown, instances=cut_to_box(instances, task.tile.box))

    def _proposal(self, round_id: int, image_id: int) -> KeyedInstances:
        of_round = self._proposed.setdefault(round_id, {})
        if image_id not in of_round:
            of_round |= proposals(self._session, round_id, [image_id])
        return of_round[image_id]


def counting(live: Sequence[AnnotationRow]) -> AnnotationRow | None:
    """The annotation that counts, of the live ones of a task; None where all are skipped."""
    candidates = [state for state in live if not state.skipped]
    return max(candidates, key=lambda s: (s.ground_truth, s.updated_at, s.server_id), default=None)


def _live(states: Sequence[AnnotationRow]) -> list[AnnotationRow]:
    """The last state of each annotation that was not deleted."""
    last = {state.server_id: state for state in states}
    return [state for state in last.values() if state.gone_at is None]


def _is_known(annotation: PulledAnnotation, states: Sequence[AnnotationRow]) -> bool:
    return any(
        (state.server_id, state.updated_at) == (annotation.server_id, annotation.updated_at)
        for state in states
    )


def _annotation_row(key: str, annotation: PulledAnnotation) -> AnnotationRow:
    return AnnotationRow(
        task_key=key,
        server_id=annotation.server_id,
        created_at=annotation.created_at,
        updated_at=annotation.updated_at,
        who=annotation.who,
        lead_time_s=annotation.lead_time_s,
        skipped=annotation.skipped,
        ground_truth=annotation.ground_truth,
        bulk=annotation.bulk,
        result=pack_json(annotation.result),
    )


def _edit_row(annotation_id: int, edit: Edit) -> EditRow:
    return EditRow(
        annotation_id=annotation_id,
        kind=edit.kind,
        before=list(edit.before),
        after=list(edit.after),
        iou=edit.iou,
        label_before=edit.label_before,
        label_after=edit.label_after,
    )
