"""Corrections from Label Studio into the ledger: what changed since the last pull, and what is gone.

A pull asks for the tasks that changed since the newest change it knows, and takes each with all its
annotations. Tasks that were deleted do not show in that; they do in the project's counts, and where these do
not fit what the ledger expects, all tasks are listed, and those that do not fit are read again. Where the
newest change is earlier than it was, as when the server's clock was set back, all tasks are looked at. Where
somebody copied a task, the copies are one task to the ledger: all of them are looked at, and what was done in
any of them counts.
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

from labelloop.budget.audit import audit_rounds
from labelloop.errors import ProjectError, ServerError
from labelloop.integrations.label_studio.annotations import by_key
from labelloop.integrations.label_studio.changes import MOST_KEYS, Changes
from labelloop.integrations.label_studio.client import LabelStudio, ProjectFacts
from labelloop.integrations.label_studio.connecting import connected
from labelloop.integrations.label_studio.labelling_config import check_config
from labelloop.integrations.label_studio.reviews import Reader
from labelloop.integrations.label_studio.task_data import key_of
from labelloop.progress import Progress, Silent
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.review.guards import alone, check_classes
from labelloop.review.known import known_tasks, live_annotations, pull_cursor
from labelloop.review.pulled import PulledTask, PullReport
from labelloop.review.records import is_after, store_pull
from labelloop.review.tasks import DELETED, DROPPED, PLANNED, TaskRecord, all_tasks

OVERLAP = timedelta(seconds=5)


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
                changes = Changes(client=client, ls_project=settings.project, progress=watching)
                return _Pulling(
                    project=project, client=client, settings=settings, facts=facts, changes=changes
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

    @property
    def after(self) -> str | None:
        """A little before ``since``, from when on changes are asked for: what is written later may say so."""
        if self.since is None:
            return None
        before = datetime.fromisoformat(self.since).astimezone(UTC) - OVERLAP
        return before.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # the only form that the server reads

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
    changes: Changes
    cursor: _Cursor = field(default_factory=_Cursor)
    others_changed: bool = False  # tasks that are not labelloop's

    def run(self) -> PullReport:
        """Stores what changed, and then what the counts of annotations say is still missing."""
        server = self.settings.server_name
        known = pull_cursor(self.project, f"pull:{server}")
        self.cursor = _Cursor(**json.loads(known)) if known else _Cursor()
        report = self._pull(self.cursor)
        try:
            if not self._counts_fit():
                report = _sum(report, self._look_again())
        except ServerError as error:  # what was read is stored; the next pull compares the counts again
            self.changes.progress.note(str(error))
        if report.annotations_new or report.annotations_changed or report.annotations_gone:
            audit = audit_rounds(self.project, server)
            report.audit = None if audit is None else audit.as_dict()
        return report

    def _pull(self, cursor: _Cursor) -> PullReport:
        """Reads and stores what changed since then, and which tasks are gone."""
        # Asked for first: what changes while the tasks are read is read again by the next pull.
        newest, after = self.client.last_change(self.settings.project), cursor.after
        if newest and after and is_after(after, newest):
            cursor, after = replace(cursor, since=None), None
        found = [] if cursor.is_past(newest) else self.changes.after(after)
        changed = by_key(found)
        known = known_tasks(self.project, list(changed))
        ours = self.changes.whole({key: changed[key] for key in known}, known)
        tasks, faults = self.changes.read(ours, known)
        others = [task for task in found if key_of(task) not in known]
        since = cursor.since or ""
        self.others_changed = any(is_after(str(task.get("updated_at", "")), since) for task in others)
        sent = self._sent_tasks()
        expected = cursor.tasks + len(sent) - cursor.sent
        if after is None:  # these are all
            deleted = [task.key for task in sent if task.key not in changed]
        elif self.facts.tasks == expected and not any(_is_made_after(task, after) for task in others):
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
        return self._store(tasks, deleted, faults, read_again=cursor.classes not in (None, classes))

    def _counts_fit(self) -> bool:
        """Whether the project has as many annotations as the ledger expects, others' among them."""
        if self.others_changed:
            return False
        expected = live_annotations(self.project, self.settings.server_name) + self.cursor.foreign
        if self.facts.annotations != expected:
            self.facts = self.client.project(self.settings.project)  # people went on while tasks were read
        return self.facts.annotations == expected

    def _look_again(self) -> PullReport:
        """Stores what left no trace on its task, as a deletion may.

        The few tasks are read whose counts differ from the ledger's; all of them where these are many.
        """
        foreign, differing, gone = self._count()
        self.cursor = replace(self.cursor, foreign=foreign)
        if len(differing) > MOST_KEYS:
            return self._pull(_Cursor(foreign=foreign))
        known = known_tasks(self.project, differing)
        tasks, faults = self.changes.read(self.changes.of_keys(differing), known)
        return self._store(tasks, gone, faults)

    def _store(
        self,
        tasks: Sequence[PulledTask],
        deleted: Sequence[str],
        faults: Sequence[str],
        *,
        read_again: bool = False,
    ) -> PullReport:
        report = store_pull(
            self.project,
            tasks,
            read=Reader(self.project),
            deleted=deleted,
            cursor=(f"pull:{self.settings.server_name}", json.dumps(asdict(self.cursor))),
            read_again=read_again,
        )
        report.unusable += faults
        return report

    def _count(self) -> tuple[int, list[str], list[str]]:
        """How many annotations other tasks have; keys of ours with more or less than the ledger expects.

        Last come those of them that are gone from the server.
        """
        counts = ("total_annotations", "cancelled_annotations")
        there: Counter[str | None] = Counter()
        for task in self.client.tasks(self.settings.project, fields=["id", "data", *counts]):
            there[key_of(task)] += sum(n for name in counts if isinstance(n := task.get(name), int))
        keys = [task.key for task in all_tasks(self.project, self.settings.server_name)]
        known = known_tasks(self.project, keys)
        differing = [key for key in keys if there[key] != len(known[key].annotations)]
        gone = [key for key in differing if key not in there]
        return there.total() - sum(there[key] for key in keys), differing, gone

    def _sent_tasks(self) -> list[TaskRecord]:
        there = all_tasks(self.project, self.settings.server_name)
        return [t for t in there if t.state not in (PLANNED, DROPPED, DELETED) and t.server_id is not None]


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
