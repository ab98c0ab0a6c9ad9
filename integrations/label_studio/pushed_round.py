"""A round of review as a push sees it: its tasks in the ledger and on the server, and what each shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.copies import without_copies
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.progress import Progress
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.review.edits import KeyedInstances
from labelloop.review.packing import pack_json
from labelloop.review.rounds import RoundRecord, set_states
from labelloop.review.tasks import (
    DELETED,
    PLANNED,
    SENT,
    TaskRecord,
    mark_sent,
    proposals,
    round_tasks,
    set_numbers,
    shown_by,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PushedRound:
    """A round that is on its way to a server, or there.

    Attributes:
        project: Whose ledger.
        client: The server.
        settings: Which project there.
        controls: What its labelling configuration calls its parts.
        record: The round.
        progress: Is told of what a person should know.
    """

    project: Project
    client: LabelStudio
    settings: LabelStudioConfig
    controls: ControlNames
    record: RoundRecord
    progress: Progress

    def tasks(self, *, with_sent: bool = False) -> list[TaskRecord]:
        """Its tasks in the ledger, the least confident first; with what was sent, if that is wanted."""
        return round_tasks(self.project, self.record.id, with_sent=with_sent)

    def waiting(self) -> set[str]:
        """Keys of the tasks that were sent and not reviewed."""
        return {task.key for task in self.tasks() if task.state == SENT}

    def there(self) -> dict[str, Mapping[str, Any]]:
        """Its tasks on the server, by key, each once."""
        numbers = {task.key: task.server_id for task in self.tasks()}
        return without_copies(self.client, self.settings.project, self.record.id, numbers, self.progress)

    def find_again(self) -> int:
        """Adopts tasks that are on the server but not noted, and notices those that are gone: how many."""
        there, tasks = self.there(), self.tasks()
        found = [task for task in tasks if task.state == PLANNED and task.key in there]
        shown = self.shown(found)
        mark_sent(
            self.project,
            [
                (task.key, there[task.key]["id"], pack_json(self.regions(task, shown[task.key])))
                for task in found
            ],
        )
        numbers = {task.key: int(there[task.key]["id"]) for task in tasks if task.key in there}
        moved = [t.key for t in tasks if t.key in numbers and t.server_id not in (None, numbers[t.key])]
        if moved:
            set_numbers(self.project, {key: numbers[key] for key in moved})
        gone = [task.key for task in tasks if task.state == SENT and task.key not in there]
        set_states(self.project, dict.fromkeys(gone, DELETED))
        return len(gone)

    def shown(self, tasks: Sequence[TaskRecord]) -> dict[str, KeyedInstances]:
        """What each task shows, in the coordinates of its tile, by the task's key."""
        with self.project.ledger.read() as session:
            of_image = proposals(session, self.record.id, list({task.image_id for task in tasks}))
        return {task.key: shown_by(task, of_image[task.image_id]) for task in tasks}

    def regions(self, task: TaskRecord, shown: KeyedInstances) -> list[dict[str, Any]]:
        """What a task shows, in the server's words."""
        return to_regions(shown.instances, shown.keys, self.project.config.classes, self.controls)

    def prediction(self, task: TaskRecord, regions: list[dict[str, Any]]) -> dict[str, Any]:
        """The prediction of a task that shows these regions."""
        return {
            "result": regions,
            "model_version": self.record.model_version,
            "score": round(task.confidence, 4),
        }
