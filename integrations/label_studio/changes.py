"""Tasks that people worked on, each with all its annotations: asked for, and as the ledger takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.integrations.label_studio.annotations import (
    annotation_numbers,
    by_key,
    counts_drafts_twice,
    read_task,
)
from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.task_data import KEY
from labelloop.progress import Progress, stage
from labelloop.review.known import KnownTask
from labelloop.review.pulled import PulledTask

FIELDS = (  # of tasks, and of the annotations in them
    "id", "data", "updated_at", "annotations", "result", "completed_by", "created_at", "lead_time",
    "was_cancelled", "ground_truth", "draft_created_at",
)  # fmt: skip
MOST_KEYS = 20  # in one question

Tasks = list[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Changes:
    """Reads the work of people from a project on the server.

    Attributes:
        client: The server.
        ls_project: The project there.
        progress: Is told how many tasks were read, and of copies.
    """

    client: LabelStudio
    ls_project: int
    progress: Progress

    def after(self, when: str | None) -> Tasks:
        """All tasks of the project that changed after a time, as the server reads it; others' tasks too.

        None is before all of them.
        """
        where = []
        if when is not None:
            item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
            where.append({**item, "value": when})
        found: Tasks = []
        with stage(self.progress, "pull", 0):
            for task in self.client.tasks(self.ls_project, fields=FIELDS, where=where):
                found.append(task)
                self.progress.advance(0, tasks=len(found))
        return found

    def of_keys(self, keys: Sequence[str]) -> dict[str, Tasks]:
        """The tasks that have these keys, by key; keys that no task has are left out."""
        found: dict[str, Tasks] = {}
        for start in range(0, len(keys), MOST_KEYS):
            some = "|".join(keys[start : start + MOST_KEYS])
            item = {"filter": f"filter:tasks:data.{KEY}", "operator": "regex", "type": "String"}
            where = [{**item, "value": f"^({some})$"}]
            tasks = by_key(self.client.tasks(self.ls_project, fields=FIELDS, where=where))
            found |= {key: same for key, same in tasks.items() if key in keys}
        return found

    def whole(self, changed: Mapping[str, Tasks], known: Mapping[str, KnownTask]) -> dict[str, Tasks]:
        """Changed tasks by key, with copies that did not change, which are asked for where there may be some.

        Args:
            changed: Tasks by key; all keys are in ``known``.
            known: What the ledger knows of them.
        """
        unsure = [key for key, tasks in changed.items() if not _is_whole(tasks, known[key])]
        return {**changed, **self.of_keys(unsure)}

    def read(
        self, whole: Mapping[str, Tasks], known: Mapping[str, KnownTask]
    ) -> tuple[list[PulledTask], list[str]]:
        """Tasks as the ledger takes them, and what in them cannot be read.

        Args:
            whole: All tasks of each key; all keys are in ``known``.
            known: What the ledger knows of them.
        """
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


def _is_whole(tasks: Tasks, known: KnownTask) -> bool:
    """Whether no other task can have that key; it may have changed too long ago to be among these."""
    same = len(tasks) == 1 and known.server_id in (None, tasks[0]["id"])
    return same and known.annotations <= annotation_numbers(tasks)
