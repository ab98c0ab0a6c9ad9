"""What labelloop writes into a task's data, and finds its tasks by.

The server gives numbers of deleted tasks to others, so a task is known by its key alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelloop.integrations.label_studio.pictures import PLACE
from labelloop.project.project import ImageRecord
from labelloop.review.tasks import TaskRecord

KEY, ROUND = "labelloop_key", "labelloop_round"


def key_of(task: Mapping[str, Any]) -> str | None:
    """The key in a task of the server; None where there is none, or something else in its place."""
    data = task.get("data")
    key = data.get(KEY) if isinstance(data, Mapping) else None
    return key if isinstance(key, str) else None


def task_data(task: TaskRecord, image: ImageRecord) -> dict[str, Any]:
    """A task's data but for the picture: a name for people, its key and round, and its place in the image."""
    top, left, bottom, right = task.tile.box
    height, width = image.size_hw
    whole = task.tile.box == (0, 0, height, width)
    place = "" if whole else f" (x {left} to {right}, y {top} to {bottom} px)"
    return {
        "name": image.file_name + place,
        KEY: task.key,
        ROUND: str(task.round_id),
        PLACE: {
            "key": task.key,
            "file_name": image.file_name,
            "sha256": image.sha256,
            "page": image.page,
            "channel": image.channel,
            "box": [left, top, right - left, bottom - top],
            "size": [width, height],
        },
    }
