"""Corrections from Label Studio into the ledger: what changed since the last pull, and what is gone.

A pull asks for the tasks that changed since the newest change it knows, and takes each with all its
annotations. Tasks that were deleted do not show in that; they do in the project's counts, and where these do
not fit what the ledger expects, all tasks are listed. Where the newest change is earlier than it was, as when
the server's clock was set back, all tasks are looked at. Where somebody copied a task, the copies are one
task to the ledger: all of them are looked at, and what was done in any of them counts.
"""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from labelloop.budget.audit import audit_rounds
from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.integrations.label_studio.annotations import (
    annotation_numbers,
    by_key,
    counts_drafts_twice,
    read_task,
)
from labelloop.integrations.label_studio.client import LabelStudio, ProjectFacts
from labelloop.integrations.label_studio.connecting import connected, server_name
from labelloop.integrations.label_studio.labelling_config import ControlNames, check_config
from labelloop.integrations.label_studio.regions import (
    Region,
    has_same_shape,
    is_untouched,
    read_regions,
    to_regions,
)
from labelloop.integrations.label_studio.task_data import KEY, key_of
from labelloop.progress import Progress, Silent, stage
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.review.edits import KeyedInstances
from labelloop.review.guards import alone, check_classes
from labelloop.review.known import KnownTask, known_tasks, live_annotations, pull_cursor
from labelloop.review.pulled import PulledTask, PullReport, ReadReview
from labelloop.review.records import is_after, store_pull
from labelloop.review.tasks import DELETED, DROPPED, PLANNED, TaskRecord, all_tasks

FIELDS = (  # of tasks, and of the annotations in them
    "id", "data", "updated_at", "annotations", "result", "completed_by", "created_at", "lead_time",
    "was_cancelled", "ground_truth", "draft_created_at",
)  # fmt: skip
OVERLAP = timedelta(seconds=5)
_KEYS = 20  # in one question
_CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")  # any: they are not compared


def pull(project: Project, *, progress: Progress | None = None) -> PullReport:
    """Takes back what people did since the last pull.

    Raises:
        ProjectError: There is no connection, or the classes are not those of the ledger's reviews.
        ServerError: The server cannot be reached or refuses; nothing was stored.
    """
    watching = progress or Silent()
    with alone(project, watching):
        check_classes(project)
        client, settings = connected(project)
        with client:
            facts = client.project(settings.project)
            try:
                check_config(facts.config, project.config.classes)
            except ProjectError as error:  # what people did until then is taken all the same
                watching.note(str(error))
            with _uncollected():
                return _Pulling(
                    project=project, client=client, settings=settings, facts=facts, progress=watching
                ).run()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leaves out Python's search for cycles: among a million numbers of outlines it is a third of a pull."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True, kw_only=True)
class _Cursor:
    """Where the next pull starts.

    Attributes:
        since: When a task was changed last, before this pull looked.
        tasks: Tasks that the project had, or -1.
        sent: Of these, tasks of labelloop.
        classes: How many classes there were; None if that is not known.
        seen_at: When a pull saw first that nothing had changed after ``since``, seconds by this machine's
            clock.
        foreign: Annotations of tasks that are not labelloop's.
    """

    since: str | None = None
    tasks: int = -1
    sent: int = 0
    classes: int | None = None
    seen_at: float | None = None
    foreign: int = 0

    def is_past(self, newest: str | None) -> bool:
        """Whether nothing has changed since, for so long that nothing earlier can still come to light."""
        waited = time.time() - self.seen_at if self.seen_at is not None else 0.0
        return newest is not None and newest == self.since and waited > OVERLAP.total_seconds()


@dataclass(kw_only=True, eq=False)
class _Pulling:
    """One pull."""

    project: Project
    client: LabelStudio
    settings: LabelStudioConfig
    facts: ProjectFacts
    progress: Progress
    cursor: _Cursor = field(default_factory=_Cursor)
    others_changed: bool = False  # tasks that are not labelloop's

    def run(self) -> PullReport:
        server = server_name(self.settings)
        known = pull_cursor(self.project, f"pull:{server}")
        self.cursor = _Cursor(**json.loads(known)) if known else _Cursor()
        report = self._pull(self.cursor)
        expected = live_annotations(self.project, server) + self.cursor.foreign
        if self.others_changed or self.facts.annotations != expected:
            # Something may have left no trace on its task, as a deletion may.
            foreign, fits = self._count()
            self.cursor = replace(self.cursor, foreign=foreign)
            report = _sum(report, self._store([]) if fits else self._pull(_Cursor(foreign=foreign)))
        if report.annotations_new or report.annotations_changed or report.annotations_gone:
            audit = audit_rounds(self.project, server)
            report.audit = None if audit is None else audit.as_dict()
        return report

    def _pull(self, cursor: _Cursor) -> PullReport:
        # Asked for first: what changes while the tasks are read is read again by the next pull.
        newest = self.client.last_change(self.settings.project)
        if newest and cursor.since and is_after(_a_little_before(cursor.since), newest):
            cursor = replace(cursor, since=None)
        found = [] if cursor.is_past(newest) else self._changed(cursor.since)
        changed = by_key(found)
        known = known_tasks(self.project, list(changed))
        tasks, faults = self._read({key: changed[key] for key in known}, known)
        others = [task for task in found if key_of(task) not in known]
        since = cursor.since or ""
        self.others_changed = any(is_after(str(task.get("updated_at", "")), since) for task in others)
        sent = self._sent_tasks()
        expected = cursor.tasks + len(sent) - cursor.sent
        if cursor.since is None:  # these are all
            deleted = [task.key for task in sent if task.key not in changed]
        elif self.facts.tasks == expected and not any(_is_made_after(task, cursor.since) for task in others):
            deleted = []
        else:
            there = by_key(self.client.tasks(self.settings.project, fields=["id", "data"]))
            deleted = [task.key for task in sent if task.key not in there]
        classes = len(self.project.config.classes)
        self.cursor = _Cursor(
            since=newest or cursor.since,
            tasks=self.facts.tasks,
            sent=len(sent) - len(deleted),
            classes=classes,
            seen_at=cursor.seen_at if newest == cursor.since else time.time(),
            foreign=cursor.foreign,
        )
        report = self._store(tasks, deleted, read_again=cursor.classes not in (None, classes))
        report.unusable += faults
        return report

    def _store(
        self, tasks: Sequence[PulledTask], deleted: Sequence[str] = (), *, read_again: bool = False
    ) -> PullReport:
        return store_pull(
            self.project,
            tasks,
            read=Reader(self.project),
            deleted=deleted,
            cursor=(f"pull:{server_name(self.settings)}", json.dumps(asdict(self.cursor))),
            read_again=read_again,
        )

    def _count(self) -> tuple[int, bool]:
        """How many annotations other tasks have, and whether ours have as many as the ledger expects."""
        counts = ("total_annotations", "cancelled_annotations")
        there: Counter[str | None] = Counter()
        for task in self.client.tasks(self.settings.project, fields=["id", "data", *counts]):
            there[key_of(task)] += sum(n for name in counts if isinstance(n := task.get(name), int))
        keys = [task.key for task in all_tasks(self.project, server_name(self.settings))]
        known = known_tasks(self.project, keys)
        ours = {key: there.pop(key, 0) for key in keys}
        return there.total(), all(n == len(known[key].annotations) for key, n in ours.items())

    def _sent_tasks(self) -> list[TaskRecord]:
        there = all_tasks(self.project, server_name(self.settings))
        return [t for t in there if t.state not in (PLANNED, DROPPED, DELETED) and t.server_id is not None]

    def _changed(self, since: str | None) -> list[Mapping[str, Any]]:
        """All tasks of the project on the server that changed since then, those of others too."""
        where = []
        if since is not None:
            item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
            where.append({**item, "value": _a_little_before(since)})
        found: list[Mapping[str, Any]] = []
        with stage(self.progress, "pull", 0):
            for task in self.client.tasks(self.settings.project, fields=FIELDS, where=where):
                found.append(task)
                self.progress.advance(0, tasks=len(found))
        return found

    def _read(
        self, whole: dict[str, list[Mapping[str, Any]]], known: Mapping[str, KnownTask]
    ) -> tuple[list[PulledTask], list[str]]:
        """The tasks as the ledger takes them, and what in them cannot be read."""
        unsure = [key for key, tasks in whole.items() if not _is_whole(tasks, known[key])]
        for start in range(0, len(unsure), _KEYS):
            keys = "|".join(unsure[start : start + _KEYS])
            item = {"filter": f"filter:tasks:data.{KEY}", "operator": "regex", "type": "String"}
            where = [{**item, "value": f"^({keys})$"}]
            found = by_key(self.client.tasks(self.settings.project, fields=FIELDS, where=where))
            whole |= {key: tasks for key, tasks in found.items() if key in known}
        for tasks in whole.values():
            if len(tasks) > 1:
                numbers = ", ".join(str(task["id"]) for task in tasks)
                self.progress.note(f"The tasks {numbers} are copies of one; work on any of them counts.")
        people = self.client.users() if any(annotation_numbers(tasks) for tasks in whole.values()) else {}
        drafts_twice = counts_drafts_twice(self.client.version()) if people else None
        read = {
            key: read_task(key, tasks, known[key].server_id, people, drafts_twice=drafts_twice)
            for key, tasks in whole.items()
        }
        faults = [
            f"task {whole[key][0]['id']}: it holds something other than annotations; nothing of it was taken"
            for key, task in read.items()
            if task is None
        ]
        return [task for task in read.values() if task is not None], faults


def _is_whole(tasks: list[Mapping[str, Any]], known: KnownTask) -> bool:
    """Whether no other task can have that key; it may have changed too long ago to be among these."""
    same = len(tasks) == 1 and known.server_id in (None, tasks[0]["id"])
    return same and known.annotations <= annotation_numbers(tasks)


def _is_made_after(task: Mapping[str, Any], when: str) -> bool:
    return is_after(str(task.get("created_at", "")), when)


def _sum(first: PullReport, second: PullReport) -> PullReport:
    """What two pulls brought."""
    return PullReport(
        annotations_new=first.annotations_new + second.annotations_new,
        annotations_changed=first.annotations_changed + second.annotations_changed,
        annotations_gone=first.annotations_gone + second.annotations_gone,
        edits={kind: n + second.edits[kind] for kind, n in first.edits.items()},
        minutes=first.minutes + second.minutes,
        images=first.images + second.images,
        unusable=list(dict.fromkeys([*first.unusable, *second.unusable])),
        tasks_deleted=first.tasks_deleted + second.tasks_deleted,
    )


def _a_little_before(when: str) -> str:
    """What was written later may say an earlier time: changes are asked for with some overlap."""
    before = datetime.fromisoformat(when).astimezone(UTC) - OVERLAP
    return before.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # the only form that the server reads


class Reader:
    """Reads an annotation's regions for the ledger."""

    def __init__(self, project: Project) -> None:
        self._classes = project.config.classes

    def __call__(self, task: TaskRecord, result: Any, shown: KeyedInstances) -> ReadReview:
        """An annotation's ``result`` in labelloop's words; what the task showed says what is untouched."""
        size_hw = task.tile.size_hw
        sent = {region["id"]: region for region in self._sent(task, shown)}
        untouched = _untouched(result, sent)
        rest = [r for r in result if not _is_one_of(r, untouched)] if isinstance(result, list) else result
        read = read_regions(rest, size_hw, self._classes)
        place = {key: i for i, key in enumerate(shown.keys)}
        kept = shown.instances.select([place[key] for key in untouched])
        regions = [
            replace(region, rle=shown.instances.rles[place[region.key]])  # only its label is another
            if region.key in sent and has_same_shape(sent[region.key], region)
            else region
            for region in read.regions
            if region.key not in untouched
        ]
        shown_again = {key: shown.instances.rles[place[key]] for key, _ in read.unusable if key in place}
        review = ReadReview(
            objects=_joined(untouched, kept, regions),
            untouched=frozenset(untouched),
            unusable=tuple(f"task {task.server_id}: {key}: {reason}" for key, reason in read.unusable),
            unknown=shown_again | dict(read.unnamed),
            lost=not place.keys() >= set(read.lost),  # what was shown is unknown where it was shown
        )
        if not review.says_nothing:
            return review
        told = f"task {task.server_id}: nothing of its annotation can be used, so it gives no labels"
        return replace(review, unusable=(*review.unusable, told))

    def _sent(self, task: TaskRecord, shown: KeyedInstances) -> list[dict[str, Any]]:
        """What the task was sent with, also where a push could not note that it was sent."""
        if task.sent is not None:
            return task.sent
        return to_regions(shown.instances, shown.keys, self._classes, _CONTROLS)


def _untouched(result: Any, sent: Mapping[str, dict[str, Any]]) -> list[str]:
    """Keys of the regions that came back once, and as they were sent."""
    back: dict[str, list[Any]] = {}
    for region in result if isinstance(result, list) else ():
        key = region.get("id") if isinstance(region, Mapping) else None
        if isinstance(key, str) and key in sent:
            back.setdefault(key, []).append(region)
    return [key for key, regions in back.items() if len(regions) == 1 and is_untouched(sent[key], regions[0])]


def _is_one_of(region: Any, keys: list[str]) -> bool:
    return isinstance(region, Mapping) and region.get("id") in keys


def _joined(keys: list[str], kept: Instances, regions: list[Region]) -> KeyedInstances:
    labels = [*kept.labels.tolist(), *(region.label for region in regions)]
    return KeyedInstances(
        keys=(*keys, *(region.key for region in regions)),
        instances=Instances(
            size_hw=kept.size_hw,
            rles=(*kept.rles, *(region.rle for region in regions)),
            labels=np.asarray(labels, np.int64),
        ),
    )
