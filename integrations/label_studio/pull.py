"""Corrections from Label Studio into the ledger: what changed since the last pull, and what is gone.

A pull asks for the tasks that changed since the newest change it knows, and takes each with all its
annotations. Tasks that were deleted do not show in that; they do in the project's counts, and where these do
not fit what the ledger expects, all tasks are listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from labelloop.instances import Instances
from labelloop.integrations.label_studio.client import LabelStudio, ProjectFacts
from labelloop.integrations.label_studio.connecting import connected, server_name
from labelloop.integrations.label_studio.labelling_config import check_config
from labelloop.integrations.label_studio.regions import Region, is_untouched, read_regions
from labelloop.integrations.label_studio.task_data import KEY
from labelloop.progress import Progress, Silent, stage
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.review.edits import KeyedInstances
from labelloop.review.records import (
    PulledAnnotation,
    PulledTask,
    PullReport,
    ReadReview,
    live_annotations,
    pull_cursor,
    store_pull,
)
from labelloop.review.rounds import DELETED, DROPPED, PLANNED, TaskRecord, all_tasks

FIELDS = (
    "id", "data", "updated_at", "annotations", "result", "completed_by", "created_at", "lead_time",
    "was_cancelled", "ground_truth", "parent_prediction",
)  # fmt: skip
OVERLAP = timedelta(seconds=5)


def pull(project: Project, *, progress: Progress | None = None) -> PullReport:
    """Takes back what people did since the last pull.

    Raises:
        ProjectError: There is no connection, or the project's labelling configuration lacks something.
        ServerError: The server cannot be reached or refuses; nothing was stored.
    """
    watching = progress or Silent()
    client, settings = connected(project)
    server = server_name(settings)
    name = f"pull:{server}"
    known = pull_cursor(project, name)
    cursor = _Cursor(**json.loads(known)) if known else _Cursor()
    with client:
        facts = client.project(settings.project)
        check_config(facts.config, project.config.classes)
        report = _pull_since(project, client, settings, facts, cursor, name, watching)
        ours = len(_sent_tasks(project, settings))
        if facts.tasks == ours and facts.annotations < live_annotations(project, server):
            # Annotations were deleted in a way that leaves no trace on their tasks: look at all of them.
            again = _pull_since(project, client, settings, facts, _Cursor(), name, watching)
            report.annotations_gone += again.annotations_gone
    return report


@dataclass(frozen=True, kw_only=True)
class _Cursor:
    """Where the next pull starts.

    Attributes:
        since: The newest change seen, as the server says it.
        tasks: Tasks that the project had, or -1.
        sent: Of these, tasks of labelloop.
    """

    since: str | None = None
    tasks: int = -1
    sent: int = 0


def _pull_since(
    project: Project,
    client: LabelStudio,
    settings: LabelStudioConfig,
    facts: ProjectFacts,
    cursor: _Cursor,
    name: str,
    progress: Progress,
) -> PullReport:
    changed, newest = _changed(client, settings, cursor.since, progress)
    tasks = _pulled(changed, client)
    sent = _sent_tasks(project, settings)
    complete = facts.tasks == cursor.tasks + len(sent) - cursor.sent
    deleted = [] if complete else _deleted(client, settings, sent)
    after = _Cursor(since=newest or cursor.since, tasks=facts.tasks, sent=len(sent) - len(deleted))
    return store_pull(
        project, tasks, read=_Reader(project), deleted=deleted, cursor=(name, json.dumps(asdict(after)))
    )


def _sent_tasks(project: Project, settings: LabelStudioConfig) -> list[TaskRecord]:
    there = all_tasks(project, server_name(settings))
    return [task for task in there if task.state not in (PLANNED, DROPPED, DELETED)]


def _changed(
    client: LabelStudio, settings: LabelStudioConfig, since: str | None, progress: Progress
) -> tuple[list[dict[str, Any]], str | None]:
    """Tasks of labelloop that changed since then, and when the last one did."""
    query: dict[str, Any] = {"ordering": ["tasks:updated_at"]}
    if since is not None:
        item = {
            "filter": "filter:tasks:updated_at",
            "operator": "greater",
            "type": "Datetime",
            "value": _a_little_before(since),
        }
        query["filters"] = {"conjunction": "and", "items": [item]}
    tasks: dict[str, dict[str, Any]] = {}
    newest = None
    with stage(progress, "pull", 0):
        for task in client.tasks(settings.project, fields=FIELDS, query=query):
            newest = max(newest or "", task["updated_at"])
            if isinstance(task.get("data"), dict) and isinstance(task["data"].get(KEY), str):
                tasks[task["data"][KEY]] = task
                progress.advance(0, tasks=len(tasks))
    return list(tasks.values()), newest


def _a_little_before(when: str) -> str:
    """What was written later may say an earlier time: changes are asked for with some overlap."""
    before = datetime.fromisoformat(when) - OVERLAP
    return before.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # the only form that the server reads; it keeps UTC


def _pulled(tasks: list[dict[str, Any]], client: LabelStudio) -> list[PulledTask]:
    people: Mapping[int, str] = client.users() if any(task.get("annotations") for task in tasks) else {}
    return [
        PulledTask(
            key=task["data"][KEY],
            server_id=int(task["id"]),
            annotations=tuple(_annotation(a, people) for a in task.get("annotations") or ()),
        )
        for task in tasks
    ]


def _annotation(annotation: Mapping[str, Any], people: Mapping[int, str]) -> PulledAnnotation:
    result = annotation.get("result") or []
    who = annotation.get("completed_by")
    number = who.get("id") if isinstance(who, Mapping) else who
    lead_time = annotation.get("lead_time")
    looked_at = lead_time is not None or any(
        isinstance(region, Mapping) and "origin" in region for region in result
    )
    return PulledAnnotation(
        server_id=int(annotation["id"]),
        created_at=str(annotation.get("created_at", "")),
        updated_at=str(annotation.get("updated_at", "")),
        who=people.get(number, f"user {number}") if isinstance(number, int) else "",
        lead_time_s=None if lead_time is None else float(lead_time),
        skipped=bool(annotation.get("was_cancelled")),
        ground_truth=bool(annotation.get("ground_truth")),
        bulk=not looked_at,
        result=result,
    )


def _deleted(client: LabelStudio, settings: LabelStudioConfig, sent: list[TaskRecord]) -> list[str]:
    """Keys of tasks that were sent and are on the server no more."""
    there = {task["data"].get(KEY) for task in client.tasks(settings.project, fields=["id", "data"])}
    return [task.key for task in sent if task.key not in there]


class _Reader:
    """Reads an annotation's regions for the ledger."""

    def __init__(self, project: Project) -> None:
        self._classes = project.config.classes

    def __call__(self, task: TaskRecord, result: list[Any], shown: KeyedInstances) -> ReadReview:
        size_hw = task.tile.size_hw
        sent = {region["id"]: region for region in task.sent or ()}
        untouched = _untouched(result, sent)
        read = read_regions([r for r in result if not _is_one_of(r, untouched)], size_hw, self._classes)
        place = {key: i for i, key in enumerate(shown.keys)}
        kept = shown.instances.select([place[key] for key in untouched])
        regions = [region for region in read.regions if region.key not in untouched]
        objects = _joined(untouched, kept, regions)
        return ReadReview(
            objects=objects,
            untouched=frozenset(untouched),
            unusable=tuple(f"task {task.server_id}: {key}: {reason}" for key, reason in read.unusable),
        )


def _untouched(result: list[Any], sent: Mapping[str, dict[str, Any]]) -> list[str]:
    """Keys of the regions that came back once, and as they were sent."""
    back: dict[str, list[Any]] = {}
    for region in result:
        if isinstance(region, Mapping) and region.get("id") in sent:
            back.setdefault(str(region["id"]), []).append(region)
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
