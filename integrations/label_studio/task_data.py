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


def for_people(task: TaskRecord, image: ImageRecord) -> dict[str, Any]:
    """``name`` of a task, ``why`` it was chosen, and the ``minutes`` it should take; None is not known."""
    top, left, bottom, right = task.tile.box
    whole = task.tile.box == (0, 0, *image.size_hw)
    place = "" if whole else f" (x {left} to {right}, y {top} to {bottom} px)"
    chosen = task.chosen or {}
    minutes = chosen.get("minutes")
    return {
        "name": image.file_name + place,
        "why": chosen.get("why"),
        "minutes": None if minutes is None else round(float(minutes["value"]), 1),
    }


def task_data(task: TaskRecord, image: ImageRecord) -> dict[str, Any]:
    """A task's data but for the picture: what is known for people, its key, round and place in the image."""
    top, left, bottom, right = task.tile.box
    height, width = image.size_hw
    return {
        **{name: value for name, value in for_people(task, image).items() if value is not None},
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
