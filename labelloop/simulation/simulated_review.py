"""A round reviewed by a simulated person: what ``pull`` would have brought, stored by the same code."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import select

from labelloop.budget.round_minutes import predicted_minutes
from labelloop.instances import Instances
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, ReviewTaskRow
from labelloop.review.edits import KeyedInstances
from labelloop.review.packing import unpack_json
from labelloop.review.pulled import PulledAnnotation, PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import RoundRecord
from labelloop.review.tasks import UNSETTLED, TaskRecord, proposals, round_tasks, shown_by
from labelloop.review.tiles import areas_inside, cut_to_box, enough_to_show
from labelloop.simulation.annotator import PRESETS, Annotated, annotate

WHEN = datetime(2000, 1, 1, tzinfo=UTC).isoformat()  # of every simulated annotation


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time of a round.

    Attributes:
        active_s: That the simulated person worked, seconds.
        reported_s: That a server would have reported, idle spells included.
        predicted_minutes: That labelloop had predicted.
    """

    active_s: float
    reported_s: float
    predicted_minutes: float


def review_round(
    scratch: Project, source: Project, record: RoundRecord, *, annotator: str, seed: int
) -> Spent:
    """Reviews the tasks of a round that nobody has reviewed, in one transaction, and sums the round's time.

    What a person does in a task does not depend on the strategy that chose it; towards the end of a round
    it takes longer.

    Args:
        scratch: The project of the lane.
        source: The project that holds the truth.
        record: The round.
        annotator: A name of ``annotator.PRESETS``.
        seed: Of the person.
    """
    tasks = round_tasks(scratch, record.id)
    waiting = [task for task in tasks if task.state in UNSETTLED]
    truth = source.labels({task.image_id for task in waiting})
    with scratch.ledger.read() as session:
        proposed = proposals(session, record.id, sorted({task.image_id for task in waiting}))
    pulled: list[PulledTask] = []
    worked_s = 0.0
    for task in waiting:
        rng = np.random.default_rng([seed, task.image_id, zlib.crc32(str(task.tile.box).encode())])
        shown = shown_by(task, proposed[task.image_id])
        there = truth_in(truth[task.image_id], task)
        done = annotate(shown, there, rng=rng, config=PRESETS[annotator], worked_s=worked_s)
        worked_s += done.active_seconds
        pulled.append(_pulled(task, done))
    if pulled:
        store_pull(scratch, pulled, read=_read)
    return _spent(scratch, record.id, predicted_minutes(tasks).value or 0.0)


def truth_in(truth: Instances, task: TaskRecord) -> Instances:
    """The true objects that a task would show, in the coordinates of its tile."""
    box = task.tile.box
    if box == (0, 0, *truth.size_hw):
        return truth
    inside = areas_inside(truth, box)
    shown = np.flatnonzero((inside > 0) & enough_to_show(inside, truth.areas, task.tile.size_hw))
    return cut_to_box(truth.select(shown), box)


def _pulled(task: TaskRecord, done: Annotated) -> PulledTask:
    returned = done.returned
    result = {
        "size": list(returned.instances.size_hw),
        "keys": list(returned.keys),
        "counts": [counts.decode("ascii") for counts in returned.instances.rles],
        "labels": returned.instances.labels.tolist(),
        "untouched": sorted(done.untouched),
        "active_s": done.active_seconds,
    }
    annotation = PulledAnnotation(
        server_id=1,
        created_at=WHEN,
        updated_at=WHEN,
        who="simulated",
        lead_time_s=done.seconds,
        maybe_twice=done.maybe_twice,
        skipped=False,
        ground_truth=False,
        bulk=False,
        result=result,
    )
    return PulledTask(key=task.key, server_id=1, annotations=(annotation,))


def _read(_task: TaskRecord, result: Any, _shown: KeyedInstances) -> ReadReview:
    instances = Instances(
        size_hw=(result["size"][0], result["size"][1]),
        rles=tuple(counts.encode("ascii") for counts in result["counts"]),
        labels=np.asarray(result["labels"], np.int64),
    )
    objects = KeyedInstances(keys=tuple(result["keys"]), instances=instances)
    return ReadReview(objects=objects, untouched=frozenset(result["untouched"]))


def _spent(scratch: Project, round_id: int, predicted: float) -> Spent:
    statement = (
        select(AnnotationRow.lead_time_s, AnnotationRow.result)
        .join(ReviewTaskRow, ReviewTaskRow.key == AnnotationRow.task_key)
        .where(ReviewTaskRow.round_id == round_id)
    )
    with scratch.ledger.read() as session:
        rows = session.execute(statement).all()
    return Spent(
        active_s=sum(float(unpack_json(result)["active_s"]) for _, result in rows),
        reported_s=sum(float(seconds or 0.0) for seconds, _ in rows),
        predicted_minutes=predicted,
    )
