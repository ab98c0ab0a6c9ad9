"""Planned tasks on their way to the server: made ready, and sent in chunks, each noted when it is there.

A task is made together with its prediction, in one request that the server carries out whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from labelloop.errors import ImageError
from labelloop.integrations.label_studio.answers import TooLargeError
from labelloop.integrations.label_studio.pushed_round import PushedRound
from labelloop.integrations.label_studio.rendering import task_pictures
from labelloop.integrations.label_studio.task_data import task_data
from labelloop.project.project import ImageRecord
from labelloop.review.packing import compact_json, pack_text
from labelloop.review.rounds import images_by_id
from labelloop.review.tasks import TaskRecord, mark_sent
from labelloop.review.unsendable import drop_unsendable

T = TypeVar("T")

CHUNK_TASKS = 50
CHUNK_BYTES = 20_000_000  # of images
TASK_BYTES = 1_000_000  # of regions: the editor stalls on more


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTask:
    """A task ready to be sent.

    Attributes:
        task: Which.
        png: Its picture.
        regions: What it shows, in the server's words.
        packed: The regions, for the ledger.
        data: Of the task on the server, but for the picture.
    """

    task: TaskRecord
    png: bytes
    regions: list[dict[str, Any]]
    packed: bytes
    data: dict[str, Any]

    @property
    def file_name(self) -> str:
        """What its picture is called on the server."""
        return f"{self.task.key}.png"


def send_tasks(
    pushed: PushedRound, planned: Sequence[TaskRecord], *, uploaded: dict[str, str], skipped: list[str]
) -> Iterator[Sequence[PreparedTask]]:
    """Sends planned tasks of a round; those that cannot be sent are dropped.

    Args:
        pushed: The round.
        planned: Its tasks, one at least.
        uploaded: Pictures that are on the server already, as ``LabelStudio.uploads``; takes the new ones.
        skipped: Takes the reasons of those that cannot be sent.

    Yields:
        What was sent, each time that some are noted in the ledger.

    Raises:
        ServerError: The server cannot be reached or refuses. What was given is sent.
    """
    for chunk in _prepared(pushed, planned, skipped):
        yield from in_parts(chunk, partial(_send, pushed, uploaded))


def in_parts(items: Sequence[T], send: Callable[[Sequence[T]], None]) -> Iterator[Sequence[T]]:
    """Sends items and gives those that were sent; in halves, and so on, where a request is too large."""
    try:
        send(items)
    except TooLargeError:
        if len(items) == 1:
            raise
        yield from in_parts(items[: len(items) // 2], send)
        yield from in_parts(items[len(items) // 2 :], send)
    else:
        yield items


def _prepared(
    pushed: PushedRound, planned: Sequence[TaskRecord], skipped: list[str]
) -> Iterator[list[PreparedTask]]:
    """Chunks of tasks; the next one is made ready while the server is busy with the last."""
    images = images_by_id(pushed.project, {task.image_id for task in planned})
    pieces = [planned[start : start + CHUNK_TASKS] for start in range(0, len(planned), CHUNK_TASKS)]
    with ThreadPoolExecutor(1, "labelloop-push") as thread:
        waiting = thread.submit(_prepare, pushed, pieces[0], images)
        for following in [*pieces[1:], None]:
            ready, unreadable, ragged = waiting.result()
            if following is not None:
                waiting = thread.submit(_prepare, pushed, following, images)
            skipped += [*unreadable.values(), *ragged.values()]
            drop_unsendable(pushed.project, [*unreadable, *ragged], ragged=ragged.keys())
            yield from _limited(ready)


def _prepare(
    pushed: PushedRound, tasks: Sequence[TaskRecord], images: Mapping[int, ImageRecord]
) -> tuple[list[PreparedTask], dict[str, str], dict[str, str]]:
    """Tasks ready to send; why others cannot be, by key, for their images and for their masks.

    Tiles of one image are read once.
    """
    ready: list[PreparedTask] = []
    unreadable: dict[str, str] = {}
    ragged: dict[str, str] = {}
    shown = pushed.shown(tasks)
    for image_id in dict.fromkeys(task.image_id for task in tasks):
        image = images[image_id]
        of_image = [task for task in tasks if task.image_id == image_id]
        try:
            pictures = task_pictures(image, [task.tile for task in of_image])
        except ImageError as error:
            unreadable |= {task.key: str(error) for task in of_image}
            continue
        for task, png in zip(of_image, pictures, strict=True):
            regions = pushed.regions(task, shown[task.key])
            text = compact_json(regions)
            if len(text) > TASK_BYTES:
                ragged[task.key] = f"{image.path}: its masks are too ragged for the editor (above 1 MB)"
                continue
            data = task_data(task, image)
            ready.append(PreparedTask(task=task, png=png, regions=regions, packed=pack_text(text), data=data))
    return ready, unreadable, ragged


def _limited(ready: list[PreparedTask]) -> Iterator[list[PreparedTask]]:
    """The same in order, in chunks of so many bytes."""
    chunk: list[PreparedTask] = []
    size = 0
    for item in ready:
        if chunk and size + len(item.png) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.png)
    if chunk:
        yield chunk


def _send(pushed: PushedRound, uploaded: dict[str, str], chunk: Sequence[PreparedTask]) -> None:
    project = pushed.settings.project
    missing = {item.file_name: item.png for item in chunk if item.file_name not in uploaded}
    if missing:
        uploaded |= pushed.client.upload(project, missing)
    tasks: list[dict[str, Any]] = [
        {
            "data": {"image": uploaded[item.file_name], **item.data},
            "predictions": [pushed.prediction(item.task, item.regions)],
        }
        for item in chunk
    ]
    ids = pushed.client.create_tasks(project, tasks)
    mark_sent(
        pushed.project,
        [(item.task.key, number, item.packed) for item, number in zip(chunk, ids, strict=True)],
    )
