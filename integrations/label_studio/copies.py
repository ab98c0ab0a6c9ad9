"""The tasks of a round as the server has them, each once.

A task is there twice where the server was still making it when the push before gave it up and the next one
asked, or where somebody copied it. Copies that nobody has touched are removed; what people did is kept, and
``pull`` takes the work on all copies as work on one task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelloop.integrations.label_studio.annotations import by_key
from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.task_data import ROUND
from labelloop.plurals import plural
from labelloop.progress import Progress

_FIELDS = (
    "id", "data", "total_annotations", "cancelled_annotations", "drafts", "total_predictions",
    "predictions_model_versions",
)  # fmt: skip


def without_copies(
    client: LabelStudio,
    ls_project: int,
    round_id: int,
    numbers: Mapping[str, int | None],
    progress: Progress,
) -> dict[str, Mapping[str, Any]]:
    """The tasks of a round by key; of several with one key the one that people worked on, else the known one.

    Args:
        client: The server.
        ls_project: The project there.
        round_id: Number of the round.
        numbers: Keys of the round's tasks, with the numbers on the server that the ledger knows.
        progress: Is told of what was removed.
    """
    item = {"filter": f"filter:tasks:data.{ROUND}", "operator": "equal", "type": "String"}

    def listed() -> dict[str, list[Mapping[str, Any]]]:
        """Those that the server has now, by key."""
        tasks = by_key(client.tasks(ls_project, fields=_FIELDS, where=[{**item, "value": str(round_id)}]))
        return {key: same for key, same in tasks.items() if key in numbers}

    found = listed()
    alike = [
        int(task["id"]) for same in found.values() if len(same) > 1 for task in same if not is_touched(task)
    ]
    idle = {number for number in alike if not client.has_drafts(number)}
    if idle:
        found = listed()  # a draft that was submitted before it was asked for is an annotation now
    there: dict[str, Mapping[str, Any]] = {}
    untouched: list[int] = []
    for key, same in found.items():
        bare = {int(task["id"]) for task in same if not is_touched(task)} & idle
        known = numbers[key]
        best = min(same, key=lambda task: (task["id"] in bare, task["id"] != known, task["id"]))
        there[key] = best
        untouched += bare - {int(best["id"])}
    for number in untouched:
        client.delete_task(number)
    if untouched:
        removed = plural(
            len(untouched),
            "copy of a task that nobody had touched was",
            "copies of tasks that nobody had touched were",
        )
        progress.note(f"{removed} removed")
    return there


def is_touched(task: Mapping[str, Any]) -> bool:
    """Whether somebody has worked on a task of the server, as far as its list of tasks tells."""
    return any(task.get(name) for name in ("total_annotations", "cancelled_annotations", "drafts"))


def models_of(task: Mapping[str, Any]) -> list[str]:
    """The models that a task of the server has predictions of."""
    return [name for name in str(task.get("predictions_model_versions") or "").split(",") if name]
