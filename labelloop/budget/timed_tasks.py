"""Reads out of the ledger what reviews tell about time and about edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from labelloop.budget.effort import TimedTask
from labelloop.budget.expected_edits import FATES, EditRecord
from labelloop.budget.strategies import RANDOM_ARM
from labelloop.budget.work import DRAWN, Work, mean_outline_px
from labelloop.instances import Instances
from labelloop.project.ledger import decode_instances, scalars_with
from labelloop.project.project import Project
from labelloop.project.tables import (
    AnnotationRow,
    DoubtRow,
    EditRow,
    PredictionRow,
    ProposalRow,
    ReviewTaskRow,
    RoundRow,
)
from labelloop.review.counting import counting
from labelloop.review.edits import EditKind, KeyedInstances
from labelloop.review.tasks import TaskRecord, is_known_key, proposal, task_record

CHOSEN_WEIGHT = 0.25  # of a task that was not drawn at random: it was chosen for what its model gets wrong
# Of what was found of the model before the one that proposes; of the model before that, the square; and no
# less for having been chosen. Found, among six values, on 8 lanes of simulated rounds about nuclei (training
# images; rounds 2 to 4; bias and error of the log of a round's minutes): random lanes -0.17 and 0.38, auto's
# -0.02 and 0.22. With 1, as if all models were alike, -0.35 and 0.46, and -0.02 and 0.20.
ANOTHER_MODEL = 0.25


@dataclass(frozen=True, kw_only=True)
class MadeEdit:
    """An edit, as far as budgets need it.

    Attributes:
        kind: Of the edit.
        before: Keys of the shown objects that it concerns.
        outline_px: Length of the outlines that came back, px; None where that was not kept.
        iou: Of the areas before and after, or None.
    """

    kind: EditKind
    before: tuple[str, ...]
    outline_px: float | None
    iou: float | None

    @property
    def wrong_px(self) -> float | None:
        """The outline times 1 - IoU, px."""
        return None if self.outline_px is None or self.iou is None else self.outline_px * (1 - self.iou)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewedTask:
    """A task with the annotation of it that counts.

    Attributes:
        task: Without what was sent.
        who: Made the annotation.
        seconds: That the server reported, or None.
        maybe_twice: Whether these may hold a draft's time twice; None where that is not known.
        edits: What was done.
        scores: Of the objects shown, by key.
        outline_px: Mean outline of the objects shown, or None where there were none.
    """

    task: TaskRecord
    who: str
    seconds: float | None
    maybe_twice: bool | None
    edits: tuple[MadeEdit, ...]
    scores: Mapping[str, float]
    outline_px: float | None

    @property
    def work(self) -> Work:
        """What was done. A look is a look, also at parts of objects that belong to other tiles."""
        kinds = Counter(edit.kind for edit in self.edits if edit.kind != "accepted")
        return Work(
            objects=len(self.task.shown),
            edits={kind: float(count) for kind, count in kinds.items()},
            outline_px=self.outline_px,
            drawn_px=_total(edit.outline_px for edit in self.edits if edit.kind in DRAWN),
            corrected_px=_total(edit.wrong_px for edit in self.edits if edit.kind == "moved"),
        )


def _total(lengths_px: Iterable[float | None]) -> float | None:
    """None if one of them is not known."""
    known = list(lengths_px)
    return None if None in known else sum(length for length in known if length is not None)


def reviewed_tasks(project: Project) -> list[ReviewedTask]:
    """The tasks of all rounds that people looked at one by one: neither skipped nor accepted in bulk."""
    with project.ledger.read() as session:
        return _reviewed(session)


def timed_tasks(project: Project) -> list[TimedTask]:
    """What ``EffortModel.fit`` learns from: reviewed tasks whose time is known."""
    return [
        TimedTask(
            who=reviewed.who,
            seconds=reviewed.seconds,
            work=reviewed.work,
            maybe_twice=reviewed.maybe_twice,
        )
        for reviewed in reviewed_tasks(project)
        if reviewed.seconds is not None and 0 < reviewed.seconds < float("inf")
    ]


def edit_records(project: Project, run: str) -> list[EditRecord]:
    """What ``EditRates.fit`` learns from: reviewed tasks of the rounds in which a model proposed.

    Args:
        project: Whose rounds.
        run: Whose model will propose: the earlier the models of other rounds, the less they tell about it.
    """
    with project.ledger.read() as session:
        reviewed = _reviewed(session)
        images = sorted({each.task.image_id for each in reviewed})
        models = {
            round_id: (name, which, min_score)
            for round_id, name, which, min_score in session.execute(
                select(RoundRow.id, RoundRow.run, RoundRow.which, RoundRow.min_score).order_by(RoundRow.id)
            )
            if name is not None
        }
        wanted = {
            (*models[each.task.round_id][:2], each.task.image_id)
            for each in reviewed
            if each.task.round_id in models
        }
        detections = {
            (row.run, row.which, row.image_id): decode_instances(row.instances)
            for row in scalars_with(session, select(PredictionRow), PredictionRow.image_id, images)
            if (row.run, row.which, row.image_id) in wanted
        }
        lone = {
            (row.run, row.which, row.image_id): sum(row.doubts["unmatched"])
            for row in scalars_with(session, select(DoubtRow), DoubtRow.image_id, images)
            if (row.run, row.which, row.image_id) in wanted
        }
    told = _told_by([name for name, _, _ in models.values()], run)
    records = []
    for each in reviewed:
        if each.task.round_id in models:
            name, which, min_score = models[each.task.round_id]
            look = (name, which, each.task.image_id)
            seen = detections.get(look)
            unshown = unmatched = 0.0
            if seen is not None:
                unshown = _unshown(seen, each.task, min_score)
                unmatched = lone.get(look, 0.0) * _own_share(each.task, seen.size_hw)
            records.append(_edit_record(each, unshown, unmatched, most=told[name]))
    return records


def _told_by(runs: Sequence[str], run: str) -> dict[str, float]:
    """How much each run's rounds tell about the edits of another run's objects.

    Args:
        runs: Of each round, in order.
        run: The other.
    """
    order = list(dict.fromkeys(each for each in runs if each != run))
    return {run: 1.0, **{each: ANOTHER_MODEL**age for age, each in enumerate(reversed(order), 1)}}


def _reviewed(session: Session) -> list[ReviewedTask]:
    states: dict[str, list[AnnotationRow]] = {}
    statement = select(AnnotationRow).options(defer(AnnotationRow.result)).order_by(AnnotationRow.id)
    for state in session.scalars(statement):
        states.setdefault(state.task_key, []).append(state)
    counting_states = map(_counting, states.values())
    counts = [state for state in counting_states if state is not None and not state.bulk]
    keys = [state.task_key for state in counts]
    without_sent = select(ReviewTaskRow).options(defer(ReviewTaskRow.sent))
    tasks = {row.key: row for row in scalars_with(session, without_sent, ReviewTaskRow.key, keys)}
    edits: dict[int, list[MadeEdit]] = {}
    numbers = [state.id for state in counts]
    for row in scalars_with(session, select(EditRow), EditRow.annotation_id, numbers):
        made_edit = MadeEdit(kind=row.kind, before=tuple(row.before), outline_px=row.outline_px, iou=row.iou)
        edits.setdefault(row.annotation_id, []).append(made_edit)
    found = {state.id: task_record(tasks[state.task_key], with_sent=False) for state in counts}
    images = sorted({task.image_id for task in found.values()})
    wanted = {(task.round_id, task.image_id) for task in found.values()}
    proposed = {
        (row.round_id, row.image_id): proposal(row)
        for row in scalars_with(session, select(ProposalRow), ProposalRow.image_id, images)
        if (row.round_id, row.image_id) in wanted
    }
    reviewed = []
    for state in counts:
        task = found[state.id]
        made = tuple(edits.get(state.id, ()))
        reviewed.append(_reviewed_task(state, task, made, proposed[task.round_id, task.image_id]))
    return reviewed


def _reviewed_task(
    state: AnnotationRow,
    task: TaskRecord,
    edits: tuple[MadeEdit, ...],
    proposed: KeyedInstances,
) -> ReviewedTask:
    place = {key: i for i, key in enumerate(proposed.keys)}
    shown = proposed.instances.select([place[key] for key in task.shown])
    scores: Sequence[float] = [1.0] * len(shown) if shown.scores is None else shown.scores.tolist()
    return ReviewedTask(
        task=task,
        who=state.who,
        seconds=state.lead_time_s,
        maybe_twice=state.maybe_twice,
        edits=edits,
        scores=dict(zip(task.shown, scores, strict=True)),
        outline_px=mean_outline_px(shown),
    )


def _counting(states: Iterable[AnnotationRow]) -> AnnotationRow | None:
    """The annotation that counts, of the last states of those that are still there."""
    last = {state.server_id: state for state in states}
    return counting([state for state in last.values() if state.gone_at is None])


def _unshown(seen: Instances, task: TaskRecord, min_score: float) -> float:
    """The sum of the scores below the score threshold in the part of the image that is the task's own."""
    if seen.scores is None:
        return 0.0
    low = seen.select(seen.scores < min_score)
    return float(np.asarray(low.scores, np.float64)[lies_in(low, task)].sum())


def _own_share(task: TaskRecord, size_hw: tuple[int, int]) -> float:
    """0..1, of the image's area that is the task's own."""
    top, left, bottom, right = task.tile.core
    return (bottom - top) * (right - left) / (size_hw[0] * size_hw[1])


def lies_in(instances: Instances, task: TaskRecord) -> npt.NDArray[np.bool_]:
    """Which objects have the middle of their box in the task's own part of the image, bool (n,)."""
    boxes = instances.boxes_xyxy
    middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()
    return np.array([task.tile.owns(y, x) for x, y in middles], np.bool_)


def _edit_record(reviewed: ReviewedTask, unshown: float, unmatched: float, *, most: float) -> EditRecord:
    """Objects without an edit were accepted: looked at, and left as they were. Labels are not the model's.

    To merge several is one edit, so it is the fate of one of them. It counts ``most`` at most.
    """
    drawn = (reviewed.task.chosen or {}).get("arm") == RANDOM_ARM
    of_the_model = [key for key in reviewed.task.shown if not is_known_key(key)]
    fates: dict[str, EditKind] = dict.fromkeys(of_the_model, "accepted")
    for edit in reviewed.edits:
        if edit.kind in FATES:
            concerned = [key for key in edit.before if key in fates]
            fates |= dict.fromkeys(concerned[:1] if edit.kind == "merged" else concerned, edit.kind)
    return EditRecord(
        scores=np.array([reviewed.scores[key] for key in fates], np.float64),
        fates=tuple(fates.values()),
        unshown=unshown,
        added=sum(edit.kind == "added" for edit in reviewed.edits),
        unmatched=unmatched,
        weight=min(most, 1.0 if drawn else CHOSEN_WEIGHT),
    )
